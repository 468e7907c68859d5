"""A VAE by rows equals its own forward on the whole picture: bands, ranks, spilled features, each network."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import run_ranks
from tiny_vae import (
    TINY_VAES,
    left_over,
    make_tiny_vae,
    plain_decode,
    plain_encode,
    tiny_hunyuan_vae,
    tiny_kl_vae,
    tiny_qwen21_vae,
)

from imax_dist.errors import Preempted
from imax_dist.events import render
from imax_dist.geometry import ImageSize
from imax_dist.parallel.mesh import SequenceMesh, single_rank
from imax_dist.parallel.topology import Topology
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.codec import Callbacks, RowCodec, row_codec
from imax_dist.vae.limits import whole_bytes
from imax_dist.vae.store import Scratch, Tier
from imax_dist.vae.workspace import bands

SHIFT, SCALE = 0.3, 1.7
SIZES = [(13, 9), (5, 17), (2, 5)]
"""Latent heights and widths: no multiple of bands or ranks, and fewer rows than ranks."""
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


SMALL = BlockSizes(band_bytes=1, fewest_rows=7, segment_bytes=4_000, query_elements=700, key_elements=900)
"""So that a small picture has many bands, segments, query groups and key chunks."""


def codec_of(vae: Any, sizes: BlockSizes = SMALL) -> RowCodec:
    model = SimpleNamespace(
        vae=vae, scaled=lambda x: (x - SHIFT) * SCALE, unscaled=lambda x: x.to(vae.dtype) / SCALE + SHIFT
    )
    codec = row_codec(model, sizes)
    assert codec is not None
    return codec


def ring(topology: Topology) -> SequenceMesh:
    """All ranks."""
    if topology.world_size == 1:
        return single_rank()
    import torch.distributed as dist

    return SequenceMesh(1, topology.world_size, topology.rank, None, dist.group.WORLD, dist.group.WORLD)


def random_picture(height: int, width: int, channels: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randn(1, channels, height, width, dtype=dtype, generator=generator)


def scratch(limit: int) -> Scratch:
    return Scratch([Tier(torch.device("cpu"), limit)])


def errors(codec: RowCodec, mesh: SequenceMesh, size: tuple[int, int], limit: int) -> tuple[float, float]:
    """Of decode and encode against the plain ones, to their largest value; 4 does not divide the image."""
    vae, dtype = codec.vae, codec.vae.dtype
    latents = random_picture(*size, 4, dtype)
    whole = plain_decode(vae, latents / SCALE + SHIFT)[0].permute(1, 2, 0)
    room = scratch(limit)
    rows = codec.decode(latents, mesh, room)
    top, bottom = rows.share.top, rows.share.bottom
    decode_error = (rows.read(top, bottom) - whole[top:bottom]).abs().amax() if top < bottom else 0.0
    decode_error = decode_error / whole.abs().amax()
    rows.close()
    height, width = (4 * side + extra for side, extra in zip(size, left_over(vae), strict=True))
    pixels = random_picture(height, width, 3, dtype)
    noise = random_picture(size[0], size[1], 4, dtype)
    expected = (plain_encode(vae, pixels, noise) - SHIFT) * SCALE
    image = SimpleNamespace(height=height, width=width)
    source = pixels[0].permute(1, 2, 0)
    found = codec.encode(
        lambda top, bottom: source[top:bottom].contiguous(), image, mesh=mesh, scratch=room, noise=noise
    )
    assert all(tier.used == 0 for tier in room.tiers), "features were left in memory"
    return float(decode_error), float((found - expected).abs().amax() / expected.abs().amax())


@pytest.mark.parametrize("limit", [0, 60_000, 1 << 30], ids=["files", "some-memory", "memory"])
@pytest.mark.parametrize("attention", [True, False], ids=["attention", "plain"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@torch.no_grad()
def test_bands_on_one_rank_equal_the_whole(dtype: torch.dtype, attention: bool, limit: int) -> None:
    vae = make_tiny_vae(attention=attention, dtype=dtype, quant=attention)
    for size in SIZES:
        decode, encode = errors(codec_of(vae), single_rank(), size, limit)
        assert decode < TOLERANCE[dtype]
        assert encode < TOLERANCE[dtype]


@torch.no_grad()
def on_ranks(topology: Topology) -> list[tuple[Any, ...]]:
    mesh = ring(topology)
    found = []
    plain = partial(make_tiny_vae, attention=False)
    cases: list[tuple[Any, torch.dtype, int]] = [
        (tiny_kl_vae, torch.float64, 0),
        (plain, torch.float64, 30_000),
        (tiny_kl_vae, torch.float32, 1 << 30),
        (tiny_hunyuan_vae, torch.float64, 30_000),
        (tiny_qwen21_vae, torch.float64, 30_000),
    ]
    for make, dtype, limit in cases:
        codec = codec_of(make(dtype=dtype))
        for size in SIZES:
            relative = [error / TOLERANCE[dtype] for error in errors(codec, mesh, size, limit)]
            found.append((f"{make} {dtype} {limit} {size}", *relative))
    return found


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_rows_over_ranks_equal_the_whole(ranks: int) -> None:
    for found in run_ranks(ranks, on_ranks):
        assert [case for case in found if max(case[1:]) > 1.0] == []


@pytest.mark.parametrize("wrong", ["moments", "halo"])
@torch.no_grad()
def test_the_comparison_sees_a_norm_or_an_edge_that_is_local(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tiles do wrong must fail here: statistics of a band only, and zeros at a band's edge."""
    from imax_dist.vae import walk, workspace

    if wrong == "moments":
        monkeypatch.setattr(workspace.Moments, "merged", lambda _, other: other)
    else:
        monkeypatch.setattr(walk, "window3", lambda rows, top, bottom: (rows.read(top, bottom), (1, 1)))
    vae = make_tiny_vae(attention=False, dtype=torch.float64)
    decode, encode = errors(codec_of(vae), single_rank(), (13, 9), 0)
    assert min(decode, encode) > 1e-3


def test_only_what_is_described_is_walked() -> None:
    vae = make_tiny_vae(attention=True, dtype=torch.float32)
    adapter: Any = SimpleNamespace(vae=vae, scaled=lambda x: x, unscaled=lambda x: x)
    codec = row_codec(adapter)
    assert codec is not None
    assert codec.network.factor == 4
    vae.encoder.mid_block.attentions[0].residual_connection = False
    assert row_codec(adapter) is None
    assert row_codec(SimpleNamespace(vae=torch.nn.Identity())) is None
    adapter.vae = make_tiny_vae(attention=True, dtype=torch.float32)
    adapter.vae.decoder.conv_out.extra = torch.nn.Parameter(torch.zeros(1))
    assert row_codec(adapter) is None, "a weight that the description does not have"


@pytest.mark.parametrize("name", TINY_VAES)
@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["files", "memory"])
@torch.no_grad()
def test_every_network_by_bands_equals_its_own_forward(name: str, limit: int) -> None:
    vae = TINY_VAES[name](torch.float64)
    for size in SIZES:
        assert max(errors(codec_of(vae), single_rank(), size, limit)) < TOLERANCE[torch.float64]


@torch.no_grad()
def networks_on_ranks(topology: Topology) -> list[tuple[Any, ...]]:
    found = []
    for name, make in TINY_VAES.items():
        for dtype in (torch.float64, torch.float32):
            found.append((name, dtype, *errors(codec_of(make(dtype)), ring(topology), (13, 9), 30_000)))
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_network_on_ranks_equals_its_own_forward(ranks: int) -> None:
    for found in run_ranks(ranks, networks_on_ranks):
        assert [case for case in found if max(case[2:]) > TOLERANCE[case[1]]] == []


def test_a_plain_forward_of_a_poster_is_known_not_to_fit() -> None:
    codec = codec_of(make_tiny_vae(attention=False, dtype=torch.float32))
    assert whole_bytes(codec.network, ImageSize(1000, 500).area, 4) == 3 * 500_000 * 16 * 4


def test_a_band_of_three_channels_is_no_higher_than_the_map_it_is_made_of_allows() -> None:
    """Else the last convolution would read the whole of the widest map at once."""
    sizes = BlockSizes(band_bytes=40 * 8 * 36 * 10, fewest_rows=7)
    codec = codec_of(make_tiny_vae(attention=False, dtype=torch.float64), sizes)
    rows = codec.decode(random_picture(20, 9, 4, torch.float64), single_rank(), scratch(1 << 30))
    heights = [bottom - top for top, bottom in bands(rows, sizes)]
    rows.close()
    assert rows.like.shape[1:] == (36, 3)
    assert max(heights) == 50  # of 8 channels: 40 x 10 / 8


def told(topology: Topology, size: tuple[int, int], limit: int) -> list[list[Any]]:
    """The events of progress of a decode and of an encode on this rank."""
    mesh = ring(topology)
    vae = make_tiny_vae(dtype=torch.float32, attention=True)
    codec = codec_of(vae)
    heard: list[list[Any]] = [[], []]
    watches = [Callbacks(one.append) for one in heard]
    codec.decode(random_picture(*size, 4, torch.float32), mesh, scratch(limit), watch=watches[0]).close()
    height, width = (4 * side + extra for side, extra in zip(size, left_over(vae), strict=True))
    source = random_picture(height, width, 3, torch.float32)[0].permute(1, 2, 0)
    codec.encode(
        lambda top, bottom: source[top:bottom].contiguous(),
        ImageSize(height=height, width=width), mesh=mesh, scratch=scratch(limit), noise=None,
        watch=watches[1],
    )  # fmt: skip
    return heard


def told_at_once(topology: Topology, size: tuple[int, int], limit: int) -> list[list[Any]]:
    """A world of one is the process of all tests."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(render, "PROGRESS_S", 0.0)
        return told(topology, size, limit)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["files", "memory"])
def test_progress_rises_band_by_band_to_exactly_its_total(world: int, limit: int) -> None:
    """The total is known before the first band."""
    for rank in run_ranks(world, told_at_once, (13, 9), limit):
        for heard in rank:
            done = [event.done for event in heard]
            assert len(done) > 20
            assert done == sorted(set(done))
            assert {event.total for event in heard} == {done[-1]}


def stopped_after(topology: Topology, stopping: int, count: int, half: str) -> tuple[str, bool, int]:
    """What each rank says, whether another says it, and its bands, if one stops in its band ``count``."""
    codec = codec_of(make_tiny_vae(dtype=torch.float32, attention=True))
    seen = 0

    def check() -> None:
        nonlocal seen
        seen += 1
        if topology.rank == stopping and seen >= count:
            raise Preempted("stopped here")

    mesh, room, watch = ring(topology), scratch(1 << 30), Callbacks(check=check)
    try:
        if half == "decoder":
            codec.decode(random_picture(13, 9, 4, torch.float32), mesh, room, watch=watch)
        else:
            source = random_picture(52, 36, 3, torch.float32)[0].permute(1, 2, 0).contiguous()
            codec.encode(
                lambda top, bottom: source[top:bottom], ImageSize(36, 52),
                mesh=mesh, scratch=room, noise=None, watch=watch,
            )  # fmt: skip
    except Preempted as error:
        return str(error), error.already_reported, seen
    return "no error", False, seen


def stops(topology: Topology) -> dict[tuple[str, int], tuple[str, bool, int]]:
    """By half, and the band in which the last rank stops; 0: in none."""
    last = topology.world_size - 1
    return {
        (half, count): stopped_after(topology, last if count else -1, count, half)
        for half in ("decoder", "encoder")
        for count in (0, 1, 9)
    }


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_stop_acts_within_a_picture_and_on_all_ranks(world: int) -> None:
    results = run_ranks(world, stops) if world > 1 else [stops(Topology.alone())]
    elsewhere = ("stopped on request; another rank says where", True)
    for half in ("decoder", "encoder"):
        for count in (1, 9):
            assert results[-1][half, count] == ("stopped here", False, count)
            assert all(other[half, count][:2] == elsewhere for other in results[:-1])
            assert all(each[half, count][2] < each[half, 0][2] for each in results), "the others stop, too"
