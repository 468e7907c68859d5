"""Every network's VAE goes by rows, scaled as its adapter scales: what its own forward gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from imax_dist.geometry import ImageSize
from imax_dist.models.blueprint import find_blueprint
from imax_dist.models.load import load_model
from imax_dist.models.tiny import TINY
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.request import Request
from imax_dist.planner.choose import choose
from imax_dist.planner.cluster import parse_cluster
from imax_dist.planner.workload import workload_of
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.codec import row_codec
from imax_dist.vae.strategies import Rows, Whole

TOLERANCE = {"qwen-image": 1e-5, "qwen-image-2.1": 1e-5, "krea-2": 1e-5}
"""Their VAE's own upsampling rounds to float32; others compute in float64 throughout."""


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_rows_are_what_the_networks_own_vae_gives(folders: dict[str, Path], name: str) -> None:
    model = load_model(
        str(folders[name]), device=torch.device("cpu"), dtype="float64", with_text_encoders=False
    )
    codec = row_codec(model, BlockSizes(band_bytes=1, fewest_rows=5))
    assert codec is not None
    rows, whole = Rows(Topology.alone(), codec, 1e-5), Whole(Topology.alone(), model)
    generator = torch.Generator().manual_seed(1)
    factor, channels = model.spec.vae_factor, model.spec.latent_channels
    assert codec.network.factor == factor
    latents = torch.randn(1, channels, 12, 8, dtype=torch.float64, generator=generator)
    found = torch.cat([band for _, band in rows.decode(latents, rows.scratch())])
    ((_, expected),) = whole.decode(latents, whole.scratch())
    allowed = TOLERANCE.get(name, 1e-10)
    assert (found - expected).abs().max() < allowed * expected.abs().max()
    pixels = 2 * torch.rand(1, 3, 20, 14, dtype=torch.float64, generator=generator) - 1
    noise = torch.randn(latents.shape, dtype=torch.float64, generator=generator)
    size = ImageSize(8 * factor, 12 * factor)
    own, theirs = (each.encode_enlarged(pixels, size, noise=noise) for each in (rows, whole))
    assert own.shape == latents.shape
    assert (own - theirs).abs().max() < allowed * theirs.abs().max()


@pytest.mark.parametrize("name", TINY)
def test_a_plan_knows_the_networks_vae(folders: dict[str, Path], name: str) -> None:
    blueprint = find_blueprint(str(folders[name]))
    work = workload_of(Request("-", model=str(folders[name]), size="256x256"), blueprint, device="cpu")
    assert work.network.autoencoder.parameter_count == blueprint.stored["vae"] - stored_beside(name)
    assert choose([work], parse_cluster("2xcpu")).chosen.memory.vae > 0


def stored_beside(name: str) -> int:
    """FLUX.2's and FLUX.3's batch norm of patches: its running mean and variance."""
    return 33 if name.startswith(("flux2", "flux3")) else 0
