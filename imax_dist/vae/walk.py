"""An autoencoder's layers on maps of rows, in order: the same numbers as its own ``forward``.

Nothing is set on the VAE's modules. A map is used up by the layer after it. A block of several convolutions
computes its inner map again where memory has no room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.vae.attention import Projections
from imax_dist.vae.convolutions import (
    BESIDE,
    channel_means,
    convolved,
    downsampled3,
    shuffled_down3,
    shuffled_up3,
    upsampled3,
    window3,
)
from imax_dist.vae.layers import (
    Attention,
    Convolution,
    Downsample,
    Head,
    Layer,
    Level,
    Norm,
    ResBlock,
    ShuffleDown,
    ShuffleUp,
    Stem,
    Upsample,
)
from imax_dist.vae.moments import group_norm_affine
from imax_dist.vae.rows import LazyRows, RowMap, SharedRows
from imax_dist.vae.store import row_bytes
from imax_dist.vae.workspace import Workspace

Change = Callable[[Tensor], Tensor]
Filters = Callable[[], tuple[Tensor, Tensor]]
Make = Callable[..., Tensor]
"""(rows, weight, bias, top=, bottom=) -> a band of a map of twice or half the sides."""
T = TypeVar("T")


def unchanged(x: Tensor) -> Tensor:
    """For a convolution that has nothing before it."""
    return x


@dataclass(frozen=True)
class Walk:
    """``weights`` by the names that the layers give; none are read in a dry run."""

    weights: Mapping[str, Tensor]
    workspace: Workspace

    def through(self, layers: Iterable[Layer], rows: RowMap) -> RowMap:
        """The map after all ``layers``; to be read once if the last one is a head."""
        for layer in layers:
            rows = self.after(layer, rows)
        return rows

    def after(self, layer: Layer, rows: RowMap) -> RowMap:
        """The map after one layer; ``rows`` is used up."""
        match layer:
            case Stem(convs, repeats):
                for conv in convs:
                    rows = self.repeated(rows, self.convolution(rows, conv, last=True), repeats)
                return self.workspace.store(rows)
            case ResBlock():
                return self.residual(rows, layer)
            case Attention():
                return self.attention(rows, layer)
            case Upsample(conv):
                return self.doubled(rows, upsampled3, self.filters(conv), conv.outputs)
            case ShuffleUp(conv):
                shuffled = partial(shuffled_up3, repeats=layer.repeats)
                return self.doubled(rows, shuffled, self.filters(conv), layer.outputs)
            case Downsample(conv):
                return self.halved(rows, downsampled3, self.filters(conv), conv.outputs)
            case ShuffleDown(conv):
                return self.halved(rows, shuffled_down3, self.filters(conv), layer.outputs)
            case Level():
                return self.level(rows, layer)
            case Head():
                return self.head(rows, layer)

    def convolution(
        self, rows: RowMap, conv: Convolution, before: Change = unchanged, *, last: bool
    ) -> LazyRows:
        """``conv`` of ``before(rows)``. ``last``: nothing else will read ``rows``."""
        filters = self.filters(conv)

        def make(top: int, bottom: int) -> Tensor:
            if conv.kernel == 1:
                return convolved(before(rows.read(top, bottom)), *filters())
            window, (over, under) = window3(rows, top, bottom)
            return convolved(before(window), *filters(), pad=(1, 1, over, under))

        like = _like(rows, rows.like.shape[1], conv.outputs)
        forgets = (lambda row: rows.forget(row - 1)) if last else None
        closes, widest = (rows,) if last else (), row_bytes(rows.like)
        return LazyRows(rows.share, like, make, forgets=forgets, closes=closes, widest=widest)

    def residual(self, rows: RowMap, block: ResBlock) -> RowMap:
        first = self.convolution(rows, block.conv1, self.normalised(rows, block.norm1), last=False)
        room = rows.share.most * row_bytes(first.like)
        hidden = self.workspace.store_or_recompute(first, reserve=room)
        inner = self.convolution(hidden, block.conv2, self.normalised(hidden, block.norm2), last=False)
        shortcut = None if block.shortcut is None else self.filters(block.shortcut)

        def make(top: int, bottom: int) -> Tensor:
            x = rows.read(top, bottom)
            x = x if shortcut is None else convolved(x, *shortcut())
            return inner.read(top, bottom).add_(x)

        def forgets(row: int) -> None:
            hidden.forget(row - 1)
            rows.forget(row - 2)

        widest = max(row_bytes(rows.like), row_bytes(hidden.like))
        both = LazyRows(rows.share, inner.like, make, forgets=forgets, closes=(hidden, rows), widest=widest)
        return self.workspace.store(both)

    def doubled(self, rows: RowMap, make3: Make, filters: Filters, outputs: int) -> RowMap:
        """Stored only if memory has room for it and the block after it."""
        share, width = rows.share.doubled(), rows.like.shape[1]

        def make(top: int, bottom: int) -> Tensor:
            return make3(rows, *filters(), top=top, bottom=bottom)

        like = _like(rows, 2 * width, outputs)
        doubled = LazyRows(share, like, make, forgets=lambda row: rows.forget(row // 2 - 2), closes=(rows,))
        return self.workspace.store_or_recompute(doubled, reserve=2 * share.most * row_bytes(like))

    def halved(self, rows: RowMap, make3: Make, filters: Filters, outputs: int) -> RowMap:
        def make(top: int, bottom: int) -> Tensor:
            return make3(rows, *filters(), top=top, bottom=bottom)

        like = _like(rows, rows.like.shape[1] // 2, outputs)
        halved = LazyRows(
            rows.share.halved(),
            like,
            make,
            forgets=lambda row: rows.forget(2 * row - 1),
            closes=(rows,),
            widest=2 * row_bytes(rows.like),  # two of its rows make one
        )
        return self.workspace.store(halved)

    def level(self, rows: RowMap, level: Level) -> RowMap:
        """Its input is held until the sum is stored."""
        kept = SharedRows(rows)
        made, shortcut = self.through(level.layers, kept), BESIDE[level.beside.sides]

        def make(top: int, bottom: int) -> Tensor:
            return made.read(top, bottom) + shortcut(kept, level.beside, top=top, bottom=bottom)

        both = LazyRows(made.share, made.like, make, forgets=made.forget, closes=(made, kept))
        return self.workspace.store(both)

    def head(self, rows: RowMap, head: Head) -> RowMap:
        made = self.convolution(rows, head.conv, self.normalised(rows, head.norm), last=True)
        if head.adds_means:
            made = _sum(made, lambda top, bottom: channel_means(rows.read(top, bottom), head.conv.outputs))
        return made if head.after is None else self.convolution(made, head.after, last=True)

    def repeated(self, rows: RowMap, made: LazyRows, repeats: int) -> LazyRows:
        """``made`` of ``rows``, plus their channels repeated, if they are."""
        if not repeats:
            return made
        return _sum(made, lambda top, bottom: rows.read(top, bottom).repeat_interleave(repeats, dim=-1))

    def attention(self, rows: RowMap, block: Attention) -> RowMap:
        norm = self.normalised(rows, block.norm, activate=False)
        width, channels = rows.like.shape[1:]
        linear = once(lambda: self.projections(block))

        def heads(top: int, bottom: int, *which: int) -> list[Tensor]:
            tokens = norm(rows.read(top, bottom)).reshape(1, -1, channels)
            return [F.linear(tokens, *linear()[index]).unsqueeze(2) for index in which]

        def finish(attended: Tensor, top: int, bottom: int) -> Tensor:
            out = F.linear(attended.flatten(2), *linear()[3]).reshape(-1, width, channels)
            return out + rows.read(top, bottom)

        projections = Projections(
            query=lambda top, bottom: heads(top, bottom, 0)[0],
            key_value=lambda top, bottom: tuple(heads(top, bottom, 1, 2)),  # type: ignore[arg-type,return-value]
        )
        return self.workspace.attend(rows, projections, finish)

    def normalised(self, rows: RowMap, norm: Norm, *, activate: bool = True) -> Change:
        """The norm, then SiLU, of any band of ``rows``."""
        normalise = self.rms_norm(norm) if norm.groups is None else self.group_norm(rows, norm)
        if not activate:
            return normalise
        return lambda x: F.silu(normalise(x), inplace=True)

    def group_norm(self, rows: RowMap, norm: Norm) -> Change:
        """With the statistics of the whole map."""
        precision = torch.promote_types(rows.like.dtype, torch.float32)

        @once
        def affine() -> tuple[Tensor, Tensor]:
            assert rows.moments is not None
            assert norm.groups is not None
            weight, bias = self.weights[f"{norm.name}.weight"], self.weights[f"{norm.name}.bias"]
            scale, shift = group_norm_affine(
                rows.moments, groups=norm.groups, eps=norm.eps, weight=weight, bias=bias
            )
            return scale.to(precision), shift.to(precision)

        def normalise(x: Tensor) -> Tensor:
            scale, shift = affine()
            return x.to(precision, copy=True).mul_(scale).add_(shift).to(x.dtype)

        return normalise

    def rms_norm(self, norm: Norm) -> Change:
        """Each pixel over its channels, in float32 or better, then rounded as diffusers rounds it."""

        def normalise(x: Tensor) -> Tensor:
            gamma = self.weights[f"{norm.name}.gamma"].flatten()
            unit = F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1).to(x.dtype)
            scaled: Tensor = unit * norm.channels**0.5 * gamma
            return scaled

        return normalise

    def filters(self, conv: Convolution) -> Filters:
        """Weight (outputs, inputs, k, k) and bias, once they are needed."""

        @once
        def read() -> tuple[Tensor, Tensor]:
            weight = self.weights[f"{conv.name}.weight"]
            return weight[:, :, -1].contiguous() if conv.frames else weight, self.weights[f"{conv.name}.bias"]

        return read

    def projections(self, block: Attention) -> list[tuple[Tensor, Tensor]]:
        """Weight (channels, channels) and bias of query, key, value, output."""
        found: list[tuple[Tensor, Tensor]] = []
        for name in (*block.query_key_value, block.out):
            weight, bias = self.weights[f"{name}.weight"].flatten(1), self.weights[f"{name}.bias"]
            parts = len(weight) // block.channels
            found += zip(weight.chunk(parts), bias.chunk(parts), strict=True)
        return found


def _sum(made: LazyRows, more: Callable[[int, int], Tensor]) -> LazyRows:
    """``made`` and what ``more`` gives of the map it is made of, which is read before it is forgotten."""

    def make(top: int, bottom: int) -> Tensor:
        return made.read(top, bottom).add_(more(top, bottom))

    return LazyRows(made.share, made.like, make, forgets=made.forget, closes=(made,), widest=made.widest)


def _like(rows: RowMap, width: int, channels: int) -> Tensor:
    """No rows of another map."""
    return torch.empty((0, width, channels), dtype=rows.like.dtype, device=rows.like.device)


def once(make: Callable[[], T]) -> Callable[[], T]:
    """``make``, called when its result is first needed; a dry run never does."""
    made: list[T] = []

    def get() -> T:
        if not made:
            made.append(make())
        return made[0]

    return get
