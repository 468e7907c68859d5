"""cluster/gpu.lock: a GPU image that is the same each time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cluster_files import CLUSTER

ROOT = CLUSTER.parent
LOCKED = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>\S+)(?: --hash=sha256:[0-9a-f]{64})+")


def versions(path: Path) -> dict[str, str]:
    """Packages of a file of pins by their canonical names."""
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split()[0].split("==")
            found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    return versions(CLUSTER / "gpu.lock")


def test_every_line_has_a_version_and_a_hash() -> None:
    lines = [line for line in (CLUSTER / "gpu.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not LOCKED.fullmatch(line)] == []
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_versions_are_the_tested_ones(locked: dict[str, str]) -> None:
    tested = versions(ROOT / "constraints.txt")
    assert {name: locked[name] for name in locked.keys() & tested.keys()} == {
        name: tested[name] for name in locked.keys() & tested.keys()
    }
    untested = {name for name in locked if name not in tested}
    own = (
        "nvidia-",
        "cuda-",
        "triton",
        "flash-attn-4",
        "quack-kernels",
        "torch-c-dlpack-ext",
        "apache-tvm-ffi",
    )
    assert {name for name in untested if not name.startswith(own)} <= {"setuptools"}


def test_it_has_what_the_project_asks_for_and_the_kernels(locked: dict[str, str]) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(each for name in ("serve", "gpu", "postgres") for each in extras[name]),
    ]
    names = {re.split(r"[\[><=]", each)[0].replace("_", "-").lower() for each in wanted}
    assert names - locked.keys() == set()
    assert {"xfuser", "flash-attn-4", "nvidia-nccl-cu13", "nvidia-cudnn-cu13"} <= locked.keys()


def test_the_base_image_has_the_cuda_that_torch_brings(locked: dict[str, str]) -> None:
    pinned = r"ARG BASE_IMAGE=nvidia/cuda:(\d+\.\d+)\.\d+-base-ubuntu24\.04@sha256:[0-9a-f]{64}$"
    base = re.search(pinned, dockerfile(), re.MULTILINE)
    assert base is not None
    assert locked["cuda-toolkit"].startswith(f"{base[1]}.")
    assert f"nvidia-nccl-cu{base[1].split('.')[0]}" in locked


def test_the_image_is_made_of_the_lock_alone() -> None:
    text = re.sub(r"\\\n\s*", "", dockerfile())
    assert "ARG LOCK=cluster/gpu.lock" in text
    installs = re.findall(r"pip install [^;&\n]*", text)
    assert any("--require-hashes --no-deps" in each for each in installs)
    free = [each for each in installs if "--no-deps" not in each]
    assert [each for each in free if "--constraint constraints.txt" not in each] == []


def dockerfile() -> str:
    return (CLUSTER / "Dockerfile").read_text()
