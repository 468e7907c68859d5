"""Draw pictures with the trained pipeline at its native or any other size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import FluxPipeline

from imax_dist.errors import MissingInput
from imax_dist.study.train.text import TEXT_TOKENS


def load_pipeline(folder: Path) -> FluxPipeline:
    """The pipeline of a folder, in float32. Raises MissingInput if the folder is not one."""
    if not (folder / "model_index.json").is_file():
        raise MissingInput(f"{folder} is not a saved pipeline; `imax study save-pipeline` writes one")
    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: FluxPipeline, captions: list[str], *, size: tuple[int, int] = (256, 256), steps: int = 24,
    guidance: float = 2.5, seed: int = 0, batch: int = 8,
) -> npt.NDArray[np.uint8]:  # fmt: skip
    """Pictures (captions, height, width, 3). ``guidance`` goes to the distilled input where the model
    has one, else to a second pass under the empty caption. Picture k depends on ``seed`` + k only."""
    distilled = pipeline.transformer.config.guidance_embeds
    pictures = []
    for first in range(0, len(captions), batch):
        prompts = captions[first : first + batch]
        how: dict[str, Any] = {"guidance_scale": guidance}
        if not distilled:
            how = {"true_cfg_scale": guidance, "negative_prompt": [""] * len(prompts)}
        generators = [torch.Generator().manual_seed(seed + first + k) for k in range(len(prompts))]
        drawn = pipeline(
            prompt=prompts, height=size[0], width=size[1], num_inference_steps=steps, generator=generators,
            max_sequence_length=TEXT_TOKENS, output_type="np", **how,
        ).images  # fmt: skip
        pictures.append((drawn * 255).round().astype(np.uint8))
    return np.concatenate(pictures)
