"""HunyuanImage 2.1: diffusers' blocks, unmodified, in the order of its forward.

``HunyuanImageTransformer2DModel.forward`` takes nothing that reaches its attention: its blocks are called
here one after the other (DECISIONS 38). A token is one latent pixel, text is not rotated, and a refiner that
reads the time makes the text again in every step. Letters in quotes have an encoder of their own, ByT5.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.errors import BadValue
from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models import patches
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import FlowModel, LatentScale, PassInputs
from imax_dist.models.components import Configs, check_patches
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import AttentionCall, JointProcessor
from imax_dist.models.momentum_guidance import MomentumGuidance
from imax_dist.models.networks.flux import attention_beside_mlp
from imax_dist.models.networks.qwen_image import TEMPLATE as QWEN_TEMPLATE
from imax_dist.models.networks.qwen_image import described
from imax_dist.models.patches import own_row
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder
from imax_dist.models.token_shards import TokenSequence, TokenShards
from imax_dist.shapes import Latents, PositionIds, Tokens


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """(row, column), text copies first. The trained text stands at (0, 0), where nothing is rotated."""
    return patches.joint_position_ids(grid, copies, text_tokens=text_tokens)[:, 1:]


class CallProcessor(JointProcessor):
    """In the place of diffusers' HunyuanImageAttnProcessor in the blocks of two streams."""

    def __call__(  # type: ignore[override]
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: AttentionCall | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        assert image_rotary_emb is not None
        call = image_rotary_emb
        return super().__call__(
            attn,
            hidden_states,
            encoder_hidden_states,
            attention_mask,
            (call.table.cos, call.table.sin),
            engine=call.engine,
            layout=call.layout,
            text_weight=call.text_weight,
        )


class TextEncoders(NamedTuple):
    """Qwen2.5-VL, and ByT5 for letters."""

    language: TextEncoder
    letters: TextEncoder


TEMPLATE = QWEN_TEMPLATE.removesuffix("\n<|im_start|>assistant\n")
"""HunyuanImagePipeline.prompt_template_encode: Qwen-Image's without the answer's beginning."""
LAYER = -3
"""HunyuanImagePipeline's hidden_state_skip_layer: the state of its encoder that is read."""
LETTERS = 128
"""HunyuanImagePipeline.tokenizer_2_max_length."""


def load_encoders(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoders:
    """Load both encoders from a HunyuanImage pipeline folder."""
    from transformers import ByT5Tokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer, T5EncoderModel

    load = partial(load_text_encoder, folder=folder, device=device, dtype=dtype)
    language = load(Qwen2_5_VLForConditionalGeneration, tokenizer=Qwen2Tokenizer)
    return TextEncoders(language, load(T5EncoderModel, tokenizer=ByT5Tokenizer, number="_2"))


@torch.no_grad()
def encode_text(encoder: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt alone, T at most ``tokens``: its own length, so nothing is masked."""
    return described(encoder, TEMPLATE.format(prompt), most=tokens, layer=LAYER)


def quoted(prompt: str) -> str | None:
    """What of a prompt is to be painted as letters, in the pipeline's own form; None if nothing is."""
    from diffusers.pipelines.hunyuan_image.pipeline_hunyuanimage import extract_glyph_text

    found: str | None = extract_glyph_text(prompt)
    return found


@torch.no_grad()
def encode_letters(encoder: TextEncoder, letters: str) -> Tensor:
    """States (1, T, D) of the letters alone, at most 128 bytes."""
    encoded = encoder.tokenizer([letters], max_length=LETTERS, truncation=True, return_tensors="pt")
    states: Tensor = encoder.network(encoded.input_ids.to(encoder.network.device))[0]
    return states


class HunyuanImageModel(FlowModel):
    """``encoders`` are a TextEncoders."""

    def prepare(self, transformer: Any) -> None:
        for block in transformer.transformer_blocks:
            block.attn.set_processor(CallProcessor())
        for block in transformer.single_transformer_blocks:
            block.forward = MethodType(attention_beside_mlp, block)  # FLUX.1's, to the names of its parts

    def embed(self, text: str) -> Prompt:
        language, letters = self.encoders
        prompt = {"states": encode_text(language, text, tokens=self.spec.settings.text_tokens)}
        found = quoted(text)
        return prompt if found is None else {**prompt, "letters": encode_letters(letters, found)}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        network, grid = self.transformer, self.token_grid(x)
        time = self.per_image(1000.0 * sigma, x)
        text = self._text(prompt, time, inputs.sequence)
        table = inputs.tables(text.shape[1])
        shares = TokenShards.joint(inputs.sequence, text, image_tokens=grid.count)
        own_text = shares.changing_copies(text)
        image = network.x_embedder(own_row(x, shares, patch=1))
        condition = network.time_guidance_embed(time, **self._other_inputs(x, inputs))
        call = AttentionCall.joint(shares, table)
        for block in network.transformer_blocks:
            image, own_text = block(image, own_text, condition, image_rotary_emb=call)
        rotation = (call.table.cos, call.table.sin)
        for block in network.single_transformer_blocks:
            own_text, image = block(
                hidden_states=image,
                encoder_hidden_states=own_text,
                temb=condition,
                image_rotary_emb=rotation,
                joint_attention_kwargs=shares.attention,
            )
        made = network.proj_out(network.norm_out(image, condition))
        tokens = shares.gather(made, dim=1).transpose(1, 2)
        whole: Tensor = tokens.unflatten(2, (grid.height, grid.width)).contiguous()
        return whole

    def _text(self, prompt: Prompt, time: Tensor, sequence: TokenSequence) -> Tokens:
        """Letters, then the words as the refiner makes them at this time; every rank computes the whole."""
        network = self.transformer
        words: Tokens = network.context_embedder(prompt["states"].to(self.dtype), time)
        letters = prompt.get("letters")
        if letters is None:
            return words
        place = "letters", id(letters)
        embedded = sequence.cache(
            place, (letters,), lambda: network.context_embedder_2(letters.to(self.dtype))
        )
        return torch.cat([embedded, words], dim=1)

    def _other_inputs(self, x: Latents, inputs: PassInputs) -> dict[str, Tensor]:
        """Guidance and the time that the step ends at, where the network takes them."""
        given: dict[str, Tensor] = {}
        if inputs.scale is not None:
            given["guidance"] = self.per_image(1000.0 * inputs.scale, x)
        if self.transformer.config.use_meanflow:
            given["timestep_r"] = self.per_image(1000.0 * inputs.next_sigma, x)
        return given

    def momentum_of(self, prompt: Prompt, x: Latents) -> MomentumGuidance:
        """The pipeline's, and its other one where there are letters to paint.

        Its largest norm is that of a native picture's latents, and grows with the root of their number.
        """
        guiders, native = self.spec.momentum, self.spec.native_tokens**2
        guider = guiders[-1] if "letters" in prompt else guiders[0]
        return guider.enlarged(max(1.0, self.token_grid(x).count / native))

    def latent_scale(self) -> LatentScale:
        return LatentScale(shift=0.0, factor=self.vae.config.scaling_factor)


ROPE = {"rope_axes_dim": (64, 64), "rope_theta": 256.0}
"""HunyuanImageTransformer2DModel's own defaults, for configurations without the keys."""


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig or BadValue if they do not fit."""
    transformer, vae = {**ROPE, **configs.transformer}, configs.vae
    if len(transformer["rope_axes_dim"]) != 2:
        raise BadValue(
            f"model {name}: its transformer has {len(transformer['rope_axes_dim'])} position axes, as "
            "HunyuanImage's refiner has, which paints over a finished picture; use HunyuanImage-2.1 itself"
        )
    distilled = bool(transformer.get("guidance_embeds"))
    guiders = [configs.guiders[each] for each in ("guider", "ocr_guider") if each in configs.guiders]
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=int(transformer["num_attention_heads"]),
        head_dim=int(transformer["attention_head_dim"]),
        rope_axes=tuple(int(axis) for axis in transformer["rope_axes_dim"]),
        rope_theta=float(transformer["rope_theta"]),
        latent_channels=int(vae["latent_channels"]),
        vae_factor=int(vae["spatial_compression_ratio"]),
        patch=1,
        guidance="distilled" if distilled else "classifier_free",
        axes=("row", "column"),
        momentum=() if distilled else tuple(MomentumGuidance.of(name, each) for each in guiders),
    )
    check_patches(
        spec,
        channels=int(transformer["in_channels"]),
        vae_channels=spec.latent_channels,
        patches=transformer["patch_size"],
    )
    return spec


def settings_name(transformer: Mapping[str, Any]) -> str:
    """The distilled model's settings for one that takes its guidance as an input."""
    return "hunyuan-image-2.1-distilled" if transformer.get("guidance_embeds") else "hunyuan-image-2.1"


ARCHITECTURE = Architecture(
    facts=facts,
    model=HunyuanImageModel,
    networks=("HunyuanImageTransformer2DModel", "AutoencoderKLHunyuanImage"),
    load_text=load_encoders,
    settings=settings_name,
    encoders=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
)
