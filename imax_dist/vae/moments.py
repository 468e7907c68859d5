"""Mean and variance of the channels of a whole picture, from bands and ranks that each see a part.

Parts are merged by the update of Chan, Golub and LeVeque (1983) in float64, so that GroupNorm over
bands or ranks equals GroupNorm over the whole to the rounding of the tensors' own type.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from imax_dist.errors import CannotWrite, ImaxError, Preempted
from imax_dist.parallel.collectives import all_gather_single
from imax_dist.vae.share import RowShare

DONE, STOPPED, FAILED = 0.0, 1.0, 2.0
"""How a rank's part of a map ended; travels with its moments."""


class Moments(NamedTuple):
    """``pixels`` of them, their mean and sum of squared deviations by channel, float64."""

    pixels: int
    mean: Tensor
    deviations: Tensor

    @classmethod
    def none(cls, channels: int, device: torch.device) -> Moments:
        """Of no pixels."""
        zero = torch.zeros(channels, dtype=torch.float64, device=device)
        return cls(0, zero, zero)

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """Of a band (rows, width, channels); two passes, in float32 or better."""
        pixels = rows.reshape(-1, rows.shape[-1])
        pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
        if not len(pixels):
            return cls.none(rows.shape[-1], rows.device)
        mean = pixels.mean(dim=0)
        deviations = (pixels - mean).square_().sum(dim=0)
        return cls(len(pixels), mean.double(), deviations.double())

    def merged(self, other: Moments) -> Moments:
        """Of both parts together."""
        count = self.pixels + other.pixels
        if not self.pixels or not other.pixels:
            return other if other.pixels else self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.pixels / count)
        deviations = self.deviations + other.deviations + apart**2 * (self.pixels * other.pixels / count)
        return Moments(count, mean, deviations)


def over_ranks(own: Moments, share: RowShare, *, width: int, failure: ImaxError | None = None) -> Moments:
    """The moments of all ranks' rows, merged in rank order: the same bits on every rank.

    ``failure`` is why this rank has not made its rows: they cannot be stored, or a stop was requested. Then
    every rank raises, and none waits for another.
    """
    if share.ranks == 1:
        if failure is not None:
            raise failure
        return own
    state = DONE if failure is None else STOPPED if isinstance(failure, Preempted) else FAILED
    piece = torch.cat([own.mean, own.deviations, own.mean.new_tensor([state])])
    pieces = piece.new_empty((share.ranks * len(piece),))
    all_gather_single(pieces, piece, share.group)
    parts = pieces.view(share.ranks, -1)
    states = parts[:, -1]
    if states.any():
        raise failure or _failure_elsewhere(failed=bool((states == FAILED).any()))
    total = Moments.none(len(own.mean), piece.device)
    for rows, part in zip(share.counts, parts, strict=True):
        total = total.merged(Moments(rows * width, *part[:-1].chunk(2)))
    return total


def _failure_elsewhere(*, failed: bool) -> ImaxError:
    if failed:
        return CannotWrite("another rank could not keep its part of the picture; its message says why")
    stopped = Preempted("stopped on request; another rank says where")
    stopped.already_reported = True
    return stopped


def group_norm_affine(
    moments: Moments, *, groups: int, eps: float, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """GroupNorm as x * scale + shift, both (channels,) float64."""
    channels = len(moments.mean)
    means = moments.mean.view(groups, -1)
    mean = means.mean(dim=1, keepdim=True)
    deviations = moments.deviations.view(groups, -1) + moments.pixels * (means - mean) ** 2
    variance = deviations.sum(dim=1, keepdim=True) / (moments.pixels * means.shape[1])
    spread = torch.rsqrt(variance + eps)
    scale = weight.double() * spread.expand_as(means).reshape(channels)
    return scale, bias.double() - mean.expand_as(means).reshape(channels) * scale
