"""The guided velocity with HiFlow's acceleration term, which looks back one step."""

from __future__ import annotations

from dataclasses import dataclass

from imax_dist.method.acceleration import accelerated_velocity
from imax_dist.method.flow import velocity_towards
from imax_dist.method.guidance import Step
from imax_dist.pipeline.endpoint import Reference
from imax_dist.pipeline.sampler import Velocity
from imax_dist.shapes import Latents


@dataclass
class Accelerated:
    """A Velocity that remembers ``carried``, its last result less the reference's, for checkpoints.

    Without a reference, or with strength 0, it is ``velocity`` itself and remembers nothing.
    """

    velocity: Velocity
    reference: Reference | None
    strength: float
    carried: Latents | None = None

    def __call__(self, x: Latents, step: Step) -> Latents:
        guided = self.velocity(x, step)
        if self.reference is None or self.strength == 0.0:
            return guided
        reference_velocity = velocity_towards(x, self.reference.at(step.sigma), step.sigma)
        if self.carried is not None:
            beta = self.strength * step.sigma / step.start
            guided = accelerated_velocity(guided, reference_velocity, self.carried, beta)
        self.carried = guided - reference_velocity
        return guided
