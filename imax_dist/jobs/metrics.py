"""The pool's events as Prometheus metrics, which Ray exports on every node with the prefix ``ray_``.

Tags are few and short-lived things never tags: gang, stage, state, reason.
"""

from __future__ import annotations

from collections import Counter as Tally
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from imax_dist.jobs.board import Board
from imax_dist.jobs.state import STATES, name_of

SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]
OVER = ("job.done", "job.failed", "job.cancelled", "job.proofed")
GANG_STATES = {
    "gang.building": "building",
    "gang.ready": "joined",
    "gang.failed": "gone",
    "gang.lost": "gone",
    "gang.released": "gone",
}


class PoolMetrics:
    """A listener; made after Ray has started."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._jobs = Counter("imax_jobs_total", "Posters that ended, by state.", ("state",))
        self._steps = Counter("imax_steps_total", "Denoising steps.", ("gang", "stage"))
        self._step_seconds = Histogram(
            "imax_step_seconds", "Seconds a step.", boundaries=SECONDS, tag_keys=("gang", "stage")
        )
        self._checkpoint_seconds = Histogram(
            "imax_checkpoint_seconds", "Seconds a checkpoint took to write.", boundaries=SECONDS
        )
        self._peak = Gauge(
            "imax_peak_memory_bytes", "Most memory a rank has held (GPU, else process).", ("gang", "rank")
        )
        self._job_seconds = Histogram("imax_job_seconds", "Seconds a poster.", boundaries=SECONDS)
        self._restarts = Counter("imax_gang_restarts_total", "Gangs lost, by reason.", ("reason",))
        self._gangs = Gauge("imax_gangs", "Gangs, by state.", ("state",))
        self._depth = Gauge("imax_queue_depth", "Posters by state.", ("state",))
        self._states: dict[str, str] = {}

    def __call__(self, name: str, fields: dict[str, Any]) -> None:
        if name == "step":
            tags = {"gang": fields["gang"], "stage": fields["stage"]}
            self._steps.inc(1.0, tags)
            self._step_seconds.observe(fields["seconds"], tags)
        elif name == "checkpoint":
            self._checkpoint_seconds.observe(fields["seconds"])
        elif name == "memory":
            tags = {"gang": fields["gang"], "rank": str(fields["rank"])}
            self._peak.set(float(fields["peak_bytes"]), tags)
        elif name.startswith("job."):
            self._count(name, fields)
        elif name in GANG_STATES:
            self._gang(name, fields)

    def _gang(self, name: str, fields: dict[str, Any]) -> None:
        self._states[fields["gang"]] = GANG_STATES[name]
        tally = Tally(self._states.values())
        for state in ("building", "joined"):
            self._gangs.set(float(tally[state]), {"state": state})
        if name in ("gang.lost", "gang.released"):
            self._restarts.inc(1.0, {"reason": fields.get("reason", "released")})

    def _count(self, name: str, fields: dict[str, Any]) -> None:
        if name in OVER:
            self._jobs.inc(1.0, {"state": name.removeprefix("job.")})
        if name == "job.done":
            self._job_seconds.observe(fields["seconds"])
        tally = Tally(name_of(state) for state in self._board.states.values())
        for state in STATES:
            self._depth.set(float(tally[state]), {"state": state})
