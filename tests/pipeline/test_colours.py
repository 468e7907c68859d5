"""The colours of a picture are those of the poster made from it, patch by patch, at any strength."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from imax_dist.geometry import ImageSize
from imax_dist.models.load import describe_model
from imax_dist.pipeline.colours import BLOCK, with_colours_of
from imax_dist.pipeline.decode import DecodedPicture
from imax_dist.pipeline.pixels import as_pixels
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.request import Request


def plan(given: str, **fields: Any) -> PosterPlan:
    request = Request(**{"guide": "a.png", "strength": 0.5, **fields})
    return make_plan(request, describe_model("embedded"), ImageSize.parse(given))


def smooth(height: int, width: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = 0.25 + 0.5 * torch.rand(1, 3, 7, 9, generator=generator)
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic", align_corners=False)
    return large[0].permute(1, 2, 0).clamp(0.1, 0.9)


def poster(pixels: torch.Tensor) -> DecodedPicture:
    return DecodedPicture(ImageSize(pixels.shape[1], pixels.shape[0]), lambda top, bottom: pixels[top:bottom])


def means(pixels: torch.Tensor, block: int) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(pixels.permute(2, 0, 1)[None].double(), block)


def test_every_patch_has_the_pictures_mean_and_the_detail_is_the_posters() -> None:
    """A poster 3 times the picture, with a cast that grows across it and a gamma."""
    made = plan("160x128", scale=3)
    picture, drawn = smooth(128, 160, seed=0), smooth(384, 480, seed=0)
    detail = 0.05 * torch.randn(384, 480, 3, generator=torch.Generator().manual_seed(1))
    cast = torch.linspace(-0.06, 0.06, 480)[None, :, None] * torch.tensor([1.0, -0.5, 0.3])
    wrong = (drawn.pow(1.1) + cast + detail).clamp(0, 1)
    held = with_colours_of(made, poster(wrong), as_pixels(picture)).whole()
    error = (means(held, 3 * BLOCK) - means(picture, BLOCK)).abs().max()
    before = (means(wrong, 3 * BLOCK) - means(picture, BLOCK)).abs().max()
    assert before > 0.05
    assert error < 0.25 / 255
    change = held - wrong
    assert (change[1:] - change[:-1]).abs().max() < 0.01, "no seam between blocks"


def test_a_poster_that_has_the_colours_is_left_as_it_is() -> None:
    made = plan("160x128", scale=1)
    picture = smooth(128, 160, seed=0)
    held = with_colours_of(made, poster(picture), as_pixels(picture)).whole()
    assert (held - picture).abs().max() < 1e-5


def test_what_is_cut_off_the_render_is_left_out_of_the_means() -> None:
    """150 x 100 is the middle of 160 x 112 (of 16 px tokens): the picture stands for all of that."""
    made = plan("150x100", scale=1)
    rendered = made.render_size
    whole = smooth(rendered.height, rendered.width, seed=2)
    left, over = (rendered.width - 150) // 2, (rendered.height - 100) // 2
    whole[:over] = whole[:, :left] = 0.0
    middle = whole[over : over + 100, left : left + 150]
    held = with_colours_of(made, poster(middle * 0.9), as_pixels(whole)).whole()
    assert (held.mean(dim=(0, 1)) - middle.mean(dim=(0, 1))).abs().max() < 1e-4


@pytest.mark.parametrize("resemblance", [0.0, 0.5])
def test_colours_are_as_free_as_the_layout(resemblance: float) -> None:
    made = plan("64x64", scale=2, resemblance=resemblance)
    picture = torch.full((64, 64, 3), 0.5)
    held = with_colours_of(made, poster(torch.full((128, 128, 3), 0.3)), as_pixels(picture)).whole()
    assert float(held.mean()) == pytest.approx(0.3 + 0.2 * resemblance, abs=1e-5)
