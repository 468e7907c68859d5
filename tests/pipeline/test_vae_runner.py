"""A poster through the VAE: the same picture whole, by rows, on any ranks; tiles only if asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from ranks import run_ranks
from tiny_flux import make_tiny_flux

from imax_dist.errors import BadConfig, ImaxError, Preempted
from imax_dist.events import RenderEvent, StageStarted, StepDone
from imax_dist.geometry import ImageSize
from imax_dist.models.load import load_model
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.decode import decode
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.vae.enlarge import enlarged_rows
from imax_dist.vae.limits import whole_limit
from imax_dist.vae.strategies import Tiled, Whole

ALONE = Topology.alone()
LITTLE = {"vae_memory_gib": 1e-5}
"""Ten kilobytes: everything goes by rows, and through files."""
FIELDS = dict(prompt="a red sun", size="138x110", dtype="float64", steps=2, native_steps=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model"))


def rendered(topology: Topology, fields: dict[str, Any], settings: dict[str, Any]) -> Any:
    """Latents, pixels (rank 0) and the strategy."""
    found = render(Request(**fields), topology=topology, parallel=ParallelSettings(**settings))
    pixels = None if found.pixels is None else found.pixels.numpy()
    return found.latents.numpy(), pixels, found.recipe["environment"]["vae"]


@pytest.mark.parametrize(
    ("ranks", "settings", "strategy"),
    [(1, {}, "whole"), (1, LITTLE, "rows"), (2, {}, "rows"), (3, LITTLE, "rows")],
    ids=["whole", "bands", "two-ranks", "three-ranks-files"],
)
def test_the_picture_is_the_same_by_any_strategy(
    tiny: str, ranks: int, settings: dict[str, Any], strategy: str
) -> None:
    fields = {**FIELDS, "model": tiny}
    latents, pixels, _ = rendered(ALONE, fields, {})
    results = run_ranks(ranks, rendered, fields, settings)
    assert [result[2] for result in results] == [strategy] * ranks
    assert np.abs(results[0][1] - pixels).max() < 1e-6, "pixels are float32"
    assert all(np.abs(result[0] - latents).max() < 1e-10 for result in results)
    assert all(np.array_equal(result[0], results[0][0]) for result in results)
    assert [result[1] is None for result in results] == [rank > 0 for rank in range(ranks)]


def runner_of(
    tiny: str, settings: dict[str, Any] | None = None, *, preset: str = "imax", **method: Any
) -> tuple[Any, VaeRunner]:
    model = load_model(tiny, device=torch.device("cpu"), dtype="float32", with_text_encoders=False)
    request = Request("a red sun", size="320x208", model=tiny, preset=preset, method=method)
    plan = make_plan(request, model.spec)
    ranks = join_ranks(ParallelSettings(**(settings or {})), ALONE, heads=model.spec.heads)
    return plan, VaeRunner.for_plan(plan, model, ranks)


def random_latents(plan: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 16, plan.last.grid.height, plan.last.grid.width, generator=generator)


def test_bands_for_the_writers_are_the_picture(tiny: str) -> None:
    plan, runner = runner_of(tiny, LITTLE)
    picture = decode(plan, runner, random_latents(plan))
    assert picture is not None
    bands = list(picture.bands().read())
    assert len(bands) > 1
    assert np.array_equal(np.concatenate(bands), picture.whole())
    assert len(list(picture.bands().read())) == len(bands), "bands can be read again"


def test_tiles_are_used_only_if_asked_for_and_are_another_picture(tiny: str) -> None:
    plan, exact = runner_of(tiny)
    tiled_plan, tiled = runner_of(tiny, vae="tiled")
    assert (type(exact.strategy), type(tiled.strategy)) == (Whole, Tiled)
    assert tiled_plan.fingerprint != plan.fingerprint
    latents = random_latents(plan)
    plain, blended = decode(plan, exact, latents), decode(tiled_plan, tiled, latents)
    assert plain is not None
    assert blended is not None
    with torch.no_grad():
        theirs = tiled.model.vae  # type: ignore[attr-defined]
        expected = tiled.model.decode_image(latents)
    assert not theirs.use_tiling, "tiling must not stay on"
    assert torch.equal(plain.whole(), (expected[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0))
    assert (plain.whole() - blended.whole()).abs().max() > 0.01


def test_tiles_are_diffusers_own_and_as_in_the_released_code_taken_below_the_size_of_one(tiny: str) -> None:
    _, tiled = runner_of(tiny, preset="official")
    assert isinstance(tiled.strategy, Tiled)
    model: Any = tiled.model
    size = model.vae.tile_sample_min_size
    generator = torch.Generator().manual_seed(1)
    for side, alike in ((size, False), (2 * size, True)):
        latents = torch.randn(1, 16, side // 8, side // 8, generator=generator)
        pixels = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
        own = tiled.strategy.decoded(latents), tiled.strategy.encoded(pixels, noise=None)
        model.vae.enable_tiling()
        theirs = model.decode_image(latents), model.encode_image(pixels, noise=None)
        model.vae.disable_tiling()
        assert [torch.equal(*pair) for pair in zip(own, theirs, strict=True)] == [alike, alike]
        decoded = model.vae.tiled_decode(model.unscaled(latents)).sample
        assert torch.equal(own[0], decoded)


def test_a_vae_of_another_kind_is_used_whole_and_has_no_tiles(tiny: str) -> None:
    plan, runner = runner_of(tiny)
    model = runner.model
    decoder = model.vae  # type: ignore[attr-defined]
    model.vae = torch.nn.Identity()  # type: ignore[attr-defined]
    ranks = join_ranks(ParallelSettings(), ALONE, heads=model.spec.heads)
    assert VaeRunner.for_plan(plan, model, ranks).strategy.name == "whole on rank 0"
    tiled = make_plan(Request("a", size="128x128", model=tiny, method={"vae": "tiled"}), model.spec)
    with pytest.raises(BadConfig, match=r"vae: tiled is set, but the VAE of .* has no tiles; use exact"):
        VaeRunner.for_plan(tiled, model, ranks)
    model.vae = decoder  # type: ignore[attr-defined]


def test_numbers_that_are_not_finite_are_refused_by_rows_too(tiny: str) -> None:
    plan, runner = runner_of(tiny, LITTLE)
    with pytest.raises(ImaxError, match=r"numbers that are not finite"):
        decode(plan, runner, torch.full_like(random_latents(plan), torch.nan))


def test_memory_for_features_must_be_above_zero() -> None:
    with pytest.raises(BadConfig, match=r"parallel: vae_memory_gib must be above 0, got 0"):
        ParallelSettings(vae_memory_gib=0.0)


@pytest.mark.parametrize("size", [(37, 61), (16, 128), (300, 211)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)], ids=str)
def test_rows_are_enlarged_as_torch_enlarges_the_whole(
    size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    pixels = 2 * torch.rand(1, 3, 21, 17, dtype=dtype, generator=torch.Generator().manual_seed(1)) - 1
    expected = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)
    rows = enlarged_rows(pixels, ImageSize(width=size[1], height=size[0]), dtype=dtype)
    found = torch.cat([rows(top, min(top + 5, size[0])) for top in range(0, size[0], 5)])
    assert (found - expected[0].permute(1, 2, 0)).abs().max() < tolerance


def test_no_feature_file_is_left_in_the_temp_folder(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plan, runner = runner_of(tiny, LITTLE)
    picture = decode(plan, runner, random_latents(plan))
    assert picture is not None
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_has_a_limit_of_its_own_for_whole_pictures() -> None:
    gib = 1 << 30
    assert [whole_limit(room, "cuda") for room in (gib, 40 * gib)] == [gib, 2 * gib]
    assert [whole_limit(room, "cpu") for room in (gib, 40 * gib)] == [gib, 40 * gib]


def interrupted(topology: Topology, fields: dict[str, Any], folder: str, where: str) -> Any:
    """A stop within the stage ``where``, on the last rank only; then the render resumed.

    What was said, latents, pixels.
    """
    stages: list[str] = []
    steps: list[int] = []

    def listen(event: RenderEvent) -> None:
        if isinstance(event, StageStarted):
            stages.append(event.stage)
        elif isinstance(event, StepDone):
            steps.append(event.index)

    def stop() -> bool:
        return topology.rank == topology.world_size - 1 and stages[-1:] == [where]

    settings = ParallelSettings(**LITTLE)
    keep = CheckpointFolder(Path(folder), every=0, resume="never")
    with pytest.raises(Preempted) as stopped:
        render(
            Request(**fields),
            topology=topology,
            parallel=settings,
            checkpoints=keep,
            listen=listen,
            stop=stop,
        )
    done = len(steps)
    again = CheckpointFolder(Path(folder), every=0, resume="must")
    found = render(Request(**fields), topology=topology, parallel=settings, checkpoints=again, listen=listen)
    pixels = None if found.pixels is None else found.pixels.numpy()
    expected = sum(one.steps for one in found.plan.passes) if where == "endpoint" else 0
    assert len(steps) - done == expected, "steps that were done are not done again"
    return str(stopped.value), found.latents.numpy(), pixels


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("where", "doing"), [("endpoint", "encoded"), ("decode", "decoded")])
def test_a_stop_within_the_vae_keeps_the_steps_before_it(
    tiny: str, tmp_path: Path, ranks: int, where: str, doing: str
) -> None:
    fields = {**FIELDS, "model": tiny}
    latents, pixels, _ = rendered(Topology.alone(), fields, LITTLE)
    results = run_ranks(ranks, interrupted, fields, str(tmp_path), where)
    assert f"stopped while the picture was {doing}" in results[-1][0]
    for _, found, _ in results:
        assert np.abs(found - latents).max() < 1e-10
    assert np.abs(results[0][2] - pixels).max() < 1e-6
