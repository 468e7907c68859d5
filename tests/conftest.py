"""What every test shares: one torch thread and a seeded generator; nothing is seeded globally."""

from __future__ import annotations

import gc
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from disks import DyingDisk
from postgres import PostgresServer, missing

HOME = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
PLACES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN",
    "TORCH_HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "RAY_AUTH_MODE",
)
"""Where else a user's caches, models and tokens may be."""
QUICK_S, SLOW_S = 10, 60
"""Most CPU seconds of a test in the process that runs it, and of one that is marked slow."""


def pytest_configure(config: pytest.Config) -> None:
    """One thread: the same rounding on every machine, and no fight over cores. An empty home directory:
    nothing that an earlier run left there, no token and no cached model, decides a test."""
    torch.set_num_threads(1)
    config.stash[HOME] = tempfile.TemporaryDirectory(prefix="imax-home-")
    os.environ["HOME"] = config.stash[HOME].name
    for name in PLACES:
        os.environ.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Libraries and tests are there to the end: no garbage is looked for among them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--dist loadfile``, a file a worker: files that start Ray, launchers or hosts come first, since
    they take longest, then those with slow tests; small ones come last, and no worker waits for another."""
    if hasattr(config, "workerinput"):
        machines = {item.path for item in items if item.get_closest_marker("machines")}
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        number = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path not in machines, item.path not in slow, -number[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that computes longer than its half allows fails, by the CPU seconds of this process: what the
    clock says depends on who else uses the machine."""
    before = time.process_time()
    result = yield
    used = time.process_time() - before
    limit = SLOW_S if item.get_closest_marker("slow") else QUICK_S
    if used > limit:
        pytest.fail(f"took {used:.0f} CPU seconds of {limit}: make it smaller, or mark it slow if it is not")
    return result


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[HOME].cleanup()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a generator of its own is the same in every run."""
    torch.manual_seed(20241010)


@pytest.fixture
def rng() -> torch.Generator:
    """A CPU generator with a fixed seed, new for each test."""
    return torch.Generator().manual_seed(20241010)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 3 MB of room."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def dying_disk(tmp_path: Path) -> Iterator[DyingDisk]:
    """A file system that can be made to fail, and mended."""
    try:
        disk = DyingDisk(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a failing disk needs the right to mount an ext4 image: {error}")
    yield disk
    disk.unmount()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server; skipped, with the reason, where there can be none."""
    if why := missing():
        pytest.skip(why)
    server = PostgresServer()
    yield server
    server.close()
