"""A finished poster: picture and recipe side by side, both or neither."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imax_dist.errors import CannotWrite
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.labels import hash_of
from imax_dist.output.image.pixels import to_eight_bit
from imax_dist.output.image.png import read_pixels
from imax_dist.output.image.poster import recipe_path, write_poster
from imax_dist.output.image.provenance import read_recipe

RECIPE: dict[str, Any] = {"format": "imax-recipe/1", "request": {"prompt": "a red sun"}}


def pixels(rng: torch.Generator) -> torch.Tensor:
    return torch.rand(18, 27, 3, generator=rng)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_picture_and_recipe_lie_side_by_side(tmp_path: Path, rng: torch.Generator) -> None:
    given = pixels(rng)
    complete = write_poster(tmp_path / "sea.png", given, RECIPE)
    assert names(tmp_path) == ["sea.png", "sea.recipe.json"]
    assert np.array_equal(read_pixels(tmp_path / "sea.png"), to_eight_bit(given))
    assert read_recipe(tmp_path / "sea.png") == complete
    assert json.loads((tmp_path / "sea.recipe.json").read_text(encoding="utf-8")) == complete
    assert complete == {**RECIPE, "pixels_sha256": hash_of(bands_of_array(to_eight_bit(given)))}


def test_words_that_look_like_labels_are_a_prompt(tmp_path: Path, rng: torch.Generator) -> None:
    false = "<a xmlns:i='urn:imax-dist:recipe:1/'><i:recipe>{}</i:recipe></a>"
    recipe = {"request": {"prompt": f"<?xpacket begin='' ?>{false}<?xpacket end='w'?>"}}
    complete = write_poster(tmp_path / "sea.png", pixels(rng), recipe)
    assert read_recipe(tmp_path / "sea.png") == complete


def test_print_files_beside_a_tiff_are_made_of_the_poster_and_not_of_it(
    tmp_path: Path, rng: torch.Generator
) -> None:
    complete = write_poster(tmp_path / "sea.tif", pixels(rng), {"request": {"output": {"jpg": {}}}})
    assert complete["file"]["kind"] == "tiff"
    assert "made_from" not in complete["files"]["sea.jpg"]
    assert "made_from" not in read_recipe(tmp_path / "sea.jpg")["file"]


def test_the_recipe_is_named_after_the_picture() -> None:
    assert recipe_path(Path("out/red.sea.png")) == Path("out/red.sea.recipe.json")


def test_without_a_recipe_there_is_no_picture(tmp_path: Path, rng: torch.Generator) -> None:
    (tmp_path / "sea.recipe.json").mkdir()
    with pytest.raises(CannotWrite, match=r"sea.recipe.json cannot be written"):
        write_poster(tmp_path / "sea.png", pixels(rng), RECIPE)
    assert names(tmp_path) == ["sea.recipe.json"]


def test_floats_are_rounded_to_the_nearest_byte_and_clipped() -> None:
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 0.5, 254.6 / 255, 1.0, 1.2, -0.1]).reshape(1, 8, 1)
    assert to_eight_bit(values.expand(1, 8, 3))[0, :, 0].tolist() == [0, 0, 1, 128, 255, 255, 255, 0]


def test_the_hash_of_pixels_is_that_of_size_and_bytes() -> None:
    image = (np.arange(16 * 20 * 3) % 251).astype(np.uint8).reshape(16, 20, 3)
    expected = hashlib.sha256(b"16x20x3 uint8\n" + image.tobytes()).hexdigest()
    assert hash_of(bands_of_array(image)) == expected


def test_the_hash_sees_shape_order_and_a_single_bit() -> None:
    image = (np.arange(16 * 20 * 3) % 251).astype(np.uint8).reshape(16, 20, 3)
    changed = image.copy()
    changed[1, 2, 0] ^= 1
    others = [changed, image.reshape(20, 16, 3), image[::-1], image[:, ::-1]]
    assert hash_of(bands_of_array(image)) not in {hash_of(bands_of_array(other)) for other in others}
    assert hash_of(bands_of_array(image[:, ::-1])) == hash_of(
        bands_of_array(np.ascontiguousarray(image[:, ::-1]))
    )
