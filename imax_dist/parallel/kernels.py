"""Kernels that compute attention on one device together with its log-sum-exp, by name.

The log-sum-exp is what ring, shared text copies and replicated text are merged by: a kernel that returns
zeros in its place (yunchang's math and cuDNN do) makes wrong pictures without an error. ``verify`` finds
such a kernel before it is used.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.errors import BadConfig

Run = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Query, key, value (B, H, S, D) -> output (B, H, S, D), natural log-sum-exp (B, H, S)."""
Quality = Literal["exact", "draft"]
HALVES = (torch.float16, torch.bfloat16)
EVERY = (torch.float64, torch.float32, *HALVES)
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
DRAFT_TOLERANCE = 0.5
"""Of outputs and log-sum-exps of size one: eight-bit keys are coarse, zeros are off by more."""
BLOCK = 128
"""Tokens that kernels take at once: other lengths cost cuDNN 19 % (BENCHMARKS.md, "One GPU")."""


class Kernel(NamedTuple):
    """A way to attend. ``exact`` False: numbers are rounded below the tensors' own precision."""

    name: str
    run: Run
    device: str
    dtypes: tuple[torch.dtype, ...]
    exact: bool = True
    module: str | None = None
    """The package it needs besides torch."""

    @property
    def installed(self) -> bool:
        """Whether that package is there, and the part of it that is meant."""
        try:
            return self.module is None or find_spec(self.module) is not None
        except ImportError:  # what the module is a part of is not there, or does not import here
            return False


def cpu_flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """torch's flash attention for CPUs."""
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    return output, log_sum_exp


def flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """torch's FlashAttention-2."""
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]
    return output, log_sum_exp


def cudnn(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """cuDNN's fused attention as torch calls it; its log-sum-exp may have a last axis of one."""
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)[:2]
    return output, log_sum_exp.reshape(q.shape[:3])


def efficient(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """torch's memory-efficient attention; its log-sum-exp is padded to a multiple of 32."""
    output, padded = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
    return output, padded[:, :, : q.shape[2]]


def plain(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The formula itself, all logits at once."""
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return logits.softmax(dim=-1) @ v, logits.logsumexp(dim=-1)


def flash3(q: Tensor, k: Tensor, v: Tensor, *, sms_left: int = 0) -> tuple[Tensor, Tensor]:
    """FlashAttention-3 (package flash_attn_3), Hopper; it keeps its multiprocessors to its end."""
    attend = importlib.import_module("flash_attn_interface").flash_attn_func
    given = {"return_attn_probs": True, **({"sm_margin": sms_left} if sms_left else {})}
    output, log_sum_exp, *_ = attend(*(x.transpose(1, 2) for x in (q, k, v)), **given)
    return output.transpose(1, 2), log_sum_exp


def flash4(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """FlashAttention-4 (package flash-attn-4), Hopper and Blackwell; compiled when first called."""
    attend = importlib.import_module("flash_attn.cute").flash_attn_func
    output, log_sum_exp = attend(*(x.transpose(1, 2) for x in (q, k, v)), return_lse=True)
    return output.transpose(1, 2), log_sum_exp


def flash3_fp8(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """FlashAttention-3 on eight-bit floats, one scale a tensor and head."""
    attend = importlib.import_module("flash_attn_interface").flash_attn_func
    largest = torch.finfo(torch.float8_e4m3fn).max
    scales = [x.abs().amax(dim=(2, 3)).float().clamp(min=1e-12) / largest for x in (q, k, v)]
    small = [
        (x / scale[:, :, None, None]).to(torch.float8_e4m3fn).transpose(1, 2)
        for x, scale in zip((q, k, v), scales, strict=True)
    ]
    q_scale, k_scale, v_scale = scales
    output, log_sum_exp, *_ = attend(
        *small, q_descale=q_scale, k_descale=k_scale, v_descale=v_scale, return_attn_probs=True
    )
    return output.transpose(1, 2).to(q.dtype), log_sum_exp


def sage(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """SageAttention: eight-bit queries and keys. Raises BadConfig for sageattention 1."""
    attend = importlib.import_module("sageattention").sageattn
    found = attend(q, k, v, tensor_layout="HND", is_causal=False, return_lse=True)
    if not isinstance(found, tuple):
        raise BadConfig("parallel: kernel sage needs sageattention 2 or newer: 1 returns no log-sum-exp")
    output, log_sum_exp = found
    return output, log_sum_exp


def at_even_lengths(attend: Run, rest: Run, *, block: int = BLOCK) -> Run:
    """``attend`` on whole blocks of queries and keys alone; ``rest`` takes the keys that are over.

    Queries get more rows, which are cut off. Keys cannot: zeros have a logit, and cuDNN takes no length from
    torch. Those over are merged by log-sum-exp, which is exact (DECISIONS 115). Where every length is a
    multiple, or the keys fill no block, it is ``attend`` itself.
    """

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        rows, over = q.shape[2], k.shape[2] % block
        whole = k.shape[2] - over
        if whole == 0:
            return attend(q, k, v)
        output, log_sum_exp = attend(_lengthened(q, -rows % block), k[:, :, :whole], v[:, :, :whole])
        output, log_sum_exp = output[:, :, :rows], log_sum_exp[:, :, :rows]
        if over == 0:
            return output, log_sum_exp
        part, part_log_sum_exp = rest(q, k[:, :, whole:], v[:, :, whole:])
        total = torch.logaddexp(log_sum_exp, part_log_sum_exp)
        share = (part_log_sum_exp - total).exp().unsqueeze(-1)
        return output.lerp_(part, share.to(output.dtype)), total

    return run


def _lengthened(x: Tensor, rows: int) -> Tensor:
    """(B, H, S, D) with so many more rows of zeros, and heads beside each other in memory as they were."""
    return x if rows == 0 else F.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, rows)).transpose(1, 2)


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("cpu", cpu_flash, "cpu", EVERY),
        Kernel("flash3", flash3, "cuda", HALVES, module="flash_attn_interface"),
        Kernel("flash4", flash4, "cuda", HALVES, module="flash_attn.cute"),
        Kernel("cudnn", cudnn, "cuda", HALVES),
        Kernel("cudnn_even", at_even_lengths(cudnn, flash), "cuda", HALVES),
        Kernel("flash", flash, "cuda", HALVES),
        Kernel("efficient", efficient, "cuda", (torch.float32,)),
        Kernel("plain", plain, "cuda", (torch.float64,)),
        Kernel("flash3_fp8", flash3_fp8, "cuda", HALVES, exact=False, module="flash_attn_interface"),
        Kernel("sage", sage, "cuda", HALVES, exact=False, module="sageattention"),
    )
}


def leaving(kernel: Kernel | None, sms: int) -> Kernel | None:
    """The kernel without so many multiprocessors, for messages; others than flash3 know no such argument."""
    if kernel is None or kernel.run is not flash3 or not sms:
        return kernel
    return kernel._replace(run=partial(flash3, sms_left=sms))


def default_run(device: str, dtype: torch.dtype) -> Run:
    """What is always there for a device and dtype: the kernel of an engine that was given none."""
    if device == "cpu":
        return cpu_flash
    return flash if dtype in HALVES else efficient if dtype == torch.float32 else plain


def candidates(device: torch.device, dtype: torch.dtype, quality: Quality) -> list[Kernel]:
    """Kernels that are installed and take this device and dtype; inexact ones only as a draft."""
    return [
        kernel
        for kernel in KERNELS.values()
        if kernel.device == device.type
        and dtype in kernel.dtypes
        and kernel.installed
        and (kernel.exact or quality == "draft")
    ]


def verify(kernel: Kernel, device: torch.device, dtype: torch.dtype, *, head_dim: int = 64) -> None:
    """Raise BadConfig unless output and log-sum-exp are those of the formula, within the precision."""
    generator = torch.Generator().manual_seed(7)
    shapes = [(1, 2, length, head_dim) for length in (96, 160, 160)]  # no multiples of 128
    q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    expected = plain(q.double(), k.double(), v.double())
    tolerance = TOLERANCES[dtype] if kernel.exact else DRAFT_TOLERANCE
    for name, own, right in zip(("output", "log-sum-exp"), kernel.run(q, k, v), expected, strict=True):
        error = (own.double() - right).abs().max().item()
        if not error <= tolerance:
            raise BadConfig(
                f"parallel: kernel {kernel.name} returns a wrong {name} here (off by {error:.2g}, "
                f"allowed {tolerance:g}); set another kernel, or kernel: auto"
            )
