"""A batch on a Ray cluster of three machines: gangs across them, a cable pulled and plugged in."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hosts import Host, hosts, wait_for, why_no_hosts
from same_picture import same_picture
from tiny_flux import make_tiny_flux

from imax_dist.cli.main import main

REASON = why_no_hosts()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.machines,
    pytest.mark.hosts,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(REASON), reason=REASON),
]
PROMPT = "a red sun over the sea"
PORT = 6399
HEAD = ("--head", f"--port={PORT}", "--include-dashboard=false")
POOL = {
    "gangs": 1,
    "device": "cpu",
    "threads": 1,
    "placement": "STRICT_SPREAD",
    "checkpoint_every": 2,
    "deadlines": {
        "place": 60,
        "join": 60,
        "first_step": 60,
        "step_least": 5,
        "stage": 60,
        "heartbeat": 8,
        "grace": 2,
    },
    "retry": {"attempts": 4, "backoff": 1, "longest_backoff": 2},
}


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""Of this cluster alone: none is looked for in the home directory."""


class Cluster(NamedTuple):
    """Three machines of one rank each; the first is the head, where batches are started."""

    machines: list[Host]
    folder: Path

    @property
    def address(self) -> str:
        return f"{self.machines[0].address}:{PORT}"

    def batch(self, manifest: Path, out: Path, log: Path, **changes: object) -> subprocess.Popen[bytes]:
        pool = self.folder / f"{out.name}.yaml"
        pool.write_text(yaml.safe_dump({**POOL, **changes}))
        words = ("batch", manifest, "--out", out, "--ray", self.address, "--pool", pool, "--debug")
        return self.machines[0].start("imax", *words, log=log, **TOKEN)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    with hosts(3) as machines:
        temp = Path(f"/tmp/{machines[0].name}")  # Ray's socket paths must stay short
        for host in machines:
            place = [*HEAD, f"--temp-dir={temp}"] if host.index == 0 else []
            place = place or [f"--address={machines[0].address}:{PORT}"]
            words = (
                "ray", "start", "--block", *place, f"--node-ip-address={host.address}", "--num-cpus=1",
                f"--object-store-memory={80 << 20}", "--disable-usage-stats",
            )  # fmt: skip
            log = folder / f"ray-{host.index}.log"
            process = host.start(*words, log=log, **TOKEN, RAY_worker_niceness="0")  # as in `--ray local`
            wait_for(log, "Ray runtime started", process=process)  # one by one: Ray gives a node 30 s
        yield Cluster(machines, folder)
    subprocess.run(["rm", "-rf", str(temp)], check=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")


def manifest(tiny: Path, folder: Path, *, steps: int) -> Path:
    line = {
        "id": "sea",
        "prompt": PROMPT,
        "model": str(tiny),
        "size": "144x112",
        "steps": steps,
        "preset": "one_jump",
    }
    path = folder / "manifest.jsonl"
    path.write_text(json.dumps(line) + "\n")
    return path


def alone(tiny: Path, out: Path, *, steps: int) -> Path:
    """The picture of one process on one machine."""
    words = ("generate", PROMPT, "--model", tiny, "--size", "144x112", "--steps", steps, "--out", out)
    assert main([*map(str, words), "--preset", "one_jump"]) == 0
    return out


class Batch(NamedTuple):
    """A batch of one poster at work, a rank on each of the three machines."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def said(self) -> str:
        return (self.folder / "batch.log").read_text()

    @property
    def events(self) -> Path:
        return self.folder / "cut" / "sea" / "events.jsonl"


@pytest.fixture(scope="module")
def batch(cluster: Cluster, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    folder = tmp_path_factory.mktemp("batch")
    lines = manifest(tiny, folder, steps=24)
    begun = Batch(cluster.batch(lines, folder / "cut", folder / "batch.log", ranks=3), folder)
    yield begun
    begun.process.kill()
    begun.process.wait()


def test_a_cable_pulled_in_a_step_loses_the_gang(cluster: Cluster, batch: Batch) -> None:
    deadline = time.monotonic() + 150
    while not _steps_done(batch.events) >= 4:
        assert batch.process.poll() is None, batch.said
        assert time.monotonic() < deadline, batch.said
        time.sleep(0.05)
    cluster.machines[2].pull_cable()
    try:
        pulled = time.monotonic()
        while not (lost := _queued_after(batch.events)):
            assert time.monotonic() < pulled + 90, f"not seen:\n{batch.said}\n{batch.events.read_text()}"
            time.sleep(0.2)
        assert lost.startswith(("no event from sea", "hung: "))  # by the driver, or by another rank
    finally:
        cluster.machines[2].plug_cable()


def test_plugged_in_the_poster_goes_on_and_is_the_picture_of_one(
    tiny: Path, batch: Batch, tmp_path: Path
) -> None:
    assert batch.process.wait(timeout=200) == 0, batch.said
    assert _queued_after(batch.events), "the gang was lost before"
    one = alone(tiny, tmp_path / "one.png", steps=24)
    same_picture(one, batch.folder / "cut" / "sea" / "poster.png", ranks=3)


def _told(events: Path) -> list[dict[str, Any]]:
    """What the job's log tells so far."""
    if not events.exists():
        return []
    return [json.loads(line) for line in events.read_text().splitlines() if line.endswith("}")]


def _steps_done(events: Path) -> int:
    steps = (line for line in _told(events) if line.get("stage") == "extrapolated")
    return max((line.get("index", 0) for line in steps), default=0)


def _queued_after(events: Path) -> str:
    """Why the job was queued again, or nothing."""
    queued = (line for line in _told(events) if line["event"] == "job.queued")
    return next((str(line["after"]) for line in queued if line.get("after")), "")
