"""How the ranks of one gang share a sequence: chosen once, used for every poster they render."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from imax_dist.config import choice
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.base import TokenSequence
from imax_dist.models.guidance_passes import GuidancePasses, batched, split, two_passes
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.halves import build_halves, half_of
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, choose_degrees
from imax_dist.parallel.topology import Topology

CFG: dict[str, GuidancePasses] = {"two_passes": two_passes, "batched": batched, "split": two_passes}
"""By name; ``split`` is made of the ranks when they join."""

ENGINES: dict[str, Callable[[SequenceMesh], AttentionEngine]] = {"torch": TorchEngine}


@dataclass(frozen=True)
class ParallelSettings:
    """``configs/parallel/*.yaml``. None: Ulysses as large as the heads allow, the ring takes the rest."""

    ulysses: int | None = None
    ring: int | None = None
    text: Literal["sharded", "replicated"] = "sharded"
    engine: str = "torch"
    cfg: str = "two_passes"
    """Classifier-free guidance: two_passes, batched, or split (each half of the ranks takes one prompt)."""


@dataclass(frozen=True)
class Ranks:
    """This rank's place among those that render a poster together."""

    topology: Topology
    mesh: SequenceMesh
    engine: AttentionEngine
    settings: ParallelSettings
    guidance_passes: GuidancePasses = two_passes

    def sequence(self, copies: TextCopies) -> TokenSequence:
        """The layout of the joint sequence with these text copies."""
        replicated = self.settings.text == "replicated"
        return TokenSequence(
            self.mesh,
            self.engine,
            copies,
            text_replicated=replicated,
            guidance_passes=self.guidance_passes,
        )


def join_ranks(
    settings: ParallelSettings, topology: Topology, *, heads: int, kv_heads: int | None = None
) -> Ranks:
    """Build the mesh; every rank must call this. Raises BadConfig if degrees, ranks and heads do not fit."""
    make_engine = choice("parallel: engine", settings.engine, ENGINES)
    choice("parallel: cfg", settings.cfg, CFG)
    splits = settings.cfg == "split"
    ulysses, ring = choose_degrees(
        half_of(topology.world_size) if splits else topology.world_size,
        heads=heads,
        kv_heads=kv_heads,
        ulysses=settings.ulysses,
        ring=settings.ring,
    )
    if splits:
        halves = build_halves(topology, ulysses=ulysses, ring=ring)
        return Ranks(topology, halves.mesh, make_engine(halves.mesh), settings, split(halves))
    mesh = build_mesh(topology, ulysses=ulysses, ring=ring)
    return Ranks(topology, mesh, make_engine(mesh), settings, CFG[settings.cfg])
