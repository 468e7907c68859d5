"""A FLUX network with random weights in memory, and one step of it: ours, and a bare diffusers transformer's.

Compute does not depend on the values, so that no download is needed. Both steps use the same weights: only
the attention processor and the positions are exchanged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.conditioning import Conditioning, Prompt
from imax_dist.models.networks.flux import FluxModel
from imax_dist.models.patches import pack
from imax_dist.models.spec import ModelSettings, ModelSpec, PassScales, PassSteps
from imax_dist.models.token_shards import TokenSequence
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import SequenceMesh, single_rank
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.positions import PositionTables
from imax_dist.pipeline.request import Request


@dataclass(frozen=True)
class Shape:
    """What decides the cost of a FLUX network."""

    double: int
    single: int
    heads: int
    head_dim: int
    text_tokens: int
    native_side: int
    vae_channels: tuple[int, ...]

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def blocks(self) -> int:
        return self.double + self.single


FLUX_DEV = Shape(19, 38, 24, 128, 512, 1024, (128, 256, 512, 512))
TINY = Shape(1, 2, 4, 16, 8, 64, (16, 16, 32, 32))


class RandomFlux(FluxModel):
    """Prompts become noise of the right shape, so that no text encoder is needed."""

    def embed(self, text: str) -> Prompt:
        config = self.transformer.config
        generator = torch.Generator().manual_seed(len(text))
        states = torch.randn(
            1, self.spec.settings.text_tokens, config.joint_attention_dim, generator=generator
        )
        pooled = torch.randn(1, config.pooled_projection_dim, generator=generator)
        return {"states": states.to(self.device, self.dtype), "pooled": pooled.to(self.device, self.dtype)}


def make_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> RandomFlux:
    """The network and its VAE with random weights, on the device."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    axes = (shape.head_dim // 8, shape.head_dim * 7 // 16, shape.head_dim * 7 // 16)
    axes = axes if sum(axes) == shape.head_dim and all(a % 2 == 0 for a in axes) else (4, 6, 6)
    big = shape is FLUX_DEV
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        transformer = FluxTransformer2DModel(
            num_layers=shape.double, num_single_layers=shape.single, num_attention_heads=shape.heads,
            attention_head_dim=shape.head_dim, joint_attention_dim=4096 if big else 32,
            pooled_projection_dim=768 if big else 16, guidance_embeds=True, axes_dims_rope=axes,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=shape.vae_channels, latent_channels=16, layers_per_block=2 if big else 1,
            norm_num_groups=32 if big else 8, scaling_factor=0.3611, shift_factor=0.1159,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
        torch.set_default_dtype(before)
    settings = ModelSettings(
        source="random weights", native_side=shape.native_side, steps=PassSteps(30, 30),
        guidance_scale=PassScales(3.5, 3.5), text_tokens=shape.text_tokens,
    )  # fmt: skip
    spec = ModelSpec(
        name="random", settings=settings, weights="random", heads=shape.heads, head_dim=shape.head_dim,
        rope_axes=axes, rope_theta=1e4, latent_channels=16, vae_factor=8, patch=2, guidance="distilled",
    )  # fmt: skip
    model = RandomFlux(spec, transformer=transformer.eval(), vae=vae.eval(), encoders=object())
    use_ours(model)
    return model


def use_ours(model: FluxModel) -> None:
    """Our processor, positions and single-stream blocks."""
    model.prepare(model.transformer)


def use_bare(model: FluxModel) -> None:
    """diffusers' own."""
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor, FluxPosEmbed

    model.transformer.pos_embed = FluxPosEmbed(theta=10_000, axes_dim=list(model.spec.rope_axes))
    model.transformer.set_attn_processor(FluxAttnProcessor())
    for block in model.transformer.single_transformer_blocks:
        vars(block).pop("forward", None)


@dataclass
class Step:
    """One step at a size, as a call without arguments."""

    plan: PassPlan
    model: FluxModel
    x: Tensor
    conditioning: Conditioning

    @classmethod
    def at(cls, model: FluxModel, size: str, *, copies: str = "none", odd: bool = False) -> Step:
        """``odd``: the grid a shifted step has, one token more along each side."""
        request = Request("a step", size=size, method={"text": {"copies": copies}})
        plan = make_plan(request, model.spec).last
        grid = plan.grid
        shape = (1, 16, grid.height + 2 * odd, grid.width + 2 * odd)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(model.device, model.dtype)
        return cls(plan, model, x, model.encode_prompt("a step", negative=False))

    @property
    def tokens(self) -> tuple[int, int]:
        """Image tokens, and text tokens with every literal copy."""
        image = self.x.shape[2] * self.x.shape[3] // 4
        return image, self.model.spec.settings.text_tokens * self.plan.copies.literal

    def ours(
        self, engine: AttentionEngine | None = None, mesh: SequenceMesh | None = None
    ) -> Callable[[], Tensor]:
        mesh = mesh or single_rank()
        copies: TextCopies = self.plan.copies
        sequence = TokenSequence(mesh, engine or TorchEngine(mesh), copies)
        tables = PositionTables(self.plan, self.model)
        height, width = self.x.shape[2] // 2, self.x.shape[3] // 2
        grid = type(self.plan.grid.tokens(2))(height=height, width=width)

        def step() -> Tensor:
            return self.model.velocity(
                self.x, 0.5, self.conditioning, tables=lambda text: tables.at(grid, 0.5, text),
                sequence=sequence, guidance_scale=3.5,
            ).velocity  # fmt: skip

        return step

    @torch.no_grad()
    def bare(self) -> Callable[[], Tensor]:
        """The transformer alone, its inputs ready before the clock starts."""
        device, dtype = self.model.device, self.model.dtype
        height, width = self.x.shape[2] // 2, self.x.shape[3] // 2
        rows = torch.arange(height, device=device, dtype=dtype).repeat_interleave(width)
        columns = torch.arange(width, device=device, dtype=dtype).repeat(height)
        prompt = self.conditioning.positive
        inputs = dict(
            hidden_states=pack(self.x), encoder_hidden_states=prompt["states"],
            pooled_projections=prompt["pooled"],
            timestep=torch.full((1,), 0.5, device=device, dtype=dtype),
            guidance=torch.full((1,), 3.5, device=device, dtype=dtype),
            img_ids=torch.stack([torch.zeros_like(rows), rows, columns], dim=1),
            txt_ids=torch.zeros(prompt["states"].shape[1], 3, device=device, dtype=dtype),
            return_dict=False,
        )  # fmt: skip

        def step() -> Any:
            with torch.no_grad():
                return self.model.transformer(**inputs)[0]

        return step


def seconds(call: Callable[[], Any], *, runs: int, warm_up: int = 1) -> float:
    """Best of ``runs``; waits for the device before and after each. On a CPU: seconds of this process."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    best = float("inf")
    for run in range(warm_up + runs):
        wait()
        started = clock()
        call()
        wait()
        if run >= warm_up:
            best = min(best, clock() - started)
    return best


def wait() -> None:
    """Until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def step_flops(shape: Shape, tokens: int) -> tuple[float, float]:
    """(linear layers, attention) of one step: 24 D^2 a token and block, 4 N^2 D a block."""
    width = shape.width
    return 24.0 * width**2 * tokens * shape.blocks, 4.0 * tokens**2 * width * shape.blocks
