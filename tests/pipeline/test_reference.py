"""The native image at the target's size, and the reference looked up by sigma."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from imax_dist.method.guidance import reference_at
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.reference import encoded_reference, enlarged_latents, finished_pictures
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.state import PassState
from imax_dist.pipeline.vae_runner import VaeRunner


def plan(tiny: Any, *, seed: int = 0, **reference: Any) -> PosterPlan:
    request = Request(
        "a red sun", size="160x96", seed=seed, preset="one_jump", method={"reference": reference}
    )
    return make_plan(request, tiny.spec)


def native(tiny: Any, *, endpoints: int = 0) -> PassState:
    """Latents of the 80 x 48 native image (6 x 10 latent pixels), and of as many endpoints."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(1, 16, 6, 10, generator=generator) for _ in range(endpoints + 1)]
    return PassState(0, endpoints, images[0], endpoints=tuple(images[1:]))


def upsample_reference(made: PosterPlan, model: Any, state: PassState) -> torch.Tensor:
    """The reference as one rank makes it."""
    if made.method.reference.upsample == "latents":
        return enlarged_latents(made.last, state)
    ranks = join_ranks(ParallelSettings(), Topology.alone(), heads=model.spec.heads)
    pictures = finished_pictures(made.last, model, state)
    return encoded_reference(made.last, VaeRunner.for_plan(made, model, ranks), pictures)


THREE_STEPS = torch.tensor([1.0, 3.0, 7.0]).reshape(3, 1, 1, 1).expand(3, 2, 4, 4)


@pytest.mark.parametrize(
    ("sigma", "value"),
    [(1.0, 1.0), (0.8, 2.0), (0.6, 3.0), (0.5, 4.0), (0.3, 6.0), (0.2, 7.0), (0.1, 7.0), (1e-9, 7.0)],
)
def test_a_reference_per_step_is_interpolated_in_sigma_and_clamped(sigma: float, value: float) -> None:
    found = reference_at(THREE_STEPS, (1.0, 0.6, 0.2), sigma)
    assert found.shape == (1, 2, 4, 4)
    assert found.flatten() == pytest.approx([value] * 32)


def test_above_its_first_sigma_a_reference_is_its_first() -> None:
    assert torch.equal(reference_at(THREE_STEPS, (0.9, 0.6, 0.2), 1.0), THREE_STEPS[:1])


def test_the_references_own_sigmas_give_its_own_latents() -> None:
    latents, sigmas = torch.randn(4, 2, 3, 3), (1.0, 0.7, 0.4, 0.1)
    for index, sigma in enumerate(sigmas):
        assert torch.equal(reference_at(latents, sigmas, sigma)[0], latents[index])


@pytest.mark.parametrize("sigma", [1.0, 0.5, 1e-6])
def test_a_constant_reference_is_the_same_at_every_sigma(sigma: float) -> None:
    latents = torch.randn(1, 2, 3, 3)
    assert torch.equal(reference_at(latents, (0.0,), sigma), latents)


def test_a_reference_has_one_latent_a_native_step_or_one_in_all(tiny: Any) -> None:
    assert plan(tiny).last.reference_sigmas == (0.0,)
    per_step = plan(tiny, kind="per_step")
    assert per_step.last.reference_sigmas == per_step.native.sigmas[:-1]
    assert upsample_reference(per_step, tiny, native(tiny, endpoints=3)).shape == (3, 16, 12, 20)


def test_each_steps_reference_is_that_step_enlarged(tiny: Any) -> None:
    state = native(tiny, endpoints=2)
    together = upsample_reference(plan(tiny, kind="per_step"), tiny, state)
    for index, image in enumerate(state.endpoints):
        alone = upsample_reference(plan(tiny), tiny, PassState(0, 1, image))
        assert torch.equal(together[index : index + 1], alone)


def test_pixels_are_enlarged_between_decode_and_encode(tiny: Any) -> None:
    state = native(tiny)
    pixels = tiny.decode_image(state.latents).clamp(-1, 1)
    enlarged = F.interpolate(pixels, size=(96, 160), mode="bicubic", align_corners=False).clamp(-1, 1)
    expected = tiny.encode_image(enlarged, noise=None)
    assert torch.equal(upsample_reference(plan(tiny), tiny, state), expected)


def test_latents_are_enlarged_themselves_if_asked_for(tiny: Any) -> None:
    state = native(tiny)
    found = upsample_reference(plan(tiny, upsample="latents"), tiny, state)
    assert torch.equal(found, F.interpolate(state.latents, size=(12, 20), mode="bicubic"))
    assert (found - upsample_reference(plan(tiny), tiny, state)).abs().max() > 0.1


def test_a_posterior_sample_depends_on_the_seed_and_on_nothing_else(tiny: Any) -> None:
    state = native(tiny)
    torch.manual_seed(0)
    first = upsample_reference(plan(tiny, posterior="sample"), tiny, state)
    torch.manual_seed(1)
    assert torch.equal(first, upsample_reference(plan(tiny, posterior="sample"), tiny, state))
    assert not torch.equal(first, upsample_reference(plan(tiny, seed=1, posterior="sample"), tiny, state))


def test_the_posterior_mean_does_not_depend_on_the_seed(tiny: Any) -> None:
    state = native(tiny)
    assert torch.equal(
        upsample_reference(plan(tiny), tiny, state), upsample_reference(plan(tiny, seed=1), tiny, state)
    )
