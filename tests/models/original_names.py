"""Tensors of diffusers' networks in the names of the published single files: the way back, for tests.

Written by hand from the published files' names, apart from diffusers' converters that it checks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def renamed(tensors: Mapping[str, Tensor], pairs: list[tuple[str, str]]) -> Tensors:
    """By regular expressions, in order."""
    made = {}
    for name, x in tensors.items():
        for pattern, to in pairs:
            name = re.sub(pattern, to, name)
        made[name] = x
    return made


def fused(tensors: Tensors, parts: tuple[str, ...], to: str) -> None:
    """Put each layer's ``parts`` behind each other under ``to``, in place."""
    for name in [name for name in tensors if re.search(parts[0], name)]:
        names = [re.sub(parts[0], part.replace("\\", ""), name) for part in parts]
        tensors[re.sub(parts[0], to, name)] = torch.cat([tensors.pop(each) for each in names])


def swapped(tensors: Tensors, pattern: str) -> None:
    """Scale and shift change places, in place."""
    for name in [name for name in tensors if re.search(pattern, name)]:
        first, second = tensors[name].chunk(2)
        tensors[name] = torch.cat([second, first])


FLUX = [
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^proj_out", "final_layer.linear"),
    (r"^context_embedder", "txt_in"),
    (r"^x_embedder", "img_in"),
    (r"^single_transformer_(.*)attn\.norm_q\.weight", r"single_\1norm.query_norm.scale"),
    (
        r"^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight",
        r"single_blocks.\1.norm.key_norm.scale",
    ),
    (r"^single_transformer_blocks", "single_blocks"),
    (r"^transformer_blocks", "double_blocks"),
    (r"\.attn\.norm_q\.weight", ".img_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_k\.weight", ".img_attn.norm.key_norm.scale"),
    (r"\.attn\.norm_added_q\.weight", ".txt_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_added_k\.weight", ".txt_attn.norm.key_norm.scale"),
    (r"\.attn\.to_out\.0", ".img_attn.proj"),
    (r"\.attn\.to_add_out", ".txt_attn.proj"),
]
"""Names that FLUX.1 and FLUX.2 share."""


def _flux(tensors: Mapping[str, Tensor], names: list[tuple[str, str]]) -> Tensors:
    """``names`` before those that all FLUX networks share; projections in one, scale before shift."""
    made = dict(tensors)
    fused(made, (r"attn\.to_q\.", r"attn\.to_k\.", r"attn\.to_v\."), "img_attn.qkv.")
    fused(made, (r"attn\.add_q_proj\.", r"attn\.add_k_proj\.", r"attn\.add_v_proj\."), "txt_attn.qkv.")
    swapped(made, r"^norm_out")
    return renamed(made, [*names, *FLUX])


def flux1(tensors: Mapping[str, Tensor]) -> Tensors:
    """black-forest-labs' FLUX.1."""
    made = dict(tensors)
    single = {name for name in made if name.startswith("single_")}
    for name in [n for n in single if ".attn.to_q." in n]:
        parts = [name.replace("to_q", each) for each in ("to_q", "to_k", "to_v")]
        parts.append(name.replace("attn.to_q", "proj_mlp"))
        made[name.replace("attn.to_q", "linear1")] = torch.cat([made.pop(each) for each in parts])
    return _flux(
        made,
        [
            (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
            (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
            (r"^time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
            (r"^time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
            (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
            (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
            (r"^single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
            (r"^single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
            (r"\.norm1\.linear", ".img_mod.lin"),
            (r"\.norm1_context\.linear", ".txt_mod.lin"),
            (r"\.ff\.net\.0\.proj", ".img_mlp.0"),
            (r"\.ff\.net\.2", ".img_mlp.2"),
            (r"\.ff_context\.net\.0\.proj", ".txt_mlp.0"),
            (r"\.ff_context\.net\.2", ".txt_mlp.2"),
        ],
    )


def chroma(tensors: Mapping[str, Tensor]) -> Tensors:
    """lodestones' Chroma: FLUX.1's names without its modulations, and a network for those."""
    names = [
        (r"^(distilled_guidance_layer\.layers\.\d+)\.linear_1", r"\1.in_layer"),
        (r"^(distilled_guidance_layer\.layers\.\d+)\.linear_2", r"\1.out_layer"),
        (r"^(distilled_guidance_layer\.norms\.\d+)\.weight", r"\1.scale"),
    ]
    return renamed(flux1(tensors), names)


def krea2(tensors: Mapping[str, Tensor]) -> Tensors:
    """Krea's own: six modulations of a block in one row."""
    blocks = re.compile(r"^transformer_blocks\..*scale_shift_table$")
    flat = {name: x.flatten() if blocks.match(name) else x for name, x in tensors.items()}
    return renamed(
        flat,
        [
            (r"^img_in\.", "first."),
            (r"^time_embed\.linear_1", "tmlp.0"),
            (r"^time_embed\.linear_2", "tmlp.2"),
            (r"^time_mod_proj", "tproj.1"),
            (r"^txt_in\.norm\.weight", "txtmlp.0.scale"),
            (r"^txt_in\.linear_1", "txtmlp.1"),
            (r"^txt_in\.linear_2", "txtmlp.3"),
            (r"^text_fusion\.", "txtfusion."),
            (r"^transformer_blocks\.", "blocks."),
            (r"^final_layer\.linear", "last.linear"),
            (r"^final_layer\.norm\.weight", "last.norm.scale"),
            (r"^final_layer\.scale_shift_table", "last.modulation.lin"),
            (r"\.attn\.to_(q|k|v)\.", r".attn.w\1."),
            (r"\.attn\.to_out\.0\.", ".attn.wo."),
            (r"\.attn\.to_gate\.", ".attn.gate."),
            (r"\.attn\.norm_(q|k)\.weight", r".attn.qknorm.\1norm.scale"),
            (r"\.ff\.", ".mlp."),
            (r"\.norm1\.weight", ".prenorm.scale"),
            (r"\.norm2\.weight", ".postnorm.scale"),
            (r"\.scale_shift_table", ".mod.lin"),
        ],
    )


def flux2(tensors: Mapping[str, Tensor]) -> Tensors:
    """black-forest-labs' FLUX.2."""
    return _flux(
        tensors,
        [
            (r"^time_guidance_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
            (r"^time_guidance_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
            (r"^time_guidance_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
            (r"^time_guidance_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
            (r"_modulation(_img|_txt)?\.linear", r"_modulation\1.lin"),
            (r"^single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj", r"single_blocks.\1.linear1"),
            (r"^single_transformer_blocks\.(\d+)\.attn\.to_out", r"single_blocks.\1.linear2"),
            (r"\.ff\.linear_in", ".img_mlp.0"),
            (r"\.ff\.linear_out", ".img_mlp.2"),
            (r"\.ff_context\.linear_in", ".txt_mlp.0"),
            (r"\.ff_context\.linear_out", ".txt_mlp.2"),
        ],
    )


def z_image(tensors: Mapping[str, Tensor]) -> Tensors:
    """Tongyi-MAI's Z-Image, as ComfyUI keeps it."""
    made = dict(tensors)
    fused(made, (r"attention\.to_q\.", r"attention\.to_k\.", r"attention\.to_v\."), "attention.qkv.")
    return renamed(
        made,
        [
            (r"^all_final_layer\.2-1\.", "final_layer."),
            (r"^all_x_embedder\.2-1\.", "x_embedder."),
            (r"\.attention\.to_out\.0\.", ".attention.out."),
            (r"\.attention\.norm_(q|k)\.", r".attention.\1_norm."),
        ],
    )


def as_it_is(tensors: Mapping[str, Tensor]) -> Tensors:
    """Qwen-Image's file has diffusers' own names."""
    return dict(tensors)


def qwen_image21(tensors: Mapping[str, Tensor]) -> Tensors:
    """Qwen-Image 2.1's, as ComfyUI keeps it: gate and values of an MLP in one."""
    made = dict(tensors)
    for name in [name for name in made if name.endswith("img_mlp.gate_layer.weight")]:
        values = name.replace("gate_layer", "proj")
        made[name.replace("gate_layer", "gate_up")] = torch.cat([made.pop(name), made.pop(values)])
    return made


def flux3(tensors: Mapping[str, Tensor]) -> Tensors:
    """black-forest-labs' FLUX.3, with a head of its training that is no part of the network."""
    made = dict(tensors)
    swapped(made, r"^norm_out")
    names = [
        (r"^timestep_embedder\.linear_1", "time_in.in_layer"),
        (r"^timestep_embedder\.linear_2", "time_in.out_layer"),
        (r"^x_embedders\.", "emb_in."),
        (r"^context_embedder\.", "txt_in."),
        (r"^mode_blocks\.", "content_mode_blocks."),
        (r"^single_transformer_blocks\.", "single_blocks."),
        (r"^norm_out\.linear", "final_layer.image.adaLN_modulation.1"),
        (r"^proj_out", "final_layer.image.linear"),
        (r"(_modulations\.\w+)\.linear", r"\1.lin"),
        (r"\.attn\.to_(q|k|v)\.", r".\1_proj."),
        (r"\.attn\.to_out\.0\.", ".attn_out."),
        (r"\.attn\.norm_q\.weight", ".norm.query_norm.scale"),
        (r"\.attn\.norm_k\.weight", ".norm.key_norm.scale"),
        (r"\.ff\.linear_(in|out)\.", r".mlp_\1."),
    ]
    return renamed(made, names)
