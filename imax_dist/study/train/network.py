"""Everything the flow trains: the FLUX transformer and its two text encoders, as one module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import FluxTransformer2DModel

from imax_dist.study.train.text import TEXT_TOKENS, WIDTH, Tokenizers, build_encoders


@dataclass(frozen=True)
class FlowShape:
    """Size of the transformer. Heads are 32 wide; 2x2 patches of 16 channels make 64."""

    heads: int = 6
    double: int = 2
    single: int = 4
    guidance: bool = False


@dataclass(frozen=True)
class Text:
    """Token ids of a batch, both (B, 24)."""

    clip: torch.Tensor
    t5: torch.Tensor

    def to(self, device: str | torch.device) -> Text:
        """The same ids on another device."""
        return Text(self.clip.to(device), self.t5.to(device))


class FlowNetwork(torch.nn.Module):
    """Velocity (noise - image) of packed latents under a text."""

    def __init__(self, shape: FlowShape, tokenizers: Tokenizers) -> None:
        super().__init__()
        self.shape = shape
        self.transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=shape.double,
            num_single_layers=shape.single,
            attention_head_dim=32,
            num_attention_heads=shape.heads,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=shape.guidance,
            axes_dims_rope=(4, 14, 14),
        )
        self.clip, self.t5 = build_encoders(tokenizers)
        _start_from_zero(self.transformer)

    def forward(
        self, tokens: torch.Tensor, sigma: torch.Tensor, text: Text, *, grid: tuple[int, int],
        guidance: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Velocity (B, rows * columns, 64) at noise level ``sigma`` (B,); ``grid`` is (rows, columns)."""
        velocity: torch.Tensor = self.transformer(
            hidden_states=tokens,
            encoder_hidden_states=self.t5(text.t5)[0],
            pooled_projections=self.clip(text.clip).pooler_output,
            timestep=sigma,
            img_ids=grid_ids(grid).to(tokens.device),
            txt_ids=torch.zeros(TEXT_TOKENS, 3, device=tokens.device),
            guidance=guidance,
            return_dict=False,
        )[0]
        return velocity


def grid_ids(grid: tuple[int, int]) -> torch.Tensor:
    """Position ids (rows * columns, 3): 0, row, column; FLUX's convention."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()


def _start_from_zero(transformer: FluxTransformer2DModel) -> None:
    """Zero the modulations and the output, so that every block starts as the identity."""
    ends = ("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear", "proj_out")
    for name, module in transformer.named_modules():
        inner = name.startswith("single_transformer_blocks") and name.endswith("proj_out")
        if name.endswith(ends) and not inner:
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    if transformer.config.guidance_embeds:
        torch.nn.init.zeros_(transformer.time_text_embed.guidance_embedder.linear_2.weight)
        torch.nn.init.zeros_(transformer.time_text_embed.guidance_embedder.linear_2.bias)
