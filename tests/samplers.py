"""Passes without a poster around them: of a real network by one rank, or with a velocity in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from imax_dist.method.guidance import Step
from imax_dist.models.load import describe_model
from imax_dist.models.momentum_guidance import NetworkVelocity
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.sampler import Sampler, sequence_alone
from imax_dist.pipeline.state import PassState


def sampled(plan: PassPlan, model: Any, conditioning: Any, noise: Tensor | None = None) -> Tensor:
    """The latents of one pass, unguided, from its own noise or another."""
    latents = pass_noise(plan, model) if noise is None else noise
    sampler = Sampler.of(plan, model, conditioning, sequence_alone(plan))
    return sampler.run(PassState(plan.number, 0, latents)).latents


@dataclass(frozen=True)
class GivenVelocity(Sampler):
    """A pass whose network is a function of latents and step."""

    velocity: Callable[[Tensor, Step], Tensor] | None = None

    def shifted(self, x: Tensor, step: Step, momentum: Tensor | None = None) -> NetworkVelocity:
        assert self.velocity is not None
        return NetworkVelocity(self.velocity(x, step), momentum)


def given(velocity: Callable[[Tensor, Step], Tensor], plan: PassPlan) -> GivenVelocity:
    """``plan`` with that velocity."""
    missing: Any = None
    return GivenVelocity(plan, missing, missing, missing, missing, None, velocity=velocity)


def pass_plan(sigmas: tuple[float, ...], number: int = 0, **method: Any) -> PassPlan:
    """A pass of the embedded model with other noise levels: 0 its native one, 1 that of twice native."""
    request = Request("a red sun", method={"guidance": {"schedule": "off"}, **method})
    plan = make_plan(request, describe_model("embedded"))
    return replace((plan.native, *plan.passes)[number], sigmas=sigmas)
