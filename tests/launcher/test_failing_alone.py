"""A rank that fails alone ends at once, with a code that says whether trying again may help."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imax_dist.cli.out_of_memory import smallest_plan
from imax_dist.errors import OutOfMemory
from imax_dist.launcher.elastic import telling_code, worth_another_try
from imax_dist.launcher.rank_failure import is_out_of_memory
from imax_dist.pipeline.request import Request

LIMIT_S = 300
"""Two slow starts, and well under the rank timeout."""
END_S = 60.0
"""From the failure to the end of all, on a busy machine; at most 7 s were measured (BENCHMARKS, "Exits")."""
FAILING_RANK = Path(__file__).with_name("failing_rank.py")
LAUNCH = "from imax_dist.launcher.elastic import Nodes, run_ranks; import sys; "
LAUNCH += "sys.exit(run_ranks(sys.argv[1:], Nodes(2), drain_s=5))"


@pytest.mark.slow
@pytest.mark.machines
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("launcher", ["imax launch", "torchrun"])
def test_the_others_do_not_wait_for_a_rank_that_failed_alone(launcher: str, tmp_path: Path) -> None:
    """The rank timeout is an hour; destroying the group first would take all of it."""
    rank = [str(FAILING_RANK), "generate", "a red sun", "--out", str(tmp_path / "x.png"), "--device", "cpu"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "0"]
    ways = {"imax launch": ["-c", LAUNCH, *rank], "torchrun": [*torchrun, *rank]}
    command = [sys.executable, *ways[launcher]]
    struck = tmp_path / "struck"
    ended = subprocess.run(
        command,
        env={**os.environ, "FAILING_RANK_STRUCK": str(struck)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert time.time() - float(struck.read_text()) < END_S
    assert ended.returncode == {"imax launch": OutOfMemory.exit_code, "torchrun": 1}[launcher]
    assert "rank 1 of 2 ran out of memory (CUDA out of memory)" in ended.stderr
    assert "internal error" not in ended.stderr


def test_out_of_memory_is_no_lost_rank_and_not_tried_again() -> None:
    assert telling_code([70, OutOfMemory.exit_code, -9]) == OutOfMemory.exit_code
    assert not worth_another_try(OutOfMemory.exit_code)
    assert worth_another_try(70)


def test_an_allocation_that_failed_is_recognised() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_the_smallest_plan_that_would_fit_is_named() -> None:
    request = Request("a red sun", size="8192x8192", model="flux-dev")
    plan = smallest_plan(request, device_name="NVIDIA H100 80GB HBM3", more_than=1)
    assert plan is not None
    assert plan.startswith("start 2 ranks: the planner finds room on 2xH100, ")
    assert smallest_plan(request, device_name="Some Other Card", more_than=1) is None
