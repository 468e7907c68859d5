"""What ranks say of themselves becomes a diagnosis: on a clock of the test's own, without processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from imax_dist.events import CheckpointStarted, CheckpointWritten, StageDone, StageStarted, StepDone
from imax_dist.liveness.beacon import CHECKPOINT, SILENT, Beacon, Place
from imax_dist.liveness.heartbeat import EVERY_S, RankReport
from imax_dist.liveness.judge import Diagnosis, Judge
from imax_dist.liveness.silence import Silence
from imax_dist.parallel.engines import Marking, marking

BLOCKS = 57
STEPS = (0.6, 7.0, 20.0, 92.0)


@dataclass
class Gang:
    """Ranks whose blocks take as long as the test says, and the judge over them."""

    ranks: int = 4
    limits: Silence = field(default_factory=Silence)
    time: float = 100.0

    def __post_init__(self) -> None:
        self.beacons = [Beacon(now=lambda: self.time) for _ in range(self.ranks)]
        self.beats = [0] * self.ranks
        self.stopped: set[int] = set()
        self.judge = Judge(self.limits, lambda: self.time)

    def told(self, event: object) -> None:
        for beacon in self.beacons:
            beacon.on_event(event)

    def passes(self, seconds: float) -> Diagnosis | None:
        """Time goes by, with beats and a look twice a second."""
        end = self.time + seconds
        while self.time < end:
            self.time = min(self.time + EVERY_S, end)
            for rank, beacon in enumerate(self.beacons):
                self.beats[rank] += rank not in self.stopped
                report = RankReport(
                    rank, self.beats[rank], beacon.passed, beacon.place, beacon.usual, f"host{rank}"
                )
                self.judge.see(report)
            diagnosis = self.judge.diagnose()
            if diagnosis is not None:
                return diagnosis
        return None

    def block(self, seconds: dict[int, float] | float) -> Diagnosis | None:
        """One block on every rank: it computes, then waits for the slowest, then goes on."""
        own = seconds if isinstance(seconds, dict) else dict.fromkeys(range(self.ranks), seconds)
        since = self.time
        for beacon in self.beacons:
            beacon.block()
        for rank in sorted(own, key=lambda rank: own[rank]):
            diagnosis = self.passes(since + own[rank] - self.time)
            if diagnosis is not None:
                return diagnosis
            self.beacons[rank].waiting("a ring hop").__enter__()
        for beacon in self.beacons:
            beacon.exchange("")
        return None

    def third_step(self, seconds: float) -> Gang:
        """In the middle of a step whose like was seen before."""
        self.told(StageStarted("extrapolated", 28))
        self.told(StepDone("extrapolated", 2, 28, 0.9, seconds))
        for _ in range(3):
            assert self.block(seconds / BLOCKS) is None
        return self

    def seen_after(self, most: float = 200.0) -> tuple[float, Diagnosis]:
        since = self.time
        diagnosis = self.passes(most)
        assert diagnosis is not None
        return self.time - since, diagnosis


@pytest.mark.parametrize("step_s", STEPS)
def test_a_stopped_process_is_seen_within_ten_seconds_at_any_step_length(step_s: float) -> None:
    gang = Gang().third_step(step_s)
    gang.stopped = {1}
    seconds, diagnosis = gang.seen_after()
    assert 4.9 < seconds < 10.0
    assert (diagnosis.kind, diagnosis.rank) == ("silent", 1)
    assert "rank 1 (host1, process 0) has not answered for" in diagnosis.sentence
    assert "last seen in block 3 of step 3 of extrapolated" in diagnosis.sentence


def test_one_that_stopped_before_it_could_say_where_it_is_is_seen_as_soon() -> None:
    gang = Gang(2)
    gang.passes(1.0)
    gang.stopped = {1}
    gang.beacons[0].on_event(StageStarted("extrapolated", 28))
    gang.beacons[0].block()
    gang.beacons[0].waiting("a ring hop").__enter__()
    seconds, diagnosis = gang.seen_after()
    assert seconds < 10.0
    assert (diagnosis.kind, diagnosis.rank) == ("silent", 1)


@pytest.mark.parametrize("step_s", STEPS)
def test_ranks_that_all_wait_are_seen_within_ten_seconds_at_any_step_length(step_s: float) -> None:
    gang = Gang().third_step(step_s)
    for beacon in gang.beacons:
        beacon.block()
        beacon.waiting("a ring hop").__enter__()
    seconds, diagnosis = gang.seen_after()
    assert seconds < 10.0
    assert (diagnosis.kind, diagnosis.rank) == ("collective", None)
    assert "all 4 ranks here have waited in a ring hop in block 4 of step 3" in diagnosis.sentence


def test_the_rank_in_the_earlier_exchange_is_named() -> None:
    gang = Gang(2).third_step(20.0)
    gang.beacons[0].block()
    for beacon in gang.beacons:
        beacon.waiting("a ring hop").__enter__()
    seconds, diagnosis = gang.seen_after()
    assert seconds < 10.0
    assert (diagnosis.kind, diagnosis.rank) == ("behind", 1)
    assert "rank 1 (host1, process 0) has waited in a ring hop in block 3" in diagnosis.sentence
    assert "rank 0 waits in a ring hop in block 4" in diagnosis.sentence


def test_one_that_computes_for_ever_is_the_one_that_is_behind() -> None:
    gang = Gang().third_step(20.0)
    for rank, beacon in enumerate(gang.beacons):
        beacon.block()
        if rank != 2:
            beacon.waiting("a ring hop").__enter__()
    seconds, diagnosis = gang.seen_after()
    assert seconds < 10.0
    assert (diagnosis.kind, diagnosis.rank) == ("behind", 2)
    assert "(usually 0.35 s); ranks 0, 1, 3 wait in a ring hop" in diagnosis.sentence


@pytest.mark.parametrize("step_s", STEPS)
def test_slow_is_not_hung(step_s: float) -> None:
    """A rank at a tenth of its speed, from one block to the next, for as long as it likes."""
    gang, usual = Gang().third_step(step_s), step_s / BLOCKS
    for _ in range(30):
        assert gang.block({0: usual, 1: 10 * usual, 2: usual, 3: usual}) is None


def test_first_steps_have_time_for_compiling_and_opening_links() -> None:
    gang = Gang()
    gang.told(StageStarted("extrapolated", 28))
    for _ in range(2):
        gang.told(StepDone("extrapolated", 1, 28, 0.9, 20.0))
        assert gang.block(45.0) is None


def test_a_stage_in_which_nothing_goes_on_is_seen_and_a_long_one_is_not() -> None:
    gang = Gang()
    gang.told(StageStarted("decode"))
    for _ in range(10):
        assert gang.passes(50.0) is None
        gang.beacons[3].mark()
    seconds, diagnosis = gang.seen_after()
    assert 59.0 < seconds < 62.0
    assert diagnosis.kind == "computing"


def test_a_disk_may_hold_up_what_comes_between_two_steps() -> None:
    gang = Gang(2).third_step(0.6)
    gang.told(StepDone("extrapolated", 3, 28, 0.8, 0.6))
    gang.beacons[1].waiting("the agreement of ranks").__enter__()
    assert gang.passes(55.0) is None
    assert gang.seen_after()[1].rank == 0


def test_a_slow_disk_has_ten_minutes() -> None:
    gang = Gang(1).third_step(20.0)
    gang.told(CheckpointStarted("extrapolated", 5))
    assert gang.passes(590.0) is None
    assert gang.seen_after()[1].kind == "computing"


def test_others_may_wait_for_rank_0_as_long_as_it_goes_on() -> None:
    gang = Gang()
    for beacon in gang.beacons[1:]:
        beacon.waiting("what rank 0 sends").__enter__()
    gang.beacons[0].on_event(StageStarted("native", 28))
    gang.beacons[0].on_event(StepDone("native", 2, 28, 0.9, 30.0))
    for _ in range(20):
        gang.beacons[0].block()
        assert gang.passes(2.0) is None
    _, diagnosis = gang.seen_after()
    assert (diagnosis.kind, diagnosis.rank) == ("behind", 0)


def test_a_hang_before_doubles_what_is_allowed() -> None:
    patient = Gang(limits=replace(Silence(), patience=2.0)).third_step(20.0)
    patient.stopped = {1}
    assert patient.passes(9.5) is None
    assert patient.seen_after()[1].kind == "silent"


def test_nobody_is_held_to_account_for_the_time_in_which_nobody_looked() -> None:
    gang = Gang().third_step(20.0)
    gang.time += 100.0
    gang.judge.excuse(100.0)
    gang.beats = [beat + 1 for beat in gang.beats]
    assert gang.judge.diagnose() is None
    gang.judge.keep([])
    assert gang.judge.diagnose() is None


def test_a_rank_without_work_is_only_asked_to_beat() -> None:
    gang = Gang(2).third_step(20.0)
    gang.passes(1.0)
    gang.time += 5.5
    assert gang.judge.diagnose(working=[]) is None
    gang.time += 60.0
    diagnosis = gang.judge.diagnose(working=[])
    assert diagnosis is not None
    assert diagnosis.kind == "silent"


class Event:
    """As torch.cuda.Event: the device has passed it when the test says so."""

    passed = False
    made = 0

    def __init__(self) -> None:
        Event.made += 1

    def record(self) -> None:
        self.done = False

    def query(self) -> bool:
        return Event.passed


def gpu_beacon(now: Callable[[], float]) -> Beacon:
    Event.passed, Event.made = False, 0
    return Beacon("cuda", events=Event, now=now)


def test_on_a_gpu_a_mark_counts_when_the_device_has_passed_it() -> None:
    clock = [0.0]
    beacon = gpu_beacon(lambda: clock[0])
    beacon.on_event(StageStarted("extrapolated", 28))
    beacon.look()
    assert (beacon.passed, beacon.place) == (0, Place())
    Event.passed = True
    beacon.look()
    Event.passed = False
    for _ in range(3):
        beacon.block()
    beacon.look()
    assert (beacon.passed, beacon.place) == (1, Place("extrapolated", 28))
    Event.passed, clock[0] = True, 6.0
    beacon.look()
    assert (beacon.passed, beacon.place) == (4, Place("extrapolated", 28, 0, 3))
    assert beacon.usual == 2.0
    for _ in range(50):
        beacon.block()
        beacon.look()
    assert Event.made == 3, "events are used again"


def test_a_device_that_stands_still_costs_no_memory_without_end() -> None:
    beacon = gpu_beacon(lambda: 0.0)
    for _ in range(5000):
        beacon.mark()
    assert Event.made == 2048


def test_short_steps_on_a_gpu_are_marked_by_blocks_alone() -> None:
    beacon = gpu_beacon(lambda: 0.0)
    beacon.on_event(StepDone("extrapolated", 3, 28, 0.9, 0.07))
    before = Event.made
    with beacon.waiting("a ring hop"):
        pass
    assert Event.made == before
    beacon.on_event(StepDone("extrapolated", 4, 28, 0.9, 7.0))
    with beacon.waiting("a ring hop"):
        pass
    assert Event.made == before + 3


def test_stages_steps_and_checkpoints_move_the_place() -> None:
    beacon = Beacon()
    beacon.on_event(StageStarted("extrapolated", 28))
    beacon.on_event(StepDone("extrapolated", 5, 28, 0.9, 7.0))
    beacon.on_event(CheckpointStarted("extrapolated", 5))
    assert beacon.place == Place(CHECKPOINT)
    beacon.on_event(CheckpointWritten("x", "extrapolated", 5, 1.0))
    assert beacon.place == Place("extrapolated", 28, 5)
    beacon.on_event(StageDone("extrapolated", 100.0))
    assert beacon.place == Place()


def test_an_engine_is_wrapped_only_where_somebody_looks() -> None:
    def engine(*arguments: object, **named: object) -> object:
        return None

    assert marking(engine, SILENT) is engine  # type: ignore[arg-type, comparison-overlap]
    assert isinstance(marking(engine, Beacon()), Marking)  # type: ignore[arg-type]
