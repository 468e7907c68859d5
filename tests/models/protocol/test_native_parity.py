"""Every adapter at native size is the unmodified diffusers pipeline: same noise, sigmas and prompt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from guidance_of import TRAINED_IN
from samplers import sampled
from their_pipelines import THEIRS, pipeline
from torch import Tensor

from imax_dist.models.base import FlowModel
from imax_dist.models.load import load_model
from imax_dist.models.tiny import TINY
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.request import Request

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
NAMES = list(TINY)
ROUNDING = 5e-5
"""Of the latents' largest value: float32 over three steps of peaked attention."""


Both = Callable[[str], tuple[FlowModel, Any]]


@pytest.fixture(scope="module")
def both(folders: dict[str, Path]) -> Both:
    """A network in our adapter and in diffusers' own pipeline, read once."""

    @cache
    def read(name: str) -> tuple[FlowModel, Any]:
        model = load_model(str(folders[name]), device=torch.device("cpu"), dtype="float32")
        return model, pipeline(folders[name])

    return read


def planned(model: FlowModel, size: str, scale: float | None = None, **fields: Any) -> PosterPlan:
    method = {"guidance_scale": {"native": scale}} if scale is not None else {}
    request = Request(PROMPT, size=size, seed=3, steps=3, model=model.spec.name, method=method, **fields)
    return make_plan(request, model.spec)


def ours(plan: PosterPlan, model: FlowModel) -> Tensor:
    return sampled(plan.native, model, model.encode_prompt(PROMPT, negative=True))


@pytest.mark.parametrize("size", ["64x64", "80x48"])
@pytest.mark.parametrize("name", NAMES)
def test_the_native_pass_is_diffusers_own_call(both: Both, name: str, size: str) -> None:
    model, pipe = both(name)
    for scale in (1.0, 3.0) if name not in TRAINED_IN else (None,):
        plan = planned(model, size, scale)
        assert str(plan.native_size) == size
        expected = THEIRS[name].latents(pipe, plan, pass_noise(plan.native, model))
        assert torch.equal(pipe.scheduler.sigmas.double(), torch.tensor(plan.native.sigmas).double())
        difference = (ours(plan, model) - expected).abs().max() / expected.abs().max()
        assert difference < ROUNDING, f"scale {scale}"


@pytest.mark.parametrize("steps", [2, 4])
def test_schnell_takes_two_and_four_steps_as_the_paper_does(both: Both, steps: int) -> None:
    """Fig. 10: few steps, no guidance."""
    model, pipe = both("flux-schnell")
    plan = make_plan(Request(PROMPT, size="64x64", seed=3, steps=steps, model=model.spec.name), model.spec)
    assert (plan.native.steps, plan.native.guidance_scale) == (steps, 1.0)
    noise = pass_noise(plan.native, model)
    expected = THEIRS["flux-schnell"].latents(pipe, plan, noise)
    assert (ours(plan, model) - expected).abs().max() < ROUNDING * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_prompt_and_guidance_scale_reach_the_picture(both: Both, name: str) -> None:
    """Guards the guard: another scale or prompt is far outside the tolerance."""
    model, _ = both(name)
    plain = ours(planned(model, "64x64", 1.0), model)
    if name not in TRAINED_IN:
        guided = ours(planned(model, "64x64", 3.0), model)
        assert (plain - guided).abs().max() > 100 * ROUNDING * plain.abs().max()
    plan = planned(model, "64x64", 1.0)
    other = model.encode_prompt("a white moon over the snow", negative=False)
    changed = sampled(plan.native, model, other)
    assert (plain - changed).abs().max() > 100 * ROUNDING * plain.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_goes_through_the_vae_as_the_pipeline_takes_it(both: Both, name: str) -> None:
    """Decoding the pipeline's latents is the pipeline's own picture; encoding gives latents of that grid."""
    model, pipe = both(name)
    plan = planned(model, "80x48", 1.0)
    noise = pass_noise(plan.native, model)
    latents, expected = (make(pipe, plan, noise) for make in (THEIRS[name].latents, THEIRS[name].pixels))
    pixels = model.decode_image(latents)
    assert ((pixels / 2 + 0.5).clamp(0, 1) - expected).abs().max() < ROUNDING
    encoded = model.encode_image(pixels.clamp(-1, 1), noise=None)
    assert encoded.shape == latents.shape
    assert encoded.isfinite().all()
