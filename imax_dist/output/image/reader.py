"""Opening a picture as people have them: one reader for every format, through libvips.

What comes out is upright RGB without alpha, 8 or 16 bits or floats, in bands, with the profile that its
numbers are in. Each thing that was done to it on the way is a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.errors import BadManifest, BadValue, MissingInput
from imax_dist.geometry import LARGEST_SIDE, SMALLEST_SIDE, ImageSize
from imax_dist.named_file import plain_size
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.formats import Format, format_of, require_whole_tiff
from imax_dist.output.image.heic import decode_heic, has_pi_heif, require_decoder
from imax_dist.output.image.profile import Profile, parse_profile, srgb
from imax_dist.output.image.provenance import find_recipe
from imax_dist.output.image.vips import FORMATS, library, reason, rows

MOST_PIXELS = 1 << 30
"""Of a picture that is decoded row by row."""
MOST_AT_ONCE = 1 << 28
"""Of one whose format must be decoded whole: interlaced PNG, progressive JPEG, WebP, AVIF, HEIC, GIF."""
WHITE = (255, 255, 255)
UPRIGHT = 1
GREY, RGB, CMYK = 1, 3, 4
CHANNELS = {
    "b-w": GREY, "grey16": GREY, "srgb": RGB, "rgb": RGB, "rgb16": RGB, "scrgb": RGB, "cmyk": CMYK,
}  # fmt: skip
"""libvips' name of a colour space -> its channels without alpha."""


@dataclass(frozen=True)
class Picture:
    """An opened picture; ``recipe`` is None if another program made it, ``profile`` if it is sRGB."""

    bands: Bands
    profile: Profile | None = None
    recipe: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


class _Header(NamedTuple):
    """What a file's header says, before anything is decoded."""

    format: Format
    size: ImageSize
    channels: int
    """Without alpha."""
    alpha: bool
    extra: int
    """Channels beyond colour and alpha."""
    bits: int
    orientation: int
    icc: bytes | None


def open_picture(path: Path, *, background: tuple[int, int, int] = WHITE) -> Picture:
    """Open PNG, JPEG, TIFF, WebP, AVIF, HEIC or GIF (its first frame); alpha is laid on ``background``.

    The RGB profile stays the picture's (``as_srgb`` converts); grey and CMYK become sRGB at once. Raises
    MissingInput, or BadManifest for what cannot be read or is too large to decode.
    """
    require_file(path)
    header = _read_header(path)
    profile, notes = _usable_profile(header)
    change = _change(header, profile, background)
    size = header.size
    if header.orientation > 4:
        size = ImageSize(size.height, size.width)
    bands = Bands(size, RGB, header.bits, lambda: rows(change(_load(path, header)), str(path)))
    kept = profile if header.channels == RGB else None
    return Picture(bands, kept, find_recipe(path), (*notes, *_notes(header, profile, background)))


def as_srgb(picture: Picture) -> Bands:
    """The picture's rows in sRGB: converted (relative, 16 bits) if it has another profile."""
    from imax_dist.output.image.colour import converted

    target = srgb()
    if picture.profile is None or picture.profile.data == target.data or picture.bands.bits == 32:
        return picture.bands
    bands, _ = converted(picture.bands, (picture.profile, target), intent="relative", black_point=True)
    return bands


def samples_of(path: Path) -> Bands:
    """The samples of an RGB or CMYK file as they are stored, for their hash.

    Raises BadManifest for samples of another kind.
    """
    require_file(path)
    header = _read_header(path)
    if header.channels == GREY or header.alpha or header.extra:
        raise BadManifest(f"{path} is not a print of this program: those are RGB or CMYK, without alpha")
    return Bands(header.size, header.channels, header.bits, lambda: rows(_load(path, header), str(path)))


def require_file(path: Path, what: str = "picture") -> None:
    """Raises MissingInput for what is not a regular file, in words that fit."""
    if re.match(r"\w+:/", str(path)) and not path.is_file():
        raise MissingInput(f"{what} {path}: URLs are not supported; download the file and name it")
    if plain_size(path, what) is None:
        raise MissingInput(f"{what} {path} does not exist")


def _read_header(path: Path) -> _Header:
    kind = format_of(path)
    try:
        image = _open(path, kind, "sequential")
    except library().Error as error:
        raise BadManifest(f"{path} is not a readable {kind.name}: {reason(error)}") from error
    width, height = image.width, image.height
    if not (min(width, height) >= SMALLEST_SIDE and max(width, height) <= LARGEST_SIDE):
        raise BadManifest(
            f"{path} has {width}x{height} px; sides of {SMALLEST_SIDE} to {LARGEST_SIDE} px are read"
        )
    whole = not kind.by_rows or _is_interlaced(image)
    most = MOST_AT_ONCE if whole else MOST_PIXELS
    if width * height > most:
        how = "must be decoded whole; save it as a plain TIFF" if whole else "is too large"
        raise BadManifest(
            f"{path} has {width}x{height} px and {how}: at most {most / 1e6:.0f} million pixels are read"
        )
    if kind.name == "HEIC":
        require_decoder(path)
    if kind.name == "TIFF":
        require_whole_tiff(path)
    return _described(path, image, kind)


def _described(path: Path, image: Any, kind: Format) -> _Header:
    space = image.interpretation
    if space == "multiband" and image.bands <= 2:
        space = "b-w"
    if space not in CHANNELS or image.format not in FORMATS or image.bands < CHANNELS[space]:
        raise BadManifest(
            f"{path}: its samples are {image.bands} x {image.format} ({space}); grey, RGB and CMYK pictures "
            "of 8 or 16 bits, and RGB ones of 32-bit floats, are read"
        )
    channels = CHANNELS[space]
    alpha = bool(image.hasalpha())
    return _Header(
        format=kind,
        size=ImageSize(image.width, image.height),
        channels=channels,
        alpha=alpha,
        extra=image.bands - channels - alpha,
        bits=FORMATS[image.format],
        orientation=image.get("orientation") if image.get_typeof("orientation") else UPRIGHT,
        icc=_icc(path, image),
    )


def _icc(path: Path, image: Any) -> bytes | None:
    """The profile; empty for a PNG's that libvips passed over because it is damaged."""
    if image.get_typeof("icc-profile-data"):
        profile: bytes = image.get("icc-profile-data")
        return profile
    with path.open("rb") as file:
        return b"" if b"iCCP" in file.read(4096) else None


def _is_interlaced(image: Any) -> bool:
    return any(image.get_typeof(name) and image.get(name) for name in ("interlaced", "jpeg-multiscan"))


def _open(path: Path, kind: Format, access: str) -> Any:
    return getattr(library().Image, kind.loader)(str(path), access=access, fail_on="truncated")


def _load(path: Path, header: _Header) -> Any:
    """From top to bottom, or through a temporary file if it has to be turned."""
    if header.format.name == "HEIC" and has_pi_heif():
        return decode_heic(path)
    try:
        return _open(path, header.format, "sequential" if header.orientation == UPRIGHT else "random")
    except library().Error as error:
        raise BadManifest(f"{path} cannot be read to its end: {reason(error)}") from error


def _usable_profile(header: _Header) -> tuple[Profile | None, list[str]]:
    """The profile if it can be used for the picture's channels, or None and why not."""
    if header.icc is None:
        return None, []
    try:
        profile = parse_profile(header.icc, where="its colour profile", grey=True)
        if profile.channels != header.channels:
            raise BadValue(f"its colour profile is for {profile.space} colours, which the picture is not")
        if header.channels != RGB:
            _try(profile)
    except BadValue as error:
        assumed = {GREY: "plain grey", RGB: "sRGB", CMYK: "a general CMYK profile"}[header.channels]
        return None, [f"{error}; it was ignored, {assumed} is assumed"]
    return profile, []


def _try(profile: Profile) -> None:
    """Raises BadValue if no way leads from the profile to sRGB."""
    pyvips = library()
    space = {GREY: "b-w", CMYK: "cmyk"}[profile.channels]
    dot = pyvips.Image.black(1, 1, bands=profile.channels).copy(interpretation=space)
    try:
        _through(dot, profile, 8).avg()
    except pyvips.Error as error:
        raise BadValue(f"its colour profile {profile.name!r} cannot be used ({reason(error)})") from error


def _through(image: Any, profile: Profile | None, bits: int) -> Any:
    """Grey or CMYK to sRGB by the profile, or by libvips' own for CMYK."""
    depth = 16 if bits == 16 else 8
    if profile is None:
        return image.icc_transform(
            "srgb", input_profile="cmyk", embedded=False, depth=depth, intent="relative"
        )
    image = image.copy()
    image.set_type(library().GValue.blob_type, "icc-profile-data", profile.data)
    return image.icc_transform("srgb", embedded=True, depth=depth, intent="relative")


def _change(
    header: _Header, profile: Profile | None, background: tuple[int, int, int]
) -> Callable[[Any], Any]:
    """What makes upright RGB without alpha of the file's samples."""
    full = {8: 1.0, 16: 257.0, 32: 1 / 255}[header.bits]

    def change(image: Any) -> Any:
        if header.orientation != UPRIGHT:
            image = image.autorot()
        alpha = image[header.channels] if header.alpha else None
        image = image[: header.channels] if image.bands > header.channels else image
        if header.channels == CMYK or (header.channels == GREY and profile is not None):
            space = "cmyk" if header.channels == CMYK else {8: "b-w", 16: "grey16"}.get(header.bits, "b-w")
            image = _through(image.copy(interpretation=space), profile, header.bits)
        elif header.channels == GREY:
            image = image.bandjoin([image, image])
        if alpha is not None:
            image = image.bandjoin(alpha).flatten(
                background=[side * full for side in background], max_alpha=255 * full
            )
        wanted = {bits: name for name, bits in FORMATS.items()}[header.bits]
        return image if image.format == wanted else image.cast(wanted)

    return change


def _notes(header: _Header, profile: Profile | None, background: tuple[int, int, int]) -> Iterator[str]:
    if header.orientation != UPRIGHT:
        yield f"the picture was turned upright, as its orientation ({header.orientation}) says"
    if header.alpha:
        colour = "white" if background == WHITE else "#{:02x}{:02x}{:02x}".format(*background)
        yield f"its alpha channel was removed: what was transparent is on {colour}"
    if header.extra > 0:
        yield f"{header.extra} channels beside its colours were dropped"
    if header.channels == CMYK:
        by = f"its profile {profile.name!r}" if profile else "a general CMYK profile, as it has none"
        yield f"its CMYK colours were converted to sRGB by {by}"
    elif header.channels == GREY and profile is not None:
        yield f"its greys were converted to sRGB by its profile {profile.name!r}"
