"""ICC profiles: what a file's numbers mean as colours."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass
from pathlib import Path

from imax_dist.errors import BadValue, MissingInput
from imax_dist.named_file import plain_size

CHANNELS = {"GRAY": 1, "RGB": 3, "CMYK": 4}
HEADER = 128
PRINTER = "prtr"
"""ICC's class of output devices, which alone is a printing condition."""
DEVICES = ("mntr", "prtr", "scnr", "spac")
NO_DEVICES = {"link": "a device link", "abst": "an abstract profile", "nmcl": "a list of named colours"}
"""ICC's other classes: they lead from no colours, or to none, that a print has."""
LARGEST = 32 << 20
MADE = struct.pack(">6H", 2024, 10, 10, 0, 0, 0)
"""The date in our own sRGB profile: fixed, so that equal prints are equal files."""


@dataclass(frozen=True)
class Profile:
    """An ICC profile. ``space`` is RGB, CMYK or GRAY, ``kind`` ICC's device class (mntr, prtr, ...)."""

    name: str
    space: str
    kind: str
    data: bytes

    @property
    def channels(self) -> int:
        return CHANNELS[self.space]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def srgb() -> Profile:
    """The sRGB profile that is embedded unless another is named."""
    from PIL import ImageCms

    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return Profile("sRGB IEC61966-2.1", "RGB", "mntr", data[:24] + MADE + data[36:])


def read_profile(path: Path) -> Profile:
    """Read the ICC file of a device to print for.

    Raises MissingInput, or BadValue if it is truncated, not ICC, not RGB or CMYK, or not a way to a device.
    """
    if plain_size(path, "ICC profile") is None:
        raise MissingInput(f"ICC profile {path} does not exist; ask the print shop for theirs")
    with path.open("rb") as file:
        profile = parse_profile(file.read(LARGEST + 1), where=str(path))
    _require_destination(profile, path)
    return profile


def _require_destination(profile: Profile, path: Path) -> None:
    """Colours must lead to the profile: a device link, or one without the tables for it, is refused."""
    from PIL import ImageCms

    if profile.kind not in DEVICES:
        what = NO_DEVICES.get(profile.kind, f"a profile of class {profile.kind!r}")
        raise BadValue(f"{path} is {what}; prints need the profile of a printer, a press or a screen")
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile.data))
    try:
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), target, "RGB", profile.space)
    except ImageCms.PyCMSError as error:
        raise BadValue(
            f"{path} cannot be converted to: it lacks the tables for {profile.space} colours, or is damaged"
        ) from error


def parse_profile(data: bytes, *, where: str, grey: bool = False) -> Profile:
    """A profile from its bytes; for greys only if ``grey``. Raises BadValue, beginning with ``where``."""
    if len(data) < HEADER or data[36:40] != b"acsp":
        raise BadValue(
            f"{where} is not an ICC profile{'' if grey else '; give a file ending in .icc or .icm'}"
        )
    if struct.unpack(">I", data[:4])[0] != len(data):
        raise BadValue(f"{where} is a truncated ICC profile: its length is not the one it states")
    space, kind = data[16:20].decode("latin-1").strip(), data[12:16].decode("latin-1")
    if space not in CHANNELS or (space == "GRAY" and not grey):
        raise BadValue(f"{where} is a profile for {space} colours; prints are RGB or CMYK")
    return Profile(_description(data, where), space, kind, data)


def _description(data: bytes, where: str) -> str:
    from PIL import ImageCms

    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(data))).strip()
    except (ImageCms.PyCMSError, OSError) as error:
        raise BadValue(f"{where} is not a readable ICC profile: {error}") from error
