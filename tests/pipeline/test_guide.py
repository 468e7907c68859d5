"""A given picture in the native pass's place: read, recorded, refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from imax_dist.errors import BadManifest, BadValue, ImaxError, MissingInput, Preempted
from imax_dist.events import StepDone
from imax_dist.geometry import ImageSize
from imax_dist.output.image.guide import guide_hash, open_guide, placed, read_guide
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.proof import render_proof
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.recipe import differences
from imax_dist.pipeline.render import Rendering, render_with
from imax_dist.pipeline.request import Request

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
ALONE = Topology.alone()


def picture(path: Path, width: int, height: int, *, seed: int = 0, mode: str = "RGB") -> Path:
    """A smooth random picture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def render(tiny: Any, guide: Path | None, *, size: str = "128x128", **fields: Any) -> Rendering:
    ranks = join_ranks(ParallelSettings(), ALONE, heads=tiny.spec.heads)
    show = fields.pop("show_native", None)
    request = Request(PROMPT, size=size, model=tiny.spec.name, guide=str(guide) if guide else None, **fields)
    return render_with(tiny, ranks, request, show_native=show)


def read(path: Path, poster: str, rendered: str = "", **how: Any) -> np.ndarray:
    """The picture as it enters a poster."""
    size, whole = ImageSize.parse(poster), ImageSize.parse(rendered or poster)
    opened = open_guide(path)
    return read_guide(opened, placed(opened.bands.size, size, whole, fit=how.pop("fit", "crop")), **how)


@pytest.mark.parametrize("size", [(64, 48), (128, 96), (32, 24)])
def test_a_guide_of_the_posters_shape_is_used_as_it_is(tmp_path: Path, size: tuple[int, int]) -> None:
    path = picture(tmp_path / "guide.png", *size)
    assert np.array_equal((read(path, "128x96") * 255).round(), np.asarray(Image.open(path)))


def test_a_guide_larger_than_the_poster_is_made_smaller(tmp_path: Path) -> None:
    """Smooth pictures survive Lanczos: it is the one Pillow makes, to a level or two."""
    path = picture(tmp_path / "guide.png", 256, 192)
    theirs = np.asarray(Image.open(path).resize((128, 96), Image.Resampling.LANCZOS)) / 255
    assert np.abs(read(path, "128x96") - theirs).max() < 0.02


def test_crop_takes_the_middle_of_the_longer_side(tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(picture(tmp_path / "guide.png", 90, 60))) / 255
    assert np.abs(read(tmp_path / "guide.png", "120x120") - pixels[:, 15:75]).max() < 1e-6
    assert np.abs(read(tmp_path / "guide.png", "360x120") - pixels[15:45]).max() < 1e-6


def test_pad_keeps_all_of_it_and_shows_the_background(tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(picture(tmp_path / "guide.png", 90, 60))) / 255
    padded = read(tmp_path / "guide.png", "180x180", fit="pad", background="#336699")
    assert padded.shape == (90, 90, 3)
    assert np.abs(padded[15:75] - pixels).max() < 1e-6
    for part in (padded[:15], padded[75:]):
        assert np.abs(part - np.array([0x33, 0x66, 0x99]) / 255).max() < 1e-6


def test_exact_takes_the_posters_shape_alone(tmp_path: Path) -> None:
    path = picture(tmp_path / "guide.png", 90, 60)
    assert read(path, "180x120", fit="exact").shape == (60, 90, 3)
    with pytest.raises(BadValue, match=r"the picture is 90x60, but the poster 180x122, and fit is exact"):
        read(path, "180x122", fit="exact")


def test_what_is_rendered_beyond_the_poster_continues_the_edges(tmp_path: Path) -> None:
    """A poster of 100 x 60 is cut from the middle of 112 x 64: its own pixels stay where they belong."""
    pixels = np.asarray(Image.open(picture(tmp_path / "guide.png", 100, 60))) / 255
    whole = read(tmp_path / "guide.png", "100x60", "112x64")
    assert whole.shape == (64, 112, 3)
    assert np.abs(whole[2:62, 6:106] - pixels).max() < 1e-6
    assert np.abs(whole[2:62, :6] - pixels[:, :1]).max() < 1e-6
    assert np.array_equal(whole[0], whole[2])
    assert np.array_equal(whole[63], whole[61])


@pytest.mark.parametrize("fit", ["crop", "pad", "exact"])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (3000, 2000), (100, 37), (33, 500)])
def test_any_picture_fits_any_poster(size: tuple[int, int], fit: Any) -> None:
    """No stretching beyond a pixel, nothing larger than the poster renders."""
    poster = ImageSize(350, 248)
    rendered = poster.padded(16)
    if fit == "exact":
        with pytest.raises(BadValue, match="fit is exact"):
            placed(ImageSize(*size), poster, rendered, fit=fit)
        return
    place = placed(ImageSize(*size), poster, rendered, fit=fit)
    assert place.size.area <= rendered.area
    across, down = rendered.width / place.size.width, rendered.height / place.size.height
    assert abs(across / down - 1) < 1.1 / min(place.size.width, place.size.height)
    assert bool(place.sentence(poster))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda p: p.write_bytes(b"no picture"), BadManifest, r"is not a readable picture"),
        (lambda p: p.write_bytes(b""), BadManifest, r"is empty"),
        (lambda p: p, MissingInput, r"does not exist"),
    ],
    ids=["torn", "empty", "missing"],
)
def test_what_cannot_guide_is_refused(tmp_path: Path, make: Any, kind: type[ImaxError], message: str) -> None:
    path = tmp_path / "guide.png"
    make(path)
    with pytest.raises(kind, match=message):
        open_guide(path)


def test_there_is_no_native_pass_and_the_guide_is_the_reference(tiny: Any, tmp_path: Path) -> None:
    """cosine_shift with strength 1 at its first step, one step: the picture is the enlarged guide itself."""
    path = picture(tmp_path / "guide.png", 64, 64)
    method = {"guidance": {"schedule": "cosine_shift"}, "patch_shift": False}
    made = render(tiny, path, steps=1, method=method)
    pixels = torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32) / 255)
    enlarged = F.interpolate(2 * pixels.permute(2, 0, 1)[None] - 1, size=(128, 128), mode="bicubic")
    expected = tiny.encode_image(enlarged.clamp(-1, 1), noise=None)
    assert (made.latents - expected).abs().max() < 1e-5
    assert not torch.allclose(render(tiny, None, steps=1, method=method).latents, expected, atol=0.1)


def test_the_recipe_knows_the_guide_by_its_pixels(tiny: Any, tmp_path: Path) -> None:
    first = render(tiny, picture(tmp_path / "one.png", 64, 64))
    again = render(tiny, picture(tmp_path / "same.png", 64, 64))
    other = render(tiny, picture(tmp_path / "other.png", 64, 64, seed=1))
    assert first.recipe["plan"]["guide_sha256"] == guide_hash(read(tmp_path / "one.png", "128x128"))
    assert torch.equal(first.latents, again.latents)
    assert first.plan.fingerprint == again.plan.fingerprint != other.plan.fingerprint
    assert [text.split(":")[0] for text in differences(first.recipe, other.recipe)] == ["guide"]
    assert (first.latents - other.latents).abs().max() > 1e-3


def test_the_guide_is_shown_as_the_native_picture_would_be(tiny: Any, tmp_path: Path) -> None:
    shown: list[torch.Tensor] = []
    path = picture(tmp_path / "guide.png", 64, 64)
    render(tiny, path, steps=1, show_native=shown.append)
    assert np.array_equal((shown[0].numpy() * 255).round(), np.asarray(Image.open(path)))


@pytest.mark.parametrize("method", [{"reference": {"upsample": "latents"}}, {"cascade": [1.5]}])
def test_a_guide_goes_with_other_switches(tiny: Any, tmp_path: Path, method: dict[str, Any]) -> None:
    one, other = (picture(tmp_path / f"{seed}.png", 64, 64, seed=seed) for seed in (0, 1))
    first, second = (render(tiny, path, steps=2, method=method).latents for path in (one, other))
    assert (first - second).abs().max() > 1e-3


def test_the_proof_of_a_guided_poster_is_the_guide(tiny: Any, tmp_path: Path) -> None:
    path = picture(tmp_path / "guide.png", 64, 64)
    request = Request(PROMPT, size="128x128", model=tiny.spec.name, guide=str(path))
    shown: list[torch.Tensor] = []
    render_proof(tiny, request, checkpoints=CheckpointFolder(tmp_path / "checkpoints"), show=shown.append)
    assert np.array_equal((shown[0].numpy() * 255).round(), np.asarray(Image.open(path)))


def test_a_proof_whose_rank_died_before_its_picture_is_made_from_its_checkpoint(
    tiny: Any, tmp_path: Path
) -> None:
    """Also where the newest checkpoint was torn by the kill: then from the one before."""
    request = Request(PROMPT, size="128x128", model=tiny.spec.name, native_steps=4)
    folder = tmp_path / "checkpoints"

    def proof() -> tuple[Any, int]:
        steps: list[object] = []
        shown: list[torch.Tensor] = []
        checkpoints = CheckpointFolder(folder, every=1)

        def listen(event: object) -> None:
            steps.extend([event] * isinstance(event, StepDone))

        render_proof(tiny, request, checkpoints=checkpoints, show=shown.append, listen=listen)
        return shown[0], len(steps)

    (first, steps), (again, none) = proof(), proof()
    assert (steps, none) == (4, 0)
    assert torch.equal(first, again)
    newest = max(folder.glob("step-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:100])
    third, few = proof()
    assert 0 < few < 4
    assert torch.equal(first, third)


def test_plans_of_two_guides_differ_only_once_they_were_read(tiny: Any) -> None:
    plain = make_plan(Request(PROMPT, size="128x128", guide="a.png"), tiny.spec)
    assert plain.guide is None
    assert dataclasses.replace(plain, guide="0" * 64).fingerprint != plain.fingerprint


def test_what_was_done_to_a_guide_is_reported(tmp_path: Path) -> None:
    """A camera's picture, lying on its side with orientation 6; a viewer shows it upright."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (48, 64), "red").save(tmp_path / "guide.jpg", exif=exif)
    notes: list[str] = []
    assert read(tmp_path / "guide.jpg", "128x96", notify=notes.append).shape == (48, 64, 3)
    assert notes == ["the picture was turned upright, as its orientation (6) says"]


def test_a_stop_acts_while_the_picture_is_read(tiny: Any, tmp_path: Path) -> None:
    path = picture(tmp_path / "guide.png", 300, 900)
    ranks = join_ranks(ParallelSettings(), ALONE, heads=tiny.spec.heads)
    request = Request(PROMPT, model=tiny.spec.name, guide=str(path), scale=1)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(Preempted, match="stopped while the picture was read; run the same command again"):
        render_with(tiny, ranks, request, stop=stop)
    assert len(asked) == 3
