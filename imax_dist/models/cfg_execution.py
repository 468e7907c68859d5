"""How the two predictions of classifier-free guidance are computed: after each other, together, or apart.

The picture is the same to rounding. ``two_passes`` needs the least memory, ``batched`` saves launches of
small kernels, ``split`` gives each half of the ranks one prompt: shorter rings, and one exchange a step more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import torch

from imax_dist.models.conditioning import Prompt
from imax_dist.parallel.cfg_parallel import CfgParallel
from imax_dist.shapes import Latents

Predict: TypeAlias = Callable[[Latents, Prompt], Latents]
Batch: TypeAlias = Callable[[Sequence[Prompt]], Prompt]


class CfgExecution(Protocol):
    """``batch`` makes one prompt tensor set of several; only ``batched`` uses it."""

    def __call__(
        self, predict: Predict, x: Latents, prompts: tuple[Prompt, Prompt], *, batch: Batch
    ) -> tuple[Latents, Latents]:
        """The predictions with the first and with the second prompt; the same bits on every rank."""
        ...


def two_passes(
    predict: Predict, x: Latents, prompts: tuple[Prompt, Prompt], *, batch: Batch
) -> tuple[Latents, Latents]:
    """One after the other on all ranks."""
    del batch
    positive, negative = (predict(x, prompt) for prompt in prompts)
    return positive, negative


def batched(
    predict: Predict, x: Latents, prompts: tuple[Prompt, Prompt], *, batch: Batch
) -> tuple[Latents, Latents]:
    """A batch of two on all ranks."""
    positive, negative = predict(torch.cat([x, x]), batch(prompts)).chunk(2)
    return positive, negative


def split(parallel: CfgParallel) -> CfgExecution:
    """Each half of the ranks computes one of the two."""

    def passes(
        predict: Predict, x: Latents, prompts: tuple[Prompt, Prompt], *, batch: Batch
    ) -> tuple[Latents, Latents]:
        del batch
        return parallel.gather_both(predict(x, prompts[parallel.index]))

    return passes
