"""Rectified flow: x_sigma = (1 - sigma) image + sigma noise, velocity = noise - image. Sec. 2.1."""

from __future__ import annotations

from imax_dist.shapes import Latents


def interpolate(image: Latents, noise: Latents, sigma: float) -> Latents:
    """The point of the straight path between ``image`` (sigma 0) and ``noise`` (sigma 1)."""
    return (1.0 - sigma) * image + sigma * noise


def euler_step(x: Latents, velocity: Latents, sigma: float, sigma_next: float) -> Latents:
    """x + (sigma_next - sigma) velocity."""
    return x + (sigma_next - sigma) * velocity


def endpoint(x: Latents, velocity: Latents, sigma: float) -> Latents:
    """The image the flow heads for from ``x``: x - sigma velocity."""
    return x - sigma * velocity


def velocity_towards(x: Latents, image: Latents, sigma: float) -> Latents:
    """The velocity whose endpoint is ``image``: (x - image) / sigma. Raises ValueError at sigma 0."""
    if not 0.0 < sigma <= 1.0:
        raise ValueError(f"velocity_towards needs sigma in (0, 1], got {sigma}")
    return (x - image) / sigma
