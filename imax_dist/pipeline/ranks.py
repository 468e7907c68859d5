"""How the ranks of one gang share a sequence: chosen once, used for every poster they render."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from imax_dist.config import choice
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.base import TokenSequence
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, choose_degrees
from imax_dist.parallel.topology import Topology

ENGINES: dict[str, Callable[[SequenceMesh], AttentionEngine]] = {"torch": TorchEngine}


@dataclass(frozen=True)
class ParallelSettings:
    """``configs/parallel/*.yaml``. None: Ulysses as large as the heads allow, the ring takes the rest."""

    ulysses: int | None = None
    ring: int | None = None
    text: Literal["sharded", "replicated"] = "sharded"
    engine: str = "torch"


@dataclass(frozen=True)
class Ranks:
    """This rank's place among those that render a poster together."""

    topology: Topology
    mesh: SequenceMesh
    engine: AttentionEngine
    settings: ParallelSettings

    def sequence(self, copies: TextCopies) -> TokenSequence:
        """The layout of the joint sequence with these text copies."""
        replicated = self.settings.text == "replicated"
        return TokenSequence(self.mesh, self.engine, copies, text_replicated=replicated)


def join_ranks(
    settings: ParallelSettings, topology: Topology, *, heads: int, kv_heads: int | None = None
) -> Ranks:
    """Build the mesh; every rank must call this. Raises BadConfig if degrees, ranks and heads do not fit."""
    make_engine = choice("parallel: engine", settings.engine, ENGINES)
    ulysses, ring = choose_degrees(
        topology.world_size,
        heads=heads,
        kv_heads=kv_heads,
        ulysses=settings.ulysses,
        ring=settings.ring,
    )
    mesh = build_mesh(topology, ulysses=ulysses, ring=ring)
    return Ranks(topology, mesh, make_engine(mesh), settings)
