"""The planner's walk through the VAE by rows against the code itself: the same bytes in the first tier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from planner.works import cluster, flux

from imax_dist.geometry import ImageSize
from imax_dist.models.blueprint import find_blueprint
from imax_dist.models.load import load_model
from imax_dist.parallel.mesh import single_rank
from imax_dist.pipeline.request import Request
from imax_dist.planner.autoencoder import autoencoder_of
from imax_dist.planner.choose import choose
from imax_dist.planner.cluster import parse_cluster
from imax_dist.planner.picture import goes_whole, map_room, vae_bytes
from imax_dist.planner.rows import Picture, rows_bytes, walk
from imax_dist.planner.split import Split
from imax_dist.planner.workload import workload_of
from imax_dist.vae.codec import RowCodec
from imax_dist.vae.rows import BAND_BYTES
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
    model: Any = load_model("embedded", device=torch.device("cpu"), text=False)
    return RowCodec(model.vae, *model.latent_scale())


def really_used(codec: RowCodec, half: str, limit: int) -> int:
    tier = WatchedTier(torch.device("cpu"), limit)
    scratch = Scratch([tier])
    if half == "decoder":
        rows = codec.decode(torch.zeros(1, 16, HEIGHT, WIDTH), single_rank(), scratch)
        rows.close()
    else:
        size = ImageSize(8 * WIDTH, 8 * HEIGHT)
        codec.encode(
            lambda top, bottom: torch.zeros(bottom - top, size.width, 3),
            size, mesh=single_rank(), scratch=scratch, noise=None,
        )  # fmt: skip
    assert tier.used == 0
    return tier.most


@pytest.mark.parametrize("half", ["decoder", "encoder"])
@pytest.mark.parametrize("kib", [10_000, 2_500, 1_300, 900, 400, 1])
def test_the_walk_uses_what_the_code_uses(codec: RowCodec, half: str, kib: int) -> None:
    vae = autoencoder_of(find_blueprint("embedded").configs["vae"])
    room = walk(
        vae,
        half,
        Picture(HEIGHT * WIDTH, WIDTH, 1, 4, BAND_BYTES["cpu"]),
        limit=1024 * kib,
        pixels_here=False,
    )
    assert room.most_used == really_used(codec, half, 1024 * kib)


def test_whole_or_rows_is_decided_as_a_render_decides_it(codec: RowCodec) -> None:
    cpu = parse_cluster("1xcpu").hardware
    for side in (1024, 1664, 1792, 4096):
        request = Request("-", size=f"{side}x{side}", steps=1)
        work = workload_of(request, find_blueprint("embedded"), device="cpu")
        fits = codec.whole_bytes(ImageSize(side, side)) <= map_room(work, cpu)
        assert goes_whole(work, work.latents, Split(), cpu) == fits
        assert not goes_whole(work, work.latents, Split(2, 1), cpu)


@pytest.mark.parametrize(("size", "gib", "whole"), [("1024x1024", None, True), ("1280x1280", 8.0, False)])
def test_a_gpu_takes_only_small_pictures_whole(size: str, gib: float | None, whole: bool) -> None:
    """Rows take less time there, whatever the memory."""
    work, gpu = replace(flux(size), vae_gib=gib), cluster("1xH100").hardware
    assert goes_whole(work, work.latents, Split(), gpu) == whole
    assert goes_whole(work, work.latents, Split(), replace(gpu, kind="cpu")) == (whole or gib == 8.0)


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
    picture = Picture(512 * 512, 512, 1, 2, BAND_BYTES["cpu"])
    gpu, cpu = (rows_bytes(vae, "decoder", picture, limit=0.0, pixels_here=host) for host in (False, True))
    assert gpu - cpu == 6 * LOGITS
