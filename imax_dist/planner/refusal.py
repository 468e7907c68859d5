"""Why nothing fits, and the nearest plans that would: more devices, larger ones, a smaller poster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from imax_dist.config import named_configs
from imax_dist.geometry import ImageSize, LatentGrid
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.estimate import GIB, Rejected, best_split, usable_bytes
from imax_dist.planner.hardware import load_hardware
from imax_dist.planner.memory import rank_memory
from imax_dist.planner.split import Layout, Split, splits
from imax_dist.planner.unknown import UnknownCost
from imax_dist.planner.workload import Pass, Workload
from imax_dist.wording import plural

MOST_NODES = 64
SIZE_STEPS = 40
LEAST_BANDS = 1.0 * GIB
"""Kept for the VAE's bands in work and whole latents; feature maps get the rest."""


def refusal(kinds: Sequence[Workload], cluster: Cluster, rejected: Sequence[Rejected]) -> str:
    """One sentence with the numbers, and what would work."""
    work = max(kinds, key=lambda each: each.latents)
    if not any(each.legal for each in rejected):
        return _illegal(work, cluster, rejected)
    most = max(rejected, key=lambda each: (each.legal, each.layout.split.ranks, each.layout.split.ulysses))
    offers = [
        offer
        for offer in (
            _less_for_vae(work, cluster),
            _encoders_away(work, cluster),
            _more_devices(work, cluster),
            _larger_device(work, cluster),
            _smaller(work, cluster),
        )
        if offer
    ]
    instead = "; what would: " + ", or ".join(offers) if offers else ""
    return f"no plan on {cluster} fits: on {plural(most.layout.split.ranks, 'rank')}, {most.reason}{instead}"


def _illegal(work: Workload, cluster: Cluster, rejected: Sequence[Rejected]) -> str:
    """No degree that was asked for can be; the legal one next to it of those that fit."""
    nearest = max(rejected, key=lambda each: each.layout.split.ulysses)
    wanted = nearest.layout.split
    near: list[Split] = [
        found for n in range(1, cluster.devices + 1) if (found := best_split(work, n, cluster)) is not None
    ]
    near.sort(key=lambda each: (abs(each.ulysses - wanted.ulysses), abs(each.ranks - wanted.ranks)))
    instead = f"; nearest plan that works: {plural(near[0].ranks, 'rank')}, {near[0]}" if near else ""
    return f"no plan on {cluster}: {nearest.reason}{instead}"


def _encoders_away(work: Workload, cluster: Cluster) -> str | None:
    """The text encoders in the host's memory, where that is enough."""
    if cluster.hardware.kind == "cpu" or work.encoders_away:
        return None
    lighter = replace(work, encoders_away=True)
    for ranks in sorted({1, cluster.per_node, cluster.devices}):
        if best_split(lighter, ranks, cluster) is not None:
            return f"{plural(ranks, 'rank')} with text_encoders: cpu in the parallel settings"
    return None


def _less_for_vae(work: Workload, cluster: Cluster) -> str | None:
    """A bound on the VAE's feature maps, where all else fits: what is over goes to host memory or disk."""
    for ranks in sorted({cluster.per_node, cluster.devices}):
        for split in splits(ranks):
            need, have = rank_memory(work, split, cluster), usable_bytes(Layout(1, split), cluster)
            left = have - (need.total - need.stages) - LEAST_BANDS
            if need.step <= left + LEAST_BANDS and left >= LEAST_BANDS and need.vae > need.step:
                return (
                    f"{plural(ranks, 'rank')} with vae_memory_gib: {int(left / GIB)} in the parallel settings"
                )
    return None


def _more_devices(work: Workload, cluster: Cluster) -> str | None:
    """The fewest devices of the same kind that one poster fits on."""
    full = max(cluster.per_node, cluster.hardware.per_node) if cluster.hardware.kind == "gpu" else 0
    if not full:
        return None
    sizes = [*range(1, full + 1), *(full * nodes for nodes in range(2, MOST_NODES + 1))]
    for ranks in sizes:
        nodes = max(1, ranks // full)
        wider = replace(cluster, per_node=min(ranks, full), nodes=nodes)
        if wider.devices > cluster.devices and best_split(work, ranks, wider) is not None:
            return str(wider)
    return None


def _larger_device(work: Workload, cluster: Cluster) -> str | None:
    """The smallest larger kind of GPU that the poster fits on, as many as there are."""
    if cluster.hardware.kind == "cpu":
        return None
    kinds = [load_hardware(name) for name in named_configs("hardware")]
    larger = (each for each in kinds if each.kind == "gpu" and each.memory > cluster.hardware.memory)
    for each in sorted(larger, key=lambda kind: kind.memory):
        other = replace(cluster, hardware=each, per_node=min(cluster.per_node, each.per_node))
        try:
            if any(best_split(work, ranks, other) for ranks in (1, other.per_node, other.devices)):
                return str(other)
        except UnknownCost:  # it has no rates for the dtype
            continue
    return None


def _smaller(work: Workload, cluster: Cluster) -> str | None:
    """The largest size of the same shape that fits, on all devices of a node or of the cluster."""
    size = ImageSize.parse(work.size)
    for step in range(1, SIZE_STEPS):
        share = (1 - step / SIZE_STEPS) ** 2
        smaller = _scaled(work, share)
        if any(best_split(smaller, ranks, cluster) for ranks in {cluster.devices, cluster.per_node, 1}):
            sides = (int(side * sqrt(share)) // 16 * 16 for side in (size.width, size.height))
            return "at most about {}x{} here".format(*sides)
    return None


def _scaled(work: Workload, share: float) -> Workload:
    """The same poster with ``share`` of its area."""

    def scaled(each: Pass) -> Pass:
        text = max(work.prompt_tokens, int(each.text * share))
        return replace(each, image=max(1, int(each.image * share)), text=text)

    return replace(
        work,
        grid=LatentGrid(
            height=max(1, round(work.grid.height * sqrt(share))),
            width=max(1, round(work.grid.width * sqrt(share))),
        ),
        extrapolated=tuple(scaled(each) for each in work.extrapolated),
    )
