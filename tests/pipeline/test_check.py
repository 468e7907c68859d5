"""Every combination of preset, guide, scale, cascade and cache renders, or is refused in one sentence
before any weight is read."""

from __future__ import annotations

import re
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_flux import make_tiny_flux

from imax_dist import Renderer
from imax_dist.config import named_configs
from imax_dist.errors import BadConfig, BadValue, ImaxError, MissingInput
from imax_dist.models.load import describe_model, load_model
from imax_dist.models.spec import ModelSpec
from imax_dist.output.image.provenance import read_recipe
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline import loading, renderer
from imax_dist.pipeline.check import check_request
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method, uses_reference

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
PRESETS = sorted(named_configs("presets"))
NATIVE = 64
STEPS = 24


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def tiny(tiny_folder: str) -> Any:
    return load_model(tiny_folder, device=torch.device("cpu"), dtype="float32")


def picture(path: Path, *, seed: int = 0, width: int = NATIVE) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (NATIVE, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def request(preset: str, guide: str | None, scale: int, cascade: str, cache: str) -> Request:
    method = {"cascade": cascade, "cache": cache}
    side = scale * NATIVE
    return Request(PROMPT, size=f"{side}x{side}", preset=preset, guide=guide, method=method, steps=STEPS)


def refused(asked: Request, scale: int) -> str | None:
    """What a sentence must say, if the combination cannot be rendered."""
    method = load_method(asked)
    passes = 2 if scale >= 3 and method.cascade == "doubling" and uses_reference(method) else 1
    if asked.guide is None:
        return None
    if not uses_reference(method):
        return "uses no native picture: start.sigma is 1"
    if method.reference.kind == "per_step" and passes == 1:
        return "reference.kind per_step"
    return None


@pytest.mark.parametrize("preset", PRESETS)
def test_every_combination_is_planned_or_refused_in_one_sentence(tiny_folder: str, preset: str) -> None:
    spec = describe_model(tiny_folder)
    table = product((None, "a.png"), (1, 2, 3, 4), ("none", "doubling"), ("none", "light", "strong"))
    for guide, scale, cascade, cache in table:
        asked = request(preset, guide, scale, cascade, cache)
        reason = refused(asked, scale)
        plan = planned(asked, spec)
        if isinstance(plan, str):
            assert fits(plan, reason, cache), (asked, plan)
        else:
            assert reason is None, asked
            is_whole(plan)


def planned(asked: Request, spec: ModelSpec) -> PosterPlan | str:
    """The plan, or the sentence that refuses it; any other error is the test's."""
    try:
        return make_plan(asked, spec)
    except ImaxError as error:
        return str(error)


def fits(sentence: str, reason: str | None, cache: str) -> bool:
    """Whether it is the one that was due, or says that each pass is too short for the cache."""
    assert "\n" not in sentence
    if reason is not None:
        return reason in sentence
    short = re.match(rf"cache {cache} skips none of (\d+) steps: it needs (\d+)", sentence)
    return short is not None and int(short[1]) < int(short[2])


def is_whole(plan: PosterPlan) -> None:
    """Each pass is larger than the one before it and has a reference for every sigma it could ask for."""
    before = plan.native
    for one in plan.passes:
        assert one.render_size.area > before.render_size.area or plan.request.guide
        constant = one.method.reference.kind == "constant" or (before.is_native and plan.request.guide)
        assert one.reference_sigmas[0] >= (0.0 if constant else one.sigmas[0])
        assert constant or before.keeps_endpoints
        before = one


@pytest.mark.parametrize("upsample", ["pixels", "latents"])
def test_hiflow_takes_a_picture_as_the_constant_reference_of_its_first_pass(
    tiny: Any, tmp_path: Path, upsample: str
) -> None:
    made = []
    for seed in (0, 1):
        guide = picture(tmp_path / f"{seed}.png", seed=seed)
        method = {"reference": {"upsample": upsample}}
        asked = Request(
            PROMPT, size="192x192", preset="hiflow", guide=guide, steps=8, method=method,
            model=tiny.spec.name,
        )  # fmt: skip
        made.append(render_with(tiny, alone(tiny), asked))
    first, last = made[0].plan.passes
    assert first.reference_sigmas == (0.0,)
    assert len(last.reference_sigmas) > 1
    assert all(torch.isfinite(each.latents).all() for each in made)
    assert (made[0].latents - made[1].latents).abs().max() > 1e-3


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=pytest.mark.slow if name == "quick" else ()) for name in PRESETS]
)
def test_every_preset_renders_what_it_planned(tiny: Any, tmp_path: Path, preset: str) -> None:
    """At 3x with a cascade, cached steps, and a picture to guide it where the recipe takes one."""
    guide = picture(tmp_path / "guide.png")
    few = preset in ("quick", "fast", "imax", "imax_late")  # of whose steps none can be skipped
    cache = "none" if few else "strong"
    asked = request(preset, guide, 3, "doubling", cache)
    if refused(asked, 3) is not None:
        asked = request(preset, None, 3, "doubling", cache)
    made = render_with(tiny, alone(tiny), asked)
    assert made.pixels is not None
    assert made.pixels.shape == (192, 192, 3)
    assert torch.isfinite(made.pixels).all()


def alone(tiny: Any) -> Any:
    return join_ranks(ParallelSettings(), Topology.alone(), heads=tiny.spec.heads)


MISTAKES: list[tuple[dict[str, Any], type[ImaxError], str]] = [
    ({"guide": "nothere.png"}, MissingInput, "guide nothere.png does not exist"),
    (
        {"guide": "wide.png", "fit": "exact"},
        BadValue,
        "guide wide.png: the picture is 128x64, but the poster 128x128, and fit is exact",
    ),
    (
        {"guide": "guide.png", "preset": "sdedit", "method": {"start": {"sigma": 1.0}}},
        BadValue,
        "start.sigma is 1 .* set start.sigma below 1",
    ),
    ({"method": {"start": {"sigma": 0}}}, BadConfig, "start.sigma must be above 0"),
    ({"method": {"cache": "light"}, "steps": 3}, BadValue, "cache light skips none of"),
    ({"lora": ("nothere.safetensors",)}, MissingInput, "lora nothere.safetensors does not exist"),
    ({"preset": "nope.yaml"}, MissingInput, "preset file nope.yaml does not exist"),
]  # fmt: skip


@pytest.mark.parametrize("way", ["render", "renderer"])
@pytest.mark.parametrize(("fields", "kind", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_no_weight_is_read_for_what_cannot_be_rendered(
    tiny_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    fields: dict[str, Any],
    kind: type[ImaxError],
    message: str,
) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    for module in (loading, renderer):
        name = "load" if module is loading else "load_requested"
        monkeypatch.setattr(module, name, loaded)
    picture(tmp_path / "guide.png")
    picture(tmp_path / "wide.png", width=128)
    monkeypatch.chdir(tmp_path)
    asked = Request(**{"prompt": PROMPT, "model": tiny_folder, "size": "128x128", **fields})
    told: list[object] = []
    kept = renderer.Renderer.join(0, 1, ParallelSettings(), device="cpu", store=None, timeout_s=60.0)
    chosen = kept.render if way == "renderer" else partial(renderer.render, topology=Topology.alone())
    with pytest.raises(kind, match=message):
        chosen(asked, listen=told.append)
    assert told == []


def test_a_hook_by_a_wrong_name_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'listn'"):
        renderer.render(Request(PROMPT, model="nowhere"), topology=Topology.alone(), listn=print)  # type: ignore[call-arg]


def test_a_guide_is_left_to_the_rank_that_reads_it(tiny_folder: str) -> None:
    asked = Request(PROMPT, model=tiny_folder, size="128x128", guide="nothere.png")
    check_request(asked, ParallelSettings(), guide=False)
    with pytest.raises(MissingInput):
        check_request(asked, ParallelSettings(), guide=True)


def test_split_guidance_is_checked_before_loading(tiny_folder: str) -> None:
    asked = Request(PROMPT, model=tiny_folder, size="128x128")
    check_request(asked, ParallelSettings(cfg="split"), guide=True)
    distilled = Path(tiny_folder) / "imax.yaml"
    before = distilled.read_text()
    distilled.write_text(before.replace("extrapolated: 1.5", "extrapolated: 1.0"))
    try:
        with pytest.raises(BadConfig, match=r"the guidance scale of .* is 1"):
            check_request(asked, ParallelSettings(cfg="split"), guide=True)
    finally:
        distilled.write_text(before)


def test_one_renderer_makes_and_saves_several_posters(tiny_folder: str, tmp_path: Path) -> None:
    """The model is loaded once; the file holds its pixels and its recipe."""
    loads: list[object] = []
    with Renderer(Topology.alone()) as kept:
        for seed in (0, 1):
            asked = Request(PROMPT, model=tiny_folder, size="64x64", seed=seed)
            rendering = kept.render(asked, listen=lambda event: loads.append(getattr(event, "stage", None)))
            rendering.save(tmp_path / f"{seed}.png")
    recipe = read_recipe(tmp_path / "1.png")
    assert (recipe["request"]["seed"], "pixels_sha256" in recipe) == (1, True)
    assert rendering.pixels is not None
    stored = np.asarray(Image.open(tmp_path / "1.png"))
    assert np.abs(stored / 255 - rendering.pixels.numpy()).max() < 0.01
    assert loads.count("load") == 2, "its start and its end"
