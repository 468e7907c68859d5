"""Editors: the network is shown a picture, at every size, on any number of ranks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from editors import EDITORS, edit_pipeline, picture_file

from imax_dist.errors import BadValue
from imax_dist.geometry import Region
from imax_dist.models.blueprint import find_blueprint
from imax_dist.models.load import describe_model, load_model
from imax_dist.models.tiny import make_tiny
from imax_dist.output.image.guide import Placement
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.context import shown_alone
from imax_dist.pipeline.guide import with_guide
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.sampler import Sampler, sequence_alone
from imax_dist.pipeline.state import PassState
from imax_dist.planner.workload import workload_of

ROUNDING = 5e-5


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_file(tmp_path_factory.mktemp("pictures") / "own.png", 144, 112)


def request_of(folder: Path | str, picture: Path | str, name: str, **fields: Any) -> Request:
    """7 x 9 tokens, which no mesh divides; native is 3 x 4."""
    given = {"size": "144x112", "steps": 2, "native_steps": 1, "dtype": "float64", **EDITORS[name].asks}
    return Request("a red sun", model=str(folder), guide=str(picture), **{**given, **fields})


@pytest.mark.parametrize("size", ["64x64", "128x32"])
@pytest.mark.parametrize("name", EDITORS)
def test_at_native_size_it_is_diffusers_own_call(
    folders: dict[str, Path], name: str, size: str, tmp_path: Path
) -> None:
    model: Any = load_model(str(folders[name]), device=torch.device("cpu"), dtype="float32")
    model.read_area = 64 * 64  # as the pipeline is told: its reader sees the picture as it is
    file = picture_file(tmp_path / "own.png", *map(int, size.split("x")))
    asks = {**EDITORS[name].asks, **({"region": "16,16,32,16"} if name == "flux-fill" else {})}
    request = request_of(folders[name], file, name, size=size, native_steps=3, dtype=None, **asks)
    plan, pixels = with_guide(make_plan(request, model.spec), Topology.alone())
    assert pixels is not None
    one = plan.native
    if plan.spec.context == "channels":
        one = dataclasses.replace(one, region=Region(16, 16, 32, 16))
    context = shown_alone(one, model, pixels)
    noise, words = pass_noise(one, model), model.encode_prompt("a red sun", negative=True, picture=pixels)
    sampler = Sampler.of(one, model, words, sequence_alone(one), context=context)
    found = sampler.run(PassState(0, 0, noise)).latents
    assert one.guidance_scale > 1.0
    expected = EDITORS[name].call(edit_pipeline(folders[name]), plan, noise, pixels, one)
    assert (found - expected).abs().max() < ROUNDING * expected.abs().max()
    assert context is not None
    other = dataclasses.replace(sampler, context=0.5 * context).run(PassState(0, 0, noise)).latents
    assert (found - other).abs().max() > 100 * ROUNDING * expected.abs().max(), "the picture is seen"


def test_an_edit_starts_from_a_native_picture_of_its_own(folders: dict[str, Path], picture: Path) -> None:
    """Without ``edit`` the picture takes the native one's place, and the network is shown it all the same."""
    spec = describe_model(str(folders["flux-kontext"]))
    edit = make_plan(request_of("m", picture, "flux-kontext"), spec)
    plain = make_plan(request_of("m", picture, "flux-kontext", edit=False), spec)
    assert edit.passes[0].reference_size == edit.native_size
    assert isinstance(plain.placement, Placement)
    assert plain.passes[0].reference_size == plain.placement.size
    assert {one.context for one in (*edit.passes, *plain.passes, edit.native)} == {"tokens"}
    assert edit.fingerprint != plain.fingerprint
    alone = make_plan(Request("a red sun", size="64x64"), spec)
    assert alone.native.context == "none"
    at_native = make_plan(request_of("m", picture, "flux-kontext", size="64x64"), spec)
    assert not at_native.passes


def test_a_prompt_alone_makes_what_flux_makes_of_it(folders: dict[str, Path], tmp_path: Path) -> None:
    dev = make_tiny("flux-dev", tmp_path / "dev")
    one, other = (
        render(Request("a red sun", size="96x80", model=str(folder), steps=2, native_steps=1)).latents
        for folder in (dev, folders["flux-kontext"])
    )
    assert torch.equal(one, other)


def test_a_plan_counts_the_picture_that_is_shown(folders: dict[str, Path], picture: Path) -> None:
    blueprint = find_blueprint(str(folders["flux-kontext"]))
    edit = workload_of(request_of(folders["flux-kontext"], picture, "flux-kontext"), blueprint, device="cpu")
    alone = workload_of(Request("a red sun", size="144x112", steps=2), blueprint, device="cpu")
    for shown, plain in zip(edit.extrapolated, alone.extrapolated, strict=True):
        assert shown.context == shown.image == plain.image
        assert shown.tokens == plain.tokens + plain.image
    assert edit.native
    assert len(edit.enlarged) == len(alone.enlarged) + 1, "it is encoded once a pass"
    assert not workload_of(
        request_of(folders["flux-kontext"], picture, "flux-kontext", edit=False), blueprint, device="cpu"
    ).native


def test_what_makes_no_edit_is_refused(folders: dict[str, Path], picture: Path) -> None:
    with pytest.raises(BadValue, match=r"edit changes a picture, and no guide was given"):
        Request("a red sun", edit=True)
    with pytest.raises(BadValue, match=r"edit follows the prompt, which is empty; say what to change"):
        Request("", guide=str(picture), edit=True)
    with pytest.raises(BadValue, match=r"a region is rendered again from the poster around it; omit edit"):
        Request("a", guide=str(picture), edit=True, region="0,0,32,32")
    with pytest.raises(
        BadValue, match=r"edit: model embedded does not take a whole picture as input; take an editor"
    ):
        make_plan(Request("a", guide=str(picture), edit=True), describe_model("embedded"))
    qwen = describe_model(str(folders["qwen-image-edit"]))
    with pytest.raises(BadValue, match=r"edits pictures; give one with --guide and add --edit"):
        make_plan(Request("a"), qwen)
    fill = describe_model(str(folders["flux-fill"]))
    with pytest.raises(BadValue, match=r"only repaints regions; use imax redo --region"):
        make_plan(Request("a", guide=str(picture)), fill)


def test_fill_paints_its_region_from_noise_unless_asked(folders: dict[str, Path], picture: Path) -> None:
    fill = describe_model(str(folders["flux-fill"]))
    plain = make_plan(request_of("m", picture, "flux-fill"), fill)
    assert plain.last.sigmas[0] == 1.0
    asked = make_plan(request_of("m", picture, "flux-fill", strength=0.5), fill)
    assert asked.last.sigmas[0] < 1.0
    kontext = describe_model(str(folders["flux-kontext"]))
    other = make_plan(request_of("m", picture, "flux-fill"), kontext)
    assert other.last.sigmas[0] < 1.0
