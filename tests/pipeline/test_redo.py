"""A region of a finished poster anew: outside it the poster bit for bit, inside it the network sees all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize, Region
from imax_dist.models.load import describe_model
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.poster import write_poster
from imax_dist.output.image.reader import open_picture
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.check import check_request
from imax_dist.pipeline.guide import completed
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.recipe import request_of
from imax_dist.pipeline.region import ramps
from imax_dist.pipeline.render import Rendering, render_with
from imax_dist.pipeline.request import Request

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
REGION = "40,24,48,40"
INSIDE = (slice(24, 64), slice(40, 88))
RECIPE = {"request": {"prompt": PROMPT}}


def poster(path: Path, *, seed: int = 0, width: int = 150, height: int = 100) -> Path:
    """Of a size that is no whole token: more is rendered than it shows."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 8, 8, generator=generator)
    pixels = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)
    write_poster(path, pixels[0].permute(1, 2, 0).contiguous(), RECIPE)
    return path


def redo(tiny: Any, path: Path, **fields: Any) -> Rendering:
    ranks = join_ranks(ParallelSettings(), Topology.alone(), heads=tiny.spec.heads)
    request = Request(**{"guide": str(path), "region": REGION, "model": tiny.spec.name, "steps": 6, **fields})
    return render_with(tiny, ranks, request)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_outside_the_region_the_poster_is_kept_bit_for_bit(tiny: Any, tmp_path: Path, ending: str) -> None:
    """8 bits in a PNG, 16 in a TIFF, through reading, rendering and writing."""
    path = poster(tmp_path / f"a.{ending}")
    redo(tiny, path).save(tmp_path / f"b.{ending}")
    before, after = (
        np.concatenate(list(open_picture(file).bands.read())) for file in (path, tmp_path / f"b.{ending}")
    )
    assert before.dtype == after.dtype
    changed = (before != after).any(axis=2)
    inside = np.zeros_like(changed)
    inside[INSIDE] = True
    assert not changed[~inside].any()
    assert changed[inside].mean() > 0.8


def test_the_network_takes_the_whole_poster(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sky in a far corner, outside the region and its borders, changes what is painted in it."""
    sizes = set()
    forward = tiny.velocity

    def velocity(x: torch.Tensor, sigma: float, *rest: Any, **how: Any) -> Any:
        sizes.add(tuple(x.shape[2:]))
        return forward(x, sigma, *rest, **how)

    monkeypatch.setattr(tiny, "velocity", velocity)
    path = poster(tmp_path / "a.png")
    pixels = np.asarray(Image.open(path)).astype(np.float32) / 255
    other = pixels.copy()
    other[84:, 120:] = 1 - other[84:, 120:]
    write_poster(tmp_path / "b.png", bands_of_array(other), RECIPE)
    one, two = (redo(tiny, tmp_path / f"{name}.png").pixels for name in "ab")
    assert one is not None
    assert two is not None
    assert (one - two)[INSIDE].abs().max() > 1e-3
    grid = ImageSize(150, 100).padded(tiny.spec.token_pixels)
    height, width = grid.height // tiny.spec.vae_factor, grid.width // tiny.spec.vae_factor
    assert sizes == {(height, width), (height + 2, width + 2)}


def test_a_recipe_of_a_redone_poster_makes_it_again(tiny: Any, tmp_path: Path) -> None:
    made = redo(tiny, poster(tmp_path / "a.png"), strength=0.7, prompt="a moon")
    again = request_of(made.recipe, where="recipe")
    ranks = join_ranks(ParallelSettings(), Topology.alone(), heads=tiny.spec.heads)
    assert torch.equal(render_with(tiny, ranks, again).latents, made.latents)
    assert made.recipe["plan"]["region"] == REGION
    assert made.recipe["plan"]["guide_sha256"]


def test_strength_says_how_much_of_the_region_changes(tiny: Any, tmp_path: Path) -> None:
    """From what the VAE alone makes of it."""
    path = poster(tmp_path / "a.png")
    plain, *made = (redo(tiny, path, strength=strength).pixels for strength in (0.0, 0.1, 0.5, 1.0))
    assert plain is not None
    changes = [float((each - plain)[INSIDE].square().mean()) for each in made]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_the_prompt_of_the_poster_holds_unless_another_is_given(tiny: Any, tmp_path: Path) -> None:
    path = poster(tmp_path / "a.png")
    assert redo(tiny, path, strength=0.0).plan.request.prompt == PROMPT
    assert redo(tiny, path, strength=0.0, prompt="a moon").plan.request.prompt == "a moon"


@pytest.mark.parametrize("patch_shift", ["network", "step", False])
def test_the_poster_stays_around_the_region_in_latents_at_every_step(
    tiny: Any, tmp_path: Path, patch_shift: Any
) -> None:
    made = redo(tiny, poster(tmp_path / "a.png"), strength=0.8, method={"patch_shift": patch_shift})
    plain = redo(tiny, tmp_path / "a.png", strength=0.0)
    far = (made.latents - plain.latents).abs()
    assert far[..., -2:, :].max() < 1e-5
    assert far.max() > 0.1


@pytest.mark.parametrize(
    ("region", "size"),
    [((0, 0, 64, 64), (64, 64)), ((10, 20, 100, 40), (200, 120)), ((100, 0, 100, 60), (200, 60))],
)
def test_the_mask_is_0_outside_1_inside_and_smooth_between(
    region: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    part = Region(*region)
    down, across = ramps(part, ImageSize(*size))
    for line, start, length in ((down, part.top, part.height), (across, part.left, part.width)):
        assert not line[:start].any()
        assert not line[start + length :].any()
        assert line[start + length // 2] == 1.0
        assert line.diff().abs().max() < 1.6 / max(min(64, length // 4), 1) or length == len(line)
    whole = Region(0, 0, *size)
    assert all(bool((line == 1).all()) for line in ramps(whole, ImageSize(*size)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"region": "140,0,48,40"}, "region 140,0,48,40 ends at 188,40, but the poster is 150x100; give one"),
        ({"region": "0,90,48,40"}, "ends at 48,130, but the poster is 150x100"),
        ({"region": "1,2,3"}, "region '1,2,3' is not X,Y,WIDTH,HEIGHT in pixels"),
        ({"region": "-1,2,30,30"}, "is not X,Y,WIDTH,HEIGHT"),
        ({"region": "0,0,8,40"}, "its sides must be at least 16 px"),
        ({"region": REGION, "size": "300x200"}, "the poster is 150x100, and a region is rendered again"),
        ({"region": REGION, "scale": 2.0}, "rendered again at the poster's own size; omit scale and fit"),
        ({"region": REGION, "guide": None, "prompt": "x"}, "a region needs a finished poster, and no guide"),
    ],
)  # fmt: skip
def test_a_region_that_cannot_be_is_one_sentence(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        make_plan(Request(**{"guide": "a.png", **fields}), describe_model("embedded"), ImageSize(150, 100))


@pytest.mark.parametrize("guide", [True, False], ids=["reads the poster", "does not read it"])
def test_a_region_beyond_the_models_own_size_is_refused_by_no_rank(
    guide: bool, tiny: Any, tmp_path: Path
) -> None:
    """The poster's size is its file's, which rank 0 alone reads: others must not take the model's for it."""
    path = poster(tmp_path / "a.png", width=300, height=200)
    asked = Request(guide=str(path), region="250,150,48,48", model=tiny.spec.name)
    check_request(asked, ParallelSettings(), guide=guide)


def test_a_poster_whose_values_would_change_is_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(tmp_path / "a.png")
    with pytest.raises(BadValue, match="cannot be kept bit for bit: its alpha channel was removed"):
        completed(Request(guide=str(tmp_path / "a.png"), region="0,0,32,32"))
