"""Damaged recipes, alone and in files, up to the moment `imax generate --recipe` would begin to render."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest
from fuzzing import JSON_VALUES, LONGEST_S, MOST_KIB, damaged, other_value, peak_kib, rounds
from pictures import picture

from imax_dist.cli.main import build_parser
from imax_dist.cli.poster_request import recipe_of, wanted
from imax_dist.errors import ImaxError
from imax_dist.output.image.finish import finish
from imax_dist.output.image.settings import FinishSettings
from imax_dist.output.image.verify import verify
from imax_dist.pipeline.recipe import differences

LONGEST_SENTENCE = 4_000
FULL = {
    "prompt": "a red sun", "size": "64x48", "seed": 3, "steps": 4, "preset": "paper", "dtype": "float32",
    "method": {"rope": {"rule": "none"}}, "output": {"pdf": {"paper": "A6", "crop_marks": True}},
}  # fmt: skip
PLAN = {"method": {"rope": {"rule": "none", "floor": True}}, "guide_sha256": None, "sigmas": [1.0, 0.5, 0.0]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A recipe as JSON and in a PNG, TIFF, JPEG and PDF."""
    folder = tmp_path_factory.mktemp("recipes")
    made = picture(48, 64, **FULL)
    assert made.recipe is not None
    made.recipe.update(plan=PLAN, environment={"torch": "2"}, model={"weights_sha256": "a", "loras": []})
    for kind in ("png", "tif", "jpg", "pdf"):
        finish(made, folder / f"sea.{kind}", FinishSettings())
    (folder / "sea.json").write_text(json.dumps(made.recipe))
    return sorted(folder.iterdir())


def changed(source: Path, rng: random.Random) -> bytes:
    content = source.read_bytes()
    if source.suffix == ".json" and rng.random() < 0.8:
        if rng.random() < 0.1:
            return rng.choice(JSON_VALUES).encode()
        text = content.decode()
        for _ in range(rng.randint(1, 3)):
            text = other_value(text, rng)
        return text.encode()
    return damaged(content, rng)


def use(path: Path, rng: random.Random) -> bool:
    """All that ``--recipe`` and ``verify`` do with it but to render; whether it could be rendered."""
    options = ["generate", "--recipe", str(path), "--out", str(path.with_name("again.png"))]
    parsed = build_parser().parse_args([*options, *(["--trust-recipe"] if rng.random() < 0.5 else [])])
    with suppress(ImaxError):
        verify(path if path.suffix != ".json" else path.with_name("none.png"), recipe_file=path)
    try:
        recipe = recipe_of(parsed.recipe)
        wanted(parsed, recipe)
        assert recipe is not None
        now = {"environment": {"torch": "3"}, "model": {"weights_sha256": "b"}}
        assert all(isinstance(line, str) for line in differences(recipe, now))
    except ImaxError as error:
        if not 0 < len(str(error).strip()) < LONGEST_SENTENCE:
            raise ValueError(f"not a sentence: {str(error)[:500]!r}") from error
        return False
    return True


@pytest.mark.slow
def test_no_mutated_recipe_is_more_than_one_sentence(sources: list[Path], tmp_path: Path) -> None:
    before, taken, number = peak_kib(), 0, 0
    for number, rng in rounds(200):
        source = rng.choice(sources)
        path = tmp_path / source.name
        path.write_bytes(changed(source, rng))
        started = time.monotonic()
        try:
            taken += use(path, rng)
        except Exception as error:
            raise AssertionError(f"mutation {number} of {source.name}: {error!r}") from error
        where = f"mutation {number} of {source.name}"
        assert time.monotonic() - started < LONGEST_S, where
        assert peak_kib() - before < MOST_KIB, where
    print(f"{number + 1} recipes, {taken} of them still taken, {(peak_kib() - before) >> 10} MiB")
    assert 0 < taken < number
