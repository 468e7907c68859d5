"""Stage 5: latents to pixels, cropped to the size that was asked for, on rank 0.

By rows every rank decodes its own; rank 0 takes them in order, a band at a time, into memory or a temp file,
so that neither the decode nor what writes the picture ever holds it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from imax_dist.errors import ImaxError
from imax_dist.geometry import ImageSize
from imax_dist.models.base import FlowModel
from imax_dist.output.image.bands import ROWS, Band, Bands
from imax_dist.parallel.broadcast import from_first_rank, on_every_rank
from imax_dist.pipeline.picture_coder import PictureCoder
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.shapes import Latents
from imax_dist.vae.rows import Rows, bands
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import RowStore


class DecodedPicture:
    """The poster's pixels, (H, W, 3) float32 in [0, 1] on the CPU, perhaps in a temp file without a name."""

    def __init__(self, size: ImageSize, read: Callable[[int, int], Tensor]) -> None:
        """``read`` gives rows [top, bottom)."""
        self.size = size
        self._read = read

    def whole(self) -> Float[Tensor, "height width 3"]:
        """All of it in memory."""
        return self._read(0, self.size.height)

    def bands(self) -> Bands:
        """A few rows at a time, for the writers."""

        def read() -> Iterator[Band]:
            for top in range(0, self.size.height, ROWS):
                yield self._read(top, min(top + ROWS, self.size.height)).numpy()

        return Bands(self.size, 3, 32, read)


@torch.no_grad()
def decode(plan: RenderPlan, coder: PictureCoder, latents: Latents) -> DecodedPicture | None:
    """The picture on rank 0, None on the others; the surplus of the render size is cut evenly off both sides.

    All ranks must call this. Raises ImaxError on all for numbers that are not finite.
    """
    if coder.way == "rows" and coder.codec is not None:
        return _decode_rows(plan, coder, latents)
    found: list[DecodedPicture] = []

    def make() -> dict[str, Tensor]:
        with coder.tiles():
            pixels = coder.model.decode_image(latents)[0].permute(1, 2, 0).float().cpu()
        _require_finite(plan, pixels)
        cropped = _finished(plan, pixels, top=0)
        found.append(DecodedPicture(plan.size, lambda top, bottom: cropped[top:bottom]))
        return {}

    from_first_rank(make, coder.topology)
    return found[0] if found else None


@torch.no_grad()
def decode_whole(model: FlowModel, latents: Latents) -> Float[Tensor, "height width 3"]:
    """The picture of ``latents`` with nothing cut off, to look at; pixels in [0, 1], float32 on the CPU."""
    pixels = model.decode_image(latents)[0].float().cpu()
    return (pixels / 2 + 0.5).clamp(0.0, 1.0).permute(1, 2, 0)


def _decode_rows(plan: RenderPlan, coder: PictureCoder, latents: Latents) -> DecodedPicture | None:
    assert coder.codec is not None
    scratch = coder.scratch
    rows = coder.codec.decode(latents, coder.mesh, scratch, listen=coder.listen)
    failure: ImaxError | None = None
    height = plan.size.height
    store: RowStore | None = None
    if coder.topology.is_first:
        like = torch.empty((0, plan.size.width, 3))
        store = scratch.on_host().open(like=like, rows=height, most=height)
    for top, band in in_rank_order(rows, coder.topology.rank):
        try:
            _require_finite(plan, band)
            if store is not None:
                store.append(_finished(plan, band.float().cpu(), top=top))
        except ImaxError as error:  # the other ranks' bands still have to be taken
            failure = failure or error
    rows.close()

    def agree() -> None:
        if failure is not None:
            raise failure

    on_every_rank(agree, coder.topology)
    return None if store is None else DecodedPicture(plan.size, store.read)


def in_rank_order(rows: Rows, rank: int) -> Iterator[tuple[int, Tensor]]:
    """On rank 0 (top, band) of all ranks from the top down; on others of their own, as they send them."""
    for sender in range(rows.share.ranks):
        share: RowShare = replace(rows.share, rank=sender)
        for top, bottom in bands(rows, share):
            if rank == sender:
                band = rows.read(top, bottom)
                rows.forget(bottom)
                if rank:
                    dist.send(band.contiguous(), 0, group=share.group)
                yield top, band
            elif rank == 0:
                band = rows.like.new_empty((bottom - top, *rows.like.shape[1:]))
                dist.recv(band, sender, group=share.group)
                yield top, band


def _finished(plan: RenderPlan, rows: Tensor, *, top: int) -> Tensor:
    """What the poster shows of ``rows`` from row ``top`` of the render on, in [0, 1]."""
    over = (plan.render_size.height - plan.size.height) // 2
    left = (plan.render_size.width - plan.size.width) // 2
    first, last = max(over - top, 0), max(over + plan.size.height - top, 0)
    cropped = rows[first:last, left : left + plan.size.width]
    return (cropped / 2 + 0.5).clamp(0.0, 1.0).contiguous()


def _require_finite(plan: RenderPlan, pixels: Tensor) -> None:
    if not pixels.isfinite().all():
        raise ImaxError(
            f"the picture came out with numbers that are not finite in {plan.request.dtype}; "
            "use --dtype bfloat16 or float32, and check switches changed with --set"
        )
