"""Noise comes from the seed and the purpose alone, for the whole image."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from imax_dist.geometry import LatentGrid
from imax_dist.models.load import load_model
from imax_dist.pipeline.noise import draw_noise
from imax_dist.pipeline.request import LARGEST_SEED

GRID = LatentGrid(height=48, width=32)


@pytest.fixture(scope="module", params=["float32", "float64", "bfloat16"])
def model(request: pytest.FixtureRequest) -> Any:
    return load_model("embedded", device=torch.device("cpu"), dtype=request.param, with_text_encoders=False)


def draw(model: Any, seed: int = 0, purpose: str = "native", grid: LatentGrid = GRID) -> torch.Tensor:
    return draw_noise(seed, purpose, grid=grid, model=model)


def test_the_same_seed_and_purpose_give_the_same_noise(model: Any) -> None:
    torch.manual_seed(0)
    first = draw(model)
    torch.manual_seed(1)
    assert torch.equal(first, draw(model))
    assert first.shape == (1, 16, 48, 32)


def test_another_seed_or_purpose_gives_independent_noise(model: Any) -> None:
    first = draw(model).flatten().double()
    others = [draw(model, seed=1), draw(model, purpose="extrapolated"), draw(model, purpose="posterior")]
    for other in others:
        correlation = torch.corrcoef(torch.stack([first, other.flatten().double()]))[0, 1]
        assert correlation.abs() < 0.03


def test_noise_is_standard_normal(model: Any) -> None:
    noise = draw(model).double()
    assert noise.mean().abs() < 0.02
    assert (noise.std() - 1).abs() < 0.02


def test_the_weights_precision_does_not_change_the_noise(model: Any) -> None:
    single = load_model("embedded", device=torch.device("cpu"), dtype="float32", with_text_encoders=False)
    noise = draw(model)
    assert noise.dtype == torch.promote_types(model.dtype, torch.float32)
    assert torch.equal(noise.float(), draw(single))


def test_drawing_leaves_the_global_generator_alone(model: Any) -> None:
    before = torch.get_rng_state()
    draw(model)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [0, 2**32, LARGEST_SEED])
def test_every_allowed_seed_draws(model: Any, seed: int) -> None:
    assert draw(model, seed=seed).isfinite().all()
