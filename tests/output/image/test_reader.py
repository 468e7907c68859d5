"""One reader for pictures as people have them: a row a format, and what becomes of it."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import cmyk_profile
from PIL import Image, ImageCms, PngImagePlugin

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.geometry import ImageSize
from imax_dist.output.image import heic, reader
from imax_dist.output.image.bands import Band, to_unit
from imax_dist.output.image.guide import open_guide, placed, read_guide
from imax_dist.output.image.profile import srgb
from imax_dist.output.image.reader import as_srgb, open_picture

HEIGHT, WIDTH = 40, 60
RED, BLUE = (200, 60, 40), (40, 80, 190)
"""The upper and the lower half of the picture that every file holds."""
Make = Callable[[Path], object]


def two_halves(channels: int = 3) -> Band:
    pixels = np.zeros((HEIGHT, WIDTH, channels), np.uint8)
    pixels[: HEIGHT // 2, :, :3], pixels[HEIGHT // 2 :, :, :3] = RED, BLUE
    if channels == 4:
        pixels[..., 3] = 255
    return pixels


def image(**changes: Any) -> Image.Image:
    return Image.fromarray(two_halves(**changes))


def grey() -> Image.Image:
    return image().convert("L")


def see_through() -> Image.Image:
    pixels = two_halves(channels=4)
    pixels[: HEIGHT // 2, :, 3] = 0
    return Image.fromarray(pixels)


def turned(kind: str) -> Make:
    """Stored lying on its side, with EXIF orientation 6: the viewer turns it a quarter to the right."""

    def make(path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 6
        lying = image().transpose(Image.Transpose.ROTATE_90)
        lying.save(path, format=kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))

    return make


def turned_tiff(path: Path) -> None:
    lying = np.asarray(image().transpose(Image.Transpose.ROTATE_90))
    tifffile.imwrite(path, lying, photometric="rgb", extratags=[(274, 3, 1, 6, True)])


def deep(path: Path, channels: int = 3) -> None:
    pixels = two_halves(channels).astype(np.uint16) * 257
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb")
        return
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2 if channels == 3 else 6, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_text(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 3_000_000)
    image().save(path, pnginfo=info)


def cmyk(path: Path) -> None:
    icc = cmyk_profile(path.with_suffix(".icc")).read_bytes()
    way = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(icc)), "RGB", "CMYK", 1
    )
    ImageCms.applyTransform(image(), way).save(path, icc_profile=icc, quality=98)


def with_profile(data: bytes) -> Make:
    return lambda path: image().save(path, icc_profile=data)


def display_p3(path: Path) -> None:
    """The same numbers in a wider space: sRGB sees other, stronger colours."""
    image().save(path, icc_profile=wide_profile())


def wide_profile() -> bytes:
    """Our sRGB with its red primary moved outwards (rXYZ)."""
    data = bytearray(srgb().data)
    for at in range(132, 132 + 12 * struct.unpack(">I", data[128:132])[0], 12):
        if data[at : at + 4] == b"rXYZ":
            offset = struct.unpack(">I", data[at + 4 : at + 8])[0]
            data[offset + 8 : offset + 20] = struct.pack(
                ">3i", *(round(v * 65536) for v in (0.515, 0.241, -0.001))
            )
    return bytes(data)


def frames(path: Path) -> None:
    image().save(path, save_all=True, append_images=[image().rotate(180)])


def float_tiff(path: Path) -> None:
    tifffile.imwrite(path, two_halves().astype(np.float32) / 255, photometric="rgb")


EXACT, LOSSY = 0.01, 0.06
FORMATS: dict[str, tuple[Make, float, str]] = {
    "plain.png": (lambda p: image().save(p), EXACT, ""),
    "plain.jpg": (lambda p: image().save(p, quality=95, subsampling=0), LOSSY, ""),
    "plain.tif": (lambda p: image().save(p), EXACT, ""),
    "plain.webp": (lambda p: image().save(p, lossless=True), EXACT, ""),
    "plain.avif": (lambda p: image().save(p, quality=95), LOSSY, ""),
    "plain.gif": (lambda p: image().save(p), EXACT, ""),
    "progressive.jpg": (lambda p: image().save(p, quality=95, progressive=True), LOSSY, ""),
    "turned.jpg": (turned("JPEG"), LOSSY, "turned upright"),
    "turned.png": (turned("PNG"), EXACT, "turned upright"),
    "turned.webp": (turned("WEBP"), LOSSY, "turned upright"),
    "turned.tif": (turned_tiff, EXACT, "turned upright"),
    "frames.mpo": (frames, LOSSY, ""),
    "frames.gif": (frames, EXACT, "is on white"),
    "palette.png": (lambda p: image().quantize(8).save(p), EXACT, ""),
    "opaque.png": (lambda p: image(channels=4).save(p), EXACT, "is on white"),
    "deep.png": (deep, EXACT, ""),
    "deep-alpha.png": (lambda p: deep(p, 4), EXACT, "is on white"),
    "deep.tif": (deep, EXACT, ""),
    "float.tif": (float_tiff, EXACT, ""),
    "lzw.tif": (lambda p: image().save(p, compression="tiff_lzw"), EXACT, ""),
    "jpeg.tif": (lambda p: image().save(p, compression="jpeg", quality=95), LOSSY, ""),
    "zip.tif": (lambda p: image().save(p, compression="tiff_adobe_deflate"), EXACT, ""),
    "planes.tif": (
        lambda p: tifffile.imwrite(
            p, two_halves().transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
        ),
        EXACT, "",
    ),
    "big-text.png": (with_text, EXACT, ""),
    "srgb.png": (with_profile(srgb().data), EXACT, ""),
    "bad-profile.png": (with_profile(b"rubbish" * 40), EXACT, "is not an ICC profile; it was ignored, sRGB"),
    "bad-profile.jpg": (with_profile(b"rubbish" * 40), LOSSY, "is not an ICC profile; it was ignored, sRGB"),
    "bad-profile.tif": (with_profile(b"rubbish" * 40), EXACT, "is not an ICC profile; it was ignored, sRGB"),
    "big-profile.png": (with_profile(b"rubbish" * 400_000), EXACT, "ignored"),
    "cmyk.jpg": (cmyk, 0.15, "CMYK colours were converted to sRGB by its profile"),
    "cmyk.tif": (cmyk, 0.15, "CMYK colours were converted to sRGB by its profile"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_comes_out_upright_in_srgb(tmp_path: Path, name: str) -> None:
    make, tolerance, note = FORMATS[name]
    make(tmp_path / name)
    opened = open_picture(tmp_path / name)
    pixels = np.concatenate([to_unit(band) for band in as_srgb(opened).read()])
    assert opened.bands.size == ImageSize(WIDTH, HEIGHT)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    upper, lower = pixels[4 : HEIGHT // 2 - 4, 4:-4], pixels[HEIGHT // 2 + 4 : -4, 4:-4]
    assert abs(upper - np.array(RED) / 255).max() < tolerance
    assert abs(lower - np.array(BLUE) / 255).max() < tolerance
    assert (note in " ".join(opened.notes)) if note else opened.notes == ()
    again = np.concatenate([to_unit(band) for band in as_srgb(opened).read()])
    assert (again == pixels).all(), "bands are read anew each time"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("la.png", lambda p: see_through().convert("LA").save(p)),
        ("rgba.png", lambda p: see_through().save(p)),
        ("rgba.webp", lambda p: see_through().save(p, lossless=True)),
        ("rgba.tif", lambda p: see_through().save(p)),
        ("palette.png", lambda p: see_through().quantize(8).save(p)),
    ],
)
def test_transparency_shows_the_background(tmp_path: Path, name: str, make: Make) -> None:
    make(tmp_path / name)
    for background in ((255, 255, 255), (0, 128, 255)):
        opened = open_picture(tmp_path / name, background=background)
        pixels = np.concatenate(list(opened.bands.read()))
        assert abs(pixels[5, 5].astype(int) - background).max() <= 1
        assert pixels[-5, 5].tolist() != list(background)
        assert "what was transparent is on" in opened.notes[0]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("grey.png", lambda p: grey().save(p)),
        ("grey.jpg", lambda p: grey().save(p, quality=95)),
        ("grey.tif", lambda p: grey().save(p)),
        ("grey16.png", lambda p: Image.fromarray(np.asarray(grey()).astype(np.uint16) * 257).save(p)),
        ("grey-with-rgb-profile.png", lambda p: grey().save(p, icc_profile=srgb().data)),
    ],
)
def test_greys_become_three_equal_channels(tmp_path: Path, name: str, make: Make) -> None:
    make(tmp_path / name)
    pixels = np.concatenate([to_unit(band) for band in open_picture(tmp_path / name).bands.read()])
    assert (pixels[..., :1] == pixels).all()
    assert pixels[5, 5, 0] == pytest.approx(np.asarray(grey())[5, 5] / 255, abs=0.02)


@pytest.mark.parametrize("name", ["bit.png", "bit.tif"])
def test_one_bit_is_black_and_white(tmp_path: Path, name: str) -> None:
    pattern = np.zeros((HEIGHT, WIDTH), np.uint8)
    pattern[: HEIGHT // 2] = 255
    Image.fromarray(pattern).convert("1").save(tmp_path / name)
    pixels = np.concatenate(list(open_picture(tmp_path / name).bands.read()))
    assert (pixels == pattern[..., None]).all()


def test_a_wider_profile_is_kept_for_print_and_converted_for_a_guide(tmp_path: Path) -> None:
    display_p3(tmp_path / "p3.png")
    opened = open_picture(tmp_path / "p3.png")
    assert opened.profile is not None
    assert opened.profile.data == wide_profile()
    assert np.concatenate(list(opened.bands.read()))[5, 5].tolist() == list(RED)
    way = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(wide_profile())), ImageCms.createProfile("sRGB"), "RGB", "RGB", 1
    )
    theirs = np.asarray(ImageCms.applyTransform(image(), way)) / 255
    own, poster = ImageSize(WIDTH, HEIGHT), ImageSize(2 * WIDTH, 2 * HEIGHT)
    guide = read_guide(open_guide(tmp_path / "p3.png"), placed(own, poster, poster, fit="exact"))
    assert abs(guide - theirs).max() < 0.012
    assert abs(guide[5, 5] - np.array(RED) / 255).max() > 0.02, "the profile changes nothing here"


@pytest.mark.parametrize("folded", [True, False])
def test_what_is_too_large_is_refused_before_it_is_decoded(tmp_path: Path, folded: bool) -> None:
    """A header of 60000 x 60000 px in front of next to nothing."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, int(folded))
    data = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(b""))
        + _chunk(b"IEND", b"")
    )
    (tmp_path / "p.png").write_bytes(data)
    with pytest.raises(BadManifest, match=r"has 60000x60000 px and .* million pixels are read"):
        open_picture(tmp_path / "p.png")


def test_a_format_that_is_decoded_whole_has_a_lower_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_AT_ONCE", 1000)
    for name in ("plain.webp", "progressive.jpg"):
        FORMATS[name][0](tmp_path / name)
        with pytest.raises(BadManifest, match="must be decoded whole; save it as a plain TIFF"):
            open_picture(tmp_path / name)
    FORMATS["plain.jpg"][0](tmp_path / "p.jpg")
    open_picture(tmp_path / "p.jpg")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda p: p.mkdir(), MissingInput, "is a folder; name a file in it"),
        (lambda p: p, MissingInput, "does not exist"),
        (lambda p: image().resize((1, 1)).save(p), BadManifest, "has 1x1 px; sides of 16 to 65536 px"),
        (lambda p: p.write_bytes(b"8BPS and more"), BadManifest, "not those of PNG, JPEG, TIFF, WebP"),
        (lambda p: p.write_bytes(b""), BadManifest, "is empty"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\nrubbish"), BadManifest, "is not a readable PNG"),
        (lambda p: p.write_bytes(b"\xff\xd8\xff rubbish"), BadManifest, "is not a readable JPEG"),
        (lambda p: p.write_bytes(b"II*\0rubbish"), BadManifest, "is not a readable TIFF"),
        (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(90)), BadManifest, "is not a readable HEIC"),
    ],
    ids=["folder", "missing", "pixel", "photoshop", "empty", "png", "jpeg", "tiff", "heic"],
)  # fmt: skip
def test_what_cannot_be_read_gets_one_sentence(tmp_path: Path, make: Make, kind: type, message: str) -> None:
    make(tmp_path / "p.png")
    with pytest.raises(kind, match=message) as caught:
        open_picture(tmp_path / "p.png")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    "AAAAACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAMUAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "AA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNw"
    "AAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFz"
    "wIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAA"
    "Av////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAM1tZGF0AAAAwSgBrwT4QTICb/7i"
    "f//+ne9l9BPFtxtLTsccfeXun/bFYXthPuK+yvf/nyof2VTo8NdNYG3au1scawfsnKk5iuqtYvkfj96N6xaP/wV//TNFbp96"
    "3rJ9zS/5DqPvDup/Y6b8zC4BP+tDafqcj77OYVBj92XYIdKCjaFsdrtL4IwJOsoudppu6t2WuPnAiHmd1D4Usq2cp5RSNucV"
    "cB+oYSSmE8C4UIx+Zq2Urq8zx+DR/DJru5n/6JM+5szM/8UgfOA="
)
"""64 x 48 px: the left half red, the right one blue, both darker above; 4:2:0, written by pillow-heif."""


def test_a_phones_photograph_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif", reason="pi-heif is not installed (extra: heic)")
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    picture = open_picture(tmp_path / "IMG_1.HEIC")
    assert (str(picture.bands.size), picture.bands.bits) == ("64x48", 8)
    pixels = np.concatenate(list(picture.bands.read()))
    for row, column, colour in ((40, 10, (200, 40, 30)), (40, 54, (20, 60, 200)), (8, 10, (100, 20, 15))):
        assert np.abs(pixels[row, column].astype(int) - colour).max() < 16
    (tmp_path / "torn.heic").write_bytes(HEIC[:-60])
    with pytest.raises(BadManifest, match=r"cannot be read to its end|is not a readable HEIC"):
        list(open_picture(tmp_path / "torn.heic").bands.read())


def test_a_heic_that_nothing_decodes_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heic, "has_pi_heif", lambda: False)
    (tmp_path / "a.heic").write_bytes(HEIC)
    try:
        open_picture(tmp_path / "a.heic")
    except BadManifest as error:
        assert "no decoder for it" in str(error)  # noqa: PT017
        assert "pip install 'imax-dist[heic]'" in str(error)  # noqa: PT017


def test_an_address_is_not_read() -> None:
    with pytest.raises(MissingInput, match="URLs are not supported; download the file"):
        open_picture(Path("https://example.com/a.jpg"))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_tiff_that_was_cut_off_is_refused_and_not_black(
    tmp_path: Path, compression: str | None, tile: tuple[int, int] | None, share: float
) -> None:
    """libvips reads it as far as it goes; its directory, which tifffile writes first, says where it ends."""
    path = tmp_path / "torn.tif"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    tifffile.imwrite(path, noise, compression=compression, tile=tile, rowsperstrip=None if tile else 8)
    assert len(np.concatenate(list(open_picture(path).bands.read()))) == HEIGHT
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadManifest, match=r"cannot be read to its end|is not a readable TIFF"):
        open_picture(path)


@pytest.mark.slow
def test_a_picture_of_20_000_px_a_side_takes_little_memory(tmp_path: Path) -> None:
    """Row by row: whole it would be 1.2 GB."""
    code = (
        "import sys; from pathlib import Path\n"
        "from imax_dist.output.image.reader import open_picture\n"
        "from imax_dist.output.image.vips import library\n"
        "library().Image.black(20_000, 20_000, bands=3).pngsave(sys.argv[1], compression=1)\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        "rows = sum(len(band) for band in open_picture(Path(sys.argv[1])).bands.read())\n"
        "print(rows, peak() - before)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    rows, kilobytes = map(int, done.stdout.split())
    assert rows == 20_000
    assert kilobytes < 200_000
