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
from tiny_flux import make_tiny_flux

from imax_dist.errors import BadManifest, BadValue, ImaxError, MissingInput
from imax_dist.geometry import ImageSize
from imax_dist.models.load import load_model
from imax_dist.output.image.guide import guide_hash, read_guide
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")
    return load_model(str(folder), device=torch.device("cpu"), dtype="float32")


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


def test_a_guide_of_native_size_is_used_as_it_is(tmp_path: Path) -> None:
    path = picture(tmp_path / "guide.png", 64, 48)
    read = read_guide(path, ImageSize(64, 48), ImageSize(128, 96))
    assert np.array_equal((read * 255).round().astype(np.uint8), np.asarray(Image.open(path)))


@pytest.mark.parametrize("size", [(256, 192), (32, 24), (250, 192)])
def test_a_guide_of_another_size_is_brought_to_native(tmp_path: Path, size: tuple[int, int]) -> None:
    """Smooth pictures survive Lanczos: it is the one Pillow makes, to a level or two."""
    path = picture(tmp_path / "guide.png", *size)
    read = read_guide(path, ImageSize(64, 48), ImageSize(128, 96))
    theirs = np.asarray(Image.open(path).resize((64, 48), Image.Resampling.LANCZOS)) / 255
    assert read.shape == (48, 64, 3)
    assert np.abs(read - theirs).max() < 0.02


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda p: picture(p, 64, 60), BadValue, r"guide .* is 64x60, but the poster is 128x96: .* crop"),
        (lambda p: p.write_bytes(b"no picture"), BadManifest, r"is not a readable picture"),
        (lambda p: p, MissingInput, r"does not exist"),
    ],
    ids=["shape", "torn", "missing"],
)
def test_what_cannot_guide_is_refused(tmp_path: Path, make: Any, kind: type[ImaxError], message: str) -> None:
    path = tmp_path / "guide.png"
    make(path)
    with pytest.raises(kind, match=message):
        read_guide(path, ImageSize(64, 48), ImageSize(128, 96))


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
    read = read_guide(tmp_path / "one.png", ImageSize(64, 64), ImageSize(128, 128))
    assert first.recipe["plan"]["guide_sha256"] == guide_hash(read)
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
    proof = render_proof(tiny, request, checkpoints=CheckpointFolder(tmp_path / "checkpoints"))
    assert proof.pixels is not None
    assert np.array_equal((proof.pixels.numpy() * 255).round(), np.asarray(Image.open(path)))


def test_plans_of_two_guides_differ_only_once_they_were_read(tiny: Any) -> None:
    plain = make_plan(Request(PROMPT, size="128x128", guide="a.png"), tiny.spec)
    assert plain.guide is None
    assert dataclasses.replace(plain, guide="0" * 64).fingerprint != plain.fingerprint


def test_what_was_done_to_a_guide_is_told(tmp_path: Path) -> None:
    """A camera's picture, lying on its side with orientation 6; a viewer shows it upright."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (48, 64), "red").save(tmp_path / "guide.jpg", exif=exif)
    told: list[str] = []
    read = read_guide(tmp_path / "guide.jpg", ImageSize(64, 48), ImageSize(128, 96), tell=told.append)
    assert read.shape == (48, 64, 3)
    assert [text.partition("guide.jpg: ")[2] for text in told] == [
        "the picture was turned upright, as its orientation (6) says"
    ]
