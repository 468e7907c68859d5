"""Z-Image: diffusers' blocks, unmodified, in the order of its forward.

``ZImageTransformer2DModel.forward`` itself pads each list it gets to multiples of 32 and takes nothing that
reaches the attention, so a shard could not pass through it; its blocks are called here one after the other
(DECISIONS 38). Time runs from 0, noise, to 1, and the network predicts image minus noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imax_dist.errors import BadValue
from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.architecture import Architecture, always
from imax_dist.models.base import FlowModel, PassInputs
from imax_dist.models.components import Configs, check_patches, vae_factor
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import AttentionCall, attend, image_heads
from imax_dist.models.patches import image_position_ids, pack_channels_last, unpack_channels_last
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder
from imax_dist.models.token_shards import TokenShards
from imax_dist.shapes import Latents, PositionIds, Tokens

BLOCK = 32
"""SEQ_MULTI_OF of ZImageTransformer2DModel: text and image are padded to multiples of it."""


def padding(tokens: int) -> int:
    """How many padding tokens follow ``tokens``."""
    return -tokens % BLOCK


def text_position_ids(text_tokens: int, *, row: int = 0, column: int = 0) -> PositionIds:
    """(n + 1, row, column) of the prompt's token n, padding included."""
    along = torch.arange(1, text_tokens + 1, dtype=torch.float64)
    return torch.stack([along, *(torch.full_like(along, place) for place in (row, column))], dim=1)


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies (``text_tokens`` each, padding included), the image, its padding."""
    texts = [text_position_ids(text_tokens, row=row, column=column) for row, column in copies.offsets]
    image = image_position_ids(grid) + torch.tensor([text_tokens + 1, 0, 0])
    pads: Tensor = image.new_zeros(padding(grid.count), 3)
    return torch.cat([*texts, image, pads])


class CallProcessor:
    """In the place of diffusers' ZSingleStreamAttnProcessor."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: AttentionCall | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is None, "text and image are one sequence"
        assert attention_mask is None, "one picture a pass needs no mask"
        assert freqs_cis is not None
        output = attend(image_heads(attn, hidden_states), freqs_cis)
        for project in attn.to_out:
            output = project(output)
        return output


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load tokenizer and encoder from a Z-Image pipeline folder."""
    from transformers import Qwen3Model

    return load_text_encoder(Qwen3Model, folder, device=device, dtype=dtype)


@torch.no_grad()
def encode_text(encoder: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt, cut to ``tokens`` at most; padding comes later, in the transformer."""
    message = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )
    encoded = encoder.tokenizer([message], max_length=tokens, truncation=True, return_tensors="pt")
    ids = encoded.input_ids.to(encoder.network.device)
    states: Tensor = encoder.network(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    return states


class ZImageModel(FlowModel):
    """``encoders`` are a TextEncoder."""

    def prepare(self, transformer: Any) -> None:
        for blocks in (transformer.noise_refiner, transformer.context_refiner, transformer.layers):
            for block in blocks:
                block.attention.set_processor(CallProcessor())

    def embed(self, text: str) -> Prompt:
        return {"states": encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        network, sequence = self.transformer, inputs.sequence
        grid = self.token_grid(x)
        time = self._time_embedding(sigma).to(x.dtype)
        states = prompt["states"]
        text = sequence.cache(("refined", id(states)), (states,), lambda: self._refined_text(states))
        table = inputs.tables(text.shape[1])
        patches = network.all_x_embedder["2-1"](pack_channels_last(x))
        image = _padded(patches, network.x_pad_token)
        shares = TokenShards.joint(sequence, text, image_tokens=image.shape[1])
        alone = AttentionCall.image_only(shares, table)
        image = _through(network.noise_refiner, shares.image(image, dim=1), alone, time)
        own_text = shares.copies(text)
        joint = AttentionCall.joint(shares, table)
        tokens = _through(network.layers, torch.cat([own_text, image], dim=1), joint, time)
        made = network.all_final_layer["2-1"](tokens[:, own_text.shape[1] :], c=time)
        return -unpack_channels_last(shares.gather(made, dim=1)[:, : grid.count], grid)

    def _time_embedding(self, sigma: float) -> Tensor:
        precision = torch.promote_types(self.dtype, torch.float32)
        time = (1000.0 - 1000.0 * torch.full((1,), sigma, dtype=precision, device=self.device)) / 1000.0
        return self.transformer.t_embedder(time * self.transformer.t_scale)  # type: ignore[no-any-return]

    def _refined_text(self, states: Tokens) -> Tokens:
        """The prompt with its padding after the text-only blocks; every rank computes the whole of it."""
        text = self.transformer.cap_embedder(states)
        text = _padded(text, self.transformer.cap_pad_token)
        call = self.call_alone(self.trained_table(text_position_ids(text.shape[1])))
        return _through(self.transformer.context_refiner, text, call)


def _through(blocks: Any, tokens: Tokens, call: AttentionCall, *time: Tensor) -> Tokens:
    for block in blocks:
        tokens = block(tokens, None, call, *time)
    return tokens


def _padded(tokens: Tokens, pad: Tensor) -> Tokens:
    """(B, T, D) -> (B, T + padding, D) with the learned token ``pad``, (1, D)."""
    pads = pad.expand(tokens.shape[0], padding(tokens.shape[1]), -1)
    return torch.cat([tokens, pads], dim=1)


PATCH = 2


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig or BadValue if they do not fit."""
    transformer, vae = configs.transformer, configs.vae
    width = transformer.get("siglip_feat_dim")
    if width is not None:
        raise BadValue(
            f"model {name}: its transformer reads pictures (siglip_feat_dim {width}), "
            "as Z-Image-Omni does; use Tongyi-MAI/Z-Image-Turbo or a fine-tune of it"
        )
    heads = int(transformer["n_heads"])
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=heads,
        head_dim=int(transformer["dim"]) // heads,
        rope_axes=tuple(int(axis) for axis in transformer["axes_dims"]),
        rope_theta=float(transformer["rope_theta"]),
        latent_channels=int(vae["latent_channels"]),
        vae_factor=vae_factor(vae),
        patch=PATCH,
        guidance="classifier_free",
    )
    check_patches(
        spec,
        channels=int(transformer["in_channels"]),
        vae_channels=spec.latent_channels,
        patches=transformer["all_patch_size"],
    )
    return spec


ARCHITECTURE = Architecture(
    facts=facts,
    model=ZImageModel,
    networks=("ZImageTransformer2DModel", "AutoencoderKL"),
    load_text=load_encoder,
    settings=always("z-image-turbo"),  # base and turbo have the same configuration
)
