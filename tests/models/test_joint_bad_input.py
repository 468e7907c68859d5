"""What the folders of each architecture cannot be is refused before weights are read, with numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from imax_dist.errors import BadConfig, BadValue, ImaxError
from imax_dist.models.load import describe_model
from imax_dist.models.tiny import make_tiny
from imax_dist.models.tiny.text import clip_tokenizer
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.request import Request

REFUSED: list[tuple[str, str, dict[str, Any], type[ImaxError], str]] = [
    (
        "qwen-image", "transformer", {"zero_cond_t": True}, BadValue,
        "its transformer has zero_cond_t set, which text-to-image Qwen-Image does not have; use Qwen",
    ),
    (
        "qwen-image", "transformer", {"in_channels": 64}, BadConfig,
        "the transformer takes 64 channels, but 2 x 2 patches of the VAE's 4 channels make 16",
    ),
    (
        "qwen-image", "transformer", {"axes_dims_rope": [2, 4, 4]}, BadConfig,
        "position axes (2, 4, 4) do not add up to head_dim 12",
    ),
    (
        "z-image-turbo", "transformer", {"siglip_feat_dim": 1152}, BadValue,
        "its transformer reads pictures (siglip_feat_dim 1152), as Z-Image-Omni does",
    ),
    (
        "z-image-turbo", "transformer", {"all_patch_size": [4]}, BadConfig,
        "takes 4 channels in patches of [4], but the VAE has 4 channels and a token is 2 x 2 of them",
    ),
    (
        "flux2-klein", "text_encoder", {"num_hidden_layers": 6}, BadConfig,
        "the text encoder has 6 layers, but FLUX.2 reads it a quarter, half and three quarters up",
    ),
    (
        "flux2-klein", "transformer", {"axes_dims_rope": [4, 6, 6]}, BadConfig,
        "its position axes are (4, 6, 6), but FLUX.2 has 4: time, row, column and place in the prompt",
    ),
    (
        "sd3.5-medium", "transformer", {"patch_size": 1}, BadConfig,
        "takes 4 channels in patches of [1], but the VAE has 4 channels and a token is 2 x 2 of them",
    ),
    (
        "lumina-next", "vae", {"latent_channels": 16}, BadConfig,
        "takes 4 channels in patches of [2], but the VAE has 16 channels and a token is 2 x 2 of them",
    ),
    (
        "lumina-image-2", "vae", {"latent_channels": 16}, BadConfig,
        "takes 4 channels in patches of [2], but the VAE has 16 channels and a token is 2 x 2 of them",
    ),
    (
        "flux2-klein", "vae", {"latent_channels": 32}, BadConfig,
        "the transformer takes 16 channels, but 2 x 2 patches of the VAE's 32 channels make 128",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("tiny")
    return {name: make_tiny(name, home / name) for name in sorted({case[0] for case in REFUSED})}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[0]}-{next(iter(case[2]))}")
def test_what_the_architecture_cannot_have_is_refused_with_names_and_numbers(
    case: tuple[str, str, dict[str, Any], type[ImaxError], str], folders: dict[str, Path]
) -> None:
    name, component, changes, error, message = case
    config = folders[name] / component / "config.json"
    original = config.read_text()
    config.write_text(json.dumps({**json.loads(original), **changes}))
    try:
        with pytest.raises(error, match=re.escape(message)):
            describe_model(str(folders[name]))
    finally:
        config.write_text(original)


def planned(folder: Path, size: str, **method: Any) -> PosterPlan:
    return make_plan(Request("a red sun", size=size, method=method), describe_model(str(folder)))


def test_absolute_positions_end_where_the_table_ends(folders: dict[str, Path]) -> None:
    """24 tokens of 16 px; a shifted step needs one more."""
    folder = folders["sd3.5-medium"]
    assert planned(folder, "368x368").method.rope.rule == "none"
    planned(folder, "384x384", patch_shift=False)
    limit = r"positions for 24 tokens a side, but this size needs 25, one of them for patch_shift; .* 368 px"
    with pytest.raises(BadValue, match=limit):
        planned(folder, "384x384")
    with pytest.raises(BadValue, match=r"size 400x64: .* needs 25; its sides end at 384 px"):
        planned(folder, "400x64", patch_shift=False)


def test_a_rope_rule_or_copies_at_places_asked_of_absolute_positions_are_refused(
    folders: dict[str, Path],
) -> None:
    with pytest.raises(BadConfig, match=r"has absolute positions, no RoPE to scale; omit rope.rule"):
        planned(folders["sd3.5-medium"], "128x128", rope={"rule": "ntk"})
    with pytest.raises(BadConfig, match=r"has no positions to place copies at; omit text.copies"):
        planned(folders["sd3.5-medium"], "128x128", text={"copies": "grid"})
    assert planned(folders["sd3.5-medium"], "128x128", text={"copies": "shared"}).last.copies.weight == 4


@pytest.mark.parametrize("name", sorted({case[0] for case in REFUSED}))
def test_a_tiny_pipeline_is_below_a_megabyte(name: str, folders: dict[str, Path]) -> None:
    assert sum(path.stat().st_size for path in folders[name].rglob("*") if path.is_file()) < 1_000_000


def test_tiny_tokenizers_have_the_same_ids_in_every_process() -> None:
    """The trainer numbers letters by chance, so the ids are pinned."""
    ids = clip_tokenizer()("a red zebra").input_ids
    assert ids == [0, 28, 166, 77, 35, 29, 61, 28, 1]
