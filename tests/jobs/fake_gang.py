"""A gang without processes and a clock that only moves when the pool sleeps: the pool in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from imax_dist.errors import ClusterUnavailable
from imax_dist.events import CheckpointStarted, CheckpointWritten, InJob, Progress, StageStarted, StepDone
from imax_dist.events.log import as_json
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.task import Finished, Gang, Lost, Outcome, Report, Stopped, Task

STEP_S = 1.0
DONE = Finished({"pixels_sha256": "abc", "bytes": 10, "seconds": 3.0})


@dataclass
class Clock:
    """Seconds; every sleep is as long as the pool asks for."""

    time: float = 1000.0
    wall_ahead: float = 1e9

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Script:
    """How attempts at a job go: what happens after ``steps`` steps. The last entry repeats."""

    steps: int = 3
    outcome: Outcome | None = DONE
    """None: nothing is heard any more."""
    stage_s: float = 0.0
    """First a stage without steps, that long, in which every poll hears how far it is."""
    saving_s: float = 0.0
    """After the first step: a checkpoint on a slow disk."""
    skipped: frozenset[int] = frozenset()
    """Steps that say they took no time, as the network was not asked."""


@dataclass
class World:
    """What all gangs of a test share and what became of it."""

    scripts: dict[str, list[Script]] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    started: list[tuple[str, str, str, int]] = field(default_factory=list)
    """(gang, work, job, ranks) in order."""
    events: list[dict[str, Any]] = field(default_factory=list)
    alive: set[int] = field(default_factory=set)
    failing_builds: int = 0
    most_ranks: int = 100
    draining: set[str] = field(default_factory=set)
    made: int = 0
    done_work: list[str] = field(default_factory=list)

    def build(self, name: str, ranks: int) -> Gang:
        if self.failing_builds or ranks > self.most_ranks:
            self.failing_builds -= bool(self.failing_builds)
            raise ClusterUnavailable(f"no room for {ranks} ranks")
        self.made += 1
        self.alive.add(self.made)
        return FakeGang(self, name, ranks, self.made)

    def deps(
        self, stop: Callable[[], bool] = lambda: False, *, check: Callable[[], None] = lambda: None
    ) -> PoolDeps:
        return PoolDeps(
            listen=lambda event: self.events.append(as_json(event)),
            stop=stop,
            check=check,
            now=self.clock.now,
            wall=lambda: self.clock.now() + self.clock.wall_ahead,
            sleep=self.clock.sleep,
            remedy=lambda request, ranks: f"set most_ranks: {2 * ranks} for {request.size}",
            background=at_once,
            tick_s=0.25,
        )

    def at(self, second: float, act: Callable[[], None]) -> Callable[[], bool]:
        """A stop signal that never comes, and does something once."""
        done: list[bool] = []

        def stop() -> bool:
            if not done and self.clock.now() >= 1000 + second:
                done.append(True)
                act()
            return False

        return stop

    def heard(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    def next_script(self, task: Task) -> Script:
        scripts = self.scripts.get(task.job_id, [Script()])
        return scripts[min(task.attempt, len(scripts)) - 1]


def at_once(function: Callable[[], Gang]) -> Future[Gang]:
    future: Future[Gang] = Future()
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
    return future


@dataclass
class FakeGang:
    world: World
    name: str
    ranks: int
    number: int
    tasks: dict[str, tuple[Task, Script, float]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    stopping: set[str] = field(default_factory=set)
    saving: set[str] = field(default_factory=set)

    def start(self, tasks: Sequence[Task]) -> None:
        assert self.number in self.world.alive
        assert not self.tasks
        assert len(tasks) <= (self.ranks if tasks[0].work == "proof" else 1)
        for task in tasks:
            self.world.started.append((self.name, task.work, task.job_id, self.ranks))
            self.tasks[task.job_id] = (task, self.world.next_script(task), self.world.clock.now())
            self.steps[task.job_id] = 0

    def poll(self) -> Report:
        assert self.number in self.world.alive
        events: list[InJob] = []
        ended: dict[str, Outcome] = {}
        lost: Lost | None = None
        for job_id, (task, script, since) in list(self.tasks.items()):
            stepping = self.world.clock.now() - since - script.stage_s
            if stepping < 0:
                events.append(InJob(job_id, Progress(1, 2)))
                continue
            if script.saving_s and STEP_S <= stepping < STEP_S + script.saving_s:
                if job_id not in self.saving:
                    self.saving.add(job_id)
                    events += [
                        InJob(job_id, self._step(1, script)),
                        InJob(job_id, CheckpointStarted("native", 1)),
                    ]
                    self.steps[job_id] = 1
                continue
            if job_id in self.saving:
                self.saving.discard(job_id)
                events.append(InJob(job_id, CheckpointWritten("x", "native", 1, script.saving_s)))
            stepping -= script.saving_s if stepping >= STEP_S else 0.0
            due = min(script.steps, int(stepping / STEP_S))
            if script.skipped and not self.steps[job_id]:
                events.append(InJob(job_id, StageStarted("extrapolated", 3)))
            for step in range(self.steps[job_id] + 1, due + 1):
                events.append(InJob(job_id, self._step(step, script)))
                self.steps[job_id] = step
            if job_id in self.stopping and self.steps[job_id] < script.steps:
                ended[job_id] = Stopped()
            elif due == script.steps and script.outcome is not None:
                if isinstance(script.outcome, Lost):
                    lost = script.outcome
                else:
                    ended[job_id] = script.outcome
            if job_id in ended:
                self.world.done_work.append(f"{task.work} {job_id}")
                del self.tasks[job_id]
        return Report(events, ended, lost)

    def _step(self, step: int, script: Script) -> StepDone:
        skipped = step in script.skipped
        seconds = 0.0 if skipped else STEP_S
        return StepDone("extrapolated", step, 3, 0.5, seconds=seconds, skipped=skipped)

    def stop(self, job_id: str) -> None:
        self.stopping.add(job_id)

    def draining(self) -> bool:
        return self.name in self.world.draining

    def destroy(self) -> None:
        self.world.alive.discard(self.number)
        self.tasks.clear()

    def facts(self) -> dict[str, Any]:
        return {"pids": (self.number,), "hosts": ("here",)}
