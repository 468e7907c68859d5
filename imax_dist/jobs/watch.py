"""The judge over one gang's ranks: fed by their polls, it gives up a gang only after it has its evidence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from imax_dist.errors import ImaxError
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.settings import Deadlines
from imax_dist.jobs.task import Lost, Task
from imax_dist.liveness.heartbeat import RankReport
from imax_dist.liveness.judge import Diagnosis, Judge
from imax_dist.liveness.silence import Silence
from imax_dist.output.atomic import write_json

EVIDENCE_S = 3.0
"""For stacks from every rank that still answers; then the gang is destroyed."""


def first_reports(facts: Sequence[dict[str, Any]]) -> list[RankReport]:
    """Of ranks that have joined and said ``host`` and ``pid``."""
    return [RankReport(rank, host=fact["host"], pid=fact["pid"]) for rank, fact in enumerate(facts)]


class GangWatch:
    """``actors`` by rank, with what is known of each before it has answered.

    ``compiled``: their first steps compile the network's blocks.
    """

    def __init__(
        self,
        actors: Sequence[Any],
        reports: Sequence[RankReport],
        deadlines: Deadlines,
        *,
        compiled: bool = False,
    ) -> None:
        self._actors = actors
        self._limits = Silence(
            heartbeat=deadlines.heartbeat,
            stage_heartbeat=deadlines.stage_heartbeat,
            exchange=deadlines.exchange,
            factor=deadlines.block_factor,
            first_block=deadlines.first_block,
            stage=deadlines.stage_quiet,
        ).where(compiled=compiled)
        self._reports = {report.rank: report for report in reports}
        self._jobs: dict[int, Task] = {}
        self._judges: list[Judge] = []
        self._found: tuple[Diagnosis, float, list[Any]] | None = None
        self.begin([])

    def begin(self, shares: Sequence[tuple[int, Task]]) -> None:
        """These ranks work from now on: on one poster together, or on a proof each."""
        self._jobs = dict(shares)
        together = len({task.job_id for _, task in shares}) <= 1
        hangs = max((task.hangs for _, task in shares), default=0)
        limits = replace(self._limits, patience=2.0 ** min(hangs, 10))
        groups = [range(len(self._actors))] if together else [[rank] for rank in range(len(self._actors))]
        self._judges = [Judge(limits, time.monotonic) for _ in groups]
        self._judge_of = {
            rank: judge for judge, ranks in zip(self._judges, groups, strict=True) for rank in ranks
        }
        for report in self._reports.values():
            self._judge_of[report.rank].see(report)

    def see(self, report: RankReport | None) -> str | None:
        """Take in how a rank stands; its job, if something has gone on in it."""
        if report is None:
            return None
        self._reports[report.rank] = report
        moved = self._judge_of[report.rank].see(report)
        task = self._jobs.get(report.rank)
        return task.job_id if moved and task is not None else None

    @property
    def culprit(self) -> int | None:
        """The rank that a diagnosis names."""
        return None if self._found is None else self._found[0].rank

    @property
    def leaving(self) -> list[int]:
        """Ranks whose hosts have been told that they go away."""
        return sorted(rank for rank, report in self._reports.items() if report.leaving)

    def excuse(self, seconds: float) -> None:
        """Nobody listened for so long."""
        for judge in self._judges:
            judge.excuse(seconds)

    def lost(self, working: set[int]) -> Lost | None:
        """That the gang hangs, once its evidence has been written or three seconds were spent on it.

        ``working``: ranks that have not ended their task; only a silence is held against the others.
        """
        if self._found is None:
            self._found = self._look(working)
            return None
        diagnosis, since, requests = self._found
        _, waiting = ray.wait(requests, num_returns=len(requests), timeout=0) if requests else ([], [])
        if waiting and time.monotonic() - since < EVIDENCE_S:
            return None
        return Lost("hung", f"{diagnosis.sentence} ({diagnosis.kind})")

    def _look(self, working: set[int]) -> tuple[Diagnosis, float, list[Any]] | None:
        for judge in self._judges:
            diagnosis = judge.diagnose(working)
            if diagnosis is not None:
                return diagnosis, time.monotonic(), self._request_evidence(diagnosis, working)
        return None

    def _request_evidence(self, diagnosis: Diagnosis, working: set[int]) -> list[Any]:
        """Every rank for its stacks, into the folder of the job that it works on."""
        requests = []
        for rank in sorted(working & self._jobs.keys()):
            task = self._jobs[rank]
            folder = JobFolder(Path(task.folder)).hangs / f"attempt-{task.attempt}"
            requests.append(self._actors[rank].evidence.remote(str(folder)))
            if not (folder / "diagnosis.json").exists():
                _keep(folder, diagnosis, list(self._reports.values()))
        return requests


def _keep(folder: Path, diagnosis: Diagnosis, reports: Sequence[RankReport]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ranks = [report.to_json() for report in sorted(reports, key=lambda report: report.rank)]
        write_json(
            folder / "diagnosis.json", {"kind": diagnosis.kind, "says": diagnosis.sentence, "ranks": ranks}
        )
    except (OSError, ImaxError):
        return  # a poster goes on without it
