"""What needs a CUDA device: `pytest -m gpu`. Kernels, whole posters, the VAE's tiers, compiled blocks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from ranks import run_ranks
from tiny_flux import make_tiny_flux
from tiny_vae import make_tiny_vae

from imax_dist.models.compiled import compile_blocks
from imax_dist.models.joint_attention import _rotated_by_parts, rotate_pairs
from imax_dist.models.load import load_model
from imax_dist.parallel.choose_kernel import AttentionShape, choose_kernel
from imax_dist.parallel.kernels import HALVES, KERNELS, candidates, verify
from imax_dist.parallel.mesh import single_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.ranks import ParallelSettings, join_for
from imax_dist.pipeline.render import Rendering, render_with
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.to_host import on_host
from imax_dist.shapes import RopeTable
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.codec import RowCodec, row_codec
from imax_dist.vae.store import Scratch, Tier
from imax_dist.vae.wide_heads import PRODUCTS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
ON_GPU, ON_CPU = Topology.alone(CUDA), Topology.alone()
REQUEST = Request("a red sun over the sea", size="256x192", steps=6, native_steps=4)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(-10.0 * torch.log10((one.double().cpu() - other.double().cpu()).square().mean()))


def rendered(topology: Topology, **changes: Any) -> Rendering:
    return render(dataclasses.replace(REQUEST, **changes), topology=topology)


@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES], ids=str)
def test_every_exact_kernel_that_is_offered_is_right(dtype: torch.dtype, head_dim: int) -> None:
    offered = candidates(CUDA, dtype, "exact")
    assert offered
    for kernel in offered:
        verify(kernel, CUDA, dtype, head_dim=head_dim)


def test_the_kernel_is_chosen_by_time_among_those_that_are_right() -> None:
    choice = choose_kernel("auto", "exact", ON_GPU, AttentionShape(24, 128, torch.bfloat16))
    assert choice.kernel is not None
    assert choice.kernel.exact
    assert {"cudnn", "flash"} <= set(choice.measured)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_wide_head_attends_by_products(dtype: torch.dtype) -> None:
    verify(PRODUCTS, CUDA, dtype, head_dim=512)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_rotation_is_that_of_the_parts_to_the_last_bits(dtype: torch.dtype) -> None:
    """A GPU's complex product may fuse a multiplication and an addition."""
    x, angles = torch.randn(1, 65, 4, 64, device=CUDA, dtype=dtype), torch.randn(65, 32, device=CUDA)
    turned = angles.to(dtype).repeat_interleave(2, dim=1)
    table = RopeTable(turned.cos(), turned.sin())
    apart = (rotate_pairs(x, table) - _rotated_by_parts(x, table)).abs().max()
    assert apart < 8 * torch.finfo(dtype).eps


def test_a_wide_head_in_float32_has_a_kernel_of_torch() -> None:
    verify(KERNELS["efficient"], CUDA, torch.float32, head_dim=512)


def test_in_float64_a_poster_is_that_of_the_cpu() -> None:
    """Not to 1e-10: diffusers embeds the time in float32, whose sines differ in the last bit."""
    gpu, cpu = rendered(ON_GPU, dtype="float64"), rendered(ON_CPU, dtype="float64")
    assert (gpu.latents.cpu() - cpu.latents).abs().max() < 1e-3


def test_in_float32_a_poster_is_that_of_the_cpu_to_rounding() -> None:
    gpu, cpu = rendered(ON_GPU, dtype="float32"), rendered(ON_CPU, dtype="float32")
    assert (gpu.latents.cpu() - cpu.latents).abs().max() < 1e-2
    assert gpu.pixels is not None
    assert cpu.pixels is not None
    assert psnr(gpu.pixels, cpu.pixels) > 60.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_renders_are_the_same_bits(dtype: str) -> None:
    first, second = rendered(ON_GPU, dtype=dtype), rendered(ON_GPU, dtype=dtype)
    assert torch.equal(first.latents, second.latents)
    assert first.pixels is not None
    assert second.pixels is not None
    assert torch.equal(first.pixels, second.pixels)


def test_a_render_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    from imax_dist.errors import Preempted

    whole = rendered(ON_GPU)
    asked = iter(range(100))
    with pytest.raises(Preempted):
        render(
            REQUEST, topology=ON_GPU, checkpoints=CheckpointFolder(tmp_path), stop=lambda: next(asked) >= 6
        )
    resumed = render(REQUEST, topology=ON_GPU, checkpoints=CheckpointFolder(tmp_path))
    assert torch.equal(resumed.latents, whole.latents)


def codec_of(vae: Any, sizes: BlockSizes | None = None) -> RowCodec:
    codec = row_codec(SimpleNamespace(vae=vae, scaled=lambda x: x, unscaled=lambda x: x), sizes)
    assert codec is not None
    return codec


@pytest.mark.parametrize("limits", [(1 << 30, 1 << 30), (60_000, 60_000), (0, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@torch.no_grad()
def test_a_decode_that_spills_to_host_and_files_is_the_whole_one(
    dtype: torch.dtype, limits: tuple[int, int]
) -> None:
    vae = make_tiny_vae(attention=True, dtype=dtype).to(CUDA)
    latents = torch.randn(1, 4, 13, 9, dtype=dtype, generator=torch.Generator().manual_seed(1)).to(CUDA)
    whole = vae.decode(latents).sample[0].permute(1, 2, 0)
    room = Scratch([Tier(CUDA, limits[0]), Tier(CPU, limits[1])])
    rows = codec_of(vae, BlockSizes(band_bytes=1, fewest_rows=7)).decode(latents, single_rank(), room)
    found = rows.read(0, rows.share.bottom)
    rows.close()
    allowed = 1e-10 if dtype == torch.float64 else 2e-5
    assert (found.to(whole) - whole).abs().max() < allowed * whole.abs().max()


@torch.no_grad()
def test_a_decode_in_bfloat16_with_a_head_of_512_is_as_near_to_float32_as_diffusers_own() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(64, 512), latent_channels=4, layers_per_block=1, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        use_quant_conv=False, use_post_quant_conv=False,
    ).eval().to(CUDA)  # fmt: skip
    latents = torch.randn(1, 4, 96, 80, device=CUDA)
    exact = vae.double().decode(latents.double()).sample
    vae.to(torch.bfloat16)
    half = latents.to(torch.bfloat16)
    theirs = (vae.decode(half).sample - exact).norm() / exact.norm()
    rows = codec_of(vae).decode(half, single_rank(), Scratch([Tier(CUDA, 1 << 30)]))
    own = rows.read(0, rows.share.bottom).permute(2, 0, 1)[None]
    rows.close()
    assert (own.to(CUDA) - exact).norm() / exact.norm() < 1.2 * theirs


def test_compiled_blocks_make_the_eager_poster() -> None:
    model: Any = load_model("embedded", device=CUDA, dtype="float32")
    request = dataclasses.replace(REQUEST, dtype="float32")
    eager = render_with(model, join_for(model, ParallelSettings(), ON_GPU), request)
    compile_blocks(model)
    settings = ParallelSettings(compile="regional")
    found = render_with(model, join_for(model, settings, ON_GPU), request)
    assert (found.latents - eager.latents).abs().max() < 1e-3 * eager.latents.abs().max()


def latents_of(topology: Topology, request: Request, parallel: dict[str, Any]) -> torch.Tensor:
    rendering = render(request, topology=topology, parallel=ParallelSettings(**parallel))
    assert (rendering.pixels is not None) == topology.is_first
    return rendering.latents.cpu()


@pytest.mark.parametrize("parallel", [{"ulysses": 2}, {"ring": 2}, {"native": "shared"}], ids=str)
def test_two_ranks_on_the_gpu_make_the_poster_of_one(parallel: dict[str, Any], tmp_path: Path) -> None:
    """Over gloo, through host memory: every line of a render on several GPUs but NCCL's own."""
    model = str(make_tiny_flux(tmp_path / "model"))
    request = Request("a red sun over the sea", size="144x112", model=model, dtype="float64")
    expected = latents_of(ON_GPU, request, {})
    for latents in run_ranks(2, latents_of, request, parallel, device="cuda:0", timeout_s=200):
        assert (latents - expected).abs().max() < 1e-9


def test_a_gpu_is_measured_as_a_hardware_file_is_written() -> None:
    from imax_dist.calibrate.measure import measure
    from imax_dist.planner.hardware import read_hardware

    found = measure(CUDA)
    assert read_hardware(found, where="measured")
    assert found["kind"] == "gpu"


def test_bands_reach_the_host_through_pinned_memory_with_their_bits() -> None:
    bands = torch.randn(7, 256, 512, 3, generator=torch.Generator().manual_seed(2))
    doubled = (2 * band.to(CUDA) for band in bands)
    found = torch.stack([rows.clone() for rows in on_host(doubled, CUDA)])
    assert torch.equal(found, 2 * bands)
