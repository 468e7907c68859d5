"""Where a step's time goes on a GPU, kernel by kernel, and attention of a VAE's one wide head."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from imax_dist.parallel.kernels import KERNELS
from imax_dist.parallel.topology import Topology
from imax_dist.vae.codec import row_codec
from imax_dist.vae.strategies import Rows
from imax_dist.vae.wide_heads import PRODUCTS
from tests.bench.flux_shape import seconds, wait

CLASSES = {
    "attention": r"flash|fmha|sdpa|attention",
    "matrix products": r"gemm|nvjet|cutlass|xmma|cublas|splitK",
    "norms and sums": r"norm|reduce|softmax",
    "copies": r"copy|Memcpy|CatArray|Memset|index",
    "other element-wise": r"",
}
"""The first whose pattern is in a kernel's name has it."""
WIDE_TOKENS = {"cuda": (16384, 65536), "cpu": (256,)}


def profiled(step: Callable[[], Any], device: torch.device) -> Iterator[str]:
    """Lines of a table: milliseconds of one step's kernels by class, the dearest kernels after it."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    step()
    wait()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as recorded:
        step()
        wait()
    times: dict[str, float] = {}
    calls: dict[str, int] = {}
    for entry in recorded.key_averages():
        spent = entry.self_device_time_total if on_gpu else entry.self_cpu_time_total
        if spent > 0.0:
            times[entry.key], calls[entry.key] = spent / 1e3, entry.count
    yield from _table(times, calls)


def _table(times: dict[str, float], calls: dict[str, int]) -> Iterator[str]:
    classes: dict[str, list[str]] = defaultdict(list)
    for name in times:
        found = next(kind for kind, words in CLASSES.items() if re.search(words, name, re.IGNORECASE))
        classes[found].append(name)
    whole = sum(times.values())
    yield "| kernels | calls | ms | share |\n|---|---|---|---|"
    for kind in CLASSES:
        spent = sum(times[name] for name in classes[kind])
        count = sum(calls[name] for name in classes[kind])
        yield f"| {kind} | {count} | {spent:.1f} | {spent / whole:.1%} |"
    yield f"| all | {sum(calls.values())} | {whole:.1f} | |\n"
    for name in sorted(times, key=lambda each: -times[each])[:14]:
        yield f"    {times[name]:8.2f} ms {calls[name]:5d} x {name[:110]}"


def wide_head(device: torch.device, dtype: torch.dtype) -> Iterator[str]:
    """One head of 512 channels, a VAE's middle block: torch's kernel against blocks of matrix products."""
    yield "| tokens | way | ms | TFLOP/s | error to float64 |\n|---|---|---|---|---|"
    ways: dict[str, Callable[..., Any]] = {"products": PRODUCTS.run}
    ways |= {"efficient": KERNELS["efficient"].run} if device.type == "cuda" else {}
    ways["torch's choice"] = F.scaled_dot_product_attention
    for tokens in WIDE_TOKENS[device.type]:
        q, k, v = (torch.randn(1, 1, tokens, 512, device=device, dtype=dtype) for _ in range(3))
        q = 2.0 * q
        part = (q[:, :, :64].double() @ k.double().transpose(2, 3) / 512**0.5).softmax(-1) @ v.double()
        for name, way in ways.items():
            try:
                found = way(q, k, v)
                took = seconds(lambda way=way, given=(q, k, v): way(*given), runs=2, warm_up=0)  # type: ignore[misc]
            except RuntimeError as error:
                yield f"| {tokens} | {name} | failed | {str(error).splitlines()[0][:90]} | |"
                continue
            own = (found[0] if isinstance(found, tuple) else found)[:, :, :64].double()
            error_ = ((own - part).norm() / part.norm()).item()
            rate = 4.0 * tokens**2 * 512 / took / 1e12
            yield f"| {tokens} | {name} | {1e3 * took:.1f} | {rate:.1f} | {error_:.1e} |"


MOST_WHOLE = 512
"""Latent pixels a side; beyond 4096 px a plain decode takes more than 80 GB."""
DECODE_HEADING = "| size | way | s | peak, GiB | difference to diffusers, rms |\n|---|---|---|---|---|"


@torch.no_grad()
def decodes(model: Any, side: int) -> Iterator[str]:
    """A decode of ``side`` x ``side`` random latents, whole and by rows; pixels go to the host."""
    latents = torch.randn(1, 16, side, side, device=model.device, dtype=model.dtype)
    whole: torch.Tensor | None = None
    for name, way in (("whole (diffusers)", _whole), ("rows", _by_rows), ("rows, 8 GiB of maps", _in_eight)):
        if way is not _by_rows and side > MOST_WHOLE:
            continue
        try:
            way(model, latents)  # the first run of a size chooses kernels
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            found = way(model, latents)
        except RuntimeError as error:
            yield f"| {8 * side}x{8 * side} | {name} | failed: {str(error).splitlines()[0][:80]} | | |"
            continue
        took = time.perf_counter() - started
        apart = "-" if whole is None else f"{(found - whole).square().mean().sqrt().item():.1e}"
        whole = found if name.startswith("whole") else whole
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if model.device.type == "cuda" else "-"
        yield f"| {8 * side}x{8 * side} | {name} | {took:.2f} | {peak} | {apart} |"


def _whole(model: Any, latents: torch.Tensor) -> torch.Tensor:
    return model.decode_image(latents)[0].permute(1, 2, 0).float().cpu()  # type: ignore[no-any-return]


def _by_rows(model: Any, latents: torch.Tensor, gib: float | None = None) -> torch.Tensor:
    codec = row_codec(model)
    assert codec is not None
    strategy = Rows(Topology.alone(model.device), codec, gib)
    bands = [band.float().cpu() for _, band in strategy.decode(latents, strategy.scratch())]
    return torch.cat(bands)


def _in_eight(model: Any, latents: torch.Tensor) -> torch.Tensor:
    return _by_rows(model, latents, 8.0)
