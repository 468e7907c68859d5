"""The same way back for HunyuanImage 2.1, the two Luminas and SD 3.5, and for autoencoders."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from original_names import (
    Tensors,
    as_it_is,
    flux2,
    flux3,
    fused,
    krea2,
    qwen_image21,
    renamed,
    swapped,
    z_image,
)
from torch import Tensor

HUNYUAN = [
    (r"^context_embedder_2\.norm\.", "byt5_in.layernorm."),
    (r"^context_embedder_2\.linear_", "byt5_in.fc"),
    (r"^x_embedder\.", "img_in."),
    (r"^context_embedder\.proj_in\.", "txt_in.input_embedder."),
    (r"^context_embedder\.time_text_embed\.text_embedder\.", "txt_in.c_embedder."),
    (r"^context_embedder\.time_text_embed\.timestep_embedder\.linear_1", "txt_in.t_embedder.mlp.0"),
    (r"^context_embedder\.time_text_embed\.timestep_embedder\.linear_2", "txt_in.t_embedder.mlp.2"),
    (r"^context_embedder\.token_refiner\.refiner_blocks\.", "txt_in.individual_token_refiner.blocks."),
    (r"^time_guidance_embed\.timestep_embedder_r\.", "time_r_in."),
    (r"^time_guidance_embed\.timestep_embedder\.", "time_in."),
    (r"^time_guidance_embed\.guidance_embedder\.", "guidance_in."),
    (r"^(time_r_in|time_in|guidance_in)\.linear_1", r"\1.mlp.0"),
    (r"^(time_r_in|time_in|guidance_in)\.linear_2", r"\1.mlp.2"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^proj_out\.", "final_layer.linear."),
    (r"^(txt_in\..*)norm_out\.linear", r"\1adaLN_modulation.1"),
    (r"^(txt_in\..*)attn\.to_out\.0", r"\1self_attn_proj"),
    (r"^(txt_in\..*)attn\.to_qkv", r"\1self_attn_qkv"),
    (r"^(txt_in\..*)ff\.net\.0\.proj", r"\1mlp.fc1"),
    (r"^(txt_in\..*)ff\.net\.2", r"\1mlp.fc2"),
    (r"^single_transformer_blocks\.(\d+)\.norm\.", r"single_blocks.\1.modulation."),
    (r"^single_transformer_blocks\.(\d+)\.attn\.norm_(q|k)\.", r"single_blocks.\1.\2_norm."),
    (r"^single_transformer_blocks\.", "single_blocks."),
    (r"^transformer_blocks\.", "double_blocks."),
    (r"^(double.*)attn\.to_(qkv|q|k|v)\.", r"\1img_attn_\2."),
    (r"^(double.*)attn\.add_(qkv|q|k|v)(?:_proj)?\.", r"\1txt_attn_\2."),
    (r"^(single.*)attn\.to_(q|k|v)\.", r"\1linear1_\2."),
    (r"\.attn\.norm_(q|k)\.", r".img_attn_\1_norm."),
    (r"\.attn\.norm_added_(q|k)\.", r".txt_attn_\1_norm."),
    (r"\.attn\.to_out\.0\.", ".img_attn_proj."),
    (r"\.attn\.to_add_out\.", ".txt_attn_proj."),
    (r"\.proj_mlp\.", ".linear1_mlp."),
    (r"\.norm1\.linear", ".img_mod.linear"),
    (r"\.norm1_context\.", ".txt_mod."),
    (r"\.ff\.net\.0\.proj", ".img_mlp.fc1"),
    (r"\.ff\.net\.2", ".img_mlp.fc2"),
    (r"\.ff_context\.net\.0\.proj", ".txt_mlp.fc1"),
    (r"\.ff_context\.net\.2", ".txt_mlp.fc2"),
]


def hunyuan_image(tensors: Mapping[str, Tensor], *, joined: bool = False) -> Tensors:
    """Tencent's HunyuanImage 2.1: a refiner's projections in one, all others apart."""
    made = dict(tensors)
    for name in [name for name in made if re.search(r"\.(to_q|add_q_proj)\.", name)]:
        if joined or "refiner" in name:
            parts = [re.sub(r"(to_|add_)q", rf"\1{each}", name) for each in "qkv"]
            one = re.sub(r"(to_q|add_q)(_proj)?", r"\1kv", name)
            if name.startswith("single_"):
                parts.append(name.replace("attn.to_q", "proj_mlp"))
                one = name.replace("attn.to_q", "linear1")
            made[one] = torch.cat([made.pop(each) for each in parts])
    swapped(made, r"^norm_out")
    last = (r"^(single.*)\.proj_out\.", r"\1.linear2." if joined else r"\1.linear2.fc.")
    return renamed(made, [*HUNYUAN, last])


def hunyuan_image_joined(tensors: Mapping[str, Tensor]) -> Tensors:
    """The same as ComfyUI keeps it: all projections of a block in one."""
    return hunyuan_image(tensors, joined=True)


def lumina_next(tensors: Mapping[str, Tensor]) -> Tensors:
    """Alpha-VLLM's Lumina-Next: one projection makes the queries of both attentions."""
    own = {name: x for name, x in tensors.items() if not re.search(r"attn2\.(to_q|norm_q)\.", name)}
    return renamed(
        own,
        [
            (r"^patch_embedder\.proj", "x_embedder"),
            (r"^time_caption_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
            (r"^time_caption_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
            (r"^time_caption_embed\.caption_embedder", "cap_embedder"),
            (r"^norm_out\.linear_1", "final_layer.adaLN_modulation.1"),
            (r"^norm_out\.linear_2", "final_layer.linear"),
            (r"\.norm1\.linear", ".adaLN_modulation.1"),
            (r"\.norm1\.norm", ".attention_norm1"),
            (r"\.norm2\.", ".attention_norm2."),
            (r"\.norm1_context", ".attention_y_norm"),
            (r"\.gate$", ".attention.gate"),
            (r"\.attn1\.to_(q|k|v)\.", r".attention.w\1."),
            (r"\.attn2\.to_(k|v)\.", r".attention.w\1_y."),
            (r"\.attn2\.to_out\.0", ".attention.wo"),
            (r"\.attn1\.norm_(q|k)\.", r".attention.\1_norm."),
            (r"\.attn2\.norm_k\.", ".attention.ky_norm."),
            (r"\.feed_forward\.linear_", ".feed_forward.w"),
        ],
    )


def lumina2(tensors: Mapping[str, Tensor]) -> Tensors:
    """Alpha-VLLM's Lumina-Image-2.0, with a norm that is never used."""
    made = dict(tensors)
    fused(made, (r"attn\.to_q\.", r"attn\.to_k\.", r"attn\.to_v\."), "attention.qkv.")
    names = [
        (r"^time_caption_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
        (r"^time_caption_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
        (r"^time_caption_embed\.caption_embedder", "cap_embedder"),
        (r"^norm_out\.linear_1", "final_layer.adaLN_modulation.1"),
        (r"^norm_out\.linear_2", "final_layer.linear"),
        (r"\.norm1\.linear", ".adaLN_modulation.1"),
        (r"\.norm1(\.norm)?\.", ".attention_norm1."),
        (r"\.norm2\.", ".attention_norm2."),
        (r"\.attn\.to_out\.0", ".attention.out"),
        (r"\.attn\.norm_(q|k)\.", r".attention.\1_norm."),
        (r"\.feed_forward\.linear_", ".feed_forward.w"),
    ]
    return {**renamed(made, names), "norm_final.weight": torch.empty(2304, device="meta")}


def sd3(tensors: Mapping[str, Tensor]) -> Tensors:
    """Stability's SD 3.5; its last block modulates its text with scale before shift."""
    made = dict(tensors)
    last = max(int(name.split(".")[1]) for name in made if name.startswith("transformer_blocks."))
    swapped(made, rf"^(norm_out|transformer_blocks\.{last}\.norm1_context)\.linear")
    for ending, to in (("attn", "x_block.attn"), ("attn2", "x_block.attn2")):
        parts = tuple(rf"\.{ending}\.to_{each}\." for each in "qkv")
        fused(made, parts, f".{to}.qkv.")
    fused(
        made,
        (r"\.attn\.add_q_proj\.", r"\.attn\.add_k_proj\.", r"\.attn\.add_v_proj\."),
        ".context_block.attn.qkv.",
    )
    names = [
        (r"^pos_embed\.pos_embed$", "pos_embed"),
        (r"^pos_embed\.proj", "x_embedder.proj"),
        (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
        (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
        (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
        (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
        (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
        (r"^proj_out", "final_layer.linear"),
        (r"^transformer_blocks", "joint_blocks"),
        (r"\.norm1\.linear", ".x_block.adaLN_modulation.1"),
        (r"\.norm1_context\.linear", ".context_block.adaLN_modulation.1"),
        (r"\.(attn2?)\.to_out\.0", r".x_block.\1.proj"),
        (r"\.attn\.to_add_out", ".context_block.attn.proj"),
        (r"\.(attn2?)\.norm_(q|k)\.", r".x_block.\1.ln_\2."),
        (r"\.attn\.norm_added_(q|k)\.", r".context_block.attn.ln_\1."),
        (r"\.ff\.net\.0\.proj", ".x_block.mlp.fc1"),
        (r"\.ff\.net\.2", ".x_block.mlp.fc2"),
        (r"\.ff_context\.net\.0\.proj", ".context_block.mlp.fc1"),
        (r"\.ff_context\.net\.2", ".context_block.mlp.fc2"),
    ]
    return renamed(made, names)


def autoencoder(tensors: Mapping[str, Tensor]) -> Tensors:
    """Latent diffusion's names (FLUX.1's ae.safetensors); attention as convolutions of 1 x 1."""
    levels = 1 + max(int(n.split(".")[2]) for n in tensors if n.startswith("decoder.up_blocks."))
    made = {
        name: x[:, :, None, None] if ".attentions." in name and x.ndim == 2 else x
        for name, x in tensors.items()
    }

    def up(found: re.Match[str]) -> str:
        return f"decoder.up.{levels - 1 - int(found[1])}."

    names = [
        (r"^(encoder|decoder)\.conv_norm_out", r"\1.norm_out"),
        (r"^(encoder|decoder)\.mid_block\.resnets\.0", r"\1.mid.block_1"),
        (r"^(encoder|decoder)\.mid_block\.resnets\.1", r"\1.mid.block_2"),
        (r"^(encoder|decoder)\.mid_block\.attentions\.0", r"\1.mid.attn_1"),
        (r"attn_1\.group_norm", "attn_1.norm"),
        (r"attn_1\.to_(q|k|v)", r"attn_1.\1"),
        (r"attn_1\.to_out\.0", "attn_1.proj_out"),
        (r"^encoder\.down_blocks\.(\d+)\.resnets", r"encoder.down.\1.block"),
        (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0", r"encoder.down.\1.downsample"),
        (r"\.upsamplers\.0", ".upsample"),
        (r"up_blocks\.(\d+)\.resnets", r"up_blocks.\1.block"),
        (r"\.conv_shortcut", ".nin_shortcut"),
    ]
    made = renamed(made, names)
    return {re.sub(r"^decoder\.up_blocks\.(\d+)\.", up, name): x for name, x in made.items()}


def flux2_autoencoder(tensors: Mapping[str, Tensor]) -> Tensors:
    """FLUX.2's, whose 1 x 1 convolutions around the latents are within the halves."""
    nested = [(r"^quant_conv", "encoder.quant_conv"), (r"^post_quant_conv", "decoder.post_quant_conv")]
    return renamed(autoencoder(tensors), nested)


def hunyuan_image_autoencoder(tensors: Mapping[str, Tensor]) -> Tensors:
    """HunyuanImage 2.1's: levels, each with its blocks and its change of size."""
    made = renamed(
        tensors,
        [
            (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
            (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
            (r"\.mid_block\.attentions\.0\.to_", ".mid.attn_1."),
            (r"\.mid_block\.attentions\.0\.proj\.", ".mid.attn_1.proj_out."),
            (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
        ],
    )
    for side, level_name, change in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        level = block = row = 0
        while f"{side}.{level_name}_blocks.{row}.conv.weight" in made or (
            f"{side}.{level_name}_blocks.{row}.conv1.weight" in made
        ):
            old = f"{side}.{level_name}_blocks.{row}."
            is_change = f"{old}conv.weight" in made
            new = f"{side}.{level_name}.{level}." + (f"{change}." if is_change else f"block.{block}.")
            made = {name.replace(old, new) if name.startswith(old) else name: x for name, x in made.items()}
            level, block, row = (level + 1, 0, row + 1) if is_change else (level, block + 1, row + 1)
    return made


WAYS: dict[str, Callable[[Mapping[str, Tensor]], Tensors]] = {
    "flux2-dev": flux2,
    "flux2-klein": flux2,
    "krea-2": krea2,
    "z-image-turbo": z_image,
    "qwen-image": as_it_is,
    "qwen-image-2.1": qwen_image21,
    "flux3-klein-base": flux3,
    "hunyuan-image-2.1": hunyuan_image,
    "hunyuan-image-2.1-distilled": hunyuan_image_joined,
    "lumina-next": lumina_next,
}
"""Tiny networks that pass through diffusers' converters at any width."""
AUTOENCODERS = {
    "flux2-dev": flux2_autoencoder,
    "flux2-klein": flux2_autoencoder,
    "z-image-turbo": autoencoder,
    "hunyuan-image-2.1": hunyuan_image_autoencoder,
}
