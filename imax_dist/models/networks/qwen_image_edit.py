"""Qwen-Image-Edit: Qwen-Image shown a picture, by tokens of it and by the reader of the prompt.

The picture's tokens are a frame after the image's, centred likewise. Qwen2.5-VL reads the prompt beside the
picture; its states, the picture's among them, are the text. 2511 (``zero_cond_t``) modulates the picture's
tokens as noise-free ones.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.geometry import ImageSize
from imax_dist.models.architecture import Architecture, always
from imax_dist.models.components import Configs
from imax_dist.models.conditioning import Prompt
from imax_dist.models.networks import qwen_image
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.weights import load_complete
from imax_dist.shapes import Pixels

PICTURE = "<|image_pad|>"
"""Stands for one token of the picture."""
TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a "
    "new image that meets the user's requirements while maintaining consistency with the original input "
    "where appropriate.<|im_end|>\n<|im_start|>user\n{}<|vision_start|>{}<|vision_end|>{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""Of both of diffusers' pipelines: what stands before the picture, the picture, the prompt."""
INSTRUCTION_TOKENS = 64
"""Their prompt_template_encode_start_idx: tokens before the user's turn, which are dropped."""
SIDE_STEP = 32
"""Sides of a picture that is read are multiples of it."""


class Reader(NamedTuple):
    """transformers' own tokenizer, network and preparation of pictures."""

    tokenizer: Any
    network: Any
    pictures: Any


def load_reader(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Reader:
    """Load Qwen2.5-VL, its tokenizer and its picture processor from a pipeline folder."""
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    network = load_complete(Qwen2_5_VLForConditionalGeneration, folder / "text_encoder", dtype=dtype)
    words = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    pictures = Qwen2VLImageProcessorPil.from_pretrained(folder / "processor")
    return Reader(words, network.to(device).eval(), pictures)


@torch.no_grad()
def encode_beside(reader: Reader, prompt: str, picture: Tensor, *, before: str, tokens: int) -> Tensor:
    """States (1, T, D) of a picture (H, W, 3), bytes, and a prompt, T at most ``tokens``."""
    device = reader.network.device
    seen = reader.pictures(images=[picture.numpy()], return_tensors="pt").to(device)
    count = int(seen.image_grid_thw.prod()) // reader.pictures.merge_size**2
    text = TEMPLATE.format(before, PICTURE * count, prompt)
    encoded = reader.tokenizer([text], return_tensors="pt").to(device)
    states: Tensor = reader.network(
        input_ids=encoded.input_ids,
        attention_mask=encoded.attention_mask,
        pixel_values=seen.pixel_values,
        image_grid_thw=seen.image_grid_thw,
        output_hidden_states=True,
        logits_to_keep=1,  # no words are read from its head
    ).hidden_states[-1]
    return states[:, INSTRUCTION_TOKENS : INSTRUCTION_TOKENS + tokens]


def read_size(picture: ImageSize, area: int) -> ImageSize:
    """``picture`` as large as the reader is shown it: diffusers' calculate_dimensions."""
    ratio = picture.width / picture.height
    width = math.sqrt(area * ratio)
    return ImageSize(*(round(side / SIDE_STEP) * SIDE_STEP for side in (width, width / ratio)))


class QwenImageEditModel(qwen_image.QwenImageModel):
    """``encoders`` are a Reader. QwenImageEditPipeline: the first release, of August 2025."""

    before = ""
    """In the user's turn, before the picture."""
    read_area = 1024 * 1024
    """Pixels of the picture that the reader is shown."""

    def embed_beside(self, text: str, picture: Pixels) -> Prompt:
        size = read_size(ImageSize(picture.shape[3], picture.shape[2]), self.read_area)
        sides, seen = (size.height, size.width), picture.float()
        if seen.shape[2:] != sides:
            seen = F.interpolate(seen, size=sides, mode="bicubic", antialias=True)
        rows = ((seen[0] + 1.0) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu()
        tokens, words = self.spec.settings.text_tokens, text or qwen_image.NO_PROMPT
        return {"states": encode_beside(self.encoders, words, rows, before=self.before, tokens=tokens)}


class QwenImageEditPlusModel(QwenImageEditModel):
    """QwenImageEditPlusPipeline: those of September (2509) and November 2025 (2511)."""

    before = "Picture 1: "
    read_area = 384 * 384


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig or BadValue if they do not fit."""
    plain = {**configs.transformer, "zero_cond_t": False}
    spec = qwen_image.facts(name, settings, configs._replace(transformer=plain), weights)
    return dataclasses.replace(spec, context="tokens", needs_picture=True)


EDIT = Architecture(
    facts=facts,
    model=QwenImageEditModel,
    networks=qwen_image.ARCHITECTURE.networks,
    load_text=load_reader,
    settings=always("qwen-image-edit"),
    tokenizers=("tokenizer", "processor"),
)
EDIT_PLUS = EDIT._replace(model=QwenImageEditPlusModel, settings=always("qwen-image-edit-2511"))
