"""A tiny FLUX.3 pipeline: real classes, random weights, 64 px native."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imax_dist.models.networks.flux3 import LAYERS
from imax_dist.models.tiny.flux2 import tiny_patch_autoencoder
from imax_dist.models.tiny.language import QWEN3_CHAT, qwen_tokenizer
from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler

SETTINGS = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
text_tokens: 80
rope_factor: 1.0
native_shift: 1.6
shift_factor: 1.5
"""
GUIDED = "guidance_scale: {native: 2.0, extrapolated: 1.5}\n"
UNGUIDED = "guidance_scale: {native: 1.0, extrapolated: 1.0}\n"
WIDTH = 8
"""Of the encoder's states."""


def make_tiny(folder: Path) -> Path:
    """The base model's kind: classifier-free guidance."""
    return _make(folder, "Flux3ModularPipeline", "Flux3AutoBlocks", settings=SETTINGS + GUIDED)


def make_tiny_distilled(folder: Path) -> Path:
    """The distilled model's kind, a flow map without guidance."""
    kind, blocks = "Flux3DistilledModularPipeline", "Flux3DistilledAutoBlocks"
    return _make(folder, kind, blocks, settings=SETTINGS + UNGUIDED, flow_map=True)


def _make(folder: Path, kind: str, blocks: str, *, settings: str, **options: bool) -> Path:
    """Write the pipeline into ``folder``: one block of each kind, 32 thin layers of Qwen3-VL."""
    from diffusers import Flux3Transformer2DModel

    tokenizer = qwen_tokenizer(["user assistant"], QWEN3_CHAT)
    transformer = Flux3Transformer2DModel(
        in_channels=16, cond_in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=4, joint_attention_dim=len(LAYERS) * WIDTH, timestep_channels=32, mlp_ratio=1.0,
        axes_dims_rope=(4, 4, 4, 4), **options,
    )  # fmt: skip
    parts = {
        "transformer": peaked(transformer, seed=11),
        "vae": tiny_patch_autoencoder(),
        "text_encoder": _reader(len(tokenizer)),
        "tokenizer": tokenizer,
        "scheduler": scheduler(),
    }
    save_pipeline(folder, kind, parts, settings=settings)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    (folder / "model_index.json").unlink()
    place = {"pretrained_model_name_or_path": str(folder)}
    modular = {
        name: [*entry, {**place, "subfolder": name}] if isinstance(entry, list) else entry
        for name, entry in index.items()
    }
    text = json.dumps({**modular, "_blocks_class_name": blocks}, indent=1)
    (folder / "modular_model_index.json").write_text(text, encoding="utf-8")
    return folder


def _reader(vocabulary: int) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = dict(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=LAYERS[-1] + 1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    )  # fmt: skip
    vision = dict(
        depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=WIDTH,
        num_position_embeddings=16, deepstack_visual_indexes=[0],
    )  # fmt: skip
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    return Qwen3VLForConditionalGeneration(config)
