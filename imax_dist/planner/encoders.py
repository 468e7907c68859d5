"""Parameters of text encoders from their config.json, for models that are not on this disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imax_dist.planner.unknown import UnknownCost


def t5(config: Mapping[str, Any]) -> int:
    """T5EncoderModel with gated MLPs (v1.1, XXL)."""
    width, inner = int(config["d_model"]), int(config["num_heads"]) * int(config["d_kv"])
    gated = "gated" in str(config.get("feed_forward_proj", "gated-gelu"))
    layer = 4 * width * inner + (2 + gated) * width * int(config["d_ff"]) + 2 * width
    buckets = int(config.get("relative_attention_num_buckets", 32)) * int(config["num_heads"])
    return int(config["vocab_size"]) * width + int(config["num_layers"]) * layer + buckets + width


def clip(config: Mapping[str, Any]) -> int:
    """CLIPTextModel."""
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    attention, mlp, norms = 4 * (width * width + width), 2 * width * inner + inner + width, 4 * width
    tokens = int(config["vocab_size"]) + int(config["max_position_embeddings"])
    return tokens * width + int(config["num_hidden_layers"]) * (attention + mlp + norms) + 2 * width


ENCODERS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "T5EncoderModel": t5,
    "CLIPTextModel": clip,
}


def encoder_parameters(config: Mapping[str, Any]) -> int:
    """Of the encoder this config.json describes. Raises UnknownCost for a class that is not known."""
    kind = str((config.get("architectures") or ["?"])[0])
    if kind not in ENCODERS:
        raise UnknownCost(
            f"the size of a {kind} is not known without its weights; download the model first, "
            f"known: {', '.join(ENCODERS)}"
        )
    return ENCODERS[kind](config)
