"""A picture of the user's enters the cascade at its own size, and strength says how much of it is kept."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from imax_dist.errors import BadConfig, BadManifest, BadValue
from imax_dist.events import Note, RenderEvent, ignore
from imax_dist.geometry import ImageSize
from imax_dist.models.load import describe_model
from imax_dist.models.spec import ModelSpec
from imax_dist.output.image.poster import write_poster
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.guide import completed
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.recipe import request_of
from imax_dist.pipeline.render import Rendering, render_with
from imax_dist.pipeline.renderer import Renderer
from imax_dist.pipeline.request import Request
from imax_dist.study.scenes import caption, sample_scene
from imax_dist.study.scenes import render as draw

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
TINY = 64
"""Native side of the tiny model."""


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    """A model of native 1024, 16 px a token."""
    own = describe_model("embedded")
    settings = dataclasses.replace(own.settings, native_side=1024, shift_factor=1.5, native_shift=3.0)
    return dataclasses.replace(own, settings=settings, vae_factor=8, patch=2)


def picture(path: Path, width: int, height: int, *, seed: int = 0) -> Path:
    """A smooth random picture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 216, (6, 6, 3), dtype=np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def plan(spec: ModelSpec, given: str, **fields: Any) -> PosterPlan:
    return make_plan(Request(**{"guide": "photo.png", **fields}), spec, ImageSize.parse(given))


def render(tiny: Any, guide: Path, **fields: Any) -> Rendering:
    ranks = join_ranks(ParallelSettings(), Topology.alone(), heads=tiny.spec.heads)
    listen = fields.pop("listen", ignore)
    return render_with(tiny, ranks, Request(guide=str(guide), model=tiny.spec.name, **fields), listen=listen)


@pytest.mark.parametrize(
    ("given", "size", "fields", "sizes"),
    [
        ("1024x1024", "4096x4096", {}, ["2048x2048", "4096x4096"]),
        ("2048x2048", "4096x4096", {}, ["4096x4096"]),
        ("3000x3000", "4096x4096", {}, ["4096x4096"]),
        ("1500x1500", "8192x8192", {}, ["3008x3008", "8192x8192"]),
        ("512x512", "4096x4096", {}, ["1024x1024", "2048x2048", "4096x4096"]),
        ("100x100", "2048x2048", {}, ["800x800", "2048x2048"]),
        ("512x512", "1024x1024", {}, ["1024x1024"]),
        ("256x256", "512x512", {}, ["512x512"]),
        ("6000x6000", "4096x4096", {}, ["4096x4096"]),
        ("3000x2000", "6000x4000", {}, ["6000x4000"]),
        ("512x512", "4096x4096", {"preset": "one_jump"}, ["4096x4096"]),
        ("2500x2500", "8192x8192", {"method": {"cascade": [2, 4]}}, ["4096x4096", "8192x8192"]),
        ("700x700", "8192x8192", {"method": {"cascade": [2, 4]}}, ["2048x2048", "4096x4096", "8192x8192"]),
    ],
)
def test_a_picture_enters_the_cascade_at_its_own_size(
    spec: ModelSpec, given: str, size: str, fields: dict[str, Any], sizes: list[str]
) -> None:
    made = plan(spec, given, size=size, **fields)
    assert [str(one.size) for one in made.passes] == sizes


def test_each_pass_is_guided_by_the_one_before(spec: ModelSpec) -> None:
    made = plan(spec, "1500x1500", size="8192x8192")
    first, last = made.passes
    assert (str(first.reference_size), first.enlargement.linear) == ("1500x1500", pytest.approx(3008 / 1500))
    assert (str(last.reference_size), last.enlargement.linear) == ("3008x3008", pytest.approx(8192 / 3008))


def test_a_picture_of_native_size_changes_no_plan(spec: ModelSpec) -> None:
    """It is the native pass's place that it takes."""
    made = plan(spec, "1024x1024", size="4096x4096", prompt=PROMPT)
    plain = make_plan(Request(PROMPT, size="4096x4096"), spec)
    for one, other in zip(made.passes, plain.passes, strict=True):
        assert (one.sigmas, one.render_size, one.copies) == (other.sigmas, other.render_size, other.copies)


@pytest.mark.parametrize(
    ("given", "fields", "size"),
    [
        ("3000x2000", {}, "6000x4000"),
        ("3000x2000", {"scale": 1.5}, "4500x3000"),
        ("1001x667", {"scale": 3}, "3003x2001"),
        ("3000x2000", {"size": "4096x4096"}, "4096x4096"),
        ("3000x2000", {"paper": "A2", "dpi": 100}, "1654x2339"),
    ],
)
def test_the_size_comes_from_the_picture_if_none_is_given(
    spec: ModelSpec, given: str, fields: dict[str, Any], size: str
) -> None:
    assert str(plan(spec, given, **fields).size) == size


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"scale": 2.0, "size": "64x64"}, BadValue, "scale and size both say how large the poster is"),
        ({"scale": 2.0, "paper": "A2"}, BadValue, "scale and paper both say how large the poster is"),
        ({"scale": 0.0}, BadValue, "scale 0 must be above 0, and at most 1000"),
        (
            {"scale": 2.0, "guide": None, "prompt": "x"},
            BadValue,
            "scale is relative to a picture, and no guide",
        ),
        ({"strength": 1.2}, BadValue, "strength 1.2 is outside 0 to 1: 0 leaves the picture as it is"),
        ({"strength": float("nan")}, BadConfig, "strength must be a finite number, got nan"),
        ({"resemblance": -1.0}, BadValue, "resemblance -1 is outside 0 to 1: 0 leaves its layout free"),
        ({"fit": "stretch"}, BadConfig, "fit: 'stretch' is not a choice; known: crop, pad, exact"),
        ({"background": "red"}, BadValue, "colour 'red' is not written as #rrggbb"),
        ({"scale": 40.0}, BadValue, "scale 40 makes 40960x40960 of 1024x1024: 1678 megapixels"),
        ({"scale": 2.0, "strength": 0.3, "method": {"start": {"sigma": 0.5}}}, BadValue, "strength .* start"),
        ({"strength": 1.0, "resemblance": 0.0}, BadValue, "uses no picture: strength is 1 .pure noise. and"),
        ({"method": {"start": {"strength": 2}}}, BadConfig, "start.strength must be 0 to 1, got 2"),
        ({"method": {"start": {"min_steps": 0}}}, BadConfig, "start.min_steps must be 1 to 1000, got 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    spec: ModelSpec, fields: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        plan(spec, "1024x1024", **fields)


@pytest.mark.parametrize("shift", [(1.5, 3.0), (1.0, 1.0), (1.6, 6.0)])
@pytest.mark.parametrize("scale", [2.0, 2.7, 8.0])
def test_strength_keeps_the_same_share_at_every_scale_and_with_every_time_shift(
    spec: ModelSpec, scale: float, shift: tuple[float, float]
) -> None:
    settings = dataclasses.replace(spec.settings, shift_factor=shift[0], native_shift=shift[1])
    made = plan(dataclasses.replace(spec, settings=settings), "1024x1024", scale=scale, strength=0.2)
    for one, told in zip(made.passes, made.describe()["starts"], strict=True):
        assert told["kept"] == pytest.approx(0.8, abs=1e-9)
        assert told["steps"] == one.steps >= 4
        assert one.sigmas[0] == pytest.approx(0.2 / (0.2 + 0.8 / one.enlargement.linear))


@pytest.mark.parametrize("strength", [0.01, 0.05, 0.3, 1.0])
def test_at_least_min_steps_run_at_every_strength(spec: ModelSpec, strength: float) -> None:
    for fewest in (4, 7):
        method = {"start": {"min_steps": fewest}}
        made = plan(spec, "1024x1024", size="4096x4096", strength=strength, method=method)
        assert all(one.steps >= fewest for one in made.passes)


def test_strength_0_is_the_way_through_the_vae(tiny: Any, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 80, 80)
    made = render(tiny, path, strength=0.0, scale=3)
    pixels = torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32) / 255)
    large = F.interpolate(2 * pixels.permute(2, 0, 1)[None] - 1, size=(240, 240), mode="bicubic")
    assert [one.steps for one in made.plan.passes] == [0]
    assert (made.latents - tiny.encode_image(large.clamp(-1, 1), noise=None)).abs().max() < 1e-5


def test_resemblance_sets_strength_and_cutoff_of_the_projection(spec: ModelSpec) -> None:
    firm, loose = (
        plan(spec, "1024x1024", scale=4, strength=0.5, resemblance=r).last.method.guidance for r in (1.0, 0.5)
    )
    assert (firm.strength, firm.cutoff) == (1.0, 1.0)
    assert (loose.strength, loose.cutoff) == (0.5, 0.5)
    named = plan(spec, "1024x1024", scale=4, preset="official", resemblance=0.5).last.method.guidance
    assert (named.strength, named.cutoff) == (0.5, 1.0)


def test_at_the_pictures_own_size_something_is_left_to_change(tiny: Any, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 96, 96)
    same, other = (render(tiny, path, scale=1, strength=s, steps=4).latents for s in (0.0, 0.5))
    assert (same - other).abs().max() > 1e-2


def test_a_cascade_from_a_picture_looks_at_it(tiny: Any, tmp_path: Path) -> None:
    """Of a size that is no whole token, through every enlargement of the reference."""
    for upsample in ("pixels", "latents"):
        method = {"reference": {"upsample": upsample}}
        one, other = (
            render(
                tiny, picture(tmp_path / f"{seed}.png", 75, 53, seed=seed), scale=4, steps=1, method=method
            )
            for seed in (0, 1)
        )
        assert len(one.plan.passes) == 2
        assert str(one.plan.size) == "300x212"
        assert (one.latents - other.latents).abs().max() > 1e-3


def test_a_prompt_comes_from_the_picture_unless_one_is_given(tmp_path: Path) -> None:
    write_poster(tmp_path / "a.png", torch.zeros(32, 48, 3), {"request": {"prompt": "a red sun"}})
    picture(tmp_path / "b.png", 48, 32)
    told: list[RenderEvent] = []

    def prompt(name: str, **fields: Any) -> str:
        return completed(Request(guide=str(tmp_path / name), **fields), None, told.append)[0].prompt

    assert prompt("a.png") == "a red sun"
    assert prompt("b.png") == ""
    assert prompt("a.png", prompt="a moon") == "a moon"
    assert prompt("a.png", prompt=" ").strip() == ""
    said = [event.text.partition(".png: ")[2] for event in told if isinstance(event, Note)]
    assert said == [
        "the prompt is 'a red sun', from its recipe",
        "it carries no prompt: the prompt is empty",
    ]


def test_a_paper_lies_as_the_picture_does(tmp_path: Path) -> None:
    wide, high = picture(tmp_path / "wide.png", 60, 40), picture(tmp_path / "high.png", 40, 60)

    def size(path: Path, paper: str, **fields: Any) -> str | None:
        return completed(Request(guide=str(path), paper=paper, dpi=20, **fields))[0].size

    assert size(wide, "A4") == "234x165"
    assert size(high, "A4") == "165x234"
    assert size(wide, "A4 portrait") == "165x234"
    assert size(high, "A4", landscape=True) == "234x165"


def test_the_recipe_of_an_upscaled_picture_makes_it_again(tiny: Any, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 75, 53)
    made = render(tiny, path, scale=2, strength=0.4, resemblance=0.5, prompt=PROMPT)
    again = request_of(made.recipe, where="recipe")
    ranks = join_ranks(ParallelSettings(), Topology.alone(), heads=tiny.spec.heads)
    assert torch.equal(render_with(tiny, ranks, again).latents, made.latents)


def test_notes_say_what_was_cropped_once(tiny: Any, tmp_path: Path) -> None:
    told: list[RenderEvent] = []
    path = picture(tmp_path / "a.png", 90, 60)
    render(tiny, path, size="128x128", strength=0.0, prompt=PROMPT, listen=told.append)
    cropped = [event.text for event in told if isinstance(event, Note) and "cropped" in event.text]
    sentence = "90x60 was cropped to 60x60, the shape of 128x128; fit pad keeps all of it"
    assert cropped == [f"guide {path}: {sentence}"]


def test_a_torn_picture_is_refused_before_the_model_runs(tiny: Any, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 90, 60)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadManifest, match="cannot be read to its end"):
        render(tiny, path, scale=2)


def test_by_strength_the_pictures_band_alone_is_held(spec: ModelSpec) -> None:
    def schedule(**fields: Any) -> str:
        return plan(spec, "1024x1024", **fields).last.method.guidance.schedule

    assert schedule() == "cosine_shift"
    assert schedule(strength=0.3) == schedule(method={"start": {"strength": 0.3}}) == "constant"
    assert schedule(strength=0.3, method={"guidance": {"schedule": "paper"}}) == "paper"
    assert schedule(strength=0.3, preset="sdedit") == "off"


def enlarged(renderer: Renderer, path: Path, *, scale: int) -> torch.Tensor:
    """A scene of half the native side, written to ``path``, so much larger: (1, 3, H, W) in [0, 1]."""
    side = renderer.model(Request(PROMPT), with_text_encoders=False).spec.settings.native_side // 2
    pixels = draw(sample_scene(900_001), side, side)
    Image.fromarray(pixels).save(path)
    whole = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    large = F.interpolate(whole, size=(scale * side, scale * side), mode="bicubic")
    return large.clamp(-1, 1) / 2 + 0.5


@pytest.mark.slow
def test_psnr_against_the_enlarged_picture_falls_with_strength(tmp_path: Path) -> None:
    """Strictly, in steps of .1, and by no more than 6 dB, on the model that ships; colours stay at all."""
    with Renderer() as renderer:
        large = enlarged(renderer, tmp_path / "a.png", scale=2)
        found, casts = [], []
        for step in range(11):
            request = Request(
                caption(sample_scene(900_001)), guide=str(tmp_path / "a.png"), scale=2, strength=step / 10,
                steps=8,
            )  # fmt: skip
            made = renderer.render(request).pixels
            assert made is not None
            drawn = made.permute(2, 0, 1)[None]
            found.append(-10 * np.log10(float((drawn - large).square().mean())))
            casts.append(float((F.avg_pool2d(drawn, 32) - F.avg_pool2d(large, 32)).abs().max()))
    falls = [before - after for before, after in pairwise(found)]
    assert min(falls) > 0.0, found
    assert max(falls) < 6.0, found
    assert max(casts) < 0.5 / 255, casts


@pytest.mark.slow
def test_colours_stay_at_four_times_the_size_too(tmp_path: Path) -> None:
    """In blocks of 16 px of the picture, whatever the strength; finer ones have edges that are drawn anew."""
    with Renderer() as renderer:
        large = enlarged(renderer, tmp_path / "a.png", scale=4)
        for strength in (0.3, 1.0):
            request = Request(
                caption(sample_scene(900_001)), guide=str(tmp_path / "a.png"), scale=4, strength=strength,
                steps=8,
            )  # fmt: skip
            made = renderer.render(request).pixels
            assert made is not None
            drawn = made.permute(2, 0, 1)[None]
            assert float((F.avg_pool2d(drawn, 64) - F.avg_pool2d(large, 64)).abs().max()) < 0.5 / 255
