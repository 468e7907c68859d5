"""The VAE by rows equals diffusers' AutoencoderKL on the whole picture: bands, ranks, spilled features."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import run_ranks
from tiny_vae import make_tiny_vae

from imax_dist.events import render
from imax_dist.geometry import ImageSize
from imax_dist.models.base import LatentScale
from imax_dist.parallel.mesh import SequenceMesh, single_rank
from imax_dist.parallel.topology import Topology
from imax_dist.vae import attention as frame_attention
from imax_dist.vae import rows as vae_rows
from imax_dist.vae import store as row_store
from imax_dist.vae.codec import RowCodec, row_codec
from imax_dist.vae.store import Scratch, Tier

SHIFT, SCALE = 0.3, 1.7
SIZES = [(13, 9), (5, 17), (2, 5)]
"""Latent heights and widths: no multiple of bands or ranks, and fewer rows than ranks."""
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def small_bands() -> None:
    """So that a small picture has many bands, segments, query groups and key chunks."""
    vae_rows.BAND_BYTES, vae_rows.FEWEST_ROWS = {"cpu": 1}, 7
    row_store.SEGMENT_BYTES = 4_000
    frame_attention.QUERY_ELEMENTS, frame_attention.KEY_ELEMENTS = 700, 900


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (vae_rows, "BAND_BYTES"),
        (vae_rows, "FEWEST_ROWS"),
        (row_store, "SEGMENT_BYTES"),
        (frame_attention, "QUERY_ELEMENTS"),
        (frame_attention, "KEY_ELEMENTS"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    small_bands()


def random_picture(height: int, width: int, channels: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randn(1, channels, height, width, dtype=dtype, generator=generator)


def scratch(limit: int) -> Scratch:
    return Scratch([Tier(torch.device("cpu"), limit)])


def errors(codec: RowCodec, mesh: SequenceMesh, size: tuple[int, int], limit: int) -> tuple[float, float]:
    """Of decode and encode against the plain ones, to their largest value; 4 does not divide the image."""
    vae, dtype = codec.vae, codec.vae.dtype
    latents = random_picture(*size, 4, dtype)
    whole = vae.decode(latents / SCALE + SHIFT).sample[0].permute(1, 2, 0)
    room = scratch(limit)
    rows = codec.decode(latents, mesh, room)
    top, bottom = rows.share.top, rows.share.bottom
    decode_error = (rows.read(top, bottom) - whole[top:bottom]).abs().amax() if top < bottom else 0.0
    decode_error = decode_error / whole.abs().amax()
    rows.close()
    height, width = 4 * size[0] + 3, 4 * size[1] + 1
    pixels = random_picture(height, width, 3, dtype)
    noise = random_picture(size[0], size[1], 4, dtype)
    posterior = vae.encode(pixels).latent_dist
    expected = (posterior.mean + posterior.std * noise - SHIFT) * SCALE
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
        decode, encode = errors(RowCodec(vae, SHIFT, SCALE), single_rank(), size, limit)
        assert decode < TOLERANCE[dtype]
        assert encode < TOLERANCE[dtype]


@torch.no_grad()
def on_ranks(topology: Topology) -> list[tuple[Any, ...]]:
    import torch.distributed as dist

    small_bands()
    mesh = SequenceMesh(1, topology.world_size, topology.rank, None, dist.group.WORLD, dist.group.WORLD)
    found = []
    cases = [(torch.float64, True, 0), (torch.float64, False, 30_000), (torch.float32, True, 1 << 30)]
    for dtype, attention, limit in cases:
        codec = RowCodec(make_tiny_vae(attention=attention, dtype=dtype), SHIFT, SCALE)
        for size in SIZES:
            relative = [error / TOLERANCE[dtype] for error in errors(codec, mesh, size, limit)]
            found.append((f"{dtype} {attention} {limit} {size}", *relative))
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
    from imax_dist.vae import layers

    if wrong == "moments":
        monkeypatch.setattr(layers.Moments, "merged", lambda _, other: other)
    else:
        monkeypatch.setattr(layers, "window3", lambda rows, top, bottom: (rows.read(top, bottom), (1, 1)))
    vae = make_tiny_vae(attention=False, dtype=torch.float64)
    decode, encode = errors(RowCodec(vae, SHIFT, SCALE), single_rank(), (13, 9), 0)
    assert min(decode, encode) > 1e-3


def test_only_a_plain_autoencoder_kl_is_walked() -> None:
    vae = make_tiny_vae(attention=True, dtype=torch.float32)
    adapter: Any = SimpleNamespace(vae=vae, latent_scale=lambda: LatentScale(SHIFT, SCALE))
    codec = row_codec(adapter)
    assert codec is not None
    assert (codec.shift, codec.scale, codec.factor) == (SHIFT, SCALE, 4)
    vae.encoder.mid_block.attentions[0].residual_connection = False
    assert row_codec(adapter) is None
    assert row_codec(SimpleNamespace(vae=torch.nn.Identity())) is None


def test_a_plain_forward_of_a_poster_is_known_not_to_fit() -> None:
    codec = RowCodec(make_tiny_vae(attention=False, dtype=torch.float32), SHIFT, SCALE)
    assert codec.whole_bytes(ImageSize(1000, 500)) == 3 * 500_000 * 16 * 4


def test_a_band_of_three_channels_is_no_higher_than_the_map_it_is_made_of_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the last convolution would read the whole of the widest map at once."""
    monkeypatch.setattr(vae_rows, "BAND_BYTES", {"cpu": 40 * 8 * 36 * 10})
    codec = RowCodec(make_tiny_vae(attention=False, dtype=torch.float64), SHIFT, SCALE)
    rows = codec.decode(random_picture(20, 9, 4, torch.float64), single_rank(), scratch(1 << 30))
    heights = [bottom - top for top, bottom in vae_rows.bands(rows)]
    rows.close()
    assert rows.like.shape[1:] == (36, 3)
    assert max(heights) == 50  # of 8 channels: 40 x 10 / 8


def told(topology: Topology, size: tuple[int, int], limit: int) -> list[list[dict[str, int]]]:
    """The events of progress of a decode and of an encode on this rank."""
    small_bands()
    render.PROGRESS_S = 0.0
    mesh = single_rank()
    if topology.world_size > 1:
        import torch.distributed as dist

        mesh = SequenceMesh(1, topology.world_size, topology.rank, None, dist.group.WORLD, dist.group.WORLD)
    codec = RowCodec(make_tiny_vae(dtype=torch.float32, attention=True), SHIFT, SCALE)
    heard: list[list[Any]] = [[], []]
    codec.decode(
        random_picture(*size, 4, torch.float32), mesh, scratch(limit), listen=heard[0].append
    ).close()
    height, width = 4 * size[0] + 3, 4 * size[1] + 1
    source = random_picture(height, width, 3, torch.float32)[0].permute(1, 2, 0)
    codec.encode(
        lambda top, bottom: source[top:bottom].contiguous(),
        ImageSize(height=height, width=width), mesh=mesh, scratch=scratch(limit), noise=None,
        listen=heard[1].append,
    )  # fmt: skip
    return heard


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["files", "memory"])
def test_progress_rises_band_by_band_to_exactly_its_total(world: int, limit: int) -> None:
    """The total is known before the first band."""
    for rank in run_ranks(world, told, (13, 9), limit):
        for heard in rank:
            done = [event.done for event in heard]
            assert len(done) > 20
            assert done == sorted(set(done))
            assert {event.total for event in heard} == {done[-1]}
