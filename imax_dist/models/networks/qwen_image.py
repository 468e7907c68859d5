"""Qwen-Image: pack, split over the ranks, run the unmodified transformer, gather, unpack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imax_dist.errors import BadValue
from imax_dist.geometry import LatentGrid, TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models import patches
from imax_dist.models.architecture import Architecture, always
from imax_dist.models.base import PassInputs
from imax_dist.models.components import Configs, packed_spec
from imax_dist.models.conditioning import Prompt
from imax_dist.models.guidance import classifier_free
from imax_dist.models.joint_attention import JointProcessor
from imax_dist.models.patches import pack, unpack
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder
from imax_dist.models.token_shards import TokenShards
from imax_dist.models.video_vae import VideoVaeModel
from imax_dist.shapes import Latents, PositionIds, RopeTable


class Shapes(list[list[tuple[int, int, int]]]):
    """``img_shapes``: one rank's tokens of each picture, as the network counts them, and where they stand."""

    def __init__(self, shares: TokenShards, table: RopeTable) -> None:
        own = shares.pieces[shares.sequence.mesh.rank]
        super().__init__([[(1, 1, own)] * shares.pictures])
        self.table = shares.joint_table(table)


class TableAsShapes(nn.Module):
    """Stands in for QwenEmbedRope: the ``img_shapes`` argument carries the rotary table itself.

    Qwen-Image's own tables hold positions -4096 to 4095 and cut silently what lies beyond.
    """

    def forward(self, img_shapes: Shapes, **own_facts: Any) -> RopeTable:
        del own_facts  # text length and device, which the table already has
        return img_shapes.table


def image_position_ids(grid: TokenGrid) -> PositionIds:
    """(frame 0, row, column), rows from -ceil(h / 2) to floor(h / 2) - 1, columns likewise."""
    return patches.image_position_ids(grid) - corner(grid)


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first, then the image.

    Token n of the prompt stands at n + max(h // 2, w // 2) on all three axes, just beyond the corner of
    the image of h x w tokens. A copy stands to its cell as the trained text to its image.
    """
    cell = cell_of(grid, copies)
    start = max(cell.height // 2, cell.width // 2)
    along = start + torch.arange(text_tokens, dtype=torch.float64)
    diagonal = torch.stack([along, along, along], dim=1)
    texts = [diagonal + torch.tensor([0.0, row, column]) + corner(cell) for row, column in copies.offsets]
    return torch.cat([*(text - corner(grid) for text in texts), image_position_ids(grid)])


def corner(grid: TokenGrid) -> Tensor:
    """Frame, rows and columns before the origin."""
    return torch.tensor([0.0, *(side - side // 2 for side in (grid.height, grid.width))])


def cell_of(grid: TokenGrid, copies: TextCopies) -> TokenGrid:
    """The cell a text copy belongs to: the distance between copies, or the whole image."""
    rows, columns = zip(*copies.offsets, strict=True)
    return TokenGrid(
        height=min((row for row in rows if row > 0), default=grid.height),
        width=min((column for column in columns if column > 0), default=grid.width),
    )


TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""QwenImagePipeline.prompt_template_encode."""
INSTRUCTION_TOKENS = 34
"""QwenImagePipeline.prompt_template_encode_start_idx: tokens before the prompt, which are dropped."""


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load tokenizer and encoder from a Qwen-Image pipeline folder."""
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    kind = Qwen2_5_VLForConditionalGeneration
    return load_text_encoder(kind, folder, device=device, dtype=dtype, tokenizer=Qwen2Tokenizer)


@torch.no_grad()
def encode_text(encoder: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt alone, T at most ``tokens``: its own length, so nothing is masked."""
    return described(encoder, TEMPLATE.format(prompt), most=1024, layer=-1)[:, :tokens]


@torch.no_grad()
def described(encoder: TextEncoder, text: str, *, most: int, layer: int) -> Tensor:
    """States (1, T, D) of ``layer`` behind the template's instruction, T at most ``most``."""
    encoded = encoder.tokenizer(
        [text], max_length=most + INSTRUCTION_TOKENS, truncation=True, return_tensors="pt"
    ).to(encoder.network.device)
    states: Tensor = encoder.network(
        input_ids=encoded.input_ids,
        attention_mask=encoded.attention_mask,
        output_hidden_states=True,
        logits_to_keep=1,  # no words are read from its head
    ).hidden_states[layer]
    return states[:, INSTRUCTION_TOKENS:]


NO_PROMPT = " "
"""What the model's card gives for an empty prompt."""


def token_norm_preserving(positive: Latents, negative: Latents, scale: float) -> Latents:
    """Guidance, each token scaled back to its norm with the prompt: QwenImagePipeline's true CFG."""
    grid = LatentGrid(height=positive.shape[2], width=positive.shape[3]).tokens(2)
    guided = pack(classifier_free(positive, negative, scale))
    norms = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (pack(positive), guided))
    return unpack(guided * (next(norms) / next(norms)), grid)


class QwenImageModel(VideoVaeModel):
    """``encoders`` are a TextEncoder."""

    combine = staticmethod(token_norm_preserving)

    def prepare(self, transformer: Any) -> None:
        transformer.pos_embed = TableAsShapes()
        for block in transformer.transformer_blocks:
            block.attn.set_processor(JointProcessor())

    def embed(self, text: str) -> Prompt:
        tokens = self.spec.settings.text_tokens
        return {"states": encode_text(self.encoders, text or NO_PROMPT, tokens=tokens)}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        grid, table, states, shares = self.joint_pass(x, prompt["states"], inputs)
        tokens = self.transformer(
            hidden_states=shares.beside(shares.image(pack(x), dim=1), inputs.context, pack),
            timestep=self.per_image(sigma, x),
            encoder_hidden_states=states,
            img_shapes=Shapes(shares, table),
            attention_kwargs=shares.attention,
            return_dict=False,
        )[0]
        return unpack(shares.gather(tokens, dim=1), grid)


ROPE_THETA = 10_000.0
"""Fixed in QwenImageTransformer2DModel; no configuration key holds it."""
AXES = (16, 56, 56)
"""QwenImageTransformer2DModel's own default, for configurations without the key."""
OTHER_MODELS = ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope", "guidance_embeds")
"""Keys of its relatives: picture editing, layers, a distilled scale that was never released."""


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig or BadValue if they do not fit."""
    transformer = configs.transformer
    for key in OTHER_MODELS:
        if transformer.get(key):
            raise BadValue(
                f"model {name}: its transformer has {key} set, which text-to-image Qwen-Image does not have; "
                "use Qwen/Qwen-Image or a fine-tune of it"
            )
    rope = {"axes_dims_rope": AXES, **transformer, "rope_theta": ROPE_THETA}
    return packed_spec(name, settings, configs._replace(transformer=rope), weights)


ARCHITECTURE = Architecture(
    facts=facts,
    model=QwenImageModel,
    networks=("QwenImageTransformer2DModel", "AutoencoderKLQwenImage"),
    load_text=load_encoder,
    settings=always("qwen-image"),  # one size was released
)
