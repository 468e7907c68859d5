"""A diffusion transformer's cost from its config.json: parameters, FLOPs a token, what a block holds.

FLUX: 24 D^2 a token and block for projections and MLP, 4 S^2 D a block for the two products of attention
(D the width, S the joint sequence). tests/planner counts diffusers' own transformer and finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imax_dist.planner.unknown import UnknownCost


@dataclass(frozen=True)
class Transformer:
    """One network. FLOPs count a multiply and an add as two."""

    parameters: int
    blocks: int
    """Attention layers over the joint sequence."""
    heads: int
    kv_heads: int
    head_dim: int
    token_channels: int
    image_flops: float
    """Of everything but attention, an image token and pass."""
    text_flops: float
    fixed_flops: float
    """A pass, whatever the number of tokens: modulation, time and pooled text."""
    traffic: Mapping[str, float] = field(hash=False)
    """Bytes that element-wise kernels read and write, by dtype: a token, block and channel of the width."""
    held: Mapping[str, float] = field(hash=False)
    """Bytes alive at the fullest moment of a block, by dtype: a token and channel of the width."""
    operations: int
    """Kernels started in a pass."""
    beside: int = 0
    """Blocks whose queries, keys and values travel while their MLP is computed."""

    @property
    def width(self) -> int:
        """D: channels of all heads together."""
        return self.heads * self.head_dim

    def linear_flops(self, image: float, text: float) -> float:
        """A pass without attention over so many tokens."""
        return image * self.image_flops + text * self.text_flops + self.fixed_flops

    def attention_flops(self, queries: float, keys: float) -> float:
        """All blocks' attention of ``queries`` tokens to ``keys`` tokens."""
        return 4.0 * queries * keys * self.width * self.blocks


TRAFFIC = {"float32": 4 * 54.0, "bfloat16": 2 * 97.0, "float16": 2 * 97.0, "float64": 8 * 54.0}
"""Counted on diffusers' blocks with our processor (tests/planner/test_transformer_cost.py): 54 passes over
an N x D tensor in float32; in half precision rotation and norms also convert, 97 passes."""
HELD = {"float32": 4 * 15.3, "bfloat16": 2 * 17.7, "float16": 2 * 17.7, "float64": 8 * 15.3}
"""Counted the same way, at the fullest moment of a single-stream block."""
DOUBLE_OPERATIONS, SINGLE_OPERATIONS, OTHER_OPERATIONS = 76, 35, 48
"""Counted the same way, views left out."""
TIME_CHANNELS = 256
"""Sinusoidal embedding of the time; fixed in diffusers."""


def flux(config: Mapping[str, Any]) -> Transformer:
    """FluxTransformer2DModel: double-stream blocks (own weights for text), then single-stream ones."""
    double, single = int(config["num_layers"]), int(config["num_single_layers"])
    heads, head_dim = int(config["num_attention_heads"]), int(config["attention_head_dim"])
    channels, text = int(config["in_channels"]), int(config["joint_attention_dim"])
    out = int(config.get("out_channels") or channels)
    pooled, guided = int(config["pooled_projection_dim"]), bool(config.get("guidance_embeds"))
    d = heads * head_dim
    embeddings = (1 + guided) * (TIME_CHANNELS * d + d * d) + pooled * d + d * d
    modulation = double * 12 * d * d + single * 3 * d * d + 2 * d * d
    biases = (1 + guided) * 2 * d + 2 * d + double * 12 * d + single * 3 * d + 2 * d
    block = 12 * d * d
    body = double * (2 * (block + 9 * d) + 4 * head_dim) + single * (block + 8 * d + 2 * head_dim)
    edges = channels * d + d + text * d + d + d * out + out
    return Transformer(
        parameters=embeddings + modulation + biases + body + edges,
        blocks=double + single,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        token_channels=out,
        image_flops=2.0 * (block * (double + single) + channels * d + d * out),
        text_flops=2.0 * (block * (double + single) + text * d),
        fixed_flops=2.0 * (embeddings + modulation),
        traffic=TRAFFIC,
        held=HELD,
        operations=double * DOUBLE_OPERATIONS + single * SINGLE_OPERATIONS + OTHER_OPERATIONS,
        beside=single,
    )


TRANSFORMERS: dict[str, Callable[[Mapping[str, Any]], Transformer]] = {"FluxTransformer2DModel": flux}
"""One entry a diffusers class whose cost is known exactly."""


def transformer_of(
    config: Mapping[str, Any], *, stored: int | None, heads: int, kv_heads: int, head_dim: int
) -> Transformer:
    """The cost of the transformer of ``config``; ``stored`` is the number of parameters on disk, if known.

    A class without an entry is taken for a single stream whose every parameter works on every token:
    2 FLOPs a parameter and token. Raises UnknownCost if such a model is not on disk.
    """
    kind = str(config.get("_class_name"))
    if kind in TRANSFORMERS:
        return TRANSFORMERS[kind](config)
    blocks = sum(int(config.get(key) or 0) for key in ("num_layers", "num_single_layers", "n_layers"))
    if stored is None or not blocks:
        raise UnknownCost(
            f"the cost of a {kind} is not known without its weights; download the model first, "
            f"known: {', '.join(TRANSFORMERS)}"
        )
    return Transformer(
        parameters=stored,
        blocks=blocks,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        token_channels=int(config.get("in_channels") or 16) * _latents_a_token(config),
        image_flops=2.0 * stored,
        text_flops=2.0 * stored,
        fixed_flops=0.0,
        traffic=TRAFFIC,
        held=HELD,
        operations=blocks * DOUBLE_OPERATIONS + OTHER_OPERATIONS,
    )


def _latents_a_token(config: Mapping[str, Any]) -> int:
    patch = config.get("patch_size") or 1
    return math.prod(patch) if isinstance(patch, list) else int(patch) ** 2
