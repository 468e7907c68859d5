"""The Euler loop both passes share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from imax_dist.events import Listener, StepDone
from imax_dist.method.flow import euler_step
from imax_dist.method.guidance import Step
from imax_dist.shapes import Latents

Velocity: TypeAlias = Callable[[Latents, Step], Latents]
BeforeStep: TypeAlias = Callable[[Latents, Step], Latents]
AfterStep: TypeAlias = Callable[[int, Latents], None]
"""Called with the number of steps done and the latents: checkpoint, stop."""


def denoise(
    x: Latents,
    sigmas: tuple[float, ...],
    velocity: Velocity,
    *,
    stage: str,
    listen: Listener,
    after_step: AfterStep,
    first: int = 0,
    before_step: BeforeStep | None = None,
    skipped: frozenset[int] = frozenset(),
) -> Latents:
    """Follow ``velocity`` from sigmas[first] to 0; ``x`` stays in float32 or better throughout.

    ``before_step`` may give other latents for a step to begin with. Events of the steps ``skipped`` say so:
    their seconds tell nothing about the others'.
    """
    steps = len(sigmas) - 1
    for index in range(first, steps):
        started = time.perf_counter()
        step = Step(sigma=sigmas[index], index=index, steps=steps, start=sigmas[0])
        x = x if before_step is None else before_step(x, step)
        x = euler_step(x, velocity(x, step).to(x.dtype), step.sigma, sigmas[index + 1])
        seconds = time.perf_counter() - started
        listen(StepDone(stage, index + 1, steps, step.sigma, seconds=seconds, skipped=index in skipped))
        after_step(index + 1, x)
    return x
