"""At native size our passes are an unmodified diffusers FluxPipeline: same noise, sigmas and embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from samplers import sampled
from tiny_flux import make_tiny_flux
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import ORIGIN
from imax_dist.method.time_shift import shifted_sigmas
from imax_dist.models.find import EMBEDDED
from imax_dist.models.joint_attention import table_as_ids
from imax_dist.models.load import load_model
from imax_dist.models.networks.flux import FluxModel
from imax_dist.models.patches import image_position_ids, pack, unpack
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.sampler import Sampler, sequence_alone
from imax_dist.pipeline.state import PassState
from imax_dist.shapes import RopeTable

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
ROUNDING = 2e-5


@pytest.fixture(scope="module")
def ours() -> FluxModel:
    return loaded(EMBEDDED)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return pipeline(EMBEDDED)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that takes its guidance scale as an input, as FLUX.1-dev does."""
    return make_tiny_flux(tmp_path_factory.mktemp("distilled") / "model", guidance_embeds=True)


@pytest.fixture(scope="module")
def classifier_free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without a guidance input, as FLUX.1-schnell is."""
    return make_tiny_flux(tmp_path_factory.mktemp("classifier_free") / "model")


def loaded(folder: Path) -> FluxModel:
    name = "embedded" if folder == EMBEDDED else str(folder)
    model = load_model(name, device=torch.device("cpu"), dtype="float32")
    assert isinstance(model, FluxModel)
    return model


def pipeline(folder: Path) -> Any:
    """diffusers' own pipeline, with a scheduler that takes the sigmas it is given as they are."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    pipe = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def their_latents(pipe: Any, plan: PosterPlan, noise: Tensor, **guidance: Any) -> Tensor:
    """The pipeline's final latents, unpacked by us; checks that its schedule was ours."""
    tokens = pipe(
        prompt=plan.request.prompt,
        height=plan.native_size.height,
        width=plan.native_size.width,
        latents=pack(noise),
        sigmas=list(plan.native.sigmas[:-1]),
        max_sequence_length=plan.spec.settings.text_tokens,
        output_type="latent",
        **guidance,
    ).images
    assert torch.equal(pipe.scheduler.sigmas.double(), torch.tensor(plan.native.sigmas).double())
    return unpack(tokens, plan.native.grid.tokens(2))


def our_native(plan: PosterPlan, model: FluxModel) -> Tensor:
    return sampled(plan.native, model, model.encode_prompt(PROMPT, negative=True))


def planned(model: FluxModel, *, size: str = "128x128", **guidance: float) -> PosterPlan:
    request = Request(
        PROMPT, size=size, seed=3, steps=4, model=model.spec.name, method={"guidance_scale": guidance}
    )
    return make_plan(request, model.spec)


def beyond_native(model: FluxModel, more: int) -> str:
    """A size so many pixels wider than native, and 16 px higher."""
    side = model.spec.settings.native_side
    return f"{side + more}x{side + 16}"


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("size", ["128x128", "160x96"])
def test_the_native_pass_is_the_flux_pipeline(ours: FluxModel, theirs: Any, size: str, scale: float) -> None:
    plan = planned(ours, size=size, native=scale)
    noise = pass_noise(plan.native, ours)

    expected = their_latents(theirs, plan, noise, guidance_scale=scale)

    assert (our_native(plan, ours) - expected).abs().max() < ROUNDING


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_classifier_free_guidance_is_the_pipelines(classifier_free: Path, scale: float) -> None:
    """A model without a guidance input: a second pass with the empty prompt."""
    model = loaded(classifier_free)
    plan = planned(model, size="64x64", native=scale)
    assert plan.spec.guidance == "classifier_free"
    noise = pass_noise(plan.native, model)

    expected = their_latents(pipeline(classifier_free), plan, noise, negative_prompt="", true_cfg_scale=scale)

    assert (our_native(plan, model) - expected).abs().max() < ROUNDING * expected.abs().max()


def test_the_guidance_scale_of_the_native_pass_matters(ours: FluxModel) -> None:
    """Guards the guard: another scale is far outside the tolerance."""
    plain, guided = (our_native(planned(ours, native=scale), ours) for scale in (1.0, 2.5))
    assert (plain - guided).abs().max() > 0.05


@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_a_distilled_model_takes_its_scale_as_the_pipeline_gives_it(distilled: Path, scale: float) -> None:
    model = loaded(distilled)
    plan = planned(model, size="64x64", native=scale)
    assert plan.spec.guidance == "distilled"
    noise = pass_noise(plan.native, model)

    expected = their_latents(pipeline(distilled), plan, noise, guidance_scale=scale)

    assert (our_native(plan, model) - expected).abs().max() < ROUNDING * expected.abs().max()


def test_the_extrapolated_pass_without_the_method_is_the_pipeline_at_that_size(
    ours: FluxModel, theirs: Any
) -> None:
    """Preset direct: every switch off leaves FLUX sampled at a size that is not its native one."""
    request = Request(PROMPT, size=beyond_native(ours, 64), preset="direct", steps=3, seed=3)
    plan = make_plan(request, ours.spec).last
    noise = torch.randn(1, 16, plan.grid.height, plan.grid.width, generator=torch.Generator().manual_seed(1))
    final = sampled(plan, ours, ours.encode_prompt(PROMPT, negative=True), noise)

    tokens = theirs(
        prompt=PROMPT, guidance_scale=plan.guidance_scale,
        height=8 * plan.grid.height, width=8 * plan.grid.width,
        latents=pack(noise), sigmas=list(plan.sigmas[:-1]), output_type="latent",
        max_sequence_length=plan.spec.settings.text_tokens,
    ).images  # fmt: skip
    assert (final - unpack(tokens, plan.grid.tokens(2))).abs().max() < ROUNDING


def test_a_reference_pulls_the_extrapolated_pass_to_itself(ours: FluxModel) -> None:
    """With alpha 1 and the whole band passed, the last step lands on the reference itself."""
    everything = {"schedule": "constant", "projection": "fft_ideal", "cutoff": 4.0}
    request = Request(PROMPT, size=beyond_native(ours, 16), steps=2, method={"guidance": everything})
    plan = make_plan(request, ours.spec).last
    assert plan.copies == ORIGIN
    shape = (1, 16, plan.grid.height, plan.grid.width)
    reference = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    conditioning = ours.encode_prompt(PROMPT, negative=True)
    start = PassState(plan.number, 0, torch.zeros_like(reference), reference=reference)

    final = Sampler.of(plan, ours, conditioning, sequence_alone(plan)).run(start).latents

    assert (final - reference).abs().max() < 1e-5


def test_embeddings_are_those_of_the_pipeline(ours: FluxModel, theirs: Any) -> None:
    conditioning = ours.encode_prompt(PROMPT, negative=True)
    tokens = ours.spec.settings.text_tokens
    for prompt, text in ((conditioning.positive, PROMPT), (conditioning.negative, "")):
        with torch.no_grad():
            states, pooled, _ = theirs.encode_prompt(prompt=text, max_sequence_length=tokens)
        assert prompt is not None
        assert torch.equal(prompt["states"], states)
        assert torch.equal(prompt["pooled"], pooled)


def test_the_empty_prompt_is_embedded_only_where_it_is_needed(ours: FluxModel) -> None:
    conditioning = ours.encode_prompt(PROMPT, negative=False)
    assert conditioning.positive.keys() == {"states", "pooled"}
    assert conditioning.negative is None


def test_a_long_prompt_is_cut_to_the_models_length_as_the_pipeline_cuts_it(
    ours: FluxModel, theirs: Any
) -> None:
    long = PROMPT + " and a yellow house" * 30
    prompt, tokens = ours.encode_prompt(long, negative=False).positive, ours.spec.settings.text_tokens
    with torch.no_grad():
        states, pooled, _ = theirs.encode_prompt(prompt=long, max_sequence_length=tokens)
    assert torch.equal(prompt["states"], states)
    assert torch.equal(prompt["pooled"], pooled)


def test_packing_is_that_of_the_pipeline_and_unpacks_again(theirs: Any, rng: torch.Generator) -> None:
    latents = torch.randn(2, 16, 6, 10, generator=rng)
    tokens = pack(latents)
    assert torch.equal(tokens, theirs._pack_latents(latents, 2, 16, 6, 10))
    assert torch.equal(unpack(tokens, TokenGrid(height=3, width=5)), latents)


def test_image_positions_are_those_of_the_pipeline(theirs: Any) -> None:
    expected = theirs._prepare_latent_image_ids(1, 3, 5, torch.device("cpu"), torch.float64)
    assert torch.equal(image_position_ids(TokenGrid(height=3, width=5)), expected)


def test_a_table_goes_through_the_ids_unchanged(ours: FluxModel, rng: torch.Generator) -> None:
    table = RopeTable(*(torch.randn(7, 32, generator=rng) for _ in range(2)))
    cos, sin = ours.transformer.pos_embed(table_as_ids(table))
    assert torch.equal(cos, table.cos)
    assert torch.equal(sin, table.sin)


def image(rng: torch.Generator) -> Tensor:
    return torch.rand(1, 3, 64, 96, generator=rng) * 2 - 1


def scaled(pipe: Any, latents: Tensor) -> Tensor:
    shift, factor = float(pipe.vae.config.shift_factor), float(pipe.vae.config.scaling_factor)
    return (latents - shift) * factor


def test_an_image_is_encoded_to_the_posteriors_mean(
    ours: FluxModel, theirs: Any, rng: torch.Generator
) -> None:
    pixels = image(rng)
    with torch.no_grad():
        expected = scaled(theirs, theirs.vae.encode(pixels).latent_dist.mode())
    assert torch.equal(ours.encode_image(pixels, noise=None), expected)


def test_a_posterior_sample_is_mean_plus_deviation_times_the_noise(
    ours: FluxModel, theirs: Any, rng: torch.Generator
) -> None:
    pixels, noise = image(rng), torch.randn(1, 16, 8, 12, generator=rng)
    with torch.no_grad():
        posterior = theirs.vae.encode(pixels).latent_dist
        expected = scaled(theirs, posterior.mean + torch.exp(0.5 * posterior.logvar) * noise)
    sample = ours.encode_image(pixels, noise=noise)
    assert (sample - expected).abs().max() < 1e-6
    assert not torch.equal(sample, ours.encode_image(pixels, noise=None))


def test_latents_are_decoded_as_the_pipeline_decodes_them(
    ours: FluxModel, theirs: Any, rng: torch.Generator
) -> None:
    latents = torch.randn(1, 16, 8, 12, generator=rng)
    config = theirs.vae.config
    with torch.no_grad():
        expected = theirs.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    assert torch.equal(ours.decode_image(latents), expected)


def test_diffusers_own_schedule_would_not_have_been_ours(theirs: Any) -> None:
    """Guards the guard: the stock scheduler shifts a given list once more."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    sigmas = shifted_sigmas(4, 3.0)
    shifting = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=False)
    shifting.set_timesteps(sigmas=list(sigmas[:-1]))
    assert (shifting.sigmas.double() - torch.tensor(sigmas).double()).abs().max() > 0.05


def test_ranks_without_text_encoders_say_who_encodes() -> None:
    model = load_model("embedded", device=torch.device("cpu"), with_text_encoders=False)
    with pytest.raises(BadConfig, match=r"started without text encoders; rank 0 encodes the prompt"):
        model.encode_prompt(PROMPT, negative=False)
