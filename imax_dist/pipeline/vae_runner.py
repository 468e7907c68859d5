"""The VAE of one render: the strategy that its plan, its ranks and the memory decide, and who watches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from imax_dist.errors import BadConfig, Preempted
from imax_dist.events import Listener, ignore
from imax_dist.geometry import ImageSize
from imax_dist.models.base import FlowModel
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.pipeline.ranks import Ranks
from imax_dist.pipeline.run import never
from imax_dist.pipeline.upsample import network_enlarges
from imax_dist.shapes import Latents, Pixels
from imax_dist.super_resolution.network import EnlargingNetwork
from imax_dist.vae.codec import Callbacks, row_codec
from imax_dist.vae.limits import fits_whole
from imax_dist.vae.store import Scratch
from imax_dist.vae.strategies import Rows, Strategy, Tiled, Whole
from imax_dist.vae.tiles import Tiles, tiles_of


@dataclass(frozen=True)
class VaeRunner:
    """Every rank has one and calls it at the same places."""

    model: FlowModel
    topology: Topology
    strategy: Strategy
    listen: Listener = ignore
    """Gets events of how far a picture is that goes by rows."""
    stop: Callable[[], bool] = never
    """Read after every band of a picture that goes by rows."""
    network: EnlargingNetwork | None = None
    """Enlarges references in bicubic's place."""

    @classmethod
    def for_plan(
        cls,
        plan: PosterPlan,
        model: FlowModel,
        ranks: Ranks,
        *,
        listen: Listener = ignore,
        stop: Callable[[], bool] = never,
        network: EnlargingNetwork | None = None,
    ) -> VaeRunner:
        """Raises BadConfig for tiles that the model's VAE does not offer."""
        return cls(model, ranks.topology, strategy_for(plan, model, ranks), listen, stop, network)

    def encode_enlarged(self, pixels: Pixels, size: ImageSize, *, noise: Latents | None) -> Latents:
        """Latents, on every rank, of ``pixels`` (1, 3, h, w) in [-1, 1] enlarged to ``size``."""
        strategy, enlarge = self.strategy, None
        if self.network is not None:
            enlarge = network_enlarges(
                self.network,
                pixels,
                size,
                scratch=strategy.scratch(),
                ranks=strategy.encoding_ranks,
                watch=self._watch("enlarged"),
                dtype=self.model.vae.dtype,
            )
        watch = self._watch("encoded")
        return strategy.encode_enlarged(pixels, size, noise=noise, enlarge=enlarge, watch=watch)

    def decode(self, latents: Latents, scratch: Scratch) -> Iterator[tuple[int, Tensor]]:
        """On rank 0 (top, rows (n, W, 3) in about [-1, 1]) from the top down; on others what they send."""
        return self.strategy.decode(latents, scratch, watch=self._watch("decoded"))

    def _watch(self, doing: str) -> Callbacks:
        def check() -> None:
            self.topology.marks.mark()
            if self.stop():
                resume = "run the same command again to resume"
                raise Preempted(f"stopped while the picture was {doing}; {resume}")

        return Callbacks(self.listen, check)


def strategy_for(plan: PosterPlan, model: FlowModel, ranks: Ranks) -> Strategy:
    """Whole if one rank has room for it, else by rows; tiles only if the plan says so.

    Raises BadConfig for tiles of a VAE that has none.
    """
    topology, memory = ranks.topology, ranks.settings.vae_memory_gib
    if plan.method.vae == "tiled":
        if tiles_of(model.vae) is Tiles.NEVER:
            raise BadConfig(
                f"vae: tiled is set, but the VAE of {model.spec.name} has no tiles; use exact "
                "(--set vae=exact)"
            )
        return Tiled(topology, model, memory)
    codec = row_codec(model)
    if codec is None:
        return Whole(topology, model, memory, "whole on rank 0")
    rows = Rows(topology, codec, memory)
    limit, kind = rows.scratch().tiers[0].limit, topology.device.type
    area, element = plan.render_size.area, codec.vae.dtype.itemsize
    if topology.world_size == 1 and fits_whole(codec.network, area, element, kind=kind, limit=limit):
        return Whole(topology, model, memory)
    return rows
