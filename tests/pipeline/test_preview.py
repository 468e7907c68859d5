"""Previews show where a pass is going, at the size promised, the same on any number of ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from ranks import run_ranks
from tiny_flux import make_tiny_flux

from imax_dist.errors import BadValue
from imax_dist.events import Note, PreviewWritten, RenderEvent
from imax_dist.models.load import Loading, load
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.preview import LONGEST_SIDE, PARTS, PreviewFile, fit_colours
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request
from imax_dist.study.scenes.render import render as render_scene
from imax_dist.study.scenes.spec import sample_scene

FIELDS = dict(prompt="a red sun", size="160x96", dtype="float64")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model"))


def previews_of(topology: Topology, model: str, path: str, every: int) -> list[RenderEvent]:
    told: list[RenderEvent] = []
    request = Request(model=model, **FIELDS)
    render(request, topology=topology, listen=told.append, preview=PreviewFile(Path(path), every))
    return [event for event in told if isinstance(event, PreviewWritten | Note)]


def test_every_second_step_of_each_pass_has_a_preview(tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "sea.preview.jpg"
    told = previews_of(Topology.alone(torch.device("cpu")), tiny, str(path), 2)
    written = [(event.stage, event.index) for event in told if isinstance(event, PreviewWritten)]
    assert written == [("native", 2), ("extrapolated", 2), ("extrapolated", 4)]
    with Image.open(path) as picture:
        assert picture.size == (160, 96)


def test_four_ranks_write_the_preview_of_one(tiny: str, tmp_path: Path) -> None:
    pictures = []
    for ranks in (1, 4):
        path = tmp_path / f"{ranks}.jpg"
        told = run_ranks(ranks, previews_of, tiny, str(path), 2)
        assert [len(events) for events in told] == [3] + [0] * (ranks - 1)
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]


def test_the_map_gives_the_colours_that_the_vae_decodes() -> None:
    """On a drawn scene, not the kind of picture that the map is fitted on; of a range of 2."""
    model = load("embedded", Loading(torch.device("cpu"), None, "float32", (), False))
    scene = torch.from_numpy(render_scene(sample_scene(5), 256, 256)).float() / 255
    latents = model.encode_image(scene.permute(2, 0, 1)[None] * 2 - 1, noise=None)
    colours = fit_colours(model)(latents)
    decoded = F.adaptive_avg_pool2d(model.decode_image(latents), colours.shape[-2:])
    assert colours.shape[-1] == PARTS * 256 // model.spec.vae_factor
    assert float((colours - decoded).square().mean().sqrt()) < 0.2
    assert np.corrcoef(colours.flatten(), decoded.flatten())[0, 1] > 0.9


def test_an_unwritable_preview_is_reported_and_the_poster_goes_on(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    told = previews_of(Topology.alone(torch.device("cpu")), tiny, str(tmp_path / "file" / "p.jpg"), 2)
    assert [str(note.text).partition(":")[0] for note in told if isinstance(note, Note)] == ["no preview"] * 3


def test_a_preview_is_at_most_1024_px_a_side() -> None:
    assert LONGEST_SIDE == 1024


def test_no_steps_between_previews_are_refused() -> None:
    with pytest.raises(BadValue, match="a preview every 0 steps is not possible; give 1 or more"):
        PreviewFile(Path("p.jpg"), 0)
