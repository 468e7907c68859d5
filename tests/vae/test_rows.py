"""Rows over ranks and bands: halos, moments, attention and stores equal their plain form, for any share."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks

from imax_dist.errors import CannotWrite
from imax_dist.parallel.attention import attend
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.vae.attention import Projections, frame_attention
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.convolutions import downsampled3, upsampled3
from imax_dist.vae.halo import exchange_rows
from imax_dist.vae.moments import Moments, group_norm_affine, over_ranks
from imax_dist.vae.rows import LazyRows
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import Place, RowStore, Scratch, Tier
from imax_dist.vae.workspace import Workspace

HEIGHTS = [2, 3, 5, 11]


def share_of(topology: Topology, rows: int) -> RowShare:
    import torch.distributed as dist

    group = dist.group.WORLD if topology.world_size > 1 else None
    return RowShare.of(rows, rank=topology.rank, ranks=topology.world_size, group=group)


def picture(rows: int, width: int = 3, channels: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, width, channels, dtype=torch.float64, generator=generator)


def lazy(x: torch.Tensor, share: RowShare) -> LazyRows:
    return LazyRows(share, x[:0], lambda top, bottom: x[top:bottom])


def in_memory(sizes: BlockSizes | None = None) -> Workspace:
    return Workspace(Scratch([Tier(torch.device("cpu"), 1 << 30)]), sizes or BlockSizes.of("cpu"))


def test_what_a_height_has_beyond_the_units_goes_to_the_last_rank_with_rows() -> None:
    share = RowShare.of(2, ranks=4, unit=8, height=19)
    assert share.starts == (0, 8, 19, 19, 19)
    assert share.halved().starts == (0, 4, 9, 9, 9)
    assert RowShare.of(7, ranks=3).doubled().counts == (6, 4, 4)


def halo_differences(topology: Topology) -> list[str]:
    """For many heights and reaches: where an exchanged halo is not the picture's own rows."""
    wrong = []
    for rows in HEIGHTS:
        for reach in (1, 2, 3):
            x, share = picture(rows), share_of(topology, rows)
            above, below = exchange_rows(lazy(x, share).read, share, reach=reach, like=x[:0])
            has_rows = share.top < share.bottom
            expected = (
                x[max(share.top - reach, 0) : share.top] if has_rows else x[:0],
                x[share.bottom : share.bottom + reach] if has_rows else x[:0],
            )
            if not all(torch.equal(a, b) for a, b in zip((above, below), expected, strict=True)):
                wrong.append(f"{rows} rows, reach {reach}")
    return wrong


def moment_error(topology: Topology) -> float:
    """Of a picture with large mean, in pieces, against the plain moments in float64."""
    worst = 0.0
    for rows in HEIGHTS:
        x, share = picture(rows) + 1000.0, share_of(topology, rows)
        own = Moments.none(4, x.device)
        for row in range(share.top, share.bottom):
            own = own.merged(Moments.of(x[row : row + 1]))
        found = over_ranks(own, share, width=3)
        flat = x.reshape(-1, 4)
        worst = max(worst, float((found.mean - flat.mean(0)).abs().max()))
        worst = max(worst, float((found.deviations / len(flat) - flat.var(0, correction=0)).abs().max()))
        assert found.pixels == len(flat)
    return worst


def projections_of(heads: list[torch.Tensor]) -> Projections:
    def cut(x: torch.Tensor, top: int, bottom: int) -> torch.Tensor:
        return x[top:bottom].reshape(1, -1, 1, 4)

    query, key, value = heads
    return Projections(
        lambda top, bottom: cut(query, top, bottom),
        lambda top, bottom: (cut(key, top, bottom), cut(value, top, bottom)),
    )


def attention_error(topology: Topology) -> float:
    """Groups of queries and chunks of keys over the ranks, against attention over the whole frame."""
    sizes = BlockSizes(1, query_elements=40, key_elements=60)
    worst = 0.0
    for rows in HEIGHTS:
        heads = [4.0 * picture(rows + k, 3, 4)[:rows] for k in (20, 40, 60)]
        q, k, v = (x.reshape(1, -1, 1, 4) for x in heads)
        expected = attend(q, k, v).reshape(rows, 3, 4)
        share = share_of(topology, rows)
        projections = projections_of(heads)
        seen = 0
        for top, bottom, out in frame_attention(projections, share, width=3, channels=4, sizes=sizes):
            difference = out.reshape(-1, 3, 4) - expected[top:bottom]
            worst = max(worst, float(difference.abs().max()))
            seen += bottom - top
        assert seen == share.bottom - share.top
    return worst


def resampling_error(topology: Topology) -> float:
    """Up and down by two with a convolution, in bands of two rows, against torch on the whole picture."""
    weight = picture(5, 4, 4 * 9)[0].reshape(4, 4, 3, 3)
    bias = weight[:, 0, 0, 0]
    worst = 0.0
    for rows in (3, 5, 11):
        x = picture(rows, 5)
        nchw = x.permute(2, 0, 1)[None]
        doubled = torch.nn.functional.interpolate(nchw, scale_factor=2.0, mode="nearest")
        up = torch.nn.functional.conv2d(doubled, weight, bias, padding=1)[0].permute(1, 2, 0)
        padded = torch.nn.functional.pad(nchw, (0, 1, 0, 1))
        down = torch.nn.functional.conv2d(padded, weight, bias, stride=2)[0].permute(1, 2, 0)
        share = share_of(topology, rows)
        source = in_memory(BlockSizes(1, fewest_rows=2)).store(lazy(x, share))
        for top in range(2 * share.top, 2 * share.bottom):
            for bottom in (top + 1, min(top + 2, 2 * share.bottom)):
                found = upsampled3(source, weight, bias, top=top, bottom=bottom)
                worst = max(worst, float((found - up[top:bottom]).abs().max()))
        if topology.world_size == 1:
            found = downsampled3(source, weight, bias, top=0, bottom=rows // 2)
            worst = max(worst, float((found - down).abs().max()))
    return worst


def failing_rank(topology: Topology) -> str:
    """What each rank says when the second one's store is full."""

    def make(top: int, bottom: int) -> torch.Tensor:
        if topology.rank == 1:
            raise CannotWrite("this disk is full")
        return picture(8)[top:bottom]

    try:
        in_memory().store(LazyRows(share_of(topology, 8), picture(8)[:0], make))
    except CannotWrite as error:
        return str(error)
    return "no error"


def everything(topology: Topology) -> dict[str, Any]:
    return {
        "halos": halo_differences(topology),
        "moments": moment_error(topology),
        "attention": attention_error(topology),
        "resampling": resampling_error(topology),
        "failure": failing_rank(topology) if topology.world_size > 1 else "",
    }


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_rows_over_ranks_equal_the_whole(ranks: int) -> None:
    for rank, found in enumerate(run_ranks(ranks, everything)):
        assert found["halos"] == []
        assert found["moments"] < 1e-9
        assert found["attention"] < 1e-12
        assert found["resampling"] < 1e-12
        if ranks > 1:
            expected = "this disk is full" if rank == 1 else "another rank could not keep its part"
            assert expected in found["failure"]


def test_group_norm_from_moments_equals_torch() -> None:
    x = picture(7, 5, 6) * 3 + 100
    weight, bias = picture(1, 1, 6)[0, 0], picture(2, 1, 6)[1, 0]
    scale, shift = group_norm_affine(Moments.of(x), groups=3, eps=1e-6, weight=weight, bias=bias)
    expected = torch.nn.functional.group_norm(x.permute(2, 0, 1)[None], 3, weight, bias, 1e-6)
    assert (x * scale + shift - expected[0].permute(1, 2, 0)).abs().max() < 1e-10


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["files", "memory"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_store_gives_back_what_it_took(tmp_path: Path, limit: int, dtype: torch.dtype) -> None:
    tier = Tier(torch.device("cpu"), limit)
    x = picture(23, 5).to(dtype)
    store = Scratch([tier], tmp_path).open(like=x[:0], rows=23, most=23, segment_bytes=300)
    for top in range(0, 23, 4):
        store.append(x[top : top + 4])
    assert torch.equal(store.read(0, 23), x)
    assert torch.equal(store.read(6, 17), x[6:17])
    assert store.in_memory == (limit > 0)
    store.forget(20)
    assert torch.equal(store.read(20, 23), x[20:])
    with pytest.raises(KeyError):
        store.read(0, 1)
    assert tier.used == (x.numel() * x.element_size() if limit else 0)
    assert os.listdir(tmp_path) == [], "a scratch file must have no name that a crash could leave behind"
    store.close()
    assert tier.used == 0


def test_a_full_disk_is_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    store = RowStore(picture(1)[:0], 4, Place(None, 0, tmp_path), segment_bytes=300)
    said = r"cannot hold them: the disk is full; set TMPDIR to a folder"
    with pytest.raises(CannotWrite, match=said) as told:
        store.append(picture(4))
    advised = re.search(r"\(parallel: (\w+)\)", str(told.value))
    assert advised
    assert advised[1] in {field.name for field in fields(ParallelSettings)}


def test_a_band_read_again_is_not_changed_by_what_was_done_with_it() -> None:
    x = picture(6)
    kept = in_memory().store(lazy(x, RowShare.of(6)))
    before = kept.read(0, 6).clone()
    upsampled3(kept, picture(5, 4, 36)[0].reshape(4, 4, 3, 3), None, top=0, bottom=12)
    assert np.array_equal(kept.read(0, 6), before)
