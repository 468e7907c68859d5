"""Stage 5: latents to pixels, cropped to the size that was asked for, on rank 0.

By rows every rank decodes its own; rank 0 takes them in order, a band at a time, into memory or a temp file,
so that neither the decode nor what writes the picture ever holds it whole. What is done to the pixels is done
where they are, and a GPU goes on while the host puts them away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from imax_dist.errors import ImaxError
from imax_dist.geometry import ImageSize
from imax_dist.models.base import FlowModel
from imax_dist.output.image.bands import ROWS, Band, Bands
from imax_dist.parallel.broadcast import on_every_rank
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.pixels import as_picture, shown
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.pipeline.to_host import on_host
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.shapes import Latents, Picture
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.store import RowStore, Scratch


class DecodedPicture:
    """The poster's pixels, (H, W, 3) float32 in [0, 1] on the CPU, perhaps in a temp file without a name."""

    def __init__(self, size: ImageSize, read: Callable[[int, int], Tensor]) -> None:
        """``read`` gives rows [top, bottom)."""
        self.size = size
        self._read = read

    def rows(self, top: int, bottom: int) -> Picture:
        """Rows [top, bottom)."""
        return self._read(top, bottom)

    def whole(self) -> Picture:
        """All of it in memory."""
        return self._read(0, self.size.height)

    def bands(self) -> Bands:
        """A few rows at a time, for the writers."""

        def read() -> Iterator[Band]:
            for top in range(0, self.size.height, ROWS):
                yield self._read(top, min(top + ROWS, self.size.height)).numpy()

        return Bands(self.size, 3, 32, read)


def decode(
    plan: PosterPlan | PassPlan, runner: VaeRunner, latents: Latents, *, dtype: torch.dtype = torch.float32
) -> DecodedPicture | None:
    """The picture on rank 0, None on the others; the surplus of the render size is cut evenly off both sides.

    ``dtype`` is float64 for a picture that guides a pass in float64. All ranks must call this. Raises
    ImaxError on all for numbers that are not finite, Preempted if stopped.
    """
    return on_every_rank(lambda: _assembled(plan, runner, latents, dtype), runner.topology)


@torch.no_grad()
def decode_whole(model: FlowModel, latents: Latents) -> Picture:
    """The picture of ``latents`` with nothing cut off, to look at; pixels in [0, 1], float32 on the CPU."""
    return as_picture(model.decode_image(latents).float().cpu())


def _assembled(
    plan: PosterPlan | PassPlan, runner: VaeRunner, latents: Latents, dtype: torch.dtype
) -> DecodedPicture | None:
    scratch, finite = runner.strategy.scratch(), torch.ones((), dtype=torch.bool, device=latents.device)

    def finished() -> Iterator[Tensor]:
        for top, rows in runner.decode(latents, scratch):
            for first in range(0, len(rows), ROWS):
                band = rows[first : first + ROWS]
                finite.logical_and_(band.isfinite().all())
                if runner.topology.is_first:
                    yield _finished(plan, band.to(dtype), top=top + first)

    failure: ImaxError | None = None
    store: RowStore | None = None
    for rows in on_host(finished(), latents.device):
        if failure is not None:
            continue  # the other ranks' bands still have to be taken
        try:
            store = store or _store(plan, scratch, dtype)
            store.append(rows)
        except ImaxError as error:
            failure = error
    if failure is not None:
        raise failure
    _require(finite, plan)
    return None if store is None else DecodedPicture(plan.size, store.read)


def _store(plan: PosterPlan | PassPlan, scratch: Scratch, dtype: torch.dtype) -> RowStore:
    """Room for the poster's pixels beside the maps that are still held."""
    like, height = torch.empty((0, plan.size.width, 3), dtype=dtype), plan.size.height
    sizes = BlockSizes.of("cpu")
    return scratch.on_host().open(like=like, rows=height, most=height, segment_bytes=sizes.segment_bytes)


def _finished(plan: PosterPlan | PassPlan, rows: Tensor, *, top: int) -> Tensor:
    """What the poster shows of ``rows`` from row ``top`` of the render on, in [0, 1]."""
    over = (plan.render_size.height - plan.size.height) // 2
    left = (plan.render_size.width - plan.size.width) // 2
    first, last = max(over - top, 0), max(over + plan.size.height - top, 0)
    cropped = rows[first:last, left : left + plan.size.width]
    return shown(cropped).contiguous()


def _require(finite: Tensor, plan: PosterPlan | PassPlan) -> None:
    """Asked once, at the end: every question makes the host wait for the GPU."""
    if not finite:
        raise ImaxError(
            f"the picture came out with numbers that are not finite in {plan.request.dtype}; "
            "use --dtype bfloat16 or float32, and check switches changed with --set"
        )
