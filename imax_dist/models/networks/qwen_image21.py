"""Qwen-Image 2.1: diffusers' blocks, unmodified, in the order of its forward.

Text and image are one sequence, in which a text token attends to those before it and the image to all. So the
text knows nothing of the image, nor of the time, which is 0 for it: its keys and values are made once a pass,
by every rank, and the image's queries meet them in the engine as they meet any joint text (DECISIONS 106).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.errors import BadValue
from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models import patches
from imax_dist.models.architecture import Architecture, always
from imax_dist.models.base import PassInputs
from imax_dist.models.components import Configs, check_patches
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import AttentionCall, attend, image_heads, rotate_pairs
from imax_dist.models.networks.qwen_image import NO_PROMPT, cell_of, corner
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder
from imax_dist.models.token_shards import TokenShards
from imax_dist.models.video_vae import VideoVaeModel
from imax_dist.models.weights import load_complete
from imax_dist.shapes import Heads, Latents, Pixels, PositionIds, RopeTable, Tokens


def text_position_ids(text_tokens: int) -> PositionIds:
    """(n, n, n) of the prompt's token n."""
    along = torch.arange(text_tokens, dtype=torch.float64)
    return torch.stack([along, along, along], dim=1)


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first; then the image at frame ``text_tokens``, rows and columns counted from its middle.

    A copy stands to its cell as the trained text to its image.
    """
    cell, text = cell_of(grid, copies), text_position_ids(text_tokens)
    texts = [text + torch.tensor([0.0, row, column]) + corner(cell) for row, column in copies.offsets]
    image = patches.image_position_ids(grid) - corner(grid)
    image[:, 0] = text_tokens
    return torch.cat([*(each - corner(grid) for each in texts), image])


class TextCall(NamedTuple):
    """The text alone: each token attends to those before it, and every block's keys and values are kept."""

    table: RopeTable
    text_keys: list[tuple[Heads, Heads]]
    """Keys before their rotation: a copy of the text has other places."""


class ImageCall(NamedTuple):
    """The image beside the text's keys and values."""

    joint: AttentionCall
    text: Iterator[tuple[Heads, Heads]]
    """This rank's share of every copy, block by block."""


class CausalProcessor:
    """In the place of diffusers' QwenImage21AttnProcessor; no state between calls."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, rotary_emb: TextCall | ImageCall, **others: Any
    ) -> Tensor:
        assert all(value is None for value in others.values()), "text and image come apart, unmasked"
        heads = image_heads(attn, hidden_states)
        if isinstance(rotary_emb, TextCall):
            output = _attend_backwards(heads, rotary_emb)
        else:
            output = _attend_beside_text(heads, rotary_emb)
        return attn.to_out[1](attn.to_out[0](output))  # type: ignore[no-any-return]


def _attend_backwards(heads: tuple[Heads, Heads, Heads], call: TextCall) -> Tensor:
    query, key, value = heads
    call.text_keys.append((key, value))
    query, key = rotate_pairs(query, call.table), rotate_pairs(key, call.table)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    output = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return output.transpose(1, 2).flatten(2)


def _attend_beside_text(heads: tuple[Heads, Heads, Heads], call: ImageCall) -> Tensor:
    """The engine answers the text's queries too; as none are asked, its keys stand in for them."""
    key, value = next(call.text)
    joined = tuple(torch.cat(pair, dim=1) for pair in zip((key, key, value), heads, strict=True))
    output = attend((joined[0], joined[1], joined[2]), call.joint)
    return output[:, key.shape[1] :].contiguous()


SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
"""QwenImage21Pipeline.sys_prompt with the marks around it, whose tokens are dropped."""
TEMPLATE = SYSTEM + "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
"""QwenImage21Pipeline.prompt_template_t2i."""


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load Qwen3-VL and the tokenizer of its processor from a Qwen-Image 2.1 pipeline folder."""
    from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

    network = load_complete(Qwen3VLForConditionalGeneration, folder / "text_encoder", dtype=dtype)
    words = AutoTokenizer.from_pretrained(folder / "processor", trust_remote_code=False)
    return TextEncoder(words, network.to(device).eval())


@torch.no_grad()
def encode_text(encoder: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt, T at most ``tokens``, before the encoder's last norm."""
    reader, network = encoder
    drop = len(reader(SYSTEM).input_ids)
    ids = reader([TEMPLATE.format(prompt)], return_tensors="pt").input_ids.to(network.device)
    ids = ids[:, : drop + tokens]
    places = torch.arange(ids.shape[1], device=network.device).expand(3, 1, -1)
    with _without_last_norm(network):
        states: Tensor = network(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=places,
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,  # no words are read from its head
        ).hidden_states[-1]
    return states[:, drop:]


@contextmanager
def _without_last_norm(network: Any) -> Iterator[None]:
    """Its states as they come from the last layer, as the pipeline takes them."""
    norm = network.model.language_model.norm
    handle = norm.register_forward_hook(lambda _, given, __: given[0])
    try:
        yield
    finally:
        handle.remove()


class QwenImage21Model(VideoVaeModel):
    """``encoders`` are a TextEncoder of Qwen3-VL."""

    def prepare(self, transformer: Any) -> None:
        for block in transformer.transformer_blocks:
            block.attn.set_processor(CausalProcessor())

    def embed(self, text: str) -> Prompt:
        tokens = self.spec.settings.text_tokens
        return {"states": encode_text(self.encoders, text or NO_PROMPT, tokens=tokens)}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        network, sequence, states = self.transformer, inputs.sequence, prompt["states"]
        grid, table = self.token_grid(x), inputs.tables(states.shape[1])
        kept = sequence.cache(("kept", id(states)), (states,), lambda: self._kept(states))
        shares = TokenShards.joint(sequence, kept, image_tokens=grid.count)
        text = self._by_block(shares.copies(kept))
        image = network.img_in(shares.image(x.flatten(2).transpose(1, 2), dim=1))
        time, modulation = self._modulation(self.per_image(sigma, x))
        call = ImageCall(AttentionCall.joint(shares, table), text)
        for block in network.transformer_blocks:
            image = block(image, modulation, rotary_emb=call)
        made = network.proj_out(network.norm_out(image, time))
        tokens = shares.gather(made, dim=1).transpose(1, 2)
        whole: Tensor = tokens.unflatten(2, (grid.height, grid.width)).contiguous()
        return whole

    def _modulation(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding of a time (B,), and what all blocks share of it."""
        embedded = self.transformer.time_text_embed(time, time)
        return embedded, self.transformer.modulation(embedded)

    def _kept(self, states: Tensor) -> Tokens:
        """Keys and values of all blocks, (B, T, blocks x 2 x D); every rank computes the whole of them."""
        text = self.transformer.txt_in(states.to(self.dtype))
        _, modulation = self._modulation(states.new_zeros(states.shape[0], dtype=self.dtype))
        call = TextCall(self.trained_table(text_position_ids(text.shape[1])), [])
        for block in self.transformer.transformer_blocks:
            text = block(text, modulation, rotary_emb=call)
        return torch.cat([part.flatten(2) for pair in call.text_keys for part in pair], dim=2)

    def _by_block(self, kept: Tokens) -> Iterator[tuple[Heads, Heads]]:
        """What ``_kept`` made, block by block."""
        shape = (-1, 2, self.spec.heads, self.spec.head_dim)
        return ((both[:, :, 0], both[:, :, 1]) for both in kept.unflatten(2, shape).unbind(2))

    @torch.no_grad()
    def encode_image(self, pixels: Pixels, *, noise: Latents | None) -> Latents:
        """Its VAE takes a fourth channel, opacity: a poster's is 1."""
        opaque = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        return super().encode_image(opaque, noise=noise)

    @torch.no_grad()
    def decode_image(self, latents: Latents) -> Pixels:
        return super().decode_image(latents)[:, :3]


ROPE = {"axes_dims_rope": (16, 56, 56)}
"""QwenImage21Transformer2DModel's own default."""
ROPE_THETA = 10_000.0
"""Fixed in QwenImage21Transformer2DModel; no configuration key holds it."""


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig or BadValue if they do not fit."""
    transformer: Mapping[str, Any] = {**ROPE, **configs.transformer}
    vae = configs.vae
    if not transformer.get("causal_condition", True):
        raise BadValue(
            f"model {name}: its transformer has causal_condition off, so that its text changes with time; "
            "use Qwen/Qwen-Image-2.1 or a fine-tune of it"
        )
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=int(transformer["num_attention_heads"]),
        head_dim=int(transformer["attention_head_dim"]),
        rope_axes=tuple(int(axis) for axis in transformer["axes_dims_rope"]),
        rope_theta=ROPE_THETA,
        latent_channels=int(vae["z_dim"]),
        vae_factor=2 ** len(vae["temperal_downsample"]),
        patch=1,
        guidance="classifier_free",
    )
    patch = [int(transformer["patch_size"])]
    check_patches(
        spec, channels=int(transformer["in_channels"]), vae_channels=spec.latent_channels, patches=patch
    )
    return spec


ARCHITECTURE = Architecture(
    facts=facts,
    model=QwenImage21Model,
    networks=("QwenImage21Transformer2DModel", "AutoencoderKLQwenImage21"),
    load_text=load_encoder,
    settings=always("qwen-image-2.1"),
    tokenizers=("processor",),
)
