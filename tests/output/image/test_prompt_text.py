"""The prompt in a picture, as the programs people make pictures with write it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imax_dist.errors import BadManifest
from imax_dist.output.image.prompt_text import find_prompt

A1111 = (
    "a café by the sea, <lora:style:0.8>\nsecond line\nNegative prompt: blurry, ugly\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
)
FLUX = {
    "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["11", 0], "text": "a red fox in the snow"}},
    "26": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}},
    "22": {"class_type": "BasicGuider", "inputs": {"model": ["30", 0], "conditioning": ["26", 0]}},
    "13": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["25", 0], "guider": ["22", 0]}},
}
CLASSIC = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["6", 0], "negative": ["7", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0]}},
    "9": {"class_type": "PrimitiveString", "inputs": {"value": "a boat"}},
}
LOOP = {"3": {"inputs": {"positive": ["4", 0]}}, "4": {"inputs": {"conditioning": ["4", 0]}}}


def png(path: Path, key: str = "", text: str = "", **how: Any) -> Path:
    info = PngInfo()
    if key:
        (info.add_itxt if how.pop("itxt", False) else info.add_text)(key, text, **how)
    Image.new("RGB", (16, 16)).save(path, pnginfo=info)
    return path


def exif(path: Path, comment: bytes) -> Path:
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x9286] = comment
    Image.new("RGB", (16, 16)).save(path, exif=tags)
    return path


@pytest.mark.parametrize(
    ("make", "prompt", "origin"),
    [
        (lambda p: png(p / "a.png", "parameters", A1111, itxt=True), "a café", "AUTOMATIC1111"),
        (lambda p: png(p / "a.png", "parameters", A1111), "a café", "AUTOMATIC1111"),
        (lambda p: png(p / "a.png", "parameters", A1111, zip=True), "a café", "AUTOMATIC1111"),
        (
            lambda p: exif(p / "a.jpg", b"UNICODE\0" + A1111.encode("utf-16-be")),
            "a café",
            "AUTOMATIC1111",
        ),
        (lambda p: exif(p / "a.webp", b"UNICODE\0" + A1111.encode("utf-16-le")), "a café", "AUTOMATIC1111"),
        (lambda p: exif(p / "a.jpg", b"ASCII\0\0\0a boat\nSteps: 3"), "a boat", "AUTOMATIC1111"),
        (lambda p: png(p / "a.png", "prompt", json.dumps(FLUX)), "a red fox in the snow", "ComfyUI"),
        (lambda p: png(p / "a.png", "prompt", json.dumps(CLASSIC)), "a boat", "ComfyUI"),
    ],
)  # fmt: skip
def test_the_prompt_is_found(tmp_path: Path, make: Callable[[Path], Path], prompt: str, origin: str) -> None:
    found = find_prompt(make(tmp_path))
    assert found is not None
    assert found.text.startswith(prompt)
    assert "Steps" not in found.text
    assert "blurry" not in found.text
    assert origin in found.origin


@pytest.mark.parametrize(
    "make",
    [
        lambda p: png(p / "a.png"),
        lambda p: png(p / "a.png", "Comment", "made by hand"),
        lambda p: png(p / "a.png", "parameters", "Steps: 20, Seed: 1"),
        lambda p: png(p / "a.png", "prompt", "not json {"),
        lambda p: png(p / "a.png", "prompt", json.dumps([1, 2])),
        lambda p: png(p / "a.png", "prompt", json.dumps(LOOP)),
        lambda p: png(p / "a.png", "prompt", json.dumps({"3": {"inputs": {"positive": ["9", 0]}}})),
        lambda p: exif(p / "a.jpg", b""),
        lambda p: exif(p / "a.jpg", b"JIS\0\0\0\0\0abc"),
    ],
)
def test_a_picture_without_a_prompt_has_none(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert find_prompt(make(tmp_path)) is None


def test_text_that_is_not_utf_8_is_one_sentence(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", "parameters", "a caf\u00e9", itxt=True)
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xfe"))
    with pytest.raises(BadManifest, match="the prompt text in it is not UTF-8; give a prompt of your own"):
        find_prompt(path)
    with pytest.raises(BadManifest, match="not UTF-8"):
        find_prompt(exif(tmp_path / "a.jpg", b"ASCII\0\0\0\xff\xfe"))


def test_the_recipe_of_a_poster_comes_first(tmp_path: Path) -> None:
    import torch

    from imax_dist.output.image.poster import write_poster

    write_poster(tmp_path / "a.png", torch.zeros(16, 16, 3), {"request": {"prompt": "a red sun"}})
    assert find_prompt(tmp_path / "a.png") == ("a red sun", "its recipe")


def test_letters_that_no_text_has_in_a_graph_are_one_sentence(tmp_path: Path) -> None:
    """JSON can escape half of a pair."""
    graph = {"1": {"inputs": {"positive": ["2", 0]}}, "2": {"inputs": {"text": "a boat \ud800"}}}
    info = PngInfo()
    info.add_text("prompt", json.dumps(graph))
    Image.new("RGB", (32, 32)).save(tmp_path / "graph.png", pnginfo=info)
    with pytest.raises(BadManifest, match="UTF-8"):
        find_prompt(tmp_path / "graph.png")
