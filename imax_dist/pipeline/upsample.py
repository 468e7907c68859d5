"""The network that enlarges a pass's reference: one for all ranks, and its picture row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from imax_dist.events import Listener, Note, ignore, progress
from imax_dist.geometry import ImageSize
from imax_dist.method.presets import Method
from imax_dist.output.done import hash_file
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.pixels import shown
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.shapes import Pixels
from imax_dist.super_resolution.network import (
    BEST,
    EnlargingNetwork,
    chosen,
    file_of_network,
    network_of,
    read_weights,
)
from imax_dist.super_resolution.rows import enlarged_rows
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.codec import Callbacks
from imax_dist.vae.enlarge import Enlarge, ReadRows, resized_rows
from imax_dist.vae.store import Scratch

BAND = 64
"""Rows made at once."""
MISSING = f"{BEST} is not installed: the reference is enlarged by bicubic; pip install 'imax-dist[sr]'"


def uses_network(plan: PosterPlan) -> bool:
    """Whether a network is to enlarge anything of this poster."""
    return plan.method.reference.upsample == "network" and plan.extrapolates and plan.uses_native


def require_network(plan: PosterPlan) -> None:
    """Raise now what reading the network's file would raise; nothing for ``auto``."""
    name = chosen(plan.method.reference.network) if uses_network(plan) else None
    if name is not None:
        file_of_network(name)


def with_network(
    plan: PosterPlan, topology: Topology, listen: Listener = ignore
) -> tuple[PosterPlan, EnlargingNetwork | None]:
    """``plan`` with its network's name and hash, and the network, on every rank.

    Rank 0 alone reads the file. Where ``auto`` finds none installed, the plan is one by pixels, and
    ``listen`` is told. Raises what ``read_weights`` and ``network_of`` raise.
    """
    if not uses_network(plan):
        return plan, None
    name = plan.method.reference.network

    def read() -> dict[str, Any] | None:
        found = chosen(name)
        if found is None:
            return None
        weights = read_weights(found)
        network_of(found, weights)
        return {"name": found, "sha256": hash_file(file_of_network(found)), "weights": weights}

    found = from_first_rank(read, topology)
    reference = plan.method.reference
    if found is None:
        listen(Note(MISSING))
        return _by(plan, replace(plan.method, reference=replace(reference, upsample="pixels"))), None
    plan = _by(plan, replace(plan.method, reference=replace(reference, network=found["name"])))
    return replace(plan, network=found["sha256"]), network_of(found["name"], found["weights"])


def network_enlarges(
    network: EnlargingNetwork,
    pixels: Pixels,
    size: ImageSize,
    *,
    scratch: Scratch,
    ranks: int,
    watch: Callbacks,
    dtype: torch.dtype,
) -> Enlarge:
    """``pixels`` (1, 3, h, w) in [-1, 1] by the network, then bicubic to ``size`` where its scale is another.

    In float32, or better if the pixels are; in float16, as is usual for these networks, on a GPU whose VAE
    computes in half precision. The rows that are asked for are made at once and kept in
    ``dtype``, in memory or in temp files once ``scratch`` is full. ``ranks`` share the picture.
    """

    @torch.no_grad()
    def enlarge(top: int, bottom: int) -> ReadRows:
        precise = shown(pixels.to(torch.promote_types(pixels.dtype, torch.float32)))
        count = progress(watch.listen, bottom - top)

        def each() -> None:
            count(0)
            watch.check()

        halves = precise.is_cuda and dtype in (torch.bfloat16, torch.float16)
        given = precise.half() if halves else precise
        ready = network.to(given.device, given.dtype)
        made = enlarged_rows(ready, given, memory=scratch.tiers[0].limit, ranks=ranks, each=each)
        enlarged = ImageSize(precise.shape[3] * network.scale, precise.shape[2] * network.scale)
        read = resized_rows(lambda a, b: made(a, b).to(precise), enlarged, size)
        like = torch.empty((0, size.width, 3), dtype=dtype, device=pixels.device)
        rows = bottom - top
        segment = BlockSizes.of(pixels.device.type).segment_bytes
        store = scratch.open(like=like, rows=rows, most=rows, segment_bytes=segment)
        for first in range(top, bottom, BAND):
            last = min(first + BAND, bottom)
            store.append((2.0 * read(first, last).clamp(0.0, 1.0) - 1.0).permute(1, 2, 0).to(like))
            count(last - first)
        return lambda first, last: store.read(first - top, last - top)

    return enlarge


def _by(plan: PosterPlan, method: Method) -> PosterPlan:
    """The same plan, its passes by ``method``."""
    passes = tuple(replace(one, method=method) for one in plan.passes)
    return replace(plan, method=method, native=replace(plan.native, method=method), passes=passes)
