"""Attention on one device that also returns its log-sum-exp, and the exact merge of two such results.

The merge is the online softmax: attention over a set of keys is the average of the attentions over its
parts, weighted by their partition sums (Milakov and Gimelshein, arXiv 1805.02867).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.parallel.kernels import Kernel, default_run
from imax_dist.shapes import Heads, Keys, LogSumExp, Queries


class PartialAttention(NamedTuple):
    """Attention over some of the keys: the output and the natural log of its partition sum."""

    output: Heads
    log_sum_exp: LogSumExp


def attend(query: Queries, key: Keys, value: Keys, *, kernel: Kernel | None = None) -> Queries:
    """Softmax attention over all ``key`` at once, scale 1 / sqrt(head_dim).

    Fewer key heads than query heads: neighbouring queries share one (grouped-query attention).
    ``kernel`` None leaves the choice to torch.
    """
    q, k, v = _by_head(query, key, value)
    output = F.scaled_dot_product_attention(q, k, v) if kernel is None else kernel.run(q, k, v)[0]
    return output.transpose(1, 2)


def attend_partially(
    query: Queries, key: Keys, value: Keys, *, kernel: Kernel | None = None
) -> PartialAttention:
    """The same with the log-sum-exp; without ``kernel`` it follows device and dtype."""
    q, k, v = _by_head(query, key, value)
    run = default_run(query.device.type, query.dtype) if kernel is None else kernel.run
    output, log_sum_exp = run(q, k, v)
    return PartialAttention(output.transpose(1, 2), log_sum_exp.transpose(1, 2))


def _by_head(query: Queries, key: Keys, value: Keys) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, S, D) each, every key head repeated for the queries that share it."""
    group = query.shape[2] // key.shape[2]
    wide = (key, value) if group == 1 else (x.repeat_interleave(group, dim=2) for x in (key, value))
    q, k, v = (x.transpose(1, 2) for x in (query, *wide))
    return q, k, v


def weighted(part: PartialAttention, copies: int | float) -> PartialAttention:
    """The part as if each of its keys stood there ``copies`` times: log-sum-exp + log copies."""
    if copies == 1:
        return part
    return PartialAttention(part.output, part.log_sum_exp + math.log(copies))


def merge(first: PartialAttention | None, second: PartialAttention) -> PartialAttention:
    """Attention over the union of two disjoint sets of keys, in float32 or better.

    One kernel reads both outputs and writes the new one.
    """
    precise = _promoted(second)
    if first is None:
        return precise
    total = torch.logaddexp(first.log_sum_exp, precise.log_sum_exp)
    share = (precise.log_sum_exp - total).exp().unsqueeze(-1)
    return PartialAttention(torch.lerp(first.output, precise.output, share), total)


def _promoted(part: PartialAttention) -> PartialAttention:
    precision = torch.promote_types(part.output.dtype, torch.float32)
    return PartialAttention(part.output.to(precision), part.log_sum_exp.to(precision))
