"""The picture does not depend on the number of ranks: final latents equal one process' to 1e-10."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_ranks
from tiny_flux import make_tiny_flux

from imax_dist.events import RenderEvent, StepDone
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.loading import load_requested
from imax_dist.pipeline.ranks import ParallelSettings, join_for
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
GUIDE = str(Path(__file__).parents[1] / "golden" / "guide.png")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model"))


def latents_of(
    topology: Topology, fields: dict[str, Any], parallel: dict[str, Any], folder: str | None = None
) -> np.ndarray:
    checkpoints = CheckpointFolder(Path(folder), every=1, resume="must") if folder else None
    rendering = render(
        Request(**fields), topology=topology, parallel=ParallelSettings(**parallel), checkpoints=checkpoints
    )
    assert (rendering.pixels is not None) == topology.is_first
    return rendering.latents.numpy()


SERIAL: dict[str, np.ndarray] = {}


def serial(fields: dict[str, Any]) -> np.ndarray:
    """The same poster by one process; each is rendered once for the module."""
    key = repr(fields)
    if key not in SERIAL:
        SERIAL[key] = run_ranks(1, latents_of, fields, {})[0]
    return SERIAL[key]


CASCADE = {
    "cascade": [2.0], "start": {"sigma": 0.8}, "reference": {"kind": "per_step", "acceleration": 1.0}
}  # fmt: skip
GRID: dict[str, Any] = {"size": "144x112", "seed": 2, "method": {"text": {"copies": "grid"}}}
"""Patch shift makes 8 x 8 and 9 x 9 token grids, text copies 28 tokens: nothing divides by 4 twice."""
WAY: dict[str, Any] = {"size": "160x144", "method": CASCADE}
"""By way of twice native; HiFlow's terms look back and at every step."""
SHARED: dict[str, Any] = {"size": "128x128", "method": {"text": {"copies": "shared"}}}
SEGA: dict[str, Any] = {"size": "144x112", "method": {"attention": "sega"}}
"""Its factors are read from the whole latents, never from a shard's."""
UPSCALE: dict[str, Any] = {"guide": GUIDE, "size": "150x200", "strength": 0.4, "fit": "pad"}
"""From 64 x 85 with its border, by way of twice that; no whole token."""
REDO: dict[str, Any] = {"guide": GUIDE, "region": "20,10,40,30", "strength": 0.8}
Case = tuple[dict[str, Any], dict[str, Any]]
"""A request's fields and how its ranks share the work."""


def on(meshes: list[tuple[int, int]], fields: dict[str, Any], *texts: str) -> dict[str, Case]:
    """The same poster on every mesh (ulysses, ring), with its text split or on every rank."""
    return {
        f"{fields['size']} u{ulysses}r{ring} {text}": (
            fields,
            {"ulysses": ulysses, "ring": ring, "text": text},
        )
        for ulysses, ring in meshes
        for text in texts or ("sharded",)
    }


CASES: dict[int, dict[str, Case]] = {
    2: {
        **on([(2, 1), (1, 2)], GRID, "sharded", "replicated"),
        **on([(2, 1)], WAY),
        "guided": ({"size": "128x128", "guide": GUIDE}, {}),
        "upscale": (UPSCALE, {}),
        "redo": (REDO, {}),
        "SEGA": (SEGA, {}),
        "native on all ranks": ({"size": "144x112"}, {"native": "shared"}),
    },
    4: {
        **on([(4, 1), (1, 4), (2, 2)], GRID, "sharded", "replicated"),
        **on([(2, 2)], WAY),
        **on([(2, 2)], SHARED),
        "upscale": (UPSCALE, {"ulysses": 2, "ring": 2}),
        "redo": (REDO, {"ulysses": 2, "ring": 2}),
        "native on all ranks": (WAY, {"ulysses": 2, "ring": 2, "native": "shared"}),
        "native poster on all ranks": ({"size": "64x64"}, {"native": "shared"}),
    },
}


def whole(tiny: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": PROMPT, "model": tiny, "dtype": "float64", **fields}


def render_all(topology: Topology, tiny: str) -> dict[str, np.ndarray | str]:
    """The latents, or the traceback, of every case of this world size, of a model that is loaded once."""
    found: dict[str, np.ndarray | str] = {}
    first = Request(**whole(tiny, GRID))
    encoders = topology.is_first
    model = load_requested(first, ParallelSettings(), device=topology.device, with_text_encoders=encoders)
    for name, (fields, parallel) in CASES[topology.world_size].items():
        try:
            ranks = join_for(model, ParallelSettings(**parallel), topology)
            rendering = render_with(model, ranks, Request(**whole(tiny, fields)))
            assert (rendering.pixels is not None) == topology.is_first
            found[name] = rendering.latents.numpy()
        except Exception:
            found[name] = traceback.format_exc()
    return found


@pytest.fixture(scope="module")
def rendered(tiny: str) -> Callable[[int], list[dict[str, np.ndarray | str]]]:
    """What every rank got, by world size; rendered once."""
    return cache(lambda world: run_ranks(world, render_all, tiny, timeout_s=200))


@pytest.mark.slow
@pytest.mark.parametrize(("world", "name"), [(world, name) for world in CASES for name in CASES[world]])
def test_a_whole_render_is_the_same_on_any_mesh(tiny: str, rendered: Any, world: int, name: str) -> None:
    """By a cascade, and from a guide, which rank 0 alone reads; every preset: tests/golden."""
    expected = serial(whole(tiny, CASES[world][name][0]))
    results = [own[name] for own in rendered(world)]
    for latents in results:
        assert not isinstance(latents, str), latents
        assert np.abs(latents - expected).max() < 1e-10
        assert np.array_equal(latents, results[0])


def test_factors_from_the_latents_change_the_picture(tiny: str) -> None:
    """Guards the guard."""
    assert np.abs(serial(whole(tiny, SEGA)) - serial(whole(tiny, SEGA | {"method": {}}))).max() > 1e-3


@pytest.mark.slow
def test_the_embedded_model_is_the_same_on_four_ranks() -> None:
    fields = dict(prompt=PROMPT, size="288x272", seed=3, dtype="float64", steps=2, native_steps=2)
    expected = serial(fields)
    for latents in run_ranks(4, latents_of, fields, dict(ulysses=2, ring=2)):
        assert np.abs(latents - expected).max() < 1e-10


def test_shared_text_copies_equal_literal_copies_at_one_place(tiny: str) -> None:
    """Four literal copies with the same ids and one that counts four times are the same function."""
    import torch

    from imax_dist.geometry import TokenGrid
    from imax_dist.method.rope import base_frequencies, rope_table
    from imax_dist.method.text_duplication import TextCopies
    from imax_dist.models.load import load_model
    from imax_dist.models.token_shards import TokenSequence
    from imax_dist.parallel.engines.torch import TorchEngine
    from imax_dist.parallel.mesh import single_rank

    model = load_model(tiny, device=torch.device("cpu"), dtype="float64")
    conditioning = model.encode_prompt(PROMPT, negative=False)
    grid = TokenGrid(height=4, width=6)
    x = torch.randn(1, 16, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    velocities = []
    for copies in (TextCopies(((0, 0),) * 4), TextCopies(((0, 0),), weight=4)):
        table = rope_table(
            model.position_ids(grid, copies, text_tokens=7),
            [base_frequencies(d, 1e4) for d in model.spec.rope_axes],
        )
        sequence = TokenSequence(single_rank(), TorchEngine(single_rank()), copies)
        velocities.append(
            model.velocity(
                x, 0.6, conditioning, tables=lambda _, own=table: own, sequence=sequence, guidance_scale=1.0
            ).velocity
        )
    assert (velocities[0] - velocities[1]).abs().max() < 1e-10


def interrupt_after(
    topology: Topology, fields: dict[str, Any], folder: str, step: int, native: Any = "rank0"
) -> str:
    """Render until ``step`` steps are done (both passes counted), then stop with a checkpoint."""
    from imax_dist.errors import Preempted

    seen = []

    def listen(event: RenderEvent) -> None:
        seen.extend([1] * isinstance(event, StepDone))

    checkpoints = CheckpointFolder(Path(folder), every=0, resume="never")
    try:
        render(
            Request(**fields),
            topology=topology,
            parallel=ParallelSettings(native=native),
            checkpoints=checkpoints,
            listen=listen,
            stop=lambda: len(seen) >= step,
        )
    except Preempted as error:
        return str(error)
    raise AssertionError("the render was not stopped")


@pytest.mark.parametrize("step", [5, 7], ids=["first_2", "last_1"])
def test_a_cascade_goes_on_in_both_of_its_passes_bit_for_bit(tiny: str, tmp_path: Path, step: int) -> None:
    """3 native steps, then those of the 4 of each pass that lie below sigma 0.8: 3 and 2."""
    fields = dict(prompt=PROMPT, size="160x144", model=tiny, dtype="float64", method=CASCADE)
    message = run_ranks(1, interrupt_after, fields, str(tmp_path), step)[0]
    name = "cascade pass 1" if step < 7 else "target-size pass"
    assert f"of the {name};" in message

    resumed = run_ranks(1, latents_of, fields, {}, str(tmp_path))[0]

    assert np.array_equal(resumed, serial(fields))


@pytest.mark.parametrize(
    "step", [1, 2, 4, 6], ids=["native_1", "native_2", "extrapolated_1", "extrapolated_3"]
)
@pytest.mark.parametrize("kind", ["constant", "per_step"])
def test_resumed_equals_uninterrupted_bit_for_bit(tiny: str, tmp_path: Path, step: int, kind: str) -> None:
    fields = dict(
        prompt=PROMPT, size="128x112", model=tiny, dtype="float64", preset="one_jump",
        method={"reference": {"kind": kind}},
    )  # fmt: skip
    run_ranks(1, interrupt_after, fields, str(tmp_path), step)
    assert len(os.listdir(tmp_path)) == 1

    resumed = run_ranks(1, latents_of, fields, {}, str(tmp_path))[0]

    assert np.array_equal(resumed, serial(fields))


def test_resumed_on_another_number_of_ranks_equals_uninterrupted(tiny: str, tmp_path: Path) -> None:
    fields = dict(prompt=PROMPT, size="128x112", model=tiny, dtype="float64", preset="one_jump")
    message = run_ranks(2, interrupt_after, fields, str(tmp_path), 5, timeout_s=60)[0]
    assert message.endswith("run the same command again to resume")
    for latents in run_ranks(4, latents_of, fields, dict(ulysses=2, ring=2), str(tmp_path)):
        assert np.abs(latents - serial(fields)).max() < 1e-10


@pytest.mark.slow
def test_a_native_pass_of_all_ranks_is_stopped_and_goes_on_with_one(tiny: str, tmp_path: Path) -> None:
    fields = dict(prompt=PROMPT, size="128x112", model=tiny, dtype="float64", preset="one_jump")
    messages = run_ranks(2, interrupt_after, fields, str(tmp_path), 2, "shared")
    assert ["of the native pass;" in message for message in messages] == [True, True]
    (alone,) = run_ranks(1, latents_of, fields, {}, str(tmp_path))
    assert np.abs(alone - serial(fields)).max() < 1e-10
