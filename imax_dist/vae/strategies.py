"""How a picture goes through the VAE: whole, by rows (the same numbers to rounding), or in blended tiles.

One rank computes whole what fits the memory for it. Anything larger, and any picture on several ranks, goes
by rows, which need no more memory than they are given, and on a GPU less time once a picture is large
(BENCHMARKS.md, "One GPU"). Tiles change the picture and are used only if the user chooses them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.errors import ImaxError
from imax_dist.geometry import ImageSize
from imax_dist.parallel.broadcast import from_first_rank, on_every_rank
from imax_dist.parallel.mesh import SequenceMesh, single_rank
from imax_dist.parallel.point_to_point import Posted, post
from imax_dist.parallel.topology import Topology
from imax_dist.shapes import Latents, Pixels
from imax_dist.vae.codec import NO_CALLBACKS, Callbacks, RowCodec
from imax_dist.vae.enlarge import Enlarge, enlarged_rows
from imax_dist.vae.limits import scratch_of, whole_bytes
from imax_dist.vae.rows import REACH, RowMap
from imax_dist.vae.store import Scratch
from imax_dist.vae.tiles import Tiles, tiles_of
from imax_dist.vae.workspace import bands

AHEAD = 2
"""Bands that rank 0 has asked for at a time."""
MOST_SENT = 256 << 20
"""Bytes of finished bands that a rank holds until rank 0 takes them; it computes on meanwhile."""


class Strategy(ABC):
    """One poster's way through the VAE; every rank has one and calls it at the same places."""

    name: str
    """As the recipe says it."""
    topology: Topology
    memory_gib: float | None
    """For maps, as ``vae_memory_gib`` of the parallel settings says."""

    @property
    def encoding_ranks(self) -> int:
        """How many ranks share a picture that is encoded."""
        return 1

    @abstractmethod
    def decode(
        self, latents: Latents, scratch: Scratch, *, watch: Callbacks = NO_CALLBACKS
    ) -> Iterator[tuple[int, Tensor]]:
        """On rank 0 (top, rows (n, W, 3) in about [-1, 1]) from the top down; on others what they send."""

    @abstractmethod
    def encode_enlarged(
        self,
        pixels: Pixels,
        size: ImageSize,
        *,
        noise: Latents | None,
        enlarge: Enlarge | None = None,
        watch: Callbacks = NO_CALLBACKS,
    ) -> Latents:
        """Latents, on every rank, of ``pixels`` (1, 3, h, w) at ``size``, by ``enlarge`` or bicubic."""

    @abstractmethod
    def too_large(self, size: ImageSize) -> bool:
        """Whether one rank has no room to decode a picture of ``size`` whole; the same on every rank."""

    def scratch(self) -> Scratch:
        """Room for one picture's maps: memory up to the limit, then temp files."""
        return scratch_of(self.topology.device, self.memory_gib)


@dataclass(frozen=True)
class Whole(Strategy):
    """On rank 0, by the VAE's own forward."""

    topology: Topology
    model: Any
    """Has ``encode_image(pixels, noise=)`` and ``decode_image(latents)``."""
    memory_gib: float | None = None
    name: str = "whole"

    @torch.no_grad()
    def decode(
        self, latents: Latents, scratch: Scratch, *, watch: Callbacks = NO_CALLBACKS
    ) -> Iterator[tuple[int, Tensor]]:
        del scratch  # a plain forward takes what it needs
        if self.topology.is_first:
            watch.check()
            yield 0, self.decoded(latents)[0].permute(1, 2, 0)

    @torch.no_grad()
    def encode_enlarged(
        self,
        pixels: Pixels,
        size: ImageSize,
        *,
        noise: Latents | None,
        enlarge: Enlarge | None = None,
        watch: Callbacks = NO_CALLBACKS,
    ) -> Latents:
        def encode() -> Latents:
            watch.check()
            sides = (size.height, size.width)
            if enlarge is None:
                enlarged = F.interpolate(pixels, size=sides, mode="bicubic", align_corners=False)
            else:
                enlarged = enlarge(0, size.height)(0, size.height).permute(2, 0, 1)[None]
            return self.encoded(enlarged.clamp(-1.0, 1.0), noise=noise)

        return from_first_rank(encode, self.topology)

    def too_large(self, size: ImageSize) -> bool:
        del size  # there is no other way
        return False

    def decoded(self, latents: Latents) -> Pixels:
        """Pixels in about [-1, 1], in one go."""
        pixels: Pixels = self.model.decode_image(latents)
        return pixels

    def encoded(self, pixels: Pixels, *, noise: Latents | None) -> Latents:
        """Latents of pixels in [-1, 1], in one go."""
        latents: Latents = self.model.encode_image(pixels, noise=noise)
        return latents


@dataclass(frozen=True)
class Tiled(Whole):
    """On rank 0, by diffusers' own blended tiles: little memory, another picture.

    tiles.py says at which sizes, and which way. DECISIONS 6.
    """

    name: str = "tiled"

    def decoded(self, latents: Latents) -> Pixels:
        if tiles_of(self.model.vae) is not Tiles.ALWAYS:
            with self._tiling():
                return super().decoded(latents)
        pixels: Pixels = self.model.vae.tiled_decode(self.model.unscaled(latents), return_dict=False)[0]
        return pixels

    def encoded(self, pixels: Pixels, *, noise: Latents | None) -> Latents:
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        vae, tiles = self.model.vae, tiles_of(self.model.vae)
        if tiles is not Tiles.ALWAYS:
            with nullcontext() if tiles is Tiles.DECODING else self._tiling():
                return super().encoded(pixels, noise=noise)
        posterior = DiagonalGaussianDistribution(vae._tiled_encode(pixels.to(vae.dtype)))
        mean = posterior.mean
        scaled: Latents = self.model.scaled(mean if noise is None else mean + posterior.std * noise.to(mean))
        return scaled

    @contextmanager
    def _tiling(self) -> Iterator[None]:
        self.model.vae.enable_tiling()
        try:
            yield
        finally:
            self.model.vae.disable_tiling()


@dataclass(frozen=True)
class Rows(Strategy):
    """Each rank its own rows, a band at a time."""

    topology: Topology
    codec: RowCodec
    memory_gib: float | None = None
    name: str = "rows"

    @property
    def encoding_ranks(self) -> int:
        return self.topology.world_size

    @property
    def mesh(self) -> SequenceMesh:
        """All ranks as one ring; their rows follow each other."""
        if self.topology.world_size == 1:
            return single_rank()
        everyone = dist.group.WORLD
        return SequenceMesh(1, self.topology.world_size, self.topology.rank, None, everyone, everyone)

    @torch.no_grad()
    def decode(
        self, latents: Latents, scratch: Scratch, *, watch: Callbacks = NO_CALLBACKS
    ) -> Iterator[tuple[int, Tensor]]:
        rows = self.codec.decode(latents, self.mesh, scratch, watch=watch)
        failures: list[ImaxError] = []
        sent: deque[Posted] = deque()
        for top, band in self._own_bands(rows, watch, failures):
            if not self.topology.is_first:
                sent.append(post([(band.contiguous(), 0)], [], rows.share.group))
            while sum(posted.size for posted in sent) > MOST_SENT:
                sent.popleft().wait()
            yield top, band
        if self.topology.is_first:
            yield from self._bands_of_others(rows)
        with self.topology.marks.waiting("the gathering of the picture"):
            for posted in sent:
                posted.wait()
        rows.close()
        if failures:
            raise failures[0]

    def _own_bands(
        self, rows: RowMap, watch: Callbacks, failures: list[ImaxError]
    ) -> Iterator[tuple[int, Tensor]]:
        """This rank's bands; blank ones after a failure, since rank 0 waits for all of them."""
        for top, bottom in bands(rows, self.codec.sizes):
            try:
                watch.check()
                band = rows.read(top, bottom) if not failures else _blank(rows, bottom - top)
            except ImaxError as error:
                failures.append(error)
                band = _blank(rows, bottom - top)
            rows.forget(bottom)
            yield top, band

    def _bands_of_others(self, rows: RowMap) -> Iterator[tuple[int, Tensor]]:
        """What the other ranks send, in order; a band is received while the one before is in use."""
        shares = [replace(rows.share, rank=sender) for sender in range(1, rows.share.ranks)]
        places = deque(
            (share.rank, band) for share in shares for band in bands(rows, self.codec.sizes, share)
        )
        coming: deque[tuple[int, Tensor, Posted]] = deque()
        while places or coming:
            while places and len(coming) < AHEAD:
                sender, (top, bottom) = places.popleft()
                band = _blank(rows, bottom - top)
                coming.append((top, band, post([], [(band, sender)], rows.share.group)))
            first, received, posted = coming.popleft()
            with self.topology.marks.waiting("the gathering of the picture"):
                posted.wait()
            yield first, received

    def encode_enlarged(
        self,
        pixels: Pixels,
        size: ImageSize,
        *,
        noise: Latents | None,
        enlarge: Enlarge | None = None,
        watch: Callbacks = NO_CALLBACKS,
    ) -> Latents:
        vae = self.codec.vae
        if enlarge is None:
            rows = enlarged_rows(pixels.to(vae.device), size, dtype=vae.dtype)
        else:
            share = self.codec.encoded_share(size, self.mesh)
            rows = on_every_rank(
                lambda: enlarge(max(share.top - REACH, 0), min(share.bottom + REACH, size.height)),
                self.topology,
            )
        return self.codec.encode(rows, size, mesh=self.mesh, scratch=self.scratch(), noise=noise, watch=watch)

    def too_large(self, size: ImageSize) -> bool:
        needed = whole_bytes(self.codec.network, size.area, self.codec.vae.dtype.itemsize)
        return needed > self.scratch().tiers[0].limit


def _blank(rows: RowMap, count: int) -> Tensor:
    return rows.like.new_zeros((count, *rows.like.shape[1:]))
