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


class PoolMetrics:
    """A listener; made after Ray has started."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._jobs = Counter("imax_jobs_total", "Posters that ended, by state.", ("state",))
        self._steps = Counter("imax_steps_total", "Denoising steps.", ("gang", "stage"))
        self._step_seconds = Histogram(
            "imax_step_seconds", "Seconds a step.", boundaries=SECONDS, tag_keys=("gang", "stage")
        )
        self._job_seconds = Histogram("imax_job_seconds", "Seconds a poster.", boundaries=SECONDS)
        self._restarts = Counter("imax_gang_restarts_total", "Gangs lost, by reason.", ("reason",))
        self._gangs = Gauge("imax_gangs", "Gangs that are joined.")
        self._depth = Gauge("imax_queue_depth", "Posters by state.", ("state",))
        self._joined: set[str] = set()

    def __call__(self, name: str, fields: dict[str, Any]) -> None:
        if name == "step":
            tags = {"gang": fields["gang"], "stage": fields["stage"]}
            self._steps.inc(1.0, tags)
            self._step_seconds.observe(fields["seconds"], tags)
        elif name.startswith("job."):
            self._count(name, fields)
        elif name == "gang.ready":
            self._joined.add(fields["gang"])
            self._gangs.set(float(len(self._joined)))
        elif name in ("gang.lost", "gang.released"):
            self._joined.discard(fields["gang"])
            self._gangs.set(float(len(self._joined)))
            self._restarts.inc(1.0, {"reason": fields.get("reason", "released")})

    def _count(self, name: str, fields: dict[str, Any]) -> None:
        if name in OVER:
            self._jobs.inc(1.0, {"state": name.removeprefix("job.")})
        if name == "job.done":
            self._job_seconds.observe(fields["seconds"])
        tally = Tally(name_of(state) for state in self._board.states.values())
        for state in STATES:
            self._depth.set(float(tally[state]), {"state": state})
