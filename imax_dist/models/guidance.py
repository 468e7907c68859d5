"""Classifier-free guidance: how two predictions become one. A FlowModel names its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from imax_dist.shapes import Latents

Combine: TypeAlias = Callable[[Latents, Latents, float], Latents]
"""(with the prompt, with the empty prompt, scale) -> the guided velocity."""


def classifier_free(positive: Latents, negative: Latents, scale: float) -> Latents:
    """negative + scale (positive - negative), arXiv 2207.12598."""
    return negative + scale * (positive - negative)


def norm_preserving(dim: int) -> Combine:
    """The same, scaled back to the norm of ``positive`` along ``dim`` of the latents."""

    def combine(positive: Latents, negative: Latents, scale: float) -> Latents:
        guided = classifier_free(positive, negative, scale)
        norms: list[Tensor] = [torch.linalg.vector_norm(x, dim=dim, keepdim=True) for x in (positive, guided)]
        return guided * (norms[0] / norms[1])

    return combine


def first_channels(count: int) -> Combine:
    """Guide the first ``count`` channels only; the others are those with the prompt (Lumina-Next)."""

    def combine(positive: Latents, negative: Latents, scale: float) -> Latents:
        guided = classifier_free(positive[:, :count], negative[:, :count], scale)
        return torch.cat([guided, positive[:, count:]], dim=1)

    return combine
