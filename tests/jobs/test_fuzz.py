"""Settings, checkpoints and recipes from anywhere: a clear error or success, never anything else.

Manifests are fuzzed in test_manifest.py.
"""

from __future__ import annotations

import copy
import json
import resource
import struct
import zlib
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imax_dist.config import config_folder
from imax_dist.errors import BadConfig, BadManifest, ImaxError
from imax_dist.jobs.batch import load_pool_settings
from imax_dist.jobs.settings import PoolSettings
from imax_dist.output.image.poster import write_poster
from imax_dist.output.image.provenance import read_recipe
from imax_dist.output.image.verify import verify
from imax_dist.output.image.xmp import BEGIN as XMP_BEGIN
from imax_dist.output.image.xmp import END as XMP_END
from imax_dist.pipeline.checkpoint import FORMAT, Checkpoint, CheckpointFolder, read_checkpoint
from imax_dist.pipeline.recipe import FORMAT as RECIPE
from imax_dist.pipeline.recipe import differences, request_of
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.state import PassState
from imax_dist.settings_mapping import to_mapping

FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
KINDS = ("tif", "jpg", "pdf")
SHIPPED = sorted((config_folder() / "jobs").glob("*.yaml"))
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.just([1])
    | st.just({"a": 1})
)
KEYS = st.sampled_from(
    [
        "gangs",
        "ranks",
        "most_ranks",
        "device",
        "parallel",
        "deadlines",
        "retry",
        "limits",
        "checkpoint_every",
        "gang",
    ]
)


def png_with(chunk: tuple[str, bytes]) -> bytes:
    """One grey pixel and one more chunk."""
    chunks = [("IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), chunk]
    chunks += [("IDAT", zlib.compress(b"\0\0")), ("IEND", b"")]
    parts = [
        struct.pack(">I", len(body))
        + name.encode()
        + body
        + struct.pack(">I", zlib.crc32(name.encode() + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


LAUGHS = (
    b'?><!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(10))
    + b"]><x>&k;</x>"
)


def pool(folder: Path, content: bytes) -> PoolSettings:
    path = folder / "pool.yaml"
    path.write_bytes(content)
    return load_pool_settings(str(path), {})


@FUZZ
@given(mapping=st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_pool_settings_load_or_say_why_not(tmp_path: Path, mapping: dict[str, Any]) -> None:
    with suppress(BadConfig):
        loaded = pool(tmp_path, yaml.safe_dump(mapping).encode())
        assert loaded.gangs >= 1
        assert loaded.ranks >= 1


@FUZZ
@given(
    content=st.binary(max_size=120)
    | st.text(alphabet="[]{}:-&*!|>%@#,' ab1\n", max_size=60).map(str.encode)
    | st.sampled_from([b"[" * 100_000, b"gangs: " + b"9" * 5000, b"retry: {backoff: " + b"9" * 400 + b"}"])
)
def test_any_bytes_as_pool_settings_load_or_say_why_not(tmp_path: Path, content: bytes) -> None:
    with suppress(ImaxError):
        assert isinstance(pool(tmp_path, content), PoolSettings)


@FUZZ
@given(data=st.data())
def test_a_shipped_file_with_holes_loads_or_says_why_not(tmp_path: Path, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(SHIPPED)).read_bytes()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    with suppress(ImaxError):
        assert isinstance(pool(tmp_path, content[:start] + content[end:]), PoolSettings)


def written(folder: Path) -> tuple[Path, Checkpoint]:
    checkpoint = Checkpoint(PassState(0, 3, torch.arange(32.0).reshape(1, 2, 4, 4)), "finger", 7)
    return CheckpointFolder(folder / "checkpoints").save(checkpoint), checkpoint


@FUZZ
@given(content=st.binary(max_size=300))
def test_any_bytes_as_a_checkpoint_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "step-000001.safetensors"
    path.write_bytes(content)
    try:
        read_checkpoint(path, "finger")
    except BadManifest:
        return
    raise AssertionError("random bytes were taken for a checkpoint")


@FUZZ
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_checkpoint_is_refused_or_the_same(
    tmp_path: Path, place: float, bit: int, cut: bool
) -> None:
    path, checkpoint = written(tmp_path)
    content = bytearray(path.read_bytes())
    index = int(place * len(content))
    if cut:
        del content[index:]
    else:
        content[index] ^= 1 << bit
    path.write_bytes(bytes(content))
    with suppress(BadManifest):
        loaded = read_checkpoint(path, "finger")
        assert (loaded.fingerprint, loaded.seed) == (checkpoint.fingerprint, checkpoint.seed)
        assert (loaded.state.number, loaded.state.step) == (checkpoint.state.number, checkpoint.state.step)
        assert loaded.state.to_tensors().keys() == checkpoint.state.to_tensors().keys()
        assert torch.equal(loaded.state.latents, checkpoint.state.latents)


NUMBERS = st.integers(-2, 5) | st.sampled_from([2**31, 2**40, 2**53, 2**63, 2**64 - 1, 2**70])
HEADERS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I64", "BOOL", "F8_E4M3", "X9", "", 3]),
        "shape": st.lists(NUMBERS, max_size=5) | NUMBERS,
        "data_offsets": st.lists(NUMBERS, max_size=3),
    }
)


@FUZZ
@given(header=HEADERS, name=st.sampled_from(["latents", "reference", ""]), length=st.none() | NUMBERS)
def test_absurd_sizes_in_a_header_are_refused_and_take_no_memory(
    tmp_path: Path, header: dict[str, Any], name: str, length: int | None
) -> None:
    words = {"format": FORMAT, "fingerprint": "finger", "phase": "native", "step": "1", "seed": "0"}
    text = json.dumps({"__metadata__": {**words, "sha256": "0"}, name: header}).encode()
    stated = len(text) if length is None else max(0, length) % 2**64
    path = tmp_path / "step-000001.safetensors"
    path.write_bytes(struct.pack("<Q", stated) + text + bytes(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadManifest):
        read_checkpoint(path, "finger")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "KiB"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A poster with its recipe in every kind of file."""
    folder = tmp_path_factory.mktemp("pictures")
    request = {**to_mapping(Request("a red sun", size="48x32")), "output": {kind: {} for kind in KINDS}}
    recipe = {"format": RECIPE, "request": request, "plan": {}, "model": {}, "environment": {"torch": "2"}}
    write_poster(folder / "poster.png", torch.rand(32, 48, 3, generator=torch.Generator()), recipe)
    (folder / "poster.recipe.json").rename(folder / "poster.json")
    return folder


def taken(path: Path) -> None:
    """What --recipe does with a file before it renders."""
    recipe = read_recipe(path)
    assert isinstance(request_of(recipe, where="recipe"), Request)
    now = {"environment": {"torch": "3"}, "model": {"weights_sha256": "a"}}
    assert all(isinstance(line, str) for line in differences(recipe, now))


def test_the_recipes_are_read_where_nothing_is_wrong(pictures: Path) -> None:
    for suffix in ("json", "png", *KINDS):
        taken(pictures / f"poster.{suffix}")
        assert suffix == "json" or verify(pictures / f"poster.{suffix}").matches


@FUZZ
@given(data=st.data(), cut=st.booleans())
def test_a_damaged_recipe_is_read_or_refused(
    tmp_path: Path, pictures: Path, data: st.DataObject, cut: bool
) -> None:
    suffix = data.draw(st.sampled_from(["json", "png", *KINDS]))
    content = bytearray((pictures / f"poster.{suffix}").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(content) - 1))
        content[index] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))] if cut else content))
    with suppress(ImaxError):
        taken(path)
    with suppress(ImaxError):
        verify(path)


LEAVES = VALUES | st.sampled_from([10**400, -(10**400), 1e308, "9" * 5000, "\ud800", {"a": {"b": [[1]]}}])
PLACES = st.sampled_from(
    [("format",), ("request",), ("model",), ("environment",), ("file",), ("pixels_sha256",)]
    + [("request", field.name) for field in fields(Request)]
)


@FUZZ
@given(changes=st.lists(st.tuples(PLACES, LEAVES), min_size=1, max_size=3))
def test_a_recipe_with_other_values_is_taken_or_refused(
    tmp_path: Path, pictures: Path, changes: list[tuple[tuple[str, ...], Any]]
) -> None:
    recipe = json.loads((pictures / "poster.json").read_text())
    for (*parents, last), value in changes:
        target = recipe
        for parent in parents:
            target = target[parent] if isinstance(target.get(parent), dict) else {}
        target[last] = copy.deepcopy(value)
    path = tmp_path / "other.json"
    path.write_text(json.dumps(recipe))
    with suppress(ImaxError):
        taken(path)
    with suppress(ImaxError):
        verify(pictures / "poster.png", recipe_file=path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", b"[" * 200_000),
        ("digits.json", b'{"format": ' + b"9" * 5000 + b"}"),
        ("list.json", b"[1]"),
        ("text.png", png_with(("zTXt", b"imax-recipe\0\0" + zlib.compress(b"[" * (64 << 20), 9)))),
        ("itxt.png", png_with(("iTXt", b"imax-recipe\0\1\0\0\0" + zlib.compress(bytes(64 << 20), 9)))),
        ("laughs.tif", b"II*\0" + XMP_BEGIN + LAUGHS + XMP_END),
    ],
)
def test_a_bomb_is_refused_and_takes_no_memory(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadManifest):
        read_recipe(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10, "KiB"
