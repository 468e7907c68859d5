"""Encode and decode by rows: over ranks, in bounded memory, equal to the VAE's own forward to rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imax_dist.events import Listener, ignore, progress
from imax_dist.geometry import ImageSize
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.sequence import gather
from imax_dist.shapes import Latents
from imax_dist.vae.elements import decoded_elements, encoded_elements
from imax_dist.vae.rows import LazyRows, Rows
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import Scratch
from imax_dist.vae.walk import decoded, encoded, is_known

HELD_AT_ONCE = 3
"""Maps of the widest layer that a plain forward holds at its peak, about."""


def row_codec(model: Any) -> RowCodec | None:
    """The codec of an adapter whose ``vae`` is a diffusers AutoencoderKL; None for any other kind of VAE."""
    return RowCodec(model.vae, *model.latent_scale()) if is_known(model.vae) else None


@dataclass(frozen=True)
class RowCodec:
    """An AutoencoderKL, by rows. All ranks of the mesh must call its methods with the same arguments."""

    vae: Any
    shift: float
    scale: float
    """latents = (what the VAE makes - shift) x scale."""

    @property
    def factor(self) -> int:
        """Image pixels per latent pixel."""
        levels = len(self.vae.config.block_out_channels)
        return int(2 ** (levels - 1))

    def whole_bytes(self, size: ImageSize) -> int:
        """What a plain encode or decode of ``size`` takes at its peak, about."""
        widest = max(self.vae.config.block_out_channels[:2])
        item: int = self.vae.dtype.itemsize
        return HELD_AT_ONCE * size.area * int(widest) * item

    @torch.no_grad()
    def decode(
        self, latents: Latents, mesh: SequenceMesh, scratch: Scratch, *, listen: Listener = ignore
    ) -> Rows:
        """The picture of (1, C, h, w) ``latents``: this rank's rows of (H, W, 3), about [-1, 1], read once.

        Raises CannotWrite if neither memory nor disk can hold the features.
        """
        unscaled = latents.to(self.vae.dtype) / self.scale + self.shift
        rows = unscaled[0].permute(1, 2, 0).contiguous()
        share = RowShare.of(len(rows), rank=mesh.rank, ranks=mesh.size, group=mesh.group)
        counted = scratch.counting(progress(listen, decoded_elements(self.vae, share, rows.shape[1])))
        return decoded(self.vae, LazyRows(share, rows[:0], lambda top, bottom: rows[top:bottom]), counted)

    @torch.no_grad()
    def encode(
        self,
        picture: Callable[[int, int], Tensor],
        size: ImageSize,
        *,
        mesh: SequenceMesh,
        scratch: Scratch,
        noise: Latents | None,
        listen: Listener = ignore,
    ) -> Latents:
        """Latents (1, C, h, w), on every rank, of a picture whose rows are made on demand.

        ``picture(top, bottom)`` gives (rows, width, 3) in [-1, 1]. The latents are the posterior's mean, or
        mean + deviation x ``noise``.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        vae, height = self.vae, size.height
        share = RowShare.of(
            height // self.factor,
            rank=mesh.rank,
            ranks=mesh.size,
            group=mesh.group,
            unit=self.factor,
            height=height,
        )
        like = torch.empty((0, size.width, 3), dtype=vae.dtype, device=vae.device)
        counted = scratch.counting(progress(listen, encoded_elements(vae, share, size.width)))
        rows = encoded(vae, LazyRows(share, like, picture), counted)
        own = rows.read(rows.share.top, rows.share.bottom)
        rows.close()
        parameters = gather(own, rows.share.counts, mesh, dim=0).permute(2, 0, 1).unsqueeze(0)
        posterior = DiagonalGaussianDistribution(parameters)
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(parameters)
        scaled: Tensor = (latents - self.shift) * self.scale
        return scaled.contiguous()
