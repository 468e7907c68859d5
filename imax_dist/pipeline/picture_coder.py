"""How a poster goes through the VAE: whole, by rows (the same numbers to rounding), or in blended tiles.

One rank computes whole what fits the memory for it. Anything larger, and any picture on several ranks, goes
by rows, which need no more memory than they are given, and on a GPU less time once a picture is large
(BENCHMARKS.md, "One GPU"). Tiles change the picture and are used only if asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812

from imax_dist.errors import BadConfig
from imax_dist.events import Listener, ignore
from imax_dist.geometry import ImageSize
from imax_dist.models.base import FlowModel
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.mesh import SequenceMesh, single_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.pipeline.ranks import Ranks
from imax_dist.shapes import Latents, Pixels
from imax_dist.vae.codec import RowCodec, row_codec
from imax_dist.vae.enlarge import enlarged_rows
from imax_dist.vae.store import Scratch, Tier

GIB = 1 << 30
CPU_GIB = 2.0
"""Memory for feature maps on a CPU, and on the host of a GPU, unless ``vae_memory_gib`` says otherwise."""
WHOLE_ON_GPU = 2 * GIB
"""Three maps of a picture that a GPU decodes whole: up to about 1180 px a side in half precision."""
GPU_SHARE = 0.5
"""Of a GPU's whole memory, not of what is free now, so that the same GPU always decides alike."""


@dataclass(frozen=True)
class PictureCoder:
    """The VAE of one render; every rank has one and calls it at the same places."""

    model: FlowModel
    topology: Topology
    size: ImageSize
    way: str
    """whole, rows or tiled; for a VAE that is not known row by row: whole on rank 0."""
    codec: RowCodec | None
    memory_gib: float | None = None
    listen: Listener = ignore
    """Told how far a picture is that goes by rows."""

    @classmethod
    def of(cls, plan: RenderPlan, model: FlowModel, ranks: Ranks) -> PictureCoder:
        """Decide the way. Raises BadConfig for tiles that the model's VAE does not offer."""
        codec, memory = row_codec(model), ranks.settings.vae_memory_gib
        way = "rows"
        if plan.method.vae == "tiled":
            way = "tiled"
            if not hasattr(model.vae, "enable_tiling"):
                raise BadConfig(
                    f"vae: tiled was asked for, but the VAE of {model.spec.name} has no tiles; use exact"
                )
        elif codec is None:
            way = "whole on rank 0"
        elif ranks.topology.world_size == 1:
            room = scratch(ranks.topology, memory).tiers[0].limit
            fits = codec.whole_bytes(plan.render_size) <= whole_limit(room, ranks.topology.device.type)
            way = "whole" if fits else "rows"
        return cls(model, ranks.topology, plan.render_size, way, codec, memory)

    def at(self, size: ImageSize) -> PictureCoder:
        """The same for a picture of another size, as a pass of a cascade has it."""
        return replace(self, size=size)

    def too_large(self, size: ImageSize) -> bool:
        """Whether a picture of ``size`` can only be decoded by rows; the same answer on every rank."""
        if self.way != "rows" or self.codec is None:
            return False
        return self.codec.whole_bytes(size) > self.scratch.tiers[0].limit

    @property
    def scratch(self) -> Scratch:
        """Room for feature maps: memory up to the limit, then temp files."""
        return scratch(self.topology, self.memory_gib)

    @property
    def mesh(self) -> SequenceMesh:
        """All ranks as one ring; their rows follow each other."""
        if self.topology.world_size == 1:
            return single_rank()
        everyone = dist.group.WORLD
        return SequenceMesh(1, self.topology.world_size, self.topology.rank, None, everyone, everyone)

    def encode_enlarged(self, pixels: Pixels, *, noise: Latents | None) -> Latents:
        """Latents, on every rank, of ``pixels`` (1, 3, h, w) enlarged to the render's size (bicubic)."""
        if self.way == "rows" and self.codec is not None:
            rows = enlarged_rows(pixels.to(self.model.device), self.size, dtype=self.codec.vae.dtype)
            return self.codec.encode(
                rows, self.size, mesh=self.mesh, scratch=self.scratch, noise=noise, listen=self.listen
            )
        size = (self.size.height, self.size.width)

        def encode() -> dict[str, Any]:
            enlarged = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False).clamp(-1.0, 1.0)
            with self.tiles():
                return {"latents": self.model.encode_image(enlarged, noise=noise)}

        return from_first_rank(encode, self.topology)["latents"]

    @contextmanager
    def tiles(self) -> Iterator[None]:
        """diffusers' own blended tiling for the length of the block, if that is the way."""
        vae = self.model.vae
        if self.way != "tiled":
            yield
            return
        vae.enable_tiling()
        try:
            yield
        finally:
            vae.disable_tiling()


def whole_limit(room: float, kind: str) -> float:
    """Bytes up to which a device of this kind (cpu, cuda) with ``room`` for maps takes a picture whole."""
    return min(room, WHOLE_ON_GPU) if kind == "cuda" else room


def scratch(topology: Topology, memory_gib: float | None) -> Scratch:
    """The same on every rank and at every time: it depends on the kind of device, not on what is free."""
    device = topology.device
    if device.type != "cuda":
        return Scratch([Tier(device, round((memory_gib or CPU_GIB) * GIB))])
    total = torch.cuda.get_device_properties(device).total_memory
    limit = round(memory_gib * GIB) if memory_gib else round(GPU_SHARE * total)
    return Scratch([Tier(device, limit), Tier(torch.device("cpu"), round(CPU_GIB * GIB))])
