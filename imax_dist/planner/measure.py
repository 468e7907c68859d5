"""What this machine reaches: matrices, attention, convolutions, element-wise kernels, a link between ranks.

``imax doctor --measure FILE`` writes it as a hardware file. Best of several runs of each: other work on the
machine makes a measurement slower, never faster.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812

TOKENS = {"cpu": 1056, "cuda": 16384}
WIDTHS = {"cpu": (192, 512, 1024), "cuda": (1024, 3072)}
HEAD_DIMS = {"cpu": (32, 64, 128), "cuda": (64, 128)}
CHANNELS = {"cpu": (32, 64, 128), "cuda": (128, 512)}
SECONDS = 0.6
"""Spent on each measurement, at least three runs."""
CHAIN_PASSES = 68
"""Reads and writes of an (N, D) tensor in ``_chain``."""
SMALL_OPERATIONS = 200
LINK_BYTES, LINK_RUNS = 8 << 20, 12


def measure(device: torch.device) -> dict[str, Any]:
    """A hardware file's content for this machine, one rank with one torch thread (CPU) or one GPU."""
    kind = device.type
    bandwidth, latency = measure_link("gloo" if kind == "cpu" or torch.cuda.device_count() < 2 else "nccl")
    link = {"bandwidth": f"{bandwidth / 1e9:.4g} GB/s", "latency": f"{latency * 1e6:.4g} us"}
    return {
        "name": f"{'cpu' if kind == 'cpu' else 'gpu'}-{platform.node() or 'here'}",
        "kind": "cpu" if kind == "cpu" else "gpu",
        "memory": f"{_memory(device):.4g} GB",
        **measure_kernels(device),
        "reserve": "500 MiB" if kind == "cpu" else "2 GiB",
        "per_node": 1024 if kind == "cpu" else max(1, torch.cuda.device_count()),
        "link": {"kind": "measured between two ranks here", **link},
        "network": {"kind": "not measured: as between two ranks here", **link},
        "source": f"imax doctor --measure, {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}",
    }


def measure_kernels(device: torch.device) -> dict[str, Any]:
    """The part of a hardware file that one rank alone can tell."""
    kind = device.type
    dtype = torch.float32 if kind == "cpu" else torch.bfloat16
    rates = {
        "linear": {width: _linear(width, device, dtype) for width in WIDTHS[kind]},
        "attention": {size: _attention(size, device, dtype) for size in HEAD_DIMS[kind]},
        "convolution": {width: _convolution(width, device, dtype) for width in CHANNELS[kind]},
    }
    return {
        "memory_bandwidth": f"{_elementwise(device, dtype) / 1e9:.4g} GB/s",
        "rates": {
            str(dtype).removeprefix("torch."): {
                name: {width: f"{rate / 1e9:.4g} GFLOP/s" for width, rate in curve.items()}
                for name, curve in rates.items()
            }
        },
        "dispatch": f"{_dispatch(device) * 1e6:.4g} us",
    }


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several runs; on a CPU the thread's own ones."""
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    best, began, runs = float("inf"), time.perf_counter(), 0
    while runs < 4 or time.perf_counter() - began < SECONDS:
        started = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - started) if runs else best
        runs += 1
    return best


def _linear(width: int, device: torch.device, dtype: torch.dtype) -> float:
    tokens = TOKENS[device.type]
    x = torch.rand(tokens, width, device=device, dtype=dtype)
    weight = torch.rand(4 * width, width, device=device, dtype=dtype)
    bias = torch.rand(4 * width, device=device, dtype=dtype)
    return 8.0 * tokens * width**2 / _best(lambda: F.linear(x, weight, bias), device)


def _attention(head_dim: int, device: torch.device, dtype: torch.dtype) -> float:
    tokens, heads = TOKENS[device.type], 6
    q, k, v = torch.randn(3, 1, tokens, heads, head_dim, device=device, dtype=dtype).transpose(2, 3)
    seconds = _best(lambda: F.scaled_dot_product_attention(q, k, v), device)
    return 4.0 * tokens**2 * heads * head_dim / seconds


def _convolution(channels: int, device: torch.device, dtype: torch.dtype) -> float:
    side = 128 if device.type == "cpu" else 512
    x = torch.rand(1, channels, side, side, device=device, dtype=dtype)
    kernel = torch.rand(channels, channels, 3, 3, device=device, dtype=dtype)
    return 18.0 * channels**2 * side**2 / _best(lambda: F.conv2d(x, kernel, padding=1), device)


def _elementwise(device: torch.device, dtype: torch.dtype) -> float:
    width = 256 if device.type == "cpu" else 3072
    x = torch.rand(1, TOKENS[device.type], width, device=device, dtype=dtype)
    wide = torch.rand(1, TOKENS[device.type], 4 * width, device=device, dtype=dtype)
    return CHAIN_PASSES * x.numel() * x.element_size() / _best(lambda: _chain(x, wide), device)


def _chain(x: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
    """About the mixture of a transformer block: a norm, an activation, products, sums, joined halves."""
    y = F.layer_norm(x, x.shape[-1:])
    F.gelu(wide, approximate="tanh")
    for _ in range(2):
        y = x * y + x * x
        y = x * y + y * y + x
        left, right = y.chunk(2, dim=-1)
        y = torch.cat([right, left], dim=-1)
        y = torch.cat([y[..., 1::2], y[..., ::2]], dim=-1) + x
    return y


def _dispatch(device: torch.device) -> float:
    """Seconds a small kernel takes with the module around it, as a network's small parts do."""
    layer = torch.nn.LayerNorm(8).to(device)
    x = torch.rand(4, 8, device=device)

    def small() -> None:
        with torch.no_grad():
            for _ in range(SMALL_OPERATIONS // 2):
                layer(x) + x

    return _best(small, device) / SMALL_OPERATIONS


def _memory(device: torch.device) -> float:
    """GB of the GPU, or of the host."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory) / 1e9
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 1e9


def measure_link(backend: str) -> tuple[float, float]:
    """Bytes a second and seconds a message of an all-to-all between two processes of this machine."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [context.Process(target=_link_rank, args=(rank, folder, backend)) for rank in (0, 1)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(timeout=120)
        words = (Path(folder) / "found").read_text().split()
    large, small = float(words[0]), float(words[1])
    return LINK_BYTES / 2 / max(large - small, 1e-9), small


def _link_rank(rank: int, folder: str, backend: str) -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    store = dist.FileStore(f"{folder}/store", 2)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=2)
    found = []
    for size in (LINK_BYTES, 2048):
        sent = torch.zeros(size, dtype=torch.uint8, device=device)
        received = torch.empty_like(sent)
        seconds = []
        for _ in range(LINK_RUNS):
            dist.barrier()
            started = time.perf_counter()
            dist.all_to_all_single(received, sent)
            if backend == "nccl":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
        found.append(sorted(seconds)[LINK_RUNS // 4])
    if rank == 0:
        (Path(folder) / "found").write_text(" ".join(map(str, found)))
    dist.destroy_process_group()
