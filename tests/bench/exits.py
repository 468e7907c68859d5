"""Seconds from one rank's failure to the end of all, and with which code: `python -m tests.bench.exits`.

Two ranks on gloo under `imax launch`, torchrun and a pool on Ray; the other one waits in a collective that
never completes. Destroying the group waits for all ranks, as NCCL's does (tests/launcher/failing_rank.py).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch.distributed as dist

from imax_dist.cli.status import print_end
from imax_dist.events import GangReady, PoolEvent
from imax_dist.jobs.board import Board
from imax_dist.jobs.cluster import ray_cluster
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.rank import Rank
from imax_dist.jobs.ray_gangs import RayGangs
from imax_dist.jobs.settings import Deadlines, PoolSettings, Retry
from imax_dist.jobs.state import Failed, Queued
from imax_dist.jobs.store import Store
from imax_dist.jobs.task import Task
from imax_dist.pipeline.renderer import Renderer
from imax_dist.pipeline.request import Request

RANK = Path(__file__).parents[1] / "launcher" / "failing_rank.py"
LAUNCH = "import sys; from imax_dist.launcher.elastic import Nodes, run_ranks; "
LAUNCH += "sys.exit(run_ranks(sys.argv[1:], Nodes(2), drain_s=150))"
LAUNCHERS = {
    "`imax launch`": ["-c", LAUNCH],
    "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "0"],
}
HOWS = ("raises", "out of memory", "killed")
LONGEST_S = 300.0
POOL = PoolSettings(
    gangs=1,
    ranks=2,
    device="cpu",
    threads=1,
    deadlines=Deadlines(place=LONGEST_S, join=LONGEST_S),
    retry=Retry(attempts=1),
)
"""One attempt: a pool tries again what raised or was killed, and ends with 0 if that goes well."""


def under_launcher(launcher: str, how: str, folder: Path) -> tuple[float, str]:
    struck = folder / "struck"
    words = [str(RANK), "generate", "a red sun", "--out", str(folder / "x.png"), "--device", "cpu"]
    ended = subprocess.run(
        [sys.executable, *LAUNCHERS[launcher], *words],
        check=False,
        capture_output=True,
        timeout=LONGEST_S,
        env={**os.environ, "FAILING_RANK_HOW": how, "FAILING_RANK_STRUCK": str(struck)},
    )
    return time.time() - float(struck.read_text()), str(ended.returncode)


class FailingRank(Rank):
    """Rank 1 fails as the prompt says where it would compute, and writes when beside the poster's folder."""

    def run(self, task: Task) -> dict[str, Any]:
        def render(*_: Any, **__: Any) -> None:
            dist.barrier()
            if self.rank == 1:
                Path(task.folder).with_name("struck").write_text(str(time.time()))
                if task.request.prompt == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                wrong = {"raises": RuntimeError("planted"), "out of memory": MemoryError("planted")}
                raise wrong[task.request.prompt]
            dist.barrier()

        dist.destroy_process_group = lambda *_: dist.barrier()
        Renderer.render = render  # type: ignore[method-assign, assignment]
        return super().run(task)


def in_pool(how: str, folder: Path) -> tuple[float, str]:
    """Until no rank of the gang lives; the code is that of a batch."""
    pids: list[int] = []

    def hear(event: PoolEvent) -> None:
        pids.extend(event.pids if isinstance(event, GangReady) else ())

    with contextlib.closing(Store(folder / "batch.sqlite")) as store:
        store.add([(make_job(Request(how, size="128x128"), name="poster", position=0), Queued())])
        board = Board(store)
        Pool(board, RayGangs(POOL, FailingRank), POOL, out=folder, deps=PoolDeps(listen=hear)).run()
        while any(map(psutil.pid_exists, pids)):
            time.sleep(0.01)
        seconds = time.time() - float((folder / "struck").read_text())
        with contextlib.redirect_stdout(io.StringIO()):
            code = print_end(board.rows(), as_json=True)
        state = board.states["poster"]
        assert isinstance(state, Failed)
        return seconds, f"{code} ({state.kind})"


def measured(how: str, under: str, times: int) -> str:
    """A row of the table: the longest of so many times."""
    found = []
    for _ in range(times):
        with tempfile.TemporaryDirectory(prefix="imax-bench-") as name:
            folder = Path(name)
            ended = under_launcher(under, how, folder) if under in LAUNCHERS else in_pool(how, folder)
            found.append(ended)
    codes = ", ".join(sorted({code for _, code in found}))
    return f"| {how} | {under} | {max(seconds for seconds, _ in found):.1f} | {codes} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    print("| rank 1 | under | s to the end of all | exit code |\n|---|---|---|---|")
    with ray_cluster("local", POOL):
        for how in HOWS:
            for under in (*LAUNCHERS, "a pool on Ray"):
                print(measured(how, under, times), flush=True)


if __name__ == "__main__":
    main()
