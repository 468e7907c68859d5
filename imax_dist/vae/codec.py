"""Encode and decode by rows: over ranks, in bounded memory, equal to the VAE's own forward to rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.events import Listener, ignore, progress
from imax_dist.geometry import ImageSize
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.sequence import gather
from imax_dist.shapes import Latents
from imax_dist.vae.autoencoder import Autoencoder, Half
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.dry_run import dry_run
from imax_dist.vae.networks import network_of
from imax_dist.vae.rows import LazyRows, RowMap
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import Scratch, Tier
from imax_dist.vae.walk import Walk
from imax_dist.vae.workspace import Workspace


def _nothing() -> None:
    """For what nobody stops."""


class Callbacks(NamedTuple):
    """Who follows a picture on its way: ``listen`` gets events of progress, ``check`` may raise Preempted."""

    listen: Listener = ignore
    check: Callable[[], None] = _nothing


NO_CALLBACKS = Callbacks()


def row_codec(model: Any, sizes: BlockSizes | None = None) -> RowCodec | None:
    """The codec of a FlowModel (``vae``, ``scaled``, ``unscaled``); None for a VAE that is not described."""
    network = network_of(model.vae)
    if network is None:
        return None
    return RowCodec(
        model.vae, network, model.scaled, model.unscaled, sizes or BlockSizes.of(model.vae.device.type)
    )


@dataclass(frozen=True)
class RowCodec:
    """A VAE by rows. All ranks of the mesh must call its methods with the same arguments."""

    vae: Any
    network: Autoencoder
    scaled: Callable[[Latents], Latents]
    """What the VAE makes, as the transformer takes it."""
    unscaled: Callable[[Latents], Latents]
    """The inverse, in the VAE's dtype."""
    sizes: BlockSizes

    def workspace(
        self, scratch: Scratch, half: Half, start: RowMap, watch: Callbacks = NO_CALLBACKS
    ) -> Workspace:
        """For one half from ``start`` on; its events say how many of this rank's elements are done."""
        count = progress(watch.listen, elements(self.network, half, start, sizes=self.sizes))

        def computed(more: int) -> None:
            count(more)
            watch.check()

        return Workspace(scratch, self.sizes, computed=computed)

    @torch.no_grad()
    def decode(
        self, latents: Latents, mesh: SequenceMesh, scratch: Scratch, *, watch: Callbacks = NO_CALLBACKS
    ) -> RowMap:
        """The picture of (1, C, h, w) ``latents``: this rank's rows of (H, W, 3), about [-1, 1], read once.

        Raises CannotWrite if neither memory nor disk can hold the features.
        """
        rows = self.unscaled(latents)[0].permute(1, 2, 0).contiguous()
        share = RowShare.of(len(rows), rank=mesh.rank, ranks=mesh.size, group=mesh.group)
        start = LazyRows(share, rows[:0], lambda top, bottom: rows[top:bottom])
        return self._through("decoder", start, self.workspace(scratch, "decoder", start, watch))

    @torch.no_grad()
    def encode(
        self,
        picture: Callable[[int, int], Tensor],
        size: ImageSize,
        *,
        mesh: SequenceMesh,
        scratch: Scratch,
        noise: Latents | None,
        watch: Callbacks = NO_CALLBACKS,
    ) -> Latents:
        """Latents (1, C, h, w), on every rank, of a picture whose rows are made on demand.

        ``picture(top, bottom)`` gives (rows, width, 3) in [-1, 1]. The latents are the posterior's mean, or
        mean + deviation x ``noise``.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        vae, share = self.vae, self.encoded_share(size, mesh)
        channels = 4 if self.network.opacity else 3
        like = torch.empty((0, size.width, channels), dtype=vae.dtype, device=vae.device)
        start = LazyRows(share, like, _opaque(picture) if self.network.opacity else picture)
        rows = self._through("encoder", start, self.workspace(scratch, "encoder", start, watch))
        own = rows.read(rows.share.top, rows.share.bottom)
        rows.close()
        parameters = gather(own, rows.share.counts, mesh, dim=0).permute(2, 0, 1).unsqueeze(0)
        posterior = DiagonalGaussianDistribution(parameters)
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(parameters)
        return self.scaled(latents).contiguous()

    def encoded_share(self, size: ImageSize, mesh: SequenceMesh) -> RowShare:
        """The rows of a picture of ``size`` that this rank encodes."""
        of_ranks = partial(RowShare.of, rank=mesh.rank, ranks=mesh.size, group=mesh.group)
        factor = self.network.factor
        return of_ranks(size.height // factor, unit=factor, height=size.height)

    def _through(self, half: Half, start: RowMap, workspace: Workspace) -> RowMap:
        walk = Walk(dict(self.vae.named_parameters()), workspace)
        rows = walk.through(self.network.layers(half), start)
        if half == "encoder" or not self.network.clamps:
            return rows
        return LazyRows(
            rows.share,
            rows.like[:, :, :3],
            lambda top, bottom: rows.read(top, bottom)[:, :, :3].clamp_(-1.0, 1.0),
            forgets=rows.forget,
            closes=(rows,),
            widest=rows.widest,
        )


def _opaque(picture: Callable[[int, int], Tensor]) -> Callable[[int, int], Tensor]:
    """``picture`` with a fourth channel of ones."""

    def rows(top: int, bottom: int) -> Tensor:
        colours = picture(top, bottom)
        return torch.cat([colours, torch.ones_like(colours[:, :, :1])], dim=2)

    return rows


def elements(network: Autoencoder, half: Half, start: RowMap, *, sizes: BlockSizes) -> int:
    """Of all maps that the walk computes on this rank, without its result: known before it starts."""
    nowhere = Scratch([Tier(torch.device("cpu"), 0)])
    width, dtype = start.like.shape[1], start.like.dtype
    counted, _ = dry_run(network, half, start.share, width=width, dtype=dtype, scratch=nowhere, sizes=sizes)
    return counted.elements
