"""The network's velocity with some steps answered by the last one that was computed."""

from __future__ import annotations

from dataclasses import dataclass

from imax_dist.method.guidance import Step
from imax_dist.pipeline.sampler import Velocity
from imax_dist.shapes import Latents


@dataclass
class StepCache:
    """A Velocity that asks ``predict`` at all steps but those ``skipped``.

    ``kept`` is the last velocity it got, for checkpoints; nothing is kept where no step is skipped.
    """

    predict: Velocity
    skipped: frozenset[int]
    kept: Latents | None = None

    def __call__(self, x: Latents, step: Step) -> Latents:
        if step.index in self.skipped:
            assert self.kept is not None, "no pass begins with a skipped step, and checkpoints hold this"
            return self.kept
        velocity = self.predict(x, step)
        if self.skipped:
            self.kept = velocity
        return velocity
