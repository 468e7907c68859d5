"""The VAE's part of a poster: whole on one rank if that fits, else by rows; its seconds and bytes.

Layers and their sizes are the description that a render walks. What a rank keeps by rows is counted by that
very walk, run dry; only how fast a device is and how much it works on at once are formulas here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from imax_dist.geometry import LatentGrid
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.hardware import MIB, Hardware
from imax_dist.planner.split import Split
from imax_dist.planner.workload import Workload
from imax_dist.vae.autoencoder import Autoencoder, Half
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.dry_run import dry_run, map_of
from imax_dist.vae.limits import fits_whole, tiers
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import Scratch
from imax_dist.vae.wide_heads import LOGITS, WIDEST_FLASH

WHOLE_MAPS = 2.0
"""Times that input and output of the largest convolution are alive: as they are, and laid out for it."""
WRITES = 3
"""Maps written for each channel in and out of a 3 x 3 convolution: normalised, activated, laid out for the
kernel; laid out, as they were, added."""
JOINED_TAPS = 4 / 9
"""By rows, a doubled map's convolution takes four taps of the source instead of nine (DECISIONS 30)."""
WIDE_HEAD_SHARE = 0.28
"""The VAE's one head of 512 channels has no flash kernel: a share of the usual rate, measured on an H100."""
IN_A_PICTURE = 1.95
"""Times as long as rates say that a picture's convolutions and maps take on a GPU, without its attention: set
on an H100's decodes and enlargement (BENCHMARKS.md, "The planner: stages of a poster")."""
WORKING = 3.0
"""Bands of a layer's input and output alive at once: read, normalised, convolved, and the same once more
where an inner map is computed again."""
MERGED_BYTES = 12.0
"""A query element in attention over the frame: merged output, part to be merged, difference, float32."""
KERNELS = 4
"""Started for a convolution: norm, activation, convolution, sum."""


class RowsCase(NamedTuple):
    """What rank 0 of ``ranks`` keeps by rows: which half of a picture of ``grid``, in which memory."""

    half: Half
    grid: LatentGrid
    ranks: int
    dtype: torch.dtype
    kind: str
    memory_gib: float | None
    memory: float
    """The device's."""


def vae_bytes(work: Workload, split: Split, cluster: Cluster) -> float:
    """Most bytes of a rank in the VAE: each half that a poster needs, at the poster's size."""
    halves: tuple[Half, ...] = ("decoder", "encoder") if work.enlarged else ("decoder",)
    return max(half_bytes(work, half, split, cluster) for half in halves)


def half_bytes(work: Workload, half: Half, split: Split, cluster: Cluster) -> float:
    """Of rank 0 in the encoder or the decoder."""
    vae, device = work.network.autoencoder, cluster.hardware
    if goes_whole(work, work.grid, split, device):
        pixels = 2 * 3 * 4.0 * vae.factor**2 * work.latents if device.kind == "cpu" else 0.0
        fullest = max((c.inputs + c.outputs) * scale**2 for c, scale, _ in vae.placed(half))
        return WHOLE_MAPS * work.element * fullest * work.latents + pixels
    case = case_of(work, half, split, device)
    working = max(WORKING * band_bytes(vae, case), attention_bytes(vae, case))
    return kept_bytes(vae, case) + working


def goes_whole(work: Workload, grid: LatentGrid, split: Split, device: Hardware) -> bool:
    """Whether a render of this work on one rank takes a picture of ``grid`` whole."""
    vae, kind = work.network.autoencoder, kind_of(device)
    limit = tiers(kind, work.vae_gib, total=device.memory)[0].limit
    area = float(vae.factor**2 * grid.height * grid.width)
    return split.ranks == 1 and fits_whole(vae, area, work.element, kind=kind, limit=limit)


def case_of(work: Workload, half: Half, split: Split, device: Hardware) -> RowsCase:
    """For the poster itself."""
    dtype = getattr(torch, work.dtype)
    return RowsCase(half, work.grid, split.ranks, dtype, kind_of(device), work.vae_gib, device.memory)


@lru_cache(maxsize=4096)
def kept_bytes(vae: Autoencoder, case: RowsCase) -> int:
    """Most bytes of maps in the first memory, on a CPU with the picture that rank 0 gathers beside them."""
    factor, grid = vae.factor, case.grid
    unit = 1 if case.half == "decoder" else factor
    counted, result = dry_run(
        vae,
        case.half,
        RowShare.of(grid.height, ranks=case.ranks, unit=unit),
        width=unit * grid.width,
        dtype=case.dtype,
        scratch=Scratch(tiers(case.kind, case.memory_gib, total=case.memory)),
        sizes=BlockSizes.of(case.kind),
    )
    if case.half == "decoder" and case.kind == "cpu":
        share, width = RowShare.of(factor * grid.height), factor * grid.width
        counted.store(map_of(share, width=width, channels=3, dtype=torch.float32, closes=(result,)))
    return counted.peak


def band_bytes(vae: Autoencoder, case: RowsCase) -> float:
    """The rows of a convolution's input and output that are worked on at a time, where they are most."""
    sizes, most = BlockSizes.of(case.kind), RowShare.of(case.grid.height, ranks=case.ranks).most

    def of(channels: int, scale: int) -> int:
        row = case.dtype.itemsize * channels * scale * case.grid.width
        return row * min(sizes.rows_of(row), scale * most)

    return max(of(c.inputs, scale) + of(c.outputs, scale) for c, scale, _ in vae.placed(case.half))


def attention_bytes(vae: Autoencoder, case: RowsCase) -> float:
    """Queries in groups, keys and values in chunks, each twice where they travel a ring."""
    sizes, element = BlockSizes.of(case.kind), case.dtype.itemsize
    pixels = case.grid.height * case.grid.width
    own = vae.attention_width * pixels / case.ranks
    query = min(own, sizes.query_elements) * (element + MERGED_BYTES)
    keys = min(2 * own, sizes.key_elements) * element
    logits = 0.0
    if case.kind == "cuda" and element == 2 and vae.attention_width > WIDEST_FLASH:
        logits = min(LOGITS, pixels**2 / case.ranks) * (4.0 + element)  # float32, and the weights beside them
    return query + keys * (2 if case.ranks > 1 else 1) + logits


def vae_time(work: Workload, half: Half, grid: LatentGrid, *, split: Split, cluster: Cluster) -> float:
    """Seconds of one half over an image whose rows the ranks of ``split`` share."""
    vae, device = work.network.autoencoder, cluster.hardware
    rates, sizes = device.rates_of(work.dtype), BlockSizes.of(kind_of(device))
    whole, latents = goes_whole(work, grid, split, device), grid.height * grid.width / split.ranks
    kernels, convolutions = 0.0, list(vae.placed(half))
    for conv, scale, doubles in convolutions:
        taps = JOINED_TAPS if doubles and not whole else 1.0
        flops = taps * 2.0 * conv.kernel**2 * conv.inputs * conv.outputs * scale**2 * latents
        kernels += flops / rates.convolution.at(min(conv.inputs, conv.outputs))
        for channels in (conv.inputs, conv.outputs) if conv.kernel > 1 else (conv.outputs,):
            size = work.element * channels * scale**2 * latents
            written = (WRITES if conv.kernel > 1 else 1) * size
            at = size if whole else min(size, sizes.band_bytes)
            kernels += 2 * written / device.memory_bandwidth.at(at / MIB)
    if device.kind == "gpu":
        kernels *= IN_A_PICTURE
    kernels += attention_time(work, grid, device) / split.ranks
    return kernels + starting(device, KERNELS * len(convolutions), kernels)


def attention_flops(width: int, pixels: float) -> float:
    """Of a half's middle: four projections and the products over all positions."""
    return 8.0 * width**2 * pixels + 4.0 * pixels**2 * width


def attention_time(work: Workload, grid: LatentGrid, device: Hardware) -> float:
    """On one rank."""
    width = work.network.autoencoder.attention_width
    wide = WIDE_HEAD_SHARE if width > WIDEST_FLASH else 1.0
    rate = device.rates_of(work.dtype).attention.at(width or 1.0)
    return attention_flops(width, grid.height * grid.width) / (wide * rate)


def starting(device: Hardware, operations: float, kernels: float) -> float:
    """Seconds to start kernels; a GPU does so while others run, only what takes longer than they do shows."""
    seconds = operations * device.dispatch
    return seconds if device.kind == "cpu" else max(0.0, seconds - kernels)


def kind_of(device: Hardware) -> str:
    """As torch calls it."""
    return "cuda" if device.kind == "gpu" else "cpu"
