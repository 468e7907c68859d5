"""Damaged pictures of every format through `imax finish`: a print or one sentence, in bounded time."""

from __future__ import annotations

import functools
import json
import random
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import pyvips
from fuzzing import CODES, LONGEST_S, MOST_KIB, damaged, peak_kib, rounds
from pictures import gradient, names, png_poster

from imax_dist.cli.main import main
from imax_dist.errors import ImaxError
from imax_dist.output.image.profile import srgb
from imax_dist.output.image.prompt_text import find_prompt
from imax_dist.output.image.vips import library

SAVED = {
    "plain.png": "compression=1",
    "interlaced.png": "interlace=true",
    "deep.png": "",
    "photo.jpg": "Q=80",
    "progressive.jpg": "interlace=true",
    "cmyk.jpg": "",
    "strips.tif": "compression=none",
    "lzw.tif": "compression=lzw",
    "tiles.tif": "tile=true,tile_width=32,tile_height=32,compression=deflate",
    "big.tif": "bigtiff=true,compression=packbits",
    "lossy.webp": "",
    "lossless.webp": "lossless=true",
    "photo.avif": "compression=av1",
    "photo.gif": "",
}
"""Names and the options of libvips that save them."""
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "seed": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["7", 0]}},
    "7": {"class_type": "Text", "inputs": {"string": "a red sun"}},
}
PROMPTS = {
    "webui.png": (b"tEXt", b"parameters\0a red sun\nNegative prompt: rain\nSteps: 20, Seed: 1"),
    "comfy.png": (b"tEXt", b"prompt\0" + json.dumps(GRAPH).encode()),
}
"""Pictures of other programs that carry their prompt."""


def png_with(*extra: tuple[bytes, bytes]) -> bytes:
    """A small RGB picture with more chunks before its pixels."""
    rows = b"".join(b"\0" + row.tobytes() for row in gradient(48, 64))
    head = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One small picture of each kind; those that this libvips cannot write are left out."""
    folder = tmp_path_factory.mktemp("pictures")
    found = [png_poster(folder / "poster.png", 48, 64)]
    for name, chunk in PROMPTS.items():
        (folder / name).write_bytes(png_with(chunk))
        found.append(folder / name)
    for name, options in SAVED.items():
        deep = name == "deep.png"
        image = pyvips.Image.new_from_array(gradient(48, 64, 16 if deep else 8))
        image = image.copy(interpretation="rgb16" if deep else "srgb")
        image = image.icc_transform("cmyk") if name == "cmyk.jpg" else image
        try:
            image.write_to_file(f"{folder / name}[{options}]")
        except pyvips.Error:
            continue
        found.append(folder / name)
    assert len(found) > 10
    return found


@pytest.mark.slow
def test_no_mutated_picture_is_an_internal_error_or_leaves_a_file(
    pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, read, number = peak_kib(), 0, 0
    for number, rng in rounds(300):
        source = rng.choice(pictures)
        path = tmp_path / f"in{source.suffix}"
        path.write_bytes(damaged(source.read_bytes(), rng))
        out = tmp_path / "print.tif"
        started = time.monotonic()
        code = main(["finish", str(path), "--out", str(out)])
        said = capsys.readouterr()
        where = f"mutation {number} of {source.name}: {code}\n{said.err}"
        assert code in CODES, where
        assert "internal error" not in said.err, where
        assert "Traceback" not in said.err, where
        assert time.monotonic() - started < LONGEST_S, where
        assert peak_kib() - before < MOST_KIB, where
        assert names(tmp_path) == sorted({path.name, *([out.name] if code == 0 else [])}), where
        read += code == 0
        with suppress(ImaxError):
            find_prompt(path)
        for left in tmp_path.iterdir():
            left.unlink()
    print(f"{number + 1} pictures, {read} of them still readable, {(peak_kib() - before) >> 10} MiB")
    assert 0 < read < number


def test_libvips_may_quote_bytes_of_a_damaged_file_that_are_no_text() -> None:
    """It was an exception in a callback, on stderr, or in the place of libvips' own error."""
    pyvips = library()
    message = pyvips.ffi.new("char[]", b"bad tag \xff")
    assert pyvips.error._to_string(message) == pyvips._to_string(message) == "bad tag \ufffd"


def test_the_damage_of_a_number_is_always_the_same(pictures: list[Path]) -> None:
    content = pictures[0].read_bytes()
    first, again = (damaged(content, random.Random(7)) for _ in range(2))
    assert first == again != content
    assert np.all([damaged(content, random.Random(n)) != content for n in range(5)])


def icc_bomb() -> bytes:
    """A profile whose table claims 255 steps of 15 inputs, far more than the file holds."""
    own = bytearray(srgb().data)
    tag = own.find(b"rXYZ", 128)
    at = len(own)
    own[tag : tag + 12] = b"A2B0" + struct.pack(">II", at, 64)
    own += b"mft2\0\0\0\0" + bytes([15, 15, 255, 0]) + bytes(52)
    own[:4] = struct.pack(">I", len(own))
    return bytes(own)


@functools.cache
def zeros() -> bytes:
    """128 MiB in half a megabyte."""
    return zlib.compress(bytes(128 << 20), 1)


BOMBS: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "zTXt": lambda: (b"zTXt", b"Comment\0\0" + zeros()),
    "iTXt": lambda: (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros()),
    "iCCP of zeros": lambda: (b"iCCP", b"x\0\0" + zeros()),
    "iCCP of tables": lambda: (b"iCCP", b"x\0\0" + zlib.compress(icc_bomb())),
    "eXIf": lambda: (b"eXIf", b"MM\0*" + struct.pack(">IH", 8, 0xFFFF) + b"\xff" * 4000),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_in_a_label_is_a_print_or_a_sentence_in_little_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(png_with(BOMBS[name]()))
    before, started = peak_kib(), time.monotonic()
    code = main(["finish", str(path), "--out", str(tmp_path / "out.tif")])
    assert code in CODES, capsys.readouterr().err
    assert "internal error" not in capsys.readouterr().err
    assert peak_kib() - before < 96 << 10
    assert time.monotonic() - started < LONGEST_S
