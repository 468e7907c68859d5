"""A stop waits for no step: the last finished one is on disk at once, and the poster goes on from it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_flux import make_tiny_flux

from imax_dist.errors import Preempted
from imax_dist.events import RenderEvent, StepDone
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.rank import Rank
from imax_dist.jobs.task import Task
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.last_step import LastStep
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.state import PassState

NEVER = 1000
"""Steps between checkpoints: more than there are."""


@pytest.fixture(scope="module")
def request_of_tiny(tmp_path_factory: pytest.TempPathFactory) -> Request:
    model = make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")
    return Request("a red sun", size="96x96", preset="one_jump", steps=5, native_steps=2, model=str(model))


def at_step(index: int, act: Callable[[], None]) -> Callable[[RenderEvent], None]:
    """Acts in the middle of things: the step is computed, its state has not been given away."""

    def listen(event: RenderEvent) -> None:
        if isinstance(event, StepDone) and (event.stage, event.index) == ("extrapolated", index):
            act()

    return listen


class Lost(Exception):
    """The machine is gone."""


def test_the_last_finished_step_is_written_while_the_next_is_computed(
    request_of_tiny: Request, tmp_path: Path
) -> None:
    folder = CheckpointFolder(tmp_path / "kept", every=NEVER)

    def save_and_vanish() -> None:
        thread = threading.Thread(target=folder.save_last)
        thread.start()
        thread.join(60)
        raise Lost

    with pytest.raises(Lost):
        render(request_of_tiny, checkpoints=folder, listen=at_step(3, save_and_vanish))
    assert [path.name for path in folder.files()] == ["step-100002.safetensors"]
    again = CheckpointFolder(folder.folder, every=NEVER, resume="must")
    resumed = render(request_of_tiny, checkpoints=again)
    assert torch.equal(resumed.latents, render(request_of_tiny).latents)


def test_what_the_native_pass_made_is_written_too(request_of_tiny: Request, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, every=NEVER)

    def save_and_vanish() -> None:
        folder.save_last()
        raise Lost

    with pytest.raises(Lost):
        render(request_of_tiny, checkpoints=folder, listen=at_step(1, save_and_vanish))
    assert [path.name for path in folder.files()] == ["step-000002.safetensors"]
    again = CheckpointFolder(tmp_path, every=NEVER, resume="must")
    resumed = render(request_of_tiny, checkpoints=again)
    assert torch.equal(resumed.latents, render(request_of_tiny).latents)


def test_nothing_is_written_twice_or_after_the_end(request_of_tiny: Request, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "kept", every=NEVER)
    folder.save_last()
    assert folder.files() == [], "nothing was made yet"
    asked = iter(range(100))
    with pytest.raises(Preempted):
        render(request_of_tiny, checkpoints=folder, stop=lambda: next(asked) >= 3)
    (written,) = folder.files()
    before = written.stat().st_mtime_ns
    folder.save_last()
    assert written.stat().st_mtime_ns == before
    folder.remove()
    folder.save_last()
    assert not folder.folder.exists()


def test_only_the_newest_is_taken_and_only_once() -> None:
    last: LastStep[Any] = LastStep()
    assert last.take() is None
    states = [PassState(1, step, torch.zeros(1)) for step in range(2)]
    for state in states:
        last.offer(Held(state))
    taken = last.take()
    assert taken is not None
    assert taken.state is states[1]
    assert last.take() is None
    last.offer(Held(states[0]))
    last.forget()
    assert last.take() is None


class Held:
    def __init__(self, state: PassState) -> None:
        self.state = state
        self.device = state.latents.device

    def to(self, device: torch.device) -> Held:
        return Held(self.state.to(device))


class SlowRank(Rank):
    """Its fourth step does not end before it is told."""

    go_on = threading.Event()
    reached = threading.Event()

    def _emit(self, task: Task, event: RenderEvent) -> None:
        super()._emit(task, event)
        if isinstance(event, StepDone) and (event.stage, event.index) == ("extrapolated", 4):
            self.reached.set()
            assert self.go_on.wait(60)


def test_a_rank_that_is_stopped_writes_before_its_step_ends(request_of_tiny: Request, tmp_path: Path) -> None:
    rank = SlowRank(0, 1, device="cpu", threads=1)
    rank.join("", 0, ParallelSettings())
    job = make_job(request_of_tiny, name="sea")
    task = Task(job.id, job.fingerprint, job.request, str(tmp_path), checkpoint_every=NEVER)
    outcome: dict[str, Any] = {}
    working = threading.Thread(target=lambda: outcome.update(rank.run(task)))
    working.start()
    assert rank.reached.wait(60)
    rank.stop(job.id)
    made = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    rank.go_on.set()
    working.join(60)
    assert made == ["step-100003.safetensors"]
    assert outcome == {"stopped": {}}
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-100003.safetensors",
        "step-100004.safetensors",
    ]
