"""Spectral-energy guided attention: each rotary component has its own factor, from the latents at hand.

SEGA (arXiv 2605.22668) puts m_d = m_ref (1 - sigma s_d) in place of YaRN's one temperature on cosines and
sines. m_ref = s^kappa. z_d is the standardised log energy of the latents at the spatial frequency of
component d along its axis, s_d = alpha (tanh(beta z_d) - mean), so that components with much energy are
sharpened less. sigma = 1 - SF^gamma: noise has a flat spectrum (SF = 1) and is scaled by m_ref alone.
DECISIONS 78.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imax_dist.method.rope import Frequencies
from imax_dist.shapes import Latents, RopeTable

KAPPA, ALPHA, BETA, GAMMA = 0.08, 0.15, 1.5, 1.0
SMALLEST = 1e-12
"""Of an energy, against the mean: its logarithm stays finite on flat latents."""


class Spectrum(NamedTuple):
    """What the factors of a step need of its latents."""

    power: Tensor
    """Of each spatial frequency, (H, W)."""
    spread: Tensor
    """1 - SF^gamma: 0 for noise."""

    @classmethod
    def of(cls, latents: Latents) -> Spectrum:
        """``latents`` are the whole image's; in float32 or better."""
        power = power_spectrum(latents)
        return cls(power, 1.0 - flatness(power) ** GAMMA)


def component_factors(
    spectrum: Spectrum,
    frequencies: Sequence[Frequencies],
    axes: Sequence[int | None],
    *,
    patch: int,
    scale: float,
) -> list[Tensor]:
    """m_d of every component, one (axis_dim / 2,) tensor an axis, in the spectrum's precision.

    ``axes`` names the dimension of the latents that an axis counts (2 rows, 3 columns), None for one that
    counts neither, whose factors are 1. ``patch`` is the latent pixels a token.
    """
    power, spread = spectrum
    reference = max(scale, 1.0) ** KAPPA
    factors = []
    for own, dim in zip(frequencies, axes, strict=True):
        if dim is None:
            factors.append(torch.ones(len(own), dtype=power.dtype, device=power.device))
            continue
        energy = energy_at(
            axis_profile(power, dim), own.to(power) / (2.0 * math.pi * patch), power.shape[dim - 2]
        )
        factors.append(reference * (1.0 - spread * correction(energy)))
    return factors


def power_spectrum(latents: Latents) -> Tensor:
    """Power of each spatial frequency, mean of batch and channels, (H, W); one channel at a time."""
    x = latents.to(torch.promote_types(latents.dtype, torch.float32))
    power = torch.zeros(x.shape[2:], dtype=x.dtype, device=x.device)
    for plane in x.flatten(0, 1):
        power += torch.fft.fft2(plane - plane.mean()).abs().square()
    return power / (x.shape[0] * x.shape[1])


def axis_profile(power: Tensor, dim: int) -> Tensor:
    """Energy along one axis at 0, 1 ... cycles an image side, (side // 2 + 1,): the mean over the other's."""
    along = power.mean(1 if dim == 2 else 0)
    return along[: len(along) // 2 + 1]


def energy_at(profile: Tensor, cycles: Tensor, side: int) -> Tensor:
    """Log energy at ``cycles`` a latent pixel, between the two nearest; at least at one cycle a side."""
    place = (cycles * side).clamp(1.0, float(len(profile) - 1))
    low = place.floor().long().clamp(max=len(profile) - 2)
    logs = (profile + SMALLEST * profile.mean()).clamp(min=torch.finfo(profile.dtype).tiny).log()
    return torch.lerp(logs[low], logs[low + 1], place - low)


def correction(energy: Tensor) -> Tensor:
    """s_d: alpha tanh(beta z) less its mean, so that the factors' mean stays; 0 where all are equal."""
    z = energy - energy.mean()
    bounded = torch.tanh(BETA * z / z.square().mean().sqrt().clamp(min=1e-6))
    return ALPHA * (bounded - bounded.mean())


def flatness(power: Tensor) -> Tensor:
    """Wiener's entropy, 0 to 1: geometric over arithmetic mean of the radial spectrum; noise has 1."""
    height, width = power.shape
    rows = torch.fft.fftfreq(height, dtype=power.dtype, device=power.device)[:, None]
    columns = torch.fft.fftfreq(width, dtype=power.dtype, device=power.device)
    rings = min(height, width) // 2
    ring = ((rows.square() + columns.square()).sqrt() * 2.0 * rings).round().long().flatten()
    inside = (ring >= 1) & (ring <= rings)
    flat = torch.zeros(rings + 1, dtype=power.dtype, device=power.device)
    sums = flat.index_add(0, ring.clamp(max=rings), torch.where(inside, power.flatten(), 0.0))
    counts = flat.index_add(0, ring.clamp(max=rings), inside.to(power.dtype))
    radial = (sums / counts.clamp(min=1.0))[1:]
    mean = radial.mean().clamp(min=torch.finfo(power.dtype).tiny)
    return ((radial / mean).clamp(min=SMALLEST).log().mean()).exp()


def scaled_by_component(table: RopeTable, factors: Sequence[Tensor]) -> RopeTable:
    """Cosines and sines of every pair times its factor: a logit's share of component d is times m_d^2."""
    whole = torch.cat(list(factors)).repeat_interleave(2).to(table.cos)
    return RopeTable(cos=table.cos * whole, sin=table.sin * whole)
