"""Converters that diffusers keeps outside its package, as scripts: HunyuanImage 2.1 and Lumina-Next.

Written from the names that ``scripts/convert_hunyuan_image_to_diffusers.py`` and
``scripts/convert_lumina_to_diffusers.py`` of huggingface/diffusers pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

Tensors: TypeAlias = dict[str, Tensor]
Pairs: TypeAlias = tuple[tuple[str, str], ...]

HUNYUAN: Pairs = (
    (r"^byt5_in\.layernorm\.", "context_embedder_2.norm."),
    (r"^byt5_in\.fc", "context_embedder_2.linear_"),
    (r"^img_in\.", "x_embedder."),
    (r"^txt_in\.input_embedder\.", "context_embedder.proj_in."),
    (r"^txt_in\.c_embedder\.", "context_embedder.time_text_embed.text_embedder."),
    (r"^txt_in\.t_embedder\.", "context_embedder.time_text_embed.timestep_embedder."),
    (r"^txt_in\.individual_token_refiner\.blocks\.", "context_embedder.token_refiner.refiner_blocks."),
    (r"^time_in\.", "time_guidance_embed.timestep_embedder."),
    (r"^time_r_in\.", "time_guidance_embed.timestep_embedder_r."),
    (r"^guidance_in\.", "time_guidance_embed.guidance_embedder."),
    (r"^final_layer\.linear\.", "proj_out."),
    (r"^final_layer\.adaLN_modulation\.1\.", "norm_out.linear."),
    (r"(embedder(?:_r)?)\.mlp\.0\.", r"\1.linear_1."),
    (r"(embedder(?:_r)?)\.mlp\.2\.", r"\1.linear_2."),
    (r"(refiner_blocks\.\d+)\.adaLN_modulation\.1\.", r"\1.norm_out.linear."),
    (r"^single_blocks\.(\d+)\.modulation\.", r"single_transformer_blocks.\1.norm."),
    (r"^single_blocks\.(\d+)\.(q|k)_norm\.", r"single_transformer_blocks.\1.attn.norm_\2."),
    (r"^single_blocks\.", "single_transformer_blocks."),
    (r"^double_blocks\.", "transformer_blocks."),
    (r"\.(?:img_attn|linear1)_(q|k|v)\.", r".attn.to_\1."),
    (r"\.txt_attn_(q|k|v)\.", r".attn.add_\1_proj."),
    (r"\.img_attn_(q|k)_norm\.", r".attn.norm_\1."),
    (r"\.txt_attn_(q|k)_norm\.", r".attn.norm_added_\1."),
    (r"\.(?:img_attn|self_attn)_proj\.", ".attn.to_out.0."),
    (r"\.txt_attn_proj\.", ".attn.to_add_out."),
    (r"\.linear1_mlp\.", ".proj_mlp."),
    (r"\.linear2\.(?:fc\.)?", ".proj_out."),
    (r"\.img_mod\.", ".norm1."),
    (r"\.txt_mod\.", ".norm1_context."),
    (r"\.(?:img_)?mlp\.fc1\.", ".ff.net.0.proj."),
    (r"\.(?:img_)?mlp\.fc2\.", ".ff.net.2."),
    (r"\.txt_mlp\.fc1\.", ".ff_context.net.0.proj."),
    (r"\.txt_mlp\.fc2\.", ".ff_context.net.2."),
)
"""Of projections apart; ``JOINED`` are taken apart before."""
JOINED = {
    "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
LUMINA_NEXT: Pairs = (
    (r"^x_embedder\.", "patch_embedder.proj."),
    (r"^t_embedder\.mlp\.0\.", "time_caption_embed.timestep_embedder.linear_1."),
    (r"^t_embedder\.mlp\.2\.", "time_caption_embed.timestep_embedder.linear_2."),
    (r"^cap_embedder\.", "time_caption_embed.caption_embedder."),
    (r"^final_layer\.adaLN_modulation\.1\.", "norm_out.linear_1."),
    (r"^final_layer\.linear\.", "norm_out.linear_2."),
    (r"\.adaLN_modulation\.1\.", ".norm1.linear."),
    (r"\.attention_norm1\.", ".norm1.norm."),
    (r"\.attention_norm2\.", ".norm2."),
    (r"\.attention_y_norm\.", ".norm1_context."),
    (r"\.attention\.gate$", ".gate"),
    (r"\.attention\.w(k|v)_y\.", r".attn2.to_\1."),
    (r"\.attention\.ky_norm\.", ".attn2.norm_k."),
    (r"\.attention\.wo\.", ".attn2.to_out.0."),
    (r"\.attention\.w(q|k|v)\.", r".attn1.to_\1."),
    (r"\.attention\.(q|k)_norm\.", r".attn1.norm_\1."),
    (r"\.feed_forward\.w(\d)\.", r".feed_forward.linear_\1."),
)


def hunyuan_image(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Tencent's HunyuanImage 2.1: queries, keys and values in one or apart, as both are published."""
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    made: Tensors = {}
    for name, x in _taken(tensors).items():
        layer, _, kind = name.rpartition(".")
        block, _, last = layer.rpartition(".")
        if last in JOINED:
            sizes = [width] * 3 if len(JOINED[last]) == 3 else [width] * 3 + [x.shape[0] - 3 * width]
            parts = zip(JOINED[last], x.split(sizes), strict=True)
            made |= {f"{block}.{part}.{kind}": piece for part, piece in parts}
        else:
            made[name] = x
    made = _renamed(made, HUNYUAN)
    for name in ("norm_out.linear.weight", "norm_out.linear.bias"):
        if name in made:  # shift before scale there
            shift, scale = made[name].chunk(2)
            made[name] = torch.cat([scale, shift])
    return made


def hunyuan_image_autoencoder(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Its VAE in latent diffusion's names: diffusers numbers blocks and changes of size in one row."""
    flat = {
        name: x.squeeze(2) if x.ndim == 5 and x.shape[2] == 1 else x for name, x in _taken(tensors).items()
    }
    levels = len(config["block_out_channels"])
    places = {**_places(flat, "encoder.down", levels), **_places(flat, "decoder.up", levels)}
    pairs = tuple((f"^{re.escape(old)}\\.", f"{new}.") for old, new in places.items())
    return _renamed(
        flat,
        (
            *pairs,
            (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
            (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
            (r"\.mid\.attn_1\.(q|k|v)\.", r".mid_block.attentions.0.to_\1."),
            (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.proj."),
            (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        ),
    )


def lumina_next(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Alpha-VLLM's Lumina-Next: its queries are both attentions'."""
    del config
    made = _renamed(_taken(tensors), LUMINA_NEXT)
    shared = (".attn1.to_q.", ".attn1.norm_q.")
    again = {name: x for name, x in made.items() if any(part in name for part in shared)}
    return {**made, **{name.replace("attn1", "attn2"): x for name, x in again.items()}}


OWN = {
    "HunyuanImageTransformer2DModel": hunyuan_image,
    "AutoencoderKLHunyuanImage": hunyuan_image_autoencoder,
    "LuminaNextDiT2DModel": lumina_next,
}
"""By diffusers' class."""


def _taken(tensors: Tensors) -> Tensors:
    """All of them, out of ``tensors``, as diffusers' converters do."""
    own = dict(tensors)
    tensors.clear()
    return own


def _renamed(tensors: Mapping[str, Tensor], pairs: Iterable[tuple[str, str]]) -> Tensors:
    made = {}
    for name, x in tensors.items():
        for pattern, new in pairs:
            name = re.sub(pattern, new, name)
        made[name] = x
    return made


def _places(names: Iterable[str], side: str, levels: int) -> dict[str, str]:
    """Where each block and each change of size of a half stands in diffusers' row."""
    there = [name for name in names if name.startswith(f"{side}.")]
    found = {re.sub(r"^(.+?\.\d+\.(?:block\.\d+|(?:down|up)sample))\..*", r"\1", name) for name in there}
    row = [place for level in range(levels) for place in sorted(found) if f"{side}.{level}." in f"{place}."]
    return {place: f"{side}_blocks.{number}" for number, place in enumerate(row)}
