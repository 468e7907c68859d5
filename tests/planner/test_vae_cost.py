"""The VAE's cost in a plan: memory as the walk itself counts it when run dry, and what a render decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from planner.works import cluster, flux
from tiny_vae import TINY_VAES
from vae.test_walk import codec_of

from imax_dist.geometry import ImageSize, LatentGrid
from imax_dist.models.blueprint import find_blueprint
from imax_dist.models.load import load_model
from imax_dist.parallel.mesh import single_rank
from imax_dist.pipeline.request import Request
from imax_dist.planner.choose import choose
from imax_dist.planner.cluster import parse_cluster
from imax_dist.planner.split import Split
from imax_dist.planner.vae import RowsCase, attention_bytes, goes_whole, vae_bytes
from imax_dist.planner.workload import workload_of
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.codec import RowCodec, row_codec
from imax_dist.vae.dry_run import dry_run
from imax_dist.vae.limits import tiers, whole_bytes
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import Scratch, Tier
from imax_dist.vae.wide_heads import LOGITS

HEIGHT, WIDTH = 9, 6
"""Of the latents."""


@dataclass
class WatchedTier(Tier):
    """Remembers the most that was used."""

    most: int = 0

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "used":
            super().__setattr__("most", max(self.most, value))


@pytest.fixture(scope="module")
def codec() -> RowCodec:
    found = row_codec(load_model("embedded", device=torch.device("cpu"), with_text_encoders=False))
    assert found is not None
    return found


def really_used(codec: RowCodec, half: str, limits: tuple[int, ...]) -> list[int]:
    """Of every tier, at most, in a decode or an encode of HEIGHT x WIDTH latents."""
    found = [WatchedTier(torch.device("cpu"), limit) for limit in limits]
    scratch, factor = Scratch(list(found)), codec.network.factor
    if half == "decoder":
        latents = torch.zeros(1, codec.network.latent_channels, HEIGHT, WIDTH, dtype=codec.vae.dtype)
        codec.decode(latents, single_rank(), scratch).close()
    else:
        size = ImageSize(factor * WIDTH, factor * HEIGHT)
        codec.encode(
            lambda top, bottom: torch.zeros(bottom - top, size.width, 3, dtype=codec.vae.dtype),
            size, mesh=single_rank(), scratch=scratch, noise=None,
        )  # fmt: skip
    assert all(tier.used == 0 for tier in found)
    return [tier.most for tier in found]


def counted(codec: RowCodec, half: Any, limits: tuple[int, ...]) -> list[int]:
    """The same by a dry run."""
    network = codec.network
    unit = 1 if half == "decoder" else network.factor
    found = [WatchedTier(torch.device("cpu"), limit) for limit in limits]
    run, rows = dry_run(
        network, half, RowShare.of(HEIGHT, unit=unit), width=unit * WIDTH, dtype=codec.vae.dtype,
        scratch=Scratch(list(found)), sizes=BlockSizes.of("cpu"),
    )  # fmt: skip
    rows.close()
    assert all(tier.used == 0 for tier in found)
    assert found[0].most == run.most_used
    assert run.peak <= run.most_used + BlockSizes.of("cpu").segment_bytes
    return [tier.most for tier in found]


@pytest.mark.parametrize("half", ["decoder", "encoder"])
@pytest.mark.parametrize("kib", [10_000, 2_500, 1_300, 900, 400, 1])
def test_a_dry_run_counts_what_a_render_uses(codec: RowCodec, half: str, kib: int) -> None:
    limits = (1024 * kib,)
    assert counted(codec, half, limits) == really_used(codec, half, limits)


@pytest.mark.parametrize("half", ["decoder", "encoder"])
@pytest.mark.parametrize("name", TINY_VAES)
def test_a_dry_run_counts_every_network_and_the_second_memory(name: str, half: str) -> None:
    """As on a GPU: what its own memory has no room for goes to the host's."""
    codec = codec_of(TINY_VAES[name](torch.float32))
    for limits in ((1 << 30, 1 << 30), (60_000, 1 << 30), (20_000, 20_000), (0, 0)):
        assert counted(codec, half, limits) == really_used(codec, half, limits)


def test_whole_or_rows_is_decided_as_a_render_decides_it(codec: RowCodec) -> None:
    cpu = parse_cluster("1xcpu").hardware
    for side in (1024, 1664, 1792, 4096):
        request = Request("-", size=f"{side}x{side}", steps=1)
        work = workload_of(request, find_blueprint("embedded"), device="cpu")
        room = tiers("cpu", None, total=0)[0].limit
        fits = whole_bytes(codec.network, side * side, codec.vae.dtype.itemsize) <= room
        assert goes_whole(work, work.grid, Split(), cpu) == fits
        assert not goes_whole(work, work.grid, Split(2, 1), cpu)


@pytest.mark.parametrize(("size", "gib", "whole"), [("1024x1024", None, True), ("1280x1280", 8.0, False)])
def test_a_gpu_takes_only_small_pictures_whole(size: str, gib: float | None, whole: bool) -> None:
    """Rows take less time there, whatever the memory."""
    work, gpu = replace(flux(size), vae_gib=gib), cluster("1xH100").hardware
    assert goes_whole(work, work.grid, Split(), gpu) == whole
    assert goes_whole(work, work.grid, Split(), replace(gpu, kind="cpu")) == (whole or gib == 8.0)


def test_a_picture_of_any_height_streams_in_the_memory_it_is_given() -> None:
    here = parse_cluster("1xcpu")
    work = workload_of(Request("-", size="8192x8192", steps=1), find_blueprint("embedded"), device="cpu")
    assert vae_bytes(work, Split(), here) < 2.5 * 2**30
    assert vae_bytes(replace(work, vae_gib=0.5), Split(), here) < 1.1 * 2**30
    assert choose([work], here).chosen.memory.total < 16 * 2**30


def test_flux_at_8192_px_goes_by_rows_on_a_small_gpu() -> None:
    work, here = flux("8192x8192"), cluster("1xL40S")
    assert vae_bytes(work, Split(), here) > vae_bytes(replace(work, vae_gib=4.0), Split(), here)


def test_a_wide_head_in_half_precision_has_logits_on_a_gpu_only() -> None:
    vae = flux().network.autoencoder
    gpu, cpu = (
        attention_bytes(vae, RowsCase("decoder", LatentGrid(512, 512), 1, torch.bfloat16, kind, None, 0.0))
        for kind in ("cuda", "cpu")
    )
    assert gpu - cpu == 6 * LOGITS
