"""Attention of heads too wide for flash kernels: a VAE's middle block has one head of 512 channels.

Matrix products and a softmax, a block of queries at a time, so that the logits stay small. On a GPU the
products run on tensor cores: see BENCHMARKS.md, "One GPU", for what torch's own kernel for such heads takes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imax_dist.parallel.kernels import HALVES, KERNELS, Kernel
from imax_dist.shapes import Heads

LOGITS = 1 << 28
"""Of one block at most: 1 GiB in float32."""
WIDEST_FLASH = 256


def wide_kernel(query: Heads) -> Kernel | None:
    """On GPUs, flash kernels end at heads of 256 channels; None: the default will do."""
    if not query.is_cuda or query.shape[-1] <= WIDEST_FLASH or query.dtype == torch.float64:
        return None
    return PRODUCTS if query.dtype in HALVES else KERNELS["efficient"]


def products(q: Tensor, k: Tensor, v: Tensor, *, logits: int = LOGITS) -> tuple[Tensor, Tensor]:
    """Query, key, value (B, H, S, D) -> output (B, H, S, D), natural log-sum-exp (B, H, S).

    Logits and sums are float32 or better; the weights are rounded to the tensors' dtype, and it is those that
    are summed. The output has the tensors' dtype. At most ``logits`` of them are made at a time.
    """
    batch, heads, queries, _ = q.shape
    rows = max(1, logits // (batch * heads * k.shape[2]))
    flat_q, flat_k, flat_v = (x.flatten(0, 1) for x in (q, k, v))
    parts = [_block(block, flat_k, flat_v) for block in flat_q.split(rows, dim=1)]
    output = torch.cat([part for part, _ in parts], dim=1)
    log_sum_exp = torch.cat([part for _, part in parts], dim=1)
    return output.unflatten(0, (batch, heads)), log_sum_exp.reshape(batch, heads, queries)


def _block(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(N, S, D), (N, K, D), (N, K, D) -> (N, S, D), (N, S). Four passes over the logits."""
    scale = 1.0 / math.sqrt(q.shape[-1])
    logits = _product(q, k.transpose(1, 2))
    largest = scale * logits.amax(dim=-1, keepdim=True)
    torch.add(-largest, logits, alpha=scale, out=logits)
    weights = torch.exp(logits, out=torch.empty_like(logits, dtype=q.dtype))
    total = weights.sum(dim=-1, keepdim=True, dtype=logits.dtype)
    output = (_product(weights, v) / total).to(q.dtype)
    return output, (largest + total.log()).squeeze(-1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """In float32 where the factors have fewer bits, without rounding the sums in between."""
    if a.dtype not in HALVES:
        return a @ b
    return torch.bmm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


PRODUCTS = Kernel("products", products, "cuda", HALVES)
