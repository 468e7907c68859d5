"""Norms in the weights' own precision, for the float64 proof that parallel equals serial."""

from __future__ import annotations

import torch
from torch import nn


def precise_norms(module: nn.Module) -> nn.Module:
    """For float64 weights: diffusers' RMSNorm as torch's, in place, with the same weights.

    diffusers takes the mean square in float32 whatever it is given, so that a difference of 1e-16 between
    two orders of summation comes out as 1e-7. Other dtypes keep diffusers' own modules.
    """
    from diffusers.models.normalization import RMSNorm

    if next(module.parameters()).dtype != torch.float64:
        return module
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, RMSNorm):
                setattr(parent, name, _as_torch(child))
    return module


def _as_torch(norm: nn.Module) -> nn.RMSNorm:
    weight = norm.weight
    precise = nn.RMSNorm(norm.dim, eps=norm.eps, elementwise_affine=weight is not None)  # type: ignore[arg-type]
    if isinstance(weight, nn.Parameter):
        precise.weight = weight
    return precise
