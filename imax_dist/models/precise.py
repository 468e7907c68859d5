"""What diffusers computes in float32 whatever it is given, in float64 for float64 weights.

A difference of 1e-16 between two orders of summation, or of one bit between two processors' sines, would come
out as 1e-7: no proof that parallel equals serial, no golden values (DECISIONS 66).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def precise(network: nn.Module) -> nn.Module:
    """The float64 ``network`` with RMSNorm, FP32SiLU and the embedding of time in float64, changed in place.

    Other dtypes keep diffusers' own modules.
    """
    from diffusers.models.activations import FP32SiLU
    from diffusers.models.embeddings import Timesteps
    from diffusers.models.normalization import RMSNorm
    from diffusers.models.transformers.transformer_krea2 import Krea2RMSNorm
    from diffusers.models.transformers.transformer_qwenimage21 import (
        QwenImage21TemporalTimesteps,
        QwenImage21ZeroCenterRMSNorm,
    )
    from diffusers.models.transformers.transformer_z_image import TimestepEmbedder

    if next(network.parameters()).dtype != torch.float64:
        return network
    for parameter in network.parameters():
        parameter.data = parameter.data.double()  # what a library keeps in float32
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, RMSNorm):
                setattr(parent, name, _as_torch(child))
            elif isinstance(child, Krea2RMSNorm | QwenImage21ZeroCenterRMSNorm):
                setattr(parent, name, _from_zero(child))
            elif isinstance(child, FP32SiLU):
                setattr(parent, name, nn.SiLU())
            elif isinstance(child, Timesteps):
                setattr(parent, name, PreciseTimesteps(child))
            elif isinstance(child, QwenImage21TemporalTimesteps):
                setattr(parent, name, PreciseTimesteps(_as_timesteps(child)))
            elif isinstance(child, TimestepEmbedder):
                child.timestep_embedding = lambda t, dim: waves(t, dim, cosine_first=True)  # type: ignore
    return network


class PreciseTimesteps(nn.Module):
    """diffusers' Timesteps in the precision of the time it is given."""

    def __init__(self, timesteps: Any) -> None:
        super().__init__()
        self.width, self.scale = timesteps.num_channels, timesteps.scale
        self.cosine_first, self.shift = timesteps.flip_sin_to_cos, timesteps.downscale_freq_shift

    def forward(self, time: Tensor) -> Tensor:
        return waves(self.scale * time, self.width, cosine_first=self.cosine_first, shift=self.shift)


def waves(time: Tensor, width: int, *, cosine_first: bool, shift: float = 0.0) -> Tensor:
    """Sines and cosines (B, width) of ``time`` (B,) at falling frequencies, from 1 to about 1 / 10000."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float64, device=time.device) / (half - shift)
    angles = time.double()[:, None] * torch.exp(-math.log(10000) * exponents)
    parts = (angles.cos(), angles.sin()) if cosine_first else (angles.sin(), angles.cos())
    return torch.cat(parts, dim=-1)


def _as_torch(norm: nn.Module) -> nn.RMSNorm:
    weight = norm.weight
    precise = nn.RMSNorm(norm.dim, eps=norm.eps, elementwise_affine=weight is not None)  # type: ignore[arg-type]
    if isinstance(weight, nn.Parameter):
        precise.weight = weight
    return precise


def _as_timesteps(waves_of_time: Any) -> Any:
    """Qwen-Image 2.1's, whose class is its own."""
    from diffusers.models.embeddings import Timesteps

    return Timesteps(waves_of_time.timestep_dim, True, 0, scale=waves_of_time.time_factor)


def _from_zero(norm: nn.Module) -> nn.RMSNorm:
    """Krea 2's and Qwen-Image 2.1's, whose weights count from 0."""
    precise = nn.RMSNorm(norm.weight.shape, eps=norm.eps)  # type: ignore[arg-type]
    precise.weight = nn.Parameter(norm.weight.detach().double() + 1.0)  # type: ignore[operator]
    return precise
