"""One poster over several machines under `imax launch`: the same picture, a cable pulled and plugged in."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, hosts, wait_for, why_no_hosts
from same_picture import same_picture
from tiny_flux import make_tiny_flux

from imax_dist.cli.main import main

REASON = why_no_hosts()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.machines,
    pytest.mark.hosts,
    pytest.mark.skipif(bool(REASON), reason=REASON),
]
PROMPT = "a red sun over the sea"
PORT = 29511
TIMEOUT_S = 150
STEPS = 60


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Host]]:
    with hosts(3) as made:
        yield made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")


def options(tiny: Path, out: Path) -> list[str]:
    words = ("generate", PROMPT, "--model", tiny, "--size", "144x112", "--steps", STEPS, "--out", out)
    return [*map(str, words), "--preset", "one_jump", "--checkpoint-every", "2", "-v"]


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture of one process on one machine."""
    out = tmp_path_factory.mktemp("alone") / "one.png"
    assert main(options(tiny, out)) == 0
    return out


def launch(
    machines: list[Host], words: list[str], folder: Path, *more: object
) -> list[subprocess.Popen[bytes]]:
    """The same line on each machine but for its number and address."""
    count = len(machines)
    meeting = f"{machines[0].address}:{PORT}"
    return [
        host.start(
            "imax", "launch", "--ranks", 1, "--nodes", count, "--node-rank", host.index,
            "--rendezvous", meeting, "--address", host.address, *more, *words,
            log=folder / f"{host.index}.log",
        )
        for host in machines
    ]  # fmt: skip


def codes(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    deadline = time.monotonic() + TIMEOUT_S
    return [process.wait(timeout=max(1.0, deadline - time.monotonic())) for process in processes]


def told(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))


def test_ranks_on_machines_of_their_own_make_the_picture_of_one_and_a_pulled_cable_costs_only_time(
    machines: list[Host], tiny: Path, alone: Path, tmp_path: Path
) -> None:
    """One of the machines loses its cable in a step and gets it back."""
    out = tmp_path / "many.png"
    words = [*options(tiny, out), "--rank-timeout", "60"]
    processes = launch(machines, words, tmp_path)
    wait_for(tmp_path / "0.log", "step   3/60", process=processes[0])
    before = sum(host.sent_again() for host in machines)
    machines[1].pull_cable()
    deadline = time.monotonic() + 30
    while sum(host.sent_again() for host in machines) <= before:  # a longer silence counts as a hang
        assert time.monotonic() < deadline, f"nothing was sent over the pulled cable: {told(tmp_path)}"
        time.sleep(0.05)
    assert [process.poll() for process in processes] == [None] * len(machines), told(tmp_path)
    machines[1].plug_cable()
    assert codes(processes) == [0] * len(machines), told(tmp_path)
    assert "a rank was lost" not in told(tmp_path)
    same_picture(alone, out, ranks=len(machines))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a poster that is begun by one test and finished by the next."""
    return tmp_path_factory.mktemp("cut")


def test_a_cable_that_stays_out_is_reported(machines: list[Host], tiny: Path, cut: Path) -> None:
    words = [*options(tiny, cut / "two.png"), "--rank-timeout", "5"]
    processes = launch(machines[:2], words, cut, "--join-timeout", 10, "--restarts", 1)
    wait_for(cut / "0.log", "step   5/60", process=processes[0])
    machines[1].pull_cable()
    try:
        assert codes(processes) == [69, 69], told(cut)
    finally:
        machines[1].plug_cable()
    seen = [path.read_text() for path in sorted(cut.glob("?.log"))]
    judged, timed_out = "the only rank here has waited in ", "its machine did not answer for 5 s"
    assert all(judged in text or timed_out in text for text in seen), told(cut)
    assert "node 1 of 2 did not find the others" in told(cut)
    assert not (cut / "two.png").exists()


def test_with_the_cable_back_in_the_poster_goes_on(
    machines: list[Host], tiny: Path, alone: Path, cut: Path
) -> None:
    processes = launch(machines[:2], options(tiny, cut / "two.png"), cut)
    assert codes(processes) == [0, 0], told(cut)
    assert "resumed after step" in told(cut)
    same_picture(alone, cut / "two.png", ranks=2)
