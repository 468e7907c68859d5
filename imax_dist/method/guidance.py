"""Projected flow: pull the low frequencies of a velocity towards the native image. Sec. 2.2, Eq. 7.

One operator serves all: with the target velocity G = (x - reference) / sigma,

    guided = velocity + full (G - velocity) + low P(G - velocity)

``low`` is the paper's alpha_t; ``full`` is non-zero only in the authors' ``cosine_shift``. In terms of
endpoints the same operator is x0 + low P(reference - x0): a constant reference is I-Max, the native
pass's own endpoint of each step is HiFlow's direction term (DECISIONS 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch

from imax_dist.method.flow import velocity_towards
from imax_dist.method.projection import Projection
from imax_dist.shapes import Latents, Reference, References


class GuidanceWeights(NamedTuple):
    """How hard a step is pulled: ``low`` acts on the low band only, ``full`` on all frequencies."""

    low: float
    full: float = 0.0

    @property
    def active(self) -> bool:
        return self.low != 0.0 or self.full != 0.0

    def times(self, strength: float) -> GuidanceWeights:
        return GuidanceWeights(self.low * strength, self.full * strength)


@dataclass(frozen=True)
class Step:
    """Where a step stands: its noise level, its index from 0, the number of steps, the first level."""

    sigma: float
    index: int
    steps: int
    start: float = 1.0


Schedule: TypeAlias = Callable[[Step], GuidanceWeights]


def guided_velocity(
    velocity: Latents,
    x: Latents,
    reference: Latents,
    sigma: float,
    *,
    project: Projection,
    weights: GuidanceWeights,
) -> Latents:
    """The velocity of Eq. 7 at ``sigma``; every latent is (B, C, H, W).

    Raises ValueError if ``sigma`` is not in (0, 1].
    """
    difference = velocity_towards(x, reference, sigma) - velocity
    guided = velocity + weights.low * project(difference)
    return guided + weights.full * difference if weights.full else guided


def reference_at(latents: References, sigmas: tuple[float, ...], sigma: float) -> Reference:
    """The reference at ``sigma``: ``latents`` (N, C, H, W) belong to the falling ``sigmas``, one each.

    Between two of them by linear interpolation in sigma; a constant reference is one at sigma 0.
    """
    if len(sigmas) == 1 or sigma >= sigmas[0]:
        return latents[:1]
    if sigma <= sigmas[-1]:
        return latents[-1:]
    later = next(i for i, own in enumerate(sigmas) if own <= sigma)
    above, below = sigmas[later - 1], sigmas[later]
    share = (above - sigma) / (above - below)
    return torch.lerp(latents[later - 1 : later], latents[later : later + 1], share)


def accelerated_velocity(
    velocity: Latents, reference_velocity: Latents, carried: Latents, beta: float
) -> Latents:
    """HiFlow's acceleration (arXiv 2504.06232): the velocity changes from step to step as the reference's.

    v~_i = v_i + beta (v~_(i-1) + vref_i - vref_(i-1) - v_i), vref = (x - x0_ref(sigma)) / sigma. ``velocity``
    is v_i, after guidance; ``carried`` is v~ - vref of the step before; beta = strength sigma / sigma of the
    pass's first step. All (B, C, H, W).
    """
    return velocity + beta * (carried + reference_velocity - velocity)


def paper(step: Step) -> GuidanceWeights:
    """alpha = 1 + 0.5 cos(pi t), t = 1 - sigma: 1.5 at noise, 0.5 at the image. Sec. 2.2."""
    return GuidanceWeights(low=1.0 + 0.5 * math.cos(math.pi * (1.0 - step.sigma)))


def cosine_decay(step: Step) -> GuidanceWeights:
    """alpha = 0.5 (1 + cos(pi i / N)) on the step's index; the authors' README and demo."""
    return GuidanceWeights(low=_cosine_of_index(step))


def cosine_shift(step: Step) -> GuidanceWeights:
    """c on all frequencies, 1 - c on the low band, c as in cosine_decay; the authors' default."""
    share = _cosine_of_index(step)
    return GuidanceWeights(low=1.0 - share, full=share)


def constant(step: Step) -> GuidanceWeights:
    """alpha = 1: the low band always heads for the native image."""
    del step
    return GuidanceWeights(low=1.0)


def cosine_sigma(step: Step) -> GuidanceWeights:
    """cosine_decay on the step's own noise level: 0.5 (1 + cos(pi (1 - sigma))), 1 to 0."""
    return GuidanceWeights(low=0.5 * (1.0 + math.cos(math.pi * (1.0 - step.sigma))))


def linear_sigma(step: Step) -> GuidanceWeights:
    """alpha = sigma / sigma of the pass's first step, 1 to 0: HiFlow's t / tau."""
    return GuidanceWeights(low=step.sigma / step.start)


def off(step: Step) -> GuidanceWeights:
    """No guidance: direct sampling at the target size."""
    del step
    return GuidanceWeights(low=0.0)


def _cosine_of_index(step: Step) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * step.index / step.steps))


SCHEDULES: dict[str, Schedule] = {
    "paper": paper,
    "cosine_decay": cosine_decay,
    "cosine_shift": cosine_shift,
    "constant": constant,
    "cosine_sigma": cosine_sigma,
    "linear_sigma": linear_sigma,
    "off": off,
}
