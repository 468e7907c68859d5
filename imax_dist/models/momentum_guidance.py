"""Guidance with a momentum: plain at first, then adaptive projected guidance (arXiv 2410.02416).

Its momentum, a running sum of the differences that the prompt makes, goes into each step and comes out of
it: it is part of the pass's state and of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812

from imax_dist.errors import BadValue
from imax_dist.models.guidance import classifier_free
from imax_dist.shapes import Latents

USUAL = {
    "guidance_rescale": 0.0,
    "use_original_formulation": False,
    "start": 0.0,
    "stop": 1.0,
    "enabled": True,
}


class NetworkVelocity(NamedTuple):
    """What a network says of a step, guided by its prompts; both (B, C, H, W)."""

    velocity: Latents
    """Noise minus image."""
    momentum: Latents | None
    """Of the guidance, after this step; None where the model guides without one."""

    def on_grid(self, change: Callable[[Latents], Latents]) -> NetworkVelocity:
        """Both changed alike, for a step on a grid of its own."""
        return NetworkVelocity(
            change(self.velocity), None if self.momentum is None else change(self.momentum)
        )


@dataclass(frozen=True)
class MomentumGuidance:
    """Numbers of diffusers' AdaptiveProjectedMixGuidance, under its names."""

    guidance_scale: float = 3.5
    """Of the first steps; the scale a person gives stands for it, and moves the other along."""
    adaptive_projected_guidance_scale: float = 10.0
    adaptive_projected_guidance_momentum: float = -0.5
    adaptive_projected_guidance_rescale: float = 10.0
    """The largest norm of what is added, before its scale; 0: any."""
    adaptive_projected_guidance_start_step: int = 5
    """The last step that is guided plainly."""
    eta: float = 0.0
    """How much of what is added along the prediction itself stays."""

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> MomentumGuidance:
        """From guider_config.json. Raises BadValue for a switch that changes more than these numbers."""
        for key, usual in USUAL.items():
            if config.get(key, usual) != usual:
                raise BadValue(f"model {name}: its guider has {key} {config[key]}; only {usual} works here")
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in config.items() if key in known})

    def enlarged(self, times: float) -> MomentumGuidance:
        """For a picture of ``times`` the trained number of latents: norms grow with its root."""
        largest = self.adaptive_projected_guidance_rescale * times**0.5
        return replace(self, adaptive_projected_guidance_rescale=largest)

    def __call__(
        self, positive: Latents, negative: Latents, scale: float, *, index: int, momentum: Latents | None
    ) -> NetworkVelocity:
        """The guided velocity of step ``index``; ``momentum`` is of the step before it."""
        difference = positive - negative
        if momentum is not None:
            difference = difference + self.adaptive_projected_guidance_momentum * momentum
        if index <= self.adaptive_projected_guidance_start_step:
            return NetworkVelocity(classifier_free(positive, negative, scale), difference)
        times = self.adaptive_projected_guidance_scale * scale / self.guidance_scale
        return NetworkVelocity(negative + times * self.projected(difference, positive), difference)

    def projected(self, difference: Latents, positive: Latents) -> Latents:
        """The difference, no longer than the largest norm, without its part along ``positive``."""
        dims = tuple(range(1, difference.ndim))
        if self.adaptive_projected_guidance_rescale > 0.0:
            norm = torch.linalg.vector_norm(difference, dim=dims, keepdim=True)
            difference = difference * (self.adaptive_projected_guidance_rescale / norm).clamp(max=1.0)
        precise = difference.double()
        unit = F.normalize(positive.double().flatten(1)).view_as(precise)
        along = (precise * unit).sum(dim=dims, keepdim=True) * unit
        return ((precise - along) + self.eta * along).to(difference.dtype)
