"""Decisions about jobs and gangs as pure functions: what next, after what, for how long."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from imax_dist.errors import ImaxError
from imax_dist.events import CASCADE
from imax_dist.jobs.job import Job
from imax_dist.jobs.settings import Deadlines, PoolSettings, Retry
from imax_dist.jobs.state import Failed, Proofed, Queued, State, done_state
from imax_dist.jobs.task import Finished, Lost, Outcome, Refused, Stopped, Work
from imax_dist.pipeline.request import ModelKey, base_of, key_of
from imax_dist.wording import plural

STEPPING = ("native", *CASCADE, "extrapolated")
MOST_PASSED_OVER = 8
"""Times a job lets others go first that a gang has the model of."""
WORTH_WAITING = ("CannotWrite",)
"""Errors marked permanent for one command that a long batch can outlive: someone frees the disk."""


SPARE = 16
"""Jobs beyond those that are needed, since another driver may take some at the same moment."""


@dataclass(frozen=True)
class Circumstances:
    """What a decision about an ended task depends on, besides how it ended."""

    now: float
    work: Work
    progressed: bool
    """It got at least one step further than any attempt before."""
    ranks: int
    proofs_only: bool = False
    ahead: bool = False
    """A proof that went on with larger passes."""
    remedy: Callable[[], str] = str
    """Asked once a poster ran out of memory on all ranks it may have: more that have room, in words."""


def after(outcome: Outcome, before: Queued, settings: PoolSettings, what: Circumstances) -> State:
    """The state of a job whose task has ended."""
    hung = isinstance(outcome, Lost) and outcome.kind == "hung"
    begun = replace(before, attempts=before.attempts + 1, hangs=before.hangs + hung)
    if isinstance(outcome, Finished):
        return _after_success(outcome, begun, what)
    if isinstance(outcome, Stopped):
        return replace(begun, not_before=0.0, after="stopped")
    if isinstance(outcome, Refused):
        return _after_refusal(outcome, begun, settings.retry, what)
    if outcome.kind == "out_of_memory":
        if what.ahead:
            return replace(begun, not_before=0.0, after=outcome.message)  # the next goes ahead no further
        return _after_out_of_memory(outcome, begun, settings, what)
    if outcome.kind == "drained":
        return replace(begun, not_before=0.0, after=outcome.message)
    return _again(outcome, begun, settings.retry, what)


def refusal(error: ImaxError) -> Refused:
    """An error of ours as the outcome of a task."""
    return Refused(type(error).__name__, str(error), error.retryable)


def backoff(retry: Retry, failures: int) -> float:
    """Seconds to wait after this many attempts in a row without progress; none after progress."""
    if failures == 0:
        return 0.0
    return min(retry.longest_backoff, retry.backoff * 2.0 ** min(failures - 1, 30))


def allowed_silence(
    deadlines: Deadlines, stage: str, seconds: Sequence[float], *, patience: int = 0
) -> float:
    """Seconds until the next sign of life is overdue.

    ``seconds`` are this gang's own steps of this size, or whole stages where there are no steps; every hang
    of the job so far (``patience``) doubles the allowance, so that a deadline set too short does not end a
    poster.
    """
    stepping = stage in STEPPING
    if not seconds:
        allowed = deadlines.first_step if stepping else deadlines.stage
    else:
        least = deadlines.step_least if stepping else min(deadlines.stage_least, deadlines.stage)
        allowed = max(least, deadlines.step_factor * statistics.median(seconds))
    return allowed * 2.0 ** min(patience, 10)


def wanted_work(state: Queued, *, proofs_first: bool, proofs_only: bool, ahead: bool = False) -> Work:
    """Whether a waiting job needs its proof or its poster next; with ``ahead``, at its first attempt."""
    wants_proof = proofs_first or proofs_only or state.approval or (ahead and not state.attempts)
    return "proof" if wants_proof and not state.proofed else "poster"


@dataclass(frozen=True)
class Choice:
    """What a free gang does next: ``most`` of the jobs ``ids``, in that order; others may be faster."""

    work: Work
    ids: list[str]
    most: int


def choose(
    waiting: Iterable[tuple[str, Queued]],
    *,
    now: float,
    ranks: int,
    proofs_first: bool = False,
    proofs_only: bool = False,
    ahead: bool = False,
) -> Choice | None:
    """What a free gang of ``ranks`` does next: one poster, or up to ``ranks`` proofs; None for nothing.

    ``waiting`` is in the order they are to be taken. With ``proofs_first``, proofs go before posters while
    there are any, so that a whole batch can be looked at early; else what comes first decides. With ``ahead``
    posters begin as proofs, a round of them at a time.
    """
    if ranks == 1:
        ahead = False
    proofs: list[str] = []
    posters: list[str] = []
    eager: list[str] = []
    first: Work | None = None
    for job, state in waiting:
        if state.not_before > now:
            continue
        wanted = wanted_work(state, proofs_first=proofs_first, proofs_only=proofs_only, ahead=ahead)
        if wanted == "proof":
            proofs.append(job)
            asked = wanted_work(state, proofs_first=proofs_first, proofs_only=proofs_only)
            eager += [job] * (asked == "poster")
            first = first or "proof"
        elif len(posters) <= SPARE and (state.ranks or ranks) == ranks:
            posters.append(job)
            first = first or "poster"
        enough = len(posters) > SPARE and not (proofs_first or proofs_only or first == "proof")
        if len(proofs) == ranks + SPARE or enough:
            break
    if first == "proof" and len(proofs) == 1 and proofs == eager:
        return Choice("poster", proofs, 1)  # nothing for the other ranks to do meanwhile
    if proofs and (proofs_first or proofs_only or not posters or first == "proof"):
        return Choice("proof", proofs, ranks)
    return Choice("poster", posters, 1) if posters else None


def head_of(
    waiting: Iterable[tuple[str, Queued]], *, now: float, ranks: int, proofs_first: bool, most: int
) -> list[tuple[str, Queued]]:
    """The first jobs that a gang of ``ranks`` can take; with ``proofs_first``, those without a proof."""
    modes = {"proofs_first": proofs_first, "proofs_only": False}
    able = (
        (job, state)
        for job, state in waiting
        if state.not_before <= now
        and ((state.ranks or ranks) == ranks or wanted_work(state, **modes) == "proof")
    )
    if not proofs_first:
        return list(islice(able, most))
    whole = list(able)
    return [each for each in whole if wanted_work(each[1], **modes) == "proof"][:most] or whole[:most]


def order_for(
    waiting: Sequence[tuple[str, Queued]],
    jobs: Mapping[str, Job],
    *,
    kept: ModelKey | None,
    elsewhere: Collection[ModelKey] = (),
    passed: Mapping[str, int] | None = None,
) -> list[tuple[str, Queued]]:
    """``waiting`` as a free gang should take it that has the model ``kept`` loaded.

    Of equal priority, jobs of that model go first, then those with other LoRA files, so that no weights are
    loaded in vain; a job that was ``passed`` over ``MOST_PASSED_OVER`` times goes before all. What another
    free gang has loaded is left to it.
    """
    times = passed or {}

    def place(entry: tuple[str, Queued]) -> tuple[bool, int, bool, bool]:
        job = jobs[entry[0]]
        patient, key = times.get(job.id, 0) < MOST_PASSED_OVER, key_of(job.request)
        loads = kept is not None and base_of(key) != base_of(kept)
        return patient, -job.priority, loads, kept is not None and key != kept

    def is_eligible(entry: tuple[str, Queued]) -> bool:
        key = key_of(jobs[entry[0]].request)
        return key == kept or key not in elsewhere

    return sorted(filter(is_eligible, waiting), key=place)


def _after_success(outcome: Finished, begun: Queued, what: Circumstances) -> State:
    if what.work == "proof":
        if what.proofs_only or begun.approval:
            return Proofed(begun.attempts)
        return replace(begun, proofed=True, attempts_without_progress=0, not_before=0.0, after="")
    return done_state(outcome.facts, attempts=begun.attempts)


def _after_refusal(outcome: Refused, begun: Queued, retry: Retry, what: Circumstances) -> State:
    if not outcome.retryable and outcome.error not in WORTH_WAITING:
        failed = Failed(outcome.error, outcome.message, begun.attempts, proofed=begun.proofed)
        return replace(failed, approval=begun.approval)
    return _again(outcome, begun, retry, what)


def _after_out_of_memory(outcome: Lost, begun: Queued, settings: PoolSettings, what: Circumstances) -> State:
    if what.work == "proof":
        message = f"{outcome.message}; a rank makes it alone, so ask for a model that takes less memory"
        failed = Failed("out_of_memory", message, begun.attempts, proofed=begun.proofed)
        return replace(failed, approval=begun.approval)
    wanted = 2 * what.ranks
    if settings.most_ranks is not None and wanted <= settings.most_ranks:
        return replace(
            begun, ranks=wanted, attempts_without_progress=0, not_before=0.0, after=outcome.message
        )
    message = (
        f"{outcome.message}; it ran on {plural(what.ranks, 'rank')}, and "
        f"most_ranks allows no more: {what.remedy() or 'set it, or ask for a smaller size'}"
    )
    failed = Failed("out_of_memory", message, begun.attempts, proofed=begun.proofed)
    return replace(failed, approval=begun.approval)


def _again(outcome: Refused | Lost, begun: Queued, retry: Retry, what: Circumstances) -> State:
    kind = outcome.error if isinstance(outcome, Refused) else outcome.kind
    failures = 0 if what.progressed else begun.attempts_without_progress + 1
    if failures >= retry.attempts:
        message = f"{outcome.message} ({failures} attempts without progress)"
        failed = Failed(kind, message, begun.attempts, retryable=True, proofed=begun.proofed)
        return replace(failed, approval=begun.approval)
    again = replace(begun, attempts_without_progress=failures, after=f"{kind}: {outcome.message}")
    return replace(again, not_before=what.now + backoff(retry, failures))
