"""Beyond native size too, Lumina-Next's scaled positions and proportional attention are diffusers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from samplers import sampled
from their_pipelines import pipeline

from imax_dist.models.load import load_model
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.request import Request

PROMPT = "a red sun on the left in a blue sky over the sea"


@pytest.mark.parametrize("attention", ["off", "one_text"])
@pytest.mark.parametrize("watershed", [0.0, 0.3, 1.0])
def test_time_aware_positions_are_the_pipelines(
    folders: dict[str, Path], attention: str, watershed: float
) -> None:
    """Watershed 0: NTK with k = 1 all the way; 1: interpolation; cross-attention keeps its scale in all."""
    model: Any = load_model(str(folders["lumina-next"]), device=torch.device("cpu"), dtype="float32")
    rope = {"rule": "time_aware", "watershed": watershed, "floor": False, "scale": "linear"}
    method = {"rope": rope, "attention": attention, "guidance_scale": {"extrapolated": 3.0}}
    request = Request(PROMPT, size="128x128", preset="direct", steps=4, model=model.spec.name, method=method)
    plan = make_plan(request, model.spec)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    final = sampled(plan.last, model, model.encode_prompt(PROMPT, negative=True), noise)

    pipe = pipeline(folders["lumina-next"])
    assert pipe.default_image_size == plan.native_size.width == 64
    expected = pipe(
        PROMPT,
        height=128,
        width=128,
        latents=noise,
        sigmas=list(plan.last.sigmas[:-1]),
        guidance_scale=3.0,
        scaling_watershed=watershed,
        proportional_attn=attention != "off",
        clean_caption=False,
        output_type="latent",
    ).images
    assert (final - expected).abs().max() < 1e-4 * expected.abs().max()
