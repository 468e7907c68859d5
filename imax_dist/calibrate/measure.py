"""What this machine reaches: matrices, attention, convolutions, element-wise kernels, a link between ranks.

``imax doctor --measure FILE`` writes it as a hardware file. On a CPU a time is the thread's own CPU
seconds, the median of several runs: a render pays what is usual, not what is best. On a GPU: the best time.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812

from imax_dist.calibrate.starting import measure_starting
from imax_dist.models.joint_attention import rotate_pairs
from imax_dist.planner.hardware import Curve
from imax_dist.planner.transformer import Transformer
from imax_dist.shapes import RopeTable

Clock = Callable[[], float]
TOKENS = {"cpu": 528, "cuda": 16384}
SETS = 4
"""Different inputs and weights in turn: in a network no layer finds its own in a cache."""
WIDTHS = {"cpu": (192, 512, 1024), "cuda": (1024, 3072)}
HEAD_DIMS = {"cpu": (32, 64, 128), "cuda": (64, 128)}
CHANNELS = {"cpu": (32, 64, 128), "cuda": (128, 512)}
TENSORS = {"cpu": (1, 16, 32), "cuda": (256,)}
"""MiB of the tensors that element-wise kernels are measured on: within caches, beyond them, and so large that
the C library asks the system for new pages each time (32 MiB is glibc's limit)."""
COLD_BYTES, COLD_TOKENS, COLD_WIDTH = 64 << 20, 24, 512
"""Weights that no cache keeps, and few tokens for them."""
PAIRS = 15
SECONDS = 0.6
"""Spent on each measurement, at least four runs."""
CHAIN_HEAD = 64
CHAIN_PASSES = (52.7, 93.4)
"""Reads and writes of an (N, D) tensor in ``chain``: in full precision, and in half, where much converts.
A network's own are planner/transformer's TRAFFIC, about as many: the mixture is the same."""
LINK_BYTES, LINK_RUNS = 8 << 20, 12


def measure(device: torch.device) -> dict[str, Any]:
    """A hardware file's content for this machine, one rank with one torch thread (CPU) or one GPU."""
    kind = device.type
    backend = "gloo" if kind == "cpu" or torch.cuda.device_count() < 2 else "nccl"
    bandwidth, latency = measure_link(backend)
    between = f"{backend} between two processes here"
    if kind == "cuda" and backend == "gloo":
        between = f"not measured, there is one GPU: {between}"
    link = {"bandwidth": f"{bandwidth / 1e9:.4g} GB/s", "latency": f"{latency * 1e6:.4g} us"}
    return {
        "name": f"{'cpu' if kind == 'cpu' else 'gpu'}-{platform.node() or 'here'}",
        "kind": "cpu" if kind == "cpu" else "gpu",
        "memory": f"{_memory(device):.4g} GB",
        **measure_kernels(device),
        "reserve": "500 MiB" if kind == "cpu" else "2 GiB",
        "measured": True,
        "per_node": 1024 if kind == "cpu" else max(1, torch.cuda.device_count()),
        "link": {"kind": between, **link},
        "network": {"kind": f"not measured: {between.removeprefix('not measured, ')}", **link},
        "source": f"imax doctor --measure, {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}",
    }


@torch.no_grad()
def measure_kernels(device: torch.device) -> dict[str, Any]:
    """The part of a hardware file that one rank alone can tell."""
    kind = device.type
    dtype = torch.float32 if kind == "cpu" else torch.bfloat16
    rates = {
        "linear": {width: _linear(width, device, dtype) for width in WIDTHS[kind]},
        "attention": {size: _attention(size, device, dtype) for size in HEAD_DIMS[kind]},
        "convolution": {width: _convolution(width, device, dtype) for width in CHANNELS[kind]},
    }
    bandwidth = {size: _elementwise(size, device, dtype) for size in TENSORS[kind]}
    weights = _weights(device, dtype)

    def kernels(net: Transformer, image: int, text: int) -> float:
        if kind == "cuda":
            return 0.0  # they run while others are started
        linear, attention = (Curve(tuple(rates[name].items())) for name in ("linear", "attention"))
        moved = net.traffic["float32"] * (image + text) * net.blocks * net.width
        return (
            net.linear_flops(image, text) / linear.at(net.width)
            + dtype.itemsize * net.parameters / weights
            + net.attention_flops(image + text, image + text) / attention.at(net.head_dim)
            + moved / Curve(tuple(bandwidth.items())).at(0.0)
        )

    dispatch, step = measure_starting(device, kernels)
    return {
        "memory_bandwidth": {size: f"{rate / 1e9:.4g} GB/s" for size, rate in bandwidth.items()},
        "weight_bandwidth": f"{weights / 1e9:.4g} GB/s",
        "rates": {
            str(dtype).removeprefix("torch."): {
                name: {width: f"{rate / 1e9:.4g} GFLOP/s" for width, rate in curve.items()}
                for name, curve in rates.items()
            }
        },
        "dispatch": f"{dispatch * 1e6:.4g} us",
        "step": f"{max(step, 1e-9) * 1e6:.4g} us",
    }


def _usual(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of several runs, the first left out: a CPU thread's median, a GPU's best."""
    began = time.perf_counter()
    runs: list[float] = []
    while len(runs) < 4 or time.perf_counter() - began < SECONDS:
        runs.append(_once(work, device))
    return min(runs[1:]) if device.type == "cuda" else statistics.median(runs[1:])


def _once(work: Callable[[], object], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def _linear(width: int, device: torch.device, dtype: torch.dtype) -> float:
    tokens, sets = TOKENS[device.type], SETS
    x = torch.rand(sets, tokens, width, device=device, dtype=dtype)
    weight = torch.rand(sets, 4 * width, width, device=device, dtype=dtype)
    bias = torch.rand(4 * width, device=device, dtype=dtype)
    seconds = _usual(lambda: [F.linear(x[i], weight[i], bias) for i in range(sets)], device)
    return sets * 8.0 * tokens * width**2 / seconds


def _attention(head_dim: int, device: torch.device, dtype: torch.dtype) -> float:
    tokens, heads, sets = TOKENS[device.type], 6, SETS
    shape = (sets, 3, 1, tokens, heads, head_dim)
    given = torch.randn(shape, device=device, dtype=dtype).transpose(3, 4)
    seconds = _usual(lambda: [F.scaled_dot_product_attention(*given[i]) for i in range(sets)], device)
    return sets * 4.0 * tokens**2 * heads * head_dim / seconds


def _convolution(channels: int, device: torch.device, dtype: torch.dtype) -> float:
    side = 128 if device.type == "cpu" else 512
    x = torch.rand(1, channels, side, side, device=device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last)  # as rows are; what another layout costs counts as a map
    kernel = torch.rand(channels, channels, 3, 3, device=device, dtype=dtype)
    return 18.0 * channels**2 * side**2 / _usual(lambda: F.conv2d(x, kernel, padding=1), device)


def _weights(device: torch.device, dtype: torch.dtype) -> float:
    """Bytes a second of weights from memory: how much longer products take with ever other weights."""
    count = COLD_BYTES // (4 * COLD_WIDTH**2 * dtype.itemsize)
    x = torch.rand(COLD_TOKENS, COLD_WIDTH, device=device, dtype=dtype)
    weights = torch.rand(count, 4 * COLD_WIDTH, COLD_WIDTH, device=device, dtype=dtype)
    longer = _difference(
        lambda: [F.linear(x, weight) for weight in weights],
        lambda: [F.linear(x, weights[0]) for _ in weights],
        device,
    )
    return weights.numel() * weights.element_size() / longer


def _difference(more: Callable[[], object], less: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``more`` takes longer, the median of pairs in turn: a drift of speed cancels."""
    pairs = [(_once(more, device), _once(less, device)) for _ in range(PAIRS)]
    longest = statistics.median(first for first, _ in pairs)
    return max(statistics.median(first - second for first, second in pairs), 0.05 * longest)


def _elementwise(size: int, device: torch.device, dtype: torch.dtype) -> float:
    width = 256 if device.type == "cpu" else 3072
    tokens = (size << 20) // (width * dtype.itemsize)
    x = torch.rand(1, tokens, width, device=device, dtype=dtype)
    wide = torch.rand(1, tokens, 4 * width, device=device, dtype=dtype)
    angles = torch.rand(tokens, CHAIN_HEAD, device=device, dtype=torch.promote_types(dtype, torch.float32))
    table = RopeTable(angles.cos(), angles.sin())
    passes = CHAIN_PASSES[dtype.itemsize < 4]
    return passes * x.numel() * x.element_size() / _usual(lambda: chain(x, wide, table), device)


def chain(x: torch.Tensor, wide: torch.Tensor, table: RopeTable) -> torch.Tensor:
    """What a transformer's block does besides its products: norms, rotation, joined streams, gates."""
    tokens, width = x.shape[1:]
    scale = x[:, :1]
    y = F.layer_norm(x, (width,)) * scale + scale
    heads = y.unflatten(2, (-1, CHAIN_HEAD))
    turned = [rotate_pairs(F.rms_norm(heads, (CHAIN_HEAD,)), table) for _ in range(2)]
    joined = [
        torch.cat(each.split((tokens // 8, tokens - tokens // 8), dim=1), 1) for each in (*turned, heads)
    ]
    x = x + scale * joined[0].flatten(2)
    F.gelu(wide, approximate="tanh")
    return x + scale * (F.layer_norm(x, (width,)) * scale + scale)


def _memory(device: torch.device) -> float:
    """GB of the GPU, or of the host."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory) / 1e9
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 1e9


def measure_link(backend: str, *, clock: Clock = time.perf_counter) -> tuple[float, float]:
    """Bytes a second and seconds a message of an all-to-all between two processes of this machine.

    ``clock`` time.process_time: what one of them spends on it itself, its threads included.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [context.Process(target=_link_rank, args=(rank, folder, backend, clock)) for rank in (0, 1)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(timeout=120)
        words = (Path(folder) / "found").read_text().split()
    large, small = float(words[0]), float(words[1])
    return LINK_BYTES / 2 / max(large - small, 1e-9), small


def _link_rank(rank: int, folder: str, backend: str, clock: Clock) -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    store = dist.FileStore(f"{folder}/store", 2)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=2)
    cold = torch.zeros(COLD_BYTES // 16)
    found = []
    for size in (LINK_BYTES, 2048):
        sent = torch.zeros(size, dtype=torch.uint8, device=device)
        received = torch.empty_like(sent)
        seconds = []
        for _ in range(LINK_RUNS):
            cold.add_(1.0)  # a step's kernels leave nothing of the library in the caches
            dist.barrier()
            started = clock()
            dist.all_to_all_single(received, sent)
            if backend == "nccl":
                torch.cuda.synchronize(device)
            seconds.append(clock() - started)
        found.append(sorted(seconds)[LINK_RUNS // 4])
    if rank == 0:
        (Path(folder) / "found").write_text(" ".join(map(str, found)))
    dist.destroy_process_group()
