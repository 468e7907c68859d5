"""The trained parts of a pipeline folder, to go on from: a training run need not start from nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from imax_dist.errors import BadManifest
from imax_dist.models.find import find_model
from imax_dist.models.weights import load_complete
from imax_dist.study.train.crops import held_out, to_unit
from imax_dist.study.train.flow import load_flow
from imax_dist.study.train.network import FlowNetwork, FlowShape
from imax_dist.study.train.text import Tokenizers, build_tokenizers
from imax_dist.study.train.vae import load_vae


def vae_of(source: str) -> AutoencoderKL:
    """The autoencoder of a checkpoint of ``train_vae`` or of a model (a name or a pipeline folder)."""
    if Path(source).suffix == ".safetensors":
        return load_vae(Path(source), to_unit(held_out(32, 128)))
    _, folder = find_model(source)
    vae = load_complete(AutoencoderKL, folder / "vae", torch_dtype=torch.float32)
    return vae.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def flow_of(source: str, tokenizers: Tokenizers) -> FlowNetwork:
    """Transformer and text encoders of a checkpoint or a model, in float32, for inference.

    Raises BadManifest for a model that is not of the testbed's make.
    """
    if Path(source).suffix == ".safetensors":
        return load_flow(Path(source), tokenizers)
    _, folder = find_model(source)
    transformer = load_complete(FluxTransformer2DModel, folder / "transformer", torch_dtype=torch.float32)
    clip = load_complete(CLIPTextModel, folder / "text_encoder", torch_dtype=torch.float32)
    t5 = load_complete(T5EncoderModel, folder / "text_encoder_2", torch_dtype=torch.float32)
    config = transformer.config
    shape = FlowShape(
        config.num_attention_heads, config.num_layers, config.num_single_layers, config.guidance_embeds
    )
    network = FlowNetwork(shape, tokenizers)
    try:
        for mine, theirs in ((network.transformer, transformer), (network.clip, clip), (network.t5, t5)):
            mine.load_state_dict(theirs.state_dict())
    except RuntimeError as error:
        raise BadManifest(f"{source} is not a model of the testbed: {str(error).splitlines()[-1]}") from error
    return network.eval().requires_grad_(False)


def tokenizers_of(source: str) -> Tokenizers:
    """The tokenizers that belong to ``flow_of(source)``: a model's own, else those of a training run."""
    if Path(source).suffix == ".safetensors":
        return build_tokenizers()
    _, folder = find_model(source)
    clip = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return Tokenizers(clip, T5TokenizerFast.from_pretrained(folder / "tokenizer_2"))
