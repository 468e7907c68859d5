"""The released code's stepping, written anew, against the preset `official` of a tiny network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import pywt
import torch
from tiny_flux import make_tiny_flux
from torch import Tensor

from imax_dist.method.guidance import Step
from imax_dist.models.load import load_model
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.prompt import embed_prompt
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.sampler import Sampler
from imax_dist.pipeline.state import PassState

STEPS = 5
EPSILON = 1e-6
"""What the released code adds to sigma before it divides."""
FRACTION = 1e-5
"""Of the largest latent: how far that takes the preset, which divides by sigma, from the released code."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")
    return load_model(str(folder), device=torch.device("cpu"), dtype="float64", with_text_encoders=True)


def sampler_of(model: Any, **fields: Any) -> tuple[Sampler, PassState]:
    """The pass beyond native size from seeded latents, guided by seeded latents."""
    chosen: dict[str, Any] = {"size": "144x112", "steps": STEPS, "dtype": "float64", **fields}
    request = Request("a red sun", model=model.spec.name, **chosen)
    poster = make_plan(request, model.spec)
    ranks = join_ranks(ParallelSettings(), Topology.alone(), heads=model.spec.heads)
    conditioning = embed_prompt(poster, model, ranks.topology)
    plan: PassPlan = poster.last
    rng = torch.Generator().manual_seed(3)
    shape = (1, 16, plan.grid.height, plan.grid.width)
    x, reference = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    sampler = Sampler.of(plan, model, conditioning, ranks.sequence(plan.copies))
    return sampler, PassState(plan.number, step=0, latents=x, reference=reference)


def haar_low(x: Tensor) -> Tensor:
    """Level-1 Haar with its details zeroed, by PyWavelets."""
    low, _ = pywt.dwt2(x.numpy(), "haar", axes=(2, 3))
    return torch.from_numpy(pywt.idwt2((low, (None, None, None)), "haar", axes=(2, 3)))


def released(sampler: Sampler, x: Tensor, reference: Tensor) -> Tensor:
    """Latents, reference and low-pass on the padded grid at every other step, the first one included.

    The released pipeline pads at the start of such a step and crops at the start of the next; the weight of a
    step fades on its index (cosine_decay).
    """
    sigmas, steps = sampler.plan.sigmas, sampler.plan.steps
    for index in range(steps):
        padded = index % 2 == 0
        ring = torch.nn.functional.pad
        now = ring(x, (1, 1, 1, 1)) if padded else x
        goal = ring(reference, (1, 1, 1, 1)) if padded else reference
        step = Step(sigma=sigmas[index], index=index, steps=steps, start=sigmas[0])
        velocity = sampler.network(now, step).velocity
        weight = 0.5 * (1 + math.cos(math.pi * index / steps))
        towards = (now - goal) / (sigmas[index] + EPSILON)
        velocity = velocity + weight * (haar_low(towards) - haar_low(velocity))
        now = now + (sigmas[index + 1] - sigmas[index]) * velocity
        x = now[:, :, 1:-1, 1:-1] if padded else now
    return x


@pytest.mark.parametrize("steps", [4, 5])
def test_official_is_the_released_stepping_to_its_epsilon(model: Any, steps: int) -> None:
    sampler, state = sampler_of(model, preset="official", steps=steps)
    assert state.reference is not None
    assert sampler.plan.steps == steps
    expected = released(sampler, state.latents, state.reference)
    made = sampler.run(state).latents
    assert made.shape == state.latents.shape
    apart = (made - expected).abs().max() / expected.abs().max()
    assert 0 < apart < FRACTION


def test_a_shift_around_the_network_alone_ends_elsewhere(model: Any) -> None:
    sampler, state = sampler_of(model, preset="official")
    other, _ = sampler_of(model, preset="official", method={"patch_shift": "network"})
    made = sampler.run(state).latents
    apart = (made - other.run(state).latents).square().mean().sqrt() / made.square().mean().sqrt()
    assert 0.08 < apart < 0.13


@pytest.mark.parametrize(
    "method",
    [
        {"cache": "strong"},
        {"skip_residual": True},
        {"reference": {"acceleration": 1.0}},
        {"guidance": {"projection": "butterworth"}},
    ],
    ids=str,
)
def test_every_part_of_a_step_works_on_the_shifted_grid(model: Any, method: dict[str, Any]) -> None:
    sampler, state = sampler_of(model, preset="one_jump", steps=8, method={"patch_shift": "step", **method})
    plan = replace(sampler.plan, keeps_endpoints=True)
    made = replace(sampler, plan=plan).run(state)
    assert made.latents.shape == state.latents.shape
    assert {endpoint.shape for endpoint in made.endpoints} == {state.latents.shape}
    assert made.latents.isfinite().all()


def test_true_is_the_shift_around_the_network(model: Any) -> None:
    pictures = []
    for value in (True, "network"):
        sampler, state = sampler_of(model, preset="one_jump", method={"patch_shift": value})
        pictures.append(sampler.run(state).latents)
    assert torch.equal(*pictures)


def test_a_pass_takes_exactly_the_steps_below_its_start(model: Any) -> None:
    sampler, state = sampler_of(model, preset="imax", method={"start": {"steps": 3}})
    assert sampler.plan.sigmas[0] == 0.45
    assert sampler.plan.steps == 3
    assert sampler.run(state).latents.isfinite().all()
