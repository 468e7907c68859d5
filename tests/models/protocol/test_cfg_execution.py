"""Two passes, a batch of two, or each half of the ranks one prompt: the same guided velocity."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from editors import EDITORS, shown
from guidance_of import AS_INPUT, TRAINED_IN, UNPADDED, scales

from imax_dist.errors import BadConfig
from imax_dist.models.cfg_execution import batched, two_passes
from imax_dist.models.guidance import classifier_free, first_channels, norm_preserving
from imax_dist.models.load import describe_model
from imax_dist.models.tiny import TINY
from imax_dist.parallel.cfg_parallel import ranks_per_half
from imax_dist.pipeline.fit import check_cfg_execution
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request

GUIDED = [name for name in (*TINY, *EDITORS) if name not in (*AS_INPUT, *TRAINED_IN)]


def request(folder: Path) -> Request:
    method = scales(folder.name, native=1.0, extrapolated=3.0)
    return Request(
        "a red sun", size="96x80", model=str(folder), dtype="float64", steps=2, native_steps=1, method=method,
        **shown(folder.name, folder.parent, "96x80"),
    )  # fmt: skip


@pytest.mark.parametrize("name", GUIDED)
def test_a_batch_of_two_is_two_passes(folders: dict[str, Path], name: str) -> None:
    settings = ParallelSettings(cfg="batched")
    if name in UNPADDED:
        with pytest.raises(BadConfig, match=r"cfg batched needs prompts of one length"):
            render(request(folders[name]), parallel=settings)
        return
    one, two = (render(request(folders[name]), parallel=own).latents for own in (None, settings))
    assert (one - two).abs().max() < 1e-10 * one.abs().max()


def test_splitting_needs_an_even_number_of_ranks_and_a_second_prompt(folders: dict[str, Path]) -> None:
    for ranks in (1, 3):
        with pytest.raises(BadConfig, match=rf"half of the ranks to each prompt, but {ranks} w"):
            ranks_per_half(ranks)
    assert ranks_per_half(4) == 2
    names = ("flux-dev", "flux3-klein", "flux-schnell")
    distilled, without, free = (describe_model(str(folders[name])) for name in names)
    with pytest.raises(BadConfig, match=r".* takes its scale as an input; omit cfg"):
        check_cfg_execution("split", distilled, 7.0)
    with pytest.raises(BadConfig, match=r".* has its guidance trained in; omit cfg"):
        check_cfg_execution("split", without, 1.0)
    with pytest.raises(BadConfig, match=r"no second prompt to compute: the guidance scale of .* is 1"):
        check_cfg_execution("split", free, 1.0)
    check_cfg_execution("split", free, 2.0)
    check_cfg_execution("two_passes", dataclasses.replace(distilled), 1.0)


def test_an_unknown_way_is_refused_with_the_known_ones(folders: dict[str, Path]) -> None:
    with pytest.raises(BadConfig, match=r"parallel: cfg: 'halves' is not known; known: two_passes, batch"):
        render(request(folders["flux-schnell"]), parallel=ParallelSettings(cfg="halves"))


def test_a_scale_that_nothing_reads_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """FLUX.2 klein's few-step models say so in their index, FLUX.3's in their transformer."""
    klein = shutil.copytree(folders["flux2-klein"], tmp_path / "klein")
    index = klein / "model_index.json"
    index.write_text(index.read_text().replace('"is_distilled": false', '"is_distilled": true'))
    asked = {"guidance_scale": {"native": 1.0, "extrapolated": 3.0}}
    for folder in (klein, folders["flux3-klein"]):
        spec = describe_model(str(folder))
        with pytest.raises(BadConfig, match=r"guidance_scale 3.0: model .* has its guidance trained in"):
            make_plan(Request("a red sun", model=str(folder), method=asked), spec)
        make_plan(Request("a red sun", model=str(folder), method={"guidance_scale": {"native": 1.0}}), spec)


def test_the_three_combinations(rng: torch.Generator) -> None:
    positive, negative = (torch.randn(1, 4, 3, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    plain = classifier_free(positive, negative, 3.0)
    assert (plain - (3 * positive - 2 * negative)).abs().max() < 1e-12
    some = first_channels(3)(positive, negative, 3.0)
    assert torch.equal(some[:, :3], plain[:, :3])
    assert torch.equal(some[:, 3:], positive[:, 3:])
    for dim in (1, 3):
        kept = norm_preserving(dim)(positive, negative, 3.0)
        assert (kept.norm(dim=dim) - positive.norm(dim=dim)).abs().max() < 1e-12
        assert (kept / plain).std(dim=dim).abs().max() < 1e-12  # only scaled


def test_both_ways_ask_the_network_for_both_prompts() -> None:
    x = torch.ones(1, 1, 1, 1)
    prompts = {"a": torch.full((1, 1), 2.0)}, {"a": torch.full((1, 1), 3.0)}

    def predict(x: torch.Tensor, prompt: dict[str, torch.Tensor]) -> torch.Tensor:
        return x * prompt["a"][:, :, None, None]

    def batch(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {"a": torch.cat([part["a"] for part in parts])}

    for passes in (two_passes, batched):
        assert [float(own) for own in passes(predict, x, prompts, batch=batch)] == [2.0, 3.0]
