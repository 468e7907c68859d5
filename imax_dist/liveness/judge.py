"""From what ranks say of themselves: whether they hang, which one, and in what.

Pure but for a clock that is given: the pool feeds it over Ray, a launcher from files. Slow is not hung: a
rank that computes may take twelve times as long as it usually does; only an exchange in which every rank
already waits has to be over within seconds, whatever the length of a step (DECISIONS 85).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from imax_dist.liveness.beacon import CHECKPOINT
from imax_dist.liveness.heartbeat import RankReport
from imax_dist.liveness.silence import Silence

MISSED_BEATS_S = 3.0
"""Nothing moves and a rank has not beaten for so long: it is the process that stands, not the exchange."""

ON_DISK = (CHECKPOINT, "write", "deliver")
DISK_PATIENCE = 10.0
"""Times as long while a disk makes sure of what was written: on a network minutes, in which nothing moves."""


@dataclass(frozen=True)
class Diagnosis:
    """``silent``: a process stopped. ``behind``: one rank keeps the others waiting. ``collective``: all wait
    in the same exchange. ``computing``: a rank computes and does not end. ``sentence`` names rank and host.
    """

    kind: Literal["silent", "behind", "collective", "computing"]
    rank: int | None
    sentence: str


@dataclass
class _Seen:
    report: RankReport
    beat_at: float
    moved_at: float


class Judge:
    """Of ranks that work together; one that works alone is judged alone."""

    def __init__(self, limits: Silence, now: Callable[[], float]) -> None:
        self.limits = limits
        self._now = now
        self._seen: dict[int, _Seen] = {}

    def see(self, report: RankReport) -> bool:
        """Take in what a rank says; whether it has moved since the last time."""
        now, before = self._now(), self._seen.get(report.rank)
        moved = before is None or before.report.moved != report.moved
        beats = before is None or before.report.beat != report.beat
        self._seen[report.rank] = _Seen(
            report,
            now if beats or before is None else before.beat_at,
            now if moved or before is None else before.moved_at,
        )
        return moved

    def keep(self, ranks: Collection[int]) -> None:
        """Of all but these nothing more is expected: they have ended well."""
        self._seen = {rank: seen for rank, seen in self._seen.items() if rank in ranks}

    def excuse(self, seconds: float) -> None:
        """Nobody looked for so long: no rank's silence."""
        for seen in self._seen.values():
            seen.beat_at += seconds
            seen.moved_at += seconds

    def diagnose(self, working: Collection[int] | None = None) -> Diagnosis | None:
        """What is wrong, if anything, among the ranks that work (all of them, if nobody says which).

        Of the others only silence is: they wait for nothing but work.
        """
        seen = [self._seen[rank] for rank in sorted(self._seen)]
        busy = [one for one in seen if working is None or one.report.rank in working]
        return self._silent(seen) or (self._still(busy) if busy else None)

    def _silent(self, seen: Sequence[_Seen]) -> Diagnosis | None:
        """Ranks that wait within a step wait for one that is there, too, even if it had no time to say so."""
        stepping = any(one.report.place.steps and one.report.place.waiting for one in seen)
        for one in seen:
            within = stepping or one.report.place.steps
            limit = self.limits.heartbeat if within else self.limits.stage_heartbeat
            if self._now() - one.beat_at > limit * self.limits.patience:
                return self._no_answer(one)
        return None

    def _no_answer(self, one: _Seen) -> Diagnosis:
        silent, report = self._now() - one.beat_at, one.report
        text = f"{report.name} has not answered for {silent:.1f} s; last seen in {report.place}"
        return Diagnosis("silent", report.rank, text)

    def _still(self, seen: Sequence[_Seen]) -> Diagnosis | None:
        """Nobody has moved for longer than the one whose turn it is may take."""
        still = self._now() - max(one.moved_at for one in seen)
        computing = [one.report for one in seen if not one.report.place.waiting]
        limit = max(map(self._allowed, computing or [one.report for one in seen]))
        if still <= limit * self.limits.patience:
            return None
        mute = next((one for one in seen if self._now() - one.beat_at > MISSED_BEATS_S), None)
        if mute is not None:
            return self._no_answer(mute)
        if computing:
            slowest = min(computing, key=lambda report: report.place.order)
            kind: Literal["behind", "computing"] = "behind" if len(computing) < len(seen) else "computing"
            return Diagnosis(kind, slowest.rank, _standing(slowest, [one.report for one in seen], still))
        return _all_wait([one.report for one in seen], still)

    def _allowed(self, report: RankReport) -> float:
        place = report.place
        if not place.steps:
            return self.limits.stage * (DISK_PATIENCE if place.stage in ON_DISK else 1.0)
        if place.waiting:
            first = place.is_new and place.order <= (0, 1)
            return self.limits.first_block if first else self.limits.exchange
        if place.block == 0:  # between two steps: a preview or a log may wait for a disk
            return self.limits.stage
        usual = max(self.limits.exchange, self.limits.factor * report.usual)
        return max(usual, self.limits.first_block) if place.is_new else usual


def _standing(slowest: RankReport, reports: Sequence[RankReport], still: float) -> str:
    others = [report for report in reports if report.place.waiting]
    wait = f"; {_ranks(others)} in {others[0].place}" if others else ""
    usual = f" (usually {slowest.usual:.2f} s)" if slowest.usual else ""
    return f"{slowest.name} has stood in {slowest.place} for {still:.1f} s{usual}{wait}"


def _all_wait(reports: Sequence[RankReport], still: float) -> Diagnosis:
    """All in one exchange, or one of them in an earlier one than the others."""
    last = min(reports, key=lambda report: report.place.order)
    others = [report for report in reports if report.place != last.place]
    if not others:
        who = "the only rank here has" if len(reports) == 1 else f"all {len(reports)} ranks here have"
        text = f"{who} waited in {last.place} for {still:.1f} s: a link, a rank elsewhere, or the library"
        return Diagnosis("collective", None, text)
    text = (
        f"{last.name} has waited in {last.place} for {still:.1f} s, but {_ranks(others)} in {others[0].place}"
    )
    return Diagnosis("behind", last.rank, text)


def _ranks(reports: Sequence[RankReport]) -> str:
    names = ", ".join(str(report.rank) for report in reports)
    return f"rank {names} waits" if len(reports) == 1 else f"ranks {names} wait"
