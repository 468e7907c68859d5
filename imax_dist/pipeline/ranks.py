"""How the ranks of one gang share a sequence: chosen once, used for every poster they render."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from imax_dist.config import choice, load_config
from imax_dist.errors import BadConfig
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.base import FlowModel
from imax_dist.models.cfg_execution import CfgExecution, batched, split, two_passes
from imax_dist.models.token_shards import TokenSequence
from imax_dist.parallel.cfg_parallel import build_cfg_parallel, ranks_per_half
from imax_dist.parallel.choose_kernel import AttentionShape, KernelChoice, choose_kernel
from imax_dist.parallel.devices import check_devices
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.engines.registry import DRAFTS, ENGINES, choose_engine
from imax_dist.parallel.hosts import check_link, check_ulysses_within_hosts, ranks_together, slowest_link
from imax_dist.parallel.kernels import Quality, leaving
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, choose_degrees
from imax_dist.parallel.topology import Topology
from imax_dist.settings_mapping import from_mapping


def _one_mesh(passes: CfgExecution, topology: Topology, **degrees: int) -> tuple[SequenceMesh, CfgExecution]:
    return build_mesh(topology, **degrees), passes


def _two_meshes(topology: Topology, **degrees: int) -> tuple[SequenceMesh, CfgExecution]:
    parallel = build_cfg_parallel(topology, **degrees)
    return parallel.mesh, split(parallel)


SPLIT = "split"
CFG: dict[str, Callable[..., tuple[SequenceMesh, CfgExecution]]] = {
    "two_passes": partial(_one_mesh, two_passes),
    "batched": partial(_one_mesh, batched),
    SPLIT: _two_meshes,
}
"""By name: this rank's mesh, and how the two predictions are computed on it."""


@dataclass(frozen=True)
class ParallelSettings:
    """``configs/parallel/*.yaml``. None: Ulysses as large as the heads allow, the ring takes the rest."""

    ulysses: int | None = None
    ring: int | None = None
    text: Literal["sharded", "replicated"] = "sharded"
    text_encoders: Literal["device", "cpu"] = "device"
    """cpu keeps them out of the device's memory: FLUX.1's T5 alone is 9.5 GB."""
    native: Literal["rank0", "shared", "auto"] = "rank0"
    """Who makes the native picture: rank 0 alone, or all ranks as in every other pass; the same to rounding.
    auto is what the planner finds faster, and rank0 where nobody asked it."""
    cfg: str = "two_passes"
    """Classifier-free guidance: two_passes, batched, or split (each half of the ranks takes one prompt)."""
    engine: str = "auto"
    """auto, torch, xfuser or diffusers; auto is torch. window, for drafts, is sparse above 2048 px."""
    kernel: str = "auto"
    """Attention on one device: auto (the fastest exact one, measured) or a name of parallel/kernels."""
    quality: Quality = "exact"
    """draft lets in what is not exact: kernels that round below the tensors' precision (fp8, Sage), and
    sparse attention (engine: window)."""
    compile: Literal["none", "regional", "auto"] = "none"
    """regional: the network's blocks compiled one by one with torch.compile; the last bits differ. auto is
    regional where a batch's posters gain more than compiling takes, and none where nobody planned it."""
    vae_memory_gib: float | None = None
    """Memory of a rank for the VAE's feature maps; the rest goes to temp files. None: 2, or half a GPU."""
    hop_sms: int = 0
    """A GPU's multiprocessors for the hops of a ring: NCCL takes at most so many, and FlashAttention-3 leaves
    them free. 0: as many as NCCL likes, when a kernel ends (DECISIONS 116)."""
    least_link_gb_s: float | None = None
    """Ranks on several hosts whose link carries less, GB/s a rank, are refused; a pool sets it for gangs."""

    @property
    def compiles(self) -> bool:
        """Whether blocks are compiled."""
        return self.compile == "regional"

    def __post_init__(self) -> None:
        if self.vae_memory_gib is not None and not self.vae_memory_gib > 0.0:
            raise BadConfig(f"parallel: vae_memory_gib must be above 0, got {self.vae_memory_gib}")
        if self.hop_sms < 0:
            raise BadConfig(f"parallel: hop_sms must be 0 (NCCL's choice) or more, got {self.hop_sms}")


def load_parallel(name: str | None, given: Mapping[str, Any] | None = None) -> ParallelSettings:
    """A file of configs/parallel by its name, or a YAML file by its path, with ``given`` laid over it.

    None is ``auto``. Raises BadConfig for an unknown name, key or value, MissingInput for a missing file.
    """
    mapping, where = load_config("parallel", name or "auto")
    return from_mapping(ParallelSettings, {**mapping, **(given or {})}, where=where)


@dataclass(frozen=True)
class Ranks:
    """This rank's place among those that render a poster together; ``settings`` hold what was chosen."""

    topology: Topology
    mesh: SequenceMesh
    engine: AttentionEngine
    settings: ParallelSettings
    cfg_execution: CfgExecution = two_passes
    notes: tuple[str, ...] = ()
    """What was measured or was not available when they joined."""

    @property
    def name(self) -> str:
        """What a recipe calls them."""
        mesh = f"ulysses {self.mesh.ulysses}, ring {self.mesh.ring}" if self.mesh.size > 1 else "1 rank"
        return f"{mesh}, kernel {self.settings.kernel}"

    @property
    def share_native(self) -> bool:
        """Whether all ranks make the native picture together."""
        return self.settings.native == "shared" and self.topology.world_size > 1

    @property
    def passes_alone(self) -> CfgExecution:
        """Of the native pass, which rank 0 makes by itself: nothing to split there."""
        return batched if self.settings.cfg == "batched" else two_passes

    def sequence(self, copies: TextCopies) -> TokenSequence:
        """The layout of the joint sequence with these text copies."""
        replicated = self.settings.text == "replicated"
        return TokenSequence(
            self.mesh,
            self.engine,
            copies,
            text_replicated=replicated,
            cfg_execution=self.cfg_execution,
        )


def join_ranks(
    settings: ParallelSettings,
    topology: Topology,
    *,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int = 128,
    dtype: torch.dtype = torch.float32,
) -> Ranks:
    """Build mesh and engine; every rank must call this.

    Raises BadConfig if degrees, ranks and heads do not fit, or an engine or kernel is not available here;
    SlowLink.
    """
    build = choice("parallel: cfg", settings.cfg, CFG)
    hosts = check_devices(topology)
    splits = settings.cfg == SPLIT
    chosen = choose_engine(
        settings.engine,
        text_replicated=settings.text == "replicated",
        halves=splits,
        quality=settings.quality,
    )
    ulysses, ring = choose_degrees(
        ranks_per_half(topology.world_size) if splits else topology.world_size,
        heads=heads,
        kv_heads=kv_heads,
        ulysses=settings.ulysses,
        ring=settings.ring,
        together=ranks_together(hosts),
    )
    check_ulysses_within_hosts(hosts, ulysses)
    link = checked_link(settings, topology, hosts)
    mesh, passes = build(topology, ulysses=ulysses, ring=ring, hop_sms=settings.hop_sms)
    work = AttentionShape(heads=heads, head_dim=head_dim, dtype=dtype)
    kernel = choose_kernel(settings.kernel, settings.quality, topology, work)
    run = leaving(kernel.kernel, settings.hop_sms) if mesh.ring > 1 else kernel.kernel
    engine = (ENGINES | DRAFTS)[chosen](mesh, kernel=run)
    resolved = dataclasses.replace(settings, engine=chosen, kernel=kernel.name)
    return Ranks(topology, mesh, engine, resolved, passes, notes=_notes(kernel, link))


def checked_link(settings: ParallelSettings, topology: Topology, hosts: Sequence[str]) -> float | None:
    """Bytes a second between hosts; None on one. Raises SlowLink; every rank must call this."""
    link = slowest_link(topology, hosts)
    if link is not None and settings.least_link_gb_s is not None:
        check_link(link, 1e9 * settings.least_link_gb_s)
    return link


def join_for(model: FlowModel, settings: ParallelSettings, topology: Topology) -> Ranks:
    """``join_ranks`` with a model's heads and dtype."""
    spec = model.spec
    return join_ranks(
        settings,
        topology,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        dtype=model.dtype,
    )


def _notes(kernel: KernelChoice, link: float | None) -> tuple[str, ...]:
    measured = (kernel.sentence(),) if kernel.measured else ()
    return measured if link is None else (*measured, f"link between hosts {link / 1e9:.2f} GB/s a rank")
