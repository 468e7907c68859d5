"""What stays the same in a pass is computed once, and no step waits for a number from the device.

Every operation that torch dispatches is recorded, step by step. On a GPU each of ``WAITS`` would stop the
host until the device has caught up.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from guidance_of import scales
from torch.utils._python_dispatch import TorchDispatchMode

from imax_dist.events import RenderEvent, StepDone
from imax_dist.models.tiny import TINY
from imax_dist.pipeline import positions
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request

WAITS = {"_local_scalar_dense", "equal", "nonzero", "is_nonzero", "masked_select", "unique_dim", "_unique2"}
COPIES = {"lift_fresh"}
"""A number of the host made a tensor: on a GPU a copy there."""
THEIRS = {"lumina-image-2": COPIES, "chroma": COPIES | {"repeat"}}
"""Inside diffusers' own forward."""
ONE_GRID = {"hunyuan-image-2.1", "hunyuan-image-2.1-distilled", "qwen-image-2.1"}
"""Their tokens are single latents: no step is shifted, and the second finds all that the first made."""
STEPS = 5


class Operations(TorchDispatchMode):
    """A listener of a render that counts the operations of every step of the target-size pass."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Counter[str]] = []
        self._now: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self._now[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    def listen(self, event: RenderEvent) -> None:
        if isinstance(event, StepDone) and event.stage == "extrapolated":
            self.steps.append(self._now)
        self._now = Counter()


def record(folder: Path, **fields: Any) -> list[Counter[str]]:
    """Preset official: text copies where they have places, patch shift, two prompts if there is a second."""
    fields["method"] = {**scales(folder.name, native=1.0, extrapolated=3.0), **fields.get("method", {})}
    where = {"size": "128x112", "model": str(folder), "preset": "official"}
    request = Request("a red sun", steps=STEPS, native_steps=1, **where, **fields)
    with Operations() as operations:
        render(request, listen=operations.listen)
    assert len(operations.steps) == STEPS
    return operations.steps


@pytest.mark.parametrize("name", TINY)
def test_a_step_repeats_nothing_and_waits_for_nothing(folders: dict[str, Path], name: str) -> None:
    """Steps 1 and 2 are the first on their grids; 3 and 5, and 4, find all that does not change."""
    first, second, *later = record(folders[name])
    assert later[0] == later[2]
    for number, step in enumerate(later):
        assert step.keys() & (WAITS | COPIES) <= THEIRS.get(name, set()), number
        assert "repeat" not in step.keys() - THEIRS.get(name, set()), (
            "a prompt's copies are those of the first step"
        )
        assert step.total() < first.total()
        assert step.total() <= second.total() - (name not in ONE_GRID)


@pytest.mark.parametrize(("rule", "tables"), [("ntk", 2), ("dype_ntk", STEPS), ("time_aware", 3)])
def test_tables_are_made_once_a_grid_or_when_their_frequencies_change(
    folders: dict[str, Path], rule: str, tables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.device] = []
    original = positions.rope_table

    def counted(ids: torch.Tensor, *arguments: Any) -> Any:
        made.append(ids.device)
        return original(ids, *arguments)

    monkeypatch.setattr(positions, "rope_table", counted)
    method = {"rope": {"rule": rule, "watershed": 0.3, "floor": False}}
    record(folders["flux-dev"], method=method)
    assert len(made) == tables + 1, "and the native pass's own"
