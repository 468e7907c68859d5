"""The reference by a super-resolution network: its rows, on how many ranks, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from ranks import run_ranks
from safetensors.torch import save_file
from small_networks import basicsr_names, save_rrdb, small_rrdb
from tiny_flux import make_tiny_flux

from imax_dist.errors import BadManifest, BadValue, ImaxError, MissingInput, Preempted
from imax_dist.events import Note, Progress, RenderEvent, ignore
from imax_dist.geometry import ImageSize
from imax_dist.models.load import describe_model
from imax_dist.named_file import fields_naming_files
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.check import check_plan
from imax_dist.pipeline.named_files import named_files
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.recipe import request_of
from imax_dist.pipeline.render import Rendering
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.upsample import network_enlarges, with_network
from imax_dist.settings_mapping import to_mapping
from imax_dist.super_resolution import realesrgan
from imax_dist.super_resolution.network import network_of, read_weights
from imax_dist.vae.codec import NO_CALLBACKS, Callbacks
from imax_dist.vae.limits import scratch_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_rrdb(tmp_path_factory.mktemp("network") / "small.safetensors", doublings=2))


def fields(model: str, network: str, **more: Any) -> dict[str, Any]:
    reference = {"upsample": "network", "network": network}
    return dict(
        prompt="a red sun", size="144x112", model=model, preset="quick", dtype="float64",
        method={"reference": reference}, **more,
    )  # fmt: skip


def rendered(topology: Topology, asked: dict[str, Any], memory_gib: float | None) -> tuple[Any, Any]:
    parallel = ParallelSettings(vae_memory_gib=memory_gib)
    rendering = render(Request(**asked), topology=topology, parallel=parallel)
    return rendering.latents.numpy(), rendering.plan.network


def alone(asked: dict[str, Any], told: list[RenderEvent] | None = None) -> Rendering:
    listen = ignore if told is None else told.append
    return render(Request(**asked), topology=Topology.alone(CPU), listen=listen)


def test_quick_by_a_network_is_the_same_on_one_two_and_four_ranks(tiny: str, network: str) -> None:
    """4x, then made smaller to 2.3x: rows of the target from rows of the network's picture."""
    expected, sha256 = run_ranks(1, rendered, fields(tiny, network), None)[0]
    assert len(sha256) == 64
    for ranks in (2, 4):
        for latents, seen in run_ranks(ranks, rendered, fields(tiny, network), None):
            assert np.abs(latents - expected).max() < 1e-10
            assert seen == sha256


def test_the_network_decides_the_picture_and_the_recipe_repeats_it(tiny: str, network: str) -> None:
    ours = alone(fields(tiny, network))
    plain = alone({**fields(tiny, network), "method": {"reference": {"upsample": "pixels"}}})
    assert (ours.latents - plain.latents).abs().max() > 1e-3
    assert ours.recipe["plan"]["network_sha256"] == ours.plan.network
    assert plain.recipe["plan"]["network_sha256"] is None
    again = alone(to_mapping(request_of(ours.recipe, where="here")))
    assert torch.equal(again.latents, ours.latents)


def test_auto_without_the_extra_is_bicubic_and_says_so(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realesrgan, "PACKAGE", "no_such_package_here")
    told: list[RenderEvent] = []
    found = alone(fields(tiny, "auto"), told)
    notes = [event.text for event in told if isinstance(event, Note)]
    assert any("realesrgan-x4plus is not installed: the reference is enlarged by bicubic" in n for n in notes)
    plain = alone({**fields(tiny, "auto"), "method": {"reference": {"upsample": "pixels"}}})
    assert torch.equal(found.latents, plain.latents)
    assert found.recipe["plan"]["method"]["reference"]["upsample"] == "pixels"


def test_the_rows_are_the_networks_picture_resized(network: str) -> None:
    """By 4, then to 4, 2 (smaller: antialiased), 3 and 6 times; whole and in part, as torch does it."""
    found = network_of(network, read_weights(network)).to(CPU, torch.float64)
    pixels = (
        torch.rand((1, 3, 33, 20), generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1
    )
    whole = found(pixels / 2 + 0.5)
    for height, width in ((132, 80), (66, 40), (99, 60), (200, 100)):
        shrinks = height < 132
        resized = F.interpolate(whole, size=(height, width), mode="bicubic", antialias=shrinks)
        expected = 2 * resized.clamp(0, 1)[0].permute(1, 2, 0) - 1
        enlarge = network_enlarges(
            found, pixels, ImageSize(width, height), scratch=scratch_of(CPU, None), ranks=1,
            watch=NO_CALLBACKS, dtype=torch.float64,
        )  # fmt: skip
        assert (enlarge(0, height)(0, height) - expected).abs().max() < 1e-12
        assert (enlarge(17, 60)(20, 50) - expected[20:50]).abs().max() < 1e-12


def test_a_stop_ends_the_enlarging_and_progress_is_reported(network: str) -> None:
    told: list[RenderEvent] = []
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Preempted("stopped")

    def enlarge(watch: Callbacks) -> None:
        found = network_of(network, read_weights(network))
        pixels, size = torch.zeros(1, 3, 40, 24), ImageSize(96, 160)
        scratch = scratch_of(CPU, None)
        network_enlarges(
            found, pixels, size, scratch=scratch, ranks=1, watch=watch, dtype=torch.float32
        )(0, 160)  # fmt: skip

    enlarge(Callbacks(told.append))
    assert told[-1] == Progress(160, 160)
    with pytest.raises(Preempted):
        enlarge(Callbacks(told.append, check))
    assert asked == 2


BAD: list[tuple[str, type[ImaxError], str]] = [
    (
        "esrgan.pth",
        BadValue,
        r"neither realesrgan-x4plus, .* nor a .safetensors file; pickled models",
    ),
    ("none.safetensors", MissingInput, "super-resolution model none.safetensors does not exist"),
]


@pytest.mark.parametrize(("name", "error", "message"), BAD)
def test_a_network_that_is_not_there_is_refused_before_the_model_is_loaded(
    tiny: str, name: str, error: type[ImaxError], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_plan(Request(**fields(tiny, name)), describe_model(tiny), guide=True)


def refused(tiny: str, path: Path) -> str:
    plan = make_plan(Request(**fields(tiny, str(path))), describe_model(tiny))
    with pytest.raises((BadManifest, MissingInput)) as caught:
        with_network(plan, Topology.alone(CPU))
    return str(caught.value)


def test_a_network_of_another_scale_or_other_channels_is_refused(tiny: str, tmp_path: Path) -> None:
    same = save_rrdb(tmp_path / "same.safetensors", doublings=0)
    assert "same.safetensors enlarges by 1; name a network that enlarges by 2 or more" in refused(tiny, same)
    weights = basicsr_names(small_rrdb())
    grey = tmp_path / "grey.safetensors"
    save_file({**weights, "conv_last.weight": weights["conv_last.weight"][:1].contiguous()}, grey)
    assert "grey.safetensors is not an RRDBNet of RGB pictures" in refused(tiny, grey)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(grey.read_bytes()[:100])
    assert "torn.safetensors is not a super-resolution model that can be used" in refused(tiny, torn)


def test_the_networks_file_is_named_by_the_request_and_part_of_its_job(tiny: str, network: str) -> None:
    request = Request(**fields(tiny, network))
    assert list(named_files(request)) == [network]
    assert "method" in fields_naming_files(Request, vars(request))
    by_name = replace(request, method={"reference": {"network": "realesrgan-x4plus"}})
    assert "method" not in fields_naming_files(Request, vars(by_name))
    assert named_files(by_name) == {}
