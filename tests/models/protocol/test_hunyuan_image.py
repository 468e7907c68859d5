"""HunyuanImage 2.1: letters in quotes, guidance that remembers, and what is not its text-to-image model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from samplers import sampled
from their_pipelines import THEIRS, pipeline

from imax_dist.errors import BadValue
from imax_dist.models.load import describe_model, load_model
from imax_dist.models.momentum_guidance import MomentumGuidance
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.sampler import Sampler, sequence_alone
from imax_dist.pipeline.state import PassState

GUIDED, DISTILLED = "hunyuan-image-2.1", "hunyuan-image-2.1-distilled"
LETTERS = 'a house with "sea 12" over the door and ‘snow’ below'


def planned(model: Any, prompt: str, size: str = "64x64", **fields: Any) -> PosterPlan:
    method = {"guidance_scale": {"native": 3.0, "extrapolated": 3.0}}
    request = Request(prompt, size=size, seed=3, steps=3, model=model.spec.name, method=method, **fields)
    return make_plan(request, model.spec)


@pytest.mark.parametrize("name", [GUIDED, DISTILLED])
def test_quoted_letters_are_read_and_guided_as_the_pipeline_does(folders: dict[str, Path], name: str) -> None:
    model = load_model(str(folders[name]), device=torch.device("cpu"), dtype="float32")
    plan = planned(model, LETTERS)
    expected = THEIRS[name].latents(pipeline(folders[name]), plan, pass_noise(plan.native, model))
    conditioning = model.encode_prompt(LETTERS, negative=True)
    found = sampled(plan.native, model, conditioning)
    assert (found - expected).abs().max() < 5e-5 * expected.abs().max()
    mute = replace(conditioning, positive={"states": conditioning.positive["states"]})
    assert (found - sampled(plan.native, model, mute)).abs().max() > 1e-2 * expected.abs().max()


def test_a_pass_goes_on_from_a_checkpoint_with_its_momentum(folders: dict[str, Path]) -> None:
    model = load_model(str(folders[GUIDED]), device=torch.device("cpu"), dtype="float64")
    plan = planned(model, "a red sun", size="112x96", preset="one_jump").passes[0]
    conditioning = model.encode_prompt("a red sun", negative=True)
    sampler = Sampler.of(plan, model, conditioning, sequence_alone(plan))
    states: list[PassState] = []
    start = PassState(plan.number, 0, pass_noise(plan, model))
    end = sampler.run(start, after_step=states.append)
    middle = PassState.from_tensors(plan.number, states[0].step, states[0].to_tensors())
    assert torch.equal(sampler.run(middle).latents, end.latents)
    forgetful = sampler.run(replace(middle, momentum=None))
    assert (forgetful.latents - end.latents).abs().max() > 1e-3 * end.latents.abs().max()


def test_steps_are_guided_as_diffusers_guider_does(rng: torch.Generator) -> None:
    from diffusers import AdaptiveProjectedMixGuidance

    theirs = AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1, eta=0.3)
    ours = MomentumGuidance.of("m", dict(theirs.config))
    momentum = None
    for index in range(4):
        positive, negative = (torch.randn(1, 4, 5, 6, generator=rng, dtype=torch.float64) for _ in range(2))
        theirs.set_state(step=index, num_inference_steps=4, timestep=torch.tensor(1.0))
        theirs.prepare_inputs({"states": (positive, negative)})
        expected = theirs.forward(positive, negative).pred
        scale = theirs.config.guidance_scale
        found, momentum = ours(positive, negative, scale, index=index, momentum=momentum)
        assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


def test_the_largest_norm_is_that_of_a_native_picture(folders: dict[str, Path]) -> None:
    model = load_model(
        str(folders[GUIDED]), device=torch.device("cpu"), dtype="float32", with_text_encoders=False
    )
    native, larger = (model.momentum_of({}, torch.zeros(1, 4, side, side)) for side in (4, 12))
    assert native.adaptive_projected_guidance_rescale == 20.0
    assert larger.adaptive_projected_guidance_rescale == pytest.approx(60.0)
    assert native.adaptive_projected_guidance_scale == 3.0
    assert model.momentum_of({"letters": torch.zeros(1)}, torch.zeros(1, 4, 4, 4)) == replace(
        native, adaptive_projected_guidance_scale=2.5
    )


def test_tokens_of_single_latents_have_no_grid_to_shift(folders: dict[str, Path]) -> None:
    spec = describe_model(str(folders[GUIDED]))
    plan = make_plan(Request("a", size="128x128", model=str(folders[GUIDED]), preset="official"), spec)
    assert plan.method.patch_shift is not False
    assert {plan.last.shift_at(index) for index in range(plan.last.steps)} == {"none"}


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("guider/guider_config.json", {"guidance_rescale": 0.7}, r"its guider has guidance_rescale 0\.7"),
        ("transformer/config.json", {"rope_axes_dim": [4, 4, 4]}, r"has 3 position axes, as Hunyuan"),
    ],
)  # fmt: skip
def test_other_models_and_other_guidance_are_refused(
    folders: dict[str, Path], tmp_path: Path, file: str, changes: dict[str, Any], sentence: str
) -> None:
    folder = shutil.copytree(folders[GUIDED], tmp_path / "model")
    config = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps({**config, **changes}), encoding="utf-8")
    with pytest.raises(BadValue, match=sentence):
        describe_model(str(folder))
