"""Every decision of the pool, without a pool."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from imax_dist.jobs.job import Job
from imax_dist.jobs.outcomes import loss_of, most_informative
from imax_dist.jobs.policy import Choice, Circumstances, after, allowed_silence, backoff, choose, order_for
from imax_dist.jobs.settings import Deadlines, PoolSettings, Retry
from imax_dist.jobs.state import Done, Failed, Proofed, Queued
from imax_dist.jobs.task import Finished, Lost, Outcome, Refused, Stopped
from imax_dist.pipeline.request import Request, key_of

SETTINGS = PoolSettings(retry=Retry(attempts=3, backoff=2.0, longest_backoff=5.0))
NOW = 100.0
HERE = Circumstances(now=NOW, work="poster", progressed=False, ranks=2)
FINISHED = Finished({"pixels_sha256": "ab", "bytes": 7, "seconds": 1.5})


def test_success_is_done_with_its_facts() -> None:
    assert after(FINISHED, Queued(), SETTINGS, HERE) == Done("ab", 7, 1.5, 1)


def test_a_proof_leads_to_approval_or_straight_to_the_poster() -> None:
    proof = replace(HERE, work="proof")
    assert after(Finished(), Queued(), SETTINGS, replace(proof, proofs_only=True)) == Proofed(1)
    assert after(Finished(), Queued(), SETTINGS, proof) == Queued(attempts=1, proofed=True)


def test_other_lora_files_of_the_loaded_model_go_before_another_model() -> None:
    asked = {
        "other model": Request("a", model="m/b"),
        "other dtype": Request("a", model="m/a", dtype="float32"),
        "other files": Request("a", model="m/a", lora=("night.safetensors",)),
        "the same": Request("a", model="m/a", lora=("day.safetensors",)),
    }
    jobs = {name: Job(name, request) for name, request in asked.items()}
    waiting = [(name, Queued()) for name in jobs]
    found = order_for(waiting, jobs, kept=key_of(asked["the same"]))
    assert [name for name, _ in found] == ["the same", "other files", "other model", "other dtype"]
    assert order_for(waiting, jobs, kept=None) == waiting


def test_a_stop_does_not_count_against_a_job() -> None:
    state = after(Stopped(), Queued(attempts_without_progress=2), SETTINGS, HERE)
    assert state == Queued(attempts=1, attempts_without_progress=2, after="stopped")


def test_a_failed_job_keeps_its_approval() -> None:
    approved = Queued(attempts_without_progress=9, proofed=True)
    for outcome in (Refused("BadValue", "no", False), Lost("died", ""), Lost("out_of_memory", "")):
        state = after(outcome, approved, SETTINGS, HERE)
        assert isinstance(state, Failed)
        assert state.proofed


@pytest.mark.parametrize("error", ["BadValue", "BadConfig", "MissingInput", "NoPermission", "BadManifest"])
def test_a_permanent_error_fails_at_once(error: str) -> None:
    assert after(Refused(error, "no", False), Queued(), SETTINGS, HERE) == Failed(error, "no", 1)


@pytest.mark.parametrize("outcome", [Refused("CannotWrite", "full", False), Refused("GangLost", "x", True)])
def test_what_may_pass_is_tried_again_later(outcome: Refused) -> None:
    state = after(outcome, Queued(), SETTINGS, HERE)
    assert isinstance(state, Queued)
    assert (state.attempts_without_progress, state.not_before) == (1, NOW + 2.0)


@pytest.mark.parametrize("kind", ["died", "hung", "crashed"])
def test_a_lost_gang_is_retried_until_the_attempts_are_used_up(kind: str) -> None:
    lost = Lost(kind, "why")  # type: ignore[arg-type]
    state = after(lost, Queued(attempts_without_progress=1), SETTINGS, HERE)
    assert isinstance(state, Queued)
    assert state.after == f"{kind}: why"
    last = after(lost, Queued(attempts_without_progress=2, attempts=5), SETTINGS, HERE)
    assert last == Failed(kind, "why (3 attempts without progress)", 6, retryable=True)


def test_progress_starts_the_count_again_and_waits_for_nothing() -> None:
    state = after(
        Lost("died", ""), Queued(attempts_without_progress=2), SETTINGS, replace(HERE, progressed=True)
    )
    assert isinstance(state, Queued)
    assert (state.attempts_without_progress, state.not_before) == (0, NOW)


def test_only_hangs_are_counted_as_hangs() -> None:
    hung = after(Lost("hung", ""), Queued(), SETTINGS, HERE)
    died = after(Lost("died", ""), Queued(), SETTINGS, HERE)
    assert isinstance(hung, Queued)
    assert isinstance(died, Queued)
    assert (hung.hangs, died.hangs) == (1, 0)


def test_a_drained_gang_is_nobodys_fault() -> None:
    state = after(Lost("drained", "gone"), Queued(attempts_without_progress=1), SETTINGS, HERE)
    assert state == Queued(attempts=1, attempts_without_progress=1, after="gone")


def test_out_of_memory_doubles_the_ranks_as_far_as_allowed() -> None:
    lost = Lost("out_of_memory", "no room")
    more = after(lost, Queued(), replace(SETTINGS, most_ranks=4), HERE)
    assert isinstance(more, Queued)
    assert more.ranks == 4
    end = after(lost, more, replace(SETTINGS, most_ranks=4), replace(HERE, ranks=4))
    assert isinstance(end, Failed)
    assert "ran on 4 ranks, and most_ranks allows no more: set it, or ask for a smaller size" in end.message


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0.0), (1, 2.0), (2, 4.0), (3, 5.0), (10_000, 5.0)])
def test_backoff_doubles_up_to_its_limit(failures: int, seconds: float) -> None:
    assert backoff(SETTINGS.retry, failures) == seconds


@pytest.mark.parametrize(
    ("stage", "steps", "patience", "seconds"),
    [
        ("load", [], 0, 50.0),
        ("decode", [1.0], 0, 30.0),
        ("decode", [2.0, 4.0, 90.0], 1, 80.0),
        ("extrapolated", [], 0, 40.0),
        ("extrapolated", [0.1, 0.1, 9.0], 0, 5.0),
        ("extrapolated", [2.0, 1.0, 90.0], 0, 20.0),
        ("native", [2.0], 0, 20.0),
        ("native", [2.0], 3, 160.0),
    ],
)
def test_silence_is_judged_by_stage_and_the_gangs_own_median(
    stage: str, steps: list[float], patience: int, seconds: float
) -> None:
    deadlines = Deadlines(first_step=40, step_factor=10, step_least=5, stage=50, stage_least=30)
    assert allowed_silence(deadlines, stage, steps, patience=patience) == seconds


def test_the_first_ready_job_is_chosen() -> None:
    waiting = [("later", Queued(not_before=NOW + 1)), ("first", Queued()), ("second", Queued())]
    assert choose(waiting, now=NOW, ranks=2) == Choice("poster", ["first", "second"], 1)
    assert choose(waiting[:1], now=NOW, ranks=2) is None
    assert choose([], now=NOW, ranks=2) is None


def test_a_job_that_wants_more_ranks_waits_for_such_a_gang() -> None:
    waiting = [("big", Queued(ranks=4)), ("usual", Queued())]
    assert choose(waiting, now=NOW, ranks=2) == Choice("poster", ["usual"], 1)
    assert choose(waiting[:1], now=NOW, ranks=2) is None
    assert choose(waiting, now=NOW, ranks=4) == Choice("poster", ["big", "usual"], 1)


def test_proofs_are_given_out_one_a_rank_before_posters() -> None:
    waiting = [("a", Queued(proofed=True)), ("b", Queued()), ("c", Queued()), ("d", Queued())]
    assert choose(waiting, now=NOW, ranks=2, proofs_first=True) == Choice("proof", ["b", "c", "d"], 2)
    assert choose(waiting[:1], now=NOW, ranks=2, proofs_first=True) == Choice("poster", ["a"], 1)


MEMORY = Lost("out_of_memory", "rank 1: no memory")
CLOSED = Lost("crashed", "rank 0: connection closed by peer")
MISSING = Refused("MissingInput", "no model here", False)
ECHO = Refused("ImaxError", "rank 1 failed: RuntimeError: a bug", False)
BUG = Lost("crashed", "rank 1: RuntimeError: a bug")


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([FINISHED, Finished({})], FINISHED),
        ([Stopped(), FINISHED], Stopped()),
        ([FINISHED, MISSING], MISSING),
        ([CLOSED, MISSING], MISSING),
        ([ECHO, BUG], BUG),
        ([ECHO, MEMORY, ECHO], MEMORY),
        ([MISSING, MEMORY], MEMORY),
        ([CLOSED, Lost("died", "rank 1 died")], Lost("died", "rank 1 died")),
        ([CLOSED, BUG], CLOSED),
    ],
)
def test_of_several_ranks_the_one_that_knows_why_is_believed(ends: list[Outcome], expected: Outcome) -> None:
    assert most_informative(ends) == expected


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RayError("the worker died unexpectedly"), "died"),
        (RayError("Task was killed due to the node running low on memory."), "out_of_memory"),
        (OutOfMemoryError("killed"), "out_of_memory"),
    ],
)
def test_a_process_that_ray_ended_for_its_memory_is_out_of_memory(error: RayError, kind: str) -> None:
    lost = loss_of(error, 1)
    assert lost.kind == kind
    assert lost.message.startswith("rank 1 died: ")


def test_a_call_that_raised_is_a_crash_with_the_reason_and_no_traceback() -> None:
    error = RayTaskError("run", "Traceback (most recent call last): ...", AttributeError("no load_model"))
    assert loss_of(error, 0) == Lost("crashed", "rank 0: AttributeError: no load_model")


def test_posters_begin_ahead_a_round_at_a_time() -> None:
    waiting = [("a", Queued()), ("b", Queued()), ("c", Queued())]
    assert choose(waiting, now=NOW, ranks=2, ahead=True) == Choice("proof", ["a", "b", "c"], 2)
    begun = Queued(attempts=1, proofed=True)
    waiting = [("a", begun), ("b", begun), ("c", Queued())]
    assert choose(waiting, now=NOW, ranks=2, ahead=True) == Choice("poster", ["a", "b"], 1)
    assert choose(waiting[2:], now=NOW, ranks=2, ahead=True) == Choice("poster", ["c"], 1), "none beside it"
    assert choose([("a", Queued()), ("b", Queued())], now=NOW, ranks=1, ahead=True) == Choice(
        "poster", ["a", "b"], 1
    )
    many = [("new", Queued()), *((f"old-{k}", Queued(attempts=1)) for k in range(20)), ("later", Queued())]
    assert choose(many, now=NOW, ranks=2, ahead=True) == Choice("proof", ["new", "later"], 2)
    stopped = [("a", Queued(attempts=1)), ("b", Queued())]
    assert choose(stopped, now=NOW, ranks=2, ahead=True) == Choice("poster", ["a"], 1), "only once"
    approval = [("a", Queued(approval=True))]
    assert choose(approval, now=NOW, ranks=2, ahead=True) == Choice("proof", ["a"], 2)


def test_a_pass_ahead_without_room_is_left_to_the_gang() -> None:
    lost, proof = Lost("out_of_memory", "no room"), replace(HERE, work="proof")
    assert after(lost, Queued(), SETTINGS, replace(proof, ahead=True)) == Queued(attempts=1, after="no room")
    told = after(lost, Queued(), replace(SETTINGS, most_ranks=8), proof)
    assert isinstance(told, Failed), "a native picture without room; more ranks do not help"
    assert "a rank makes it alone" in told.message
