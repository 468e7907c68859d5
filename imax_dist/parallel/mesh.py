"""The two axes that split a token sequence: Ulysses between neighbouring ranks, ring across them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from imax_dist.errors import BadConfig
from imax_dist.liveness.beacon import SILENT, Marks
from imax_dist.parallel.topology import Topology

STEP_TIMEOUT_S = 120.0
"""Of the groups that carry nothing but a step's exchanges, on GPUs: the last resort, after the judge."""


@dataclass(frozen=True)
class SequenceMesh:
    """``ring`` x ``ulysses`` ranks; rank = ring index x ulysses + ulysses index.

    The group of an axis of one rank is None: nothing is communicated along it. ``first`` is the global rank
    of the mesh's rank 0: another than 0 where several meshes share the ranks (cfg_parallel.py).
    """

    ulysses: int
    ring: int
    rank: int
    ulysses_group: dist.ProcessGroup | None = None
    ring_group: dist.ProcessGroup | None = None
    group: dist.ProcessGroup | None = None
    first: int = 0
    marks: Marks = field(default=SILENT, compare=False, repr=False)
    """Of this rank; told of every wait for others."""

    @property
    def size(self) -> int:
        return self.ulysses * self.ring

    @property
    def degrees(self) -> tuple[int, int]:
        return self.ulysses, self.ring

    @property
    def ring_index(self) -> int:
        return self.rank // self.ulysses

    @property
    def ulysses_index(self) -> int:
        return self.rank % self.ulysses

    def ulysses_ranks(self, ring_index: int) -> range:
        """The ranks that share their heads at one place of the ring."""
        return range(ring_index * self.ulysses, (ring_index + 1) * self.ulysses)


def single_rank(marks: Marks = SILENT) -> SequenceMesh:
    """The mesh of a serial run."""
    return SequenceMesh(ulysses=1, ring=1, rank=0, marks=marks)


def build_mesh(
    topology: Topology, *, ulysses: int, ring: int, parts: int = 1, hop_sms: int = 0
) -> SequenceMesh:
    """Make the process groups; every rank must call this. Raises BadConfig if degrees do not fit.

    ``parts`` equal meshes share the ranks, one after the other; the result is this rank's own. ``hop_sms``:
    the most multiprocessors that NCCL takes for a ring's hops; 0 leaves it to NCCL.
    """
    size = topology.world_size // parts
    check_degrees(size, ulysses=ulysses, ring=ring)
    if size == 1:
        return single_rank(topology.marks)
    part, rank = divmod(topology.rank, size)
    starts = range(0, topology.world_size, size)
    columns = [
        range(first + start, first + start + ulysses) for first in starts for start in range(0, size, ulysses)
    ]
    rows = [range(first + place, first + size, ulysses) for first in starts for place in range(ulysses)]
    ulysses_group = own_group(topology, columns) if ulysses > 1 else None
    ring_group = own_group(topology, rows, sms=hop_sms) if ring > 1 else None
    whole = ulysses_group if ring == 1 else ring_group if ulysses == 1 else None
    if whole is None:
        wholes = [range(first, first + size) for first in starts]
        whole = own_group(topology, wholes) if parts > 1 else dist.group.WORLD
    return SequenceMesh(
        ulysses=ulysses,
        ring=ring,
        rank=rank,
        ulysses_group=ulysses_group,
        ring_group=ring_group,
        group=whole,
        first=part * size,
        marks=topology.marks,
    )


def own_group(topology: Topology, groups: Iterable[range], *, sms: int = 0) -> dist.ProcessGroup:
    """This rank's of ``groups``, every one of which every rank makes, in the same order."""
    given: dict[str, Any] = {}
    if topology.device.type == "cuda":
        given["timeout"] = timedelta(seconds=STEP_TIMEOUT_S)
    if sms and topology.backend == "nccl":
        given["pg_options"] = options = dist.ProcessGroupNCCL.Options()
        options._timeout = given["timeout"]
        options.config.max_ctas = sms  # each has a multiprocessor; the priority is process_group's
    made: list[tuple[bool, dist.ProcessGroup]] = []
    made += [(topology.rank in ranks, dist.new_group(list(ranks), **given)) for ranks in groups]
    return next(group for own, group in made if own)


def check_degrees(world_size: int, *, ulysses: int, ring: int) -> None:
    """Raise BadConfig unless ulysses x ring is the number of ranks."""
    if min(ulysses, ring) < 1:
        raise BadConfig(f"parallel: ulysses {ulysses} and ring {ring} must both be at least 1")
    if ulysses * ring != world_size:
        raise BadConfig(
            f"parallel: ulysses {ulysses} x ring {ring} needs {ulysses * ring} ranks, "
            f"but {world_size} {'was' if world_size == 1 else 'were'} started"
        )


def check_heads(heads: int, *, ulysses: int, kv_heads: int | None = None) -> None:
    """Raise BadConfig unless every Ulysses rank gets the same number of query heads.

    ``kv_heads`` need not be divisible by the degree, as the engine repeats them, but must divide ``heads``.
    """
    if kv_heads is not None and heads % kv_heads:
        raise BadConfig(f"the model's {kv_heads} key heads do not divide its {heads} query heads")
    if heads % ulysses:
        legal = [degree for degree in range(1, heads + 1) if heads % degree == 0]
        raise BadConfig(
            f"parallel: ulysses {ulysses} does not divide the model's {heads} attention heads; "
            f"it can be {', '.join(map(str, legal))}, the ring takes any number of ranks"
        )


def choose_degrees(
    world_size: int,
    *,
    heads: int,
    kv_heads: int | None = None,
    ulysses: int | None = None,
    ring: int | None = None,
    together: int = 0,
) -> tuple[int, int]:
    """(ulysses, ring) for ``world_size`` ranks: what is given stays, Ulysses is as large as heads allow.

    Unasked, Ulysses divides ``kv_heads`` too, so that no key is repeated and sent more than once
    (DECISIONS 25), and ``together``, so that no group lies on two hosts (0: there is one).
    Raises BadConfig if the given degrees do not fit.
    """
    if ulysses is None and ring is not None:
        ulysses = max(1, world_size // ring) if ring > 0 else 1
    if ulysses is None:
        scarcest = kv_heads or heads
        ulysses = math.gcd(world_size, scarcest, together)
    if ring is None:
        ring = max(1, world_size // ulysses) if ulysses > 0 else 1
    check_degrees(world_size, ulysses=ulysses, ring=ring)
    check_heads(heads, ulysses=ulysses, kv_heads=kv_heads)
    return ulysses, ring
