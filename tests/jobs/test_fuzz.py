"""Settings and checkpoints from anywhere: a clear error or success, never anything else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imax_dist.config import config_folder
from imax_dist.errors import BadConfig, BadManifest, ImaxError
from imax_dist.jobs.batch import load_pool_settings
from imax_dist.jobs.settings import PoolSettings
from imax_dist.pipeline.checkpoint import Checkpoint, CheckpointFolder, read_checkpoint

FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
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
    content=st.binary(max_size=120) | st.text(alphabet="[]{}:-&*!|>%@#,' ab1\n", max_size=60).map(str.encode)
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
    checkpoint = Checkpoint("native", 3, "finger", 7, {"latents": torch.arange(32.0).reshape(1, 2, 4, 4)})
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
def test_a_damaged_checkpoint_is_refused_or_whole(tmp_path: Path, place: float, bit: int, cut: bool) -> None:
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
        assert loaded.fingerprint == checkpoint.fingerprint
        assert loaded.phase in ("native", "extrapolated")
        assert loaded.tensors["latents"].isfinite().all()
