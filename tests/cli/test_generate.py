"""``imax generate``: one poster and its recipe; results on stdout, the rest on stderr."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imax_dist.cli import out_of_memory
from imax_dist.errors import OutOfMemory
from imax_dist.events import RenderEvent, StepDone
from imax_dist.output.image.png import read_pixels
from imax_dist.output.image.provenance import read_recipe
from imax_dist.pipeline.renderer import Renderer
from imax_dist.pipeline.request import Request

PROMPT = "a red sun over the sea with two white boats"
Imax = Callable[..., Any]


@pytest.fixture
def generate(imax: Imax, tiny: Path) -> Imax:
    """Render with the tiny model; the prompt is always the same."""

    def run(*options: object) -> Any:
        return imax("generate", PROMPT, "--model", tiny, *options)

    return run


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """One poster of 128 x 96, made once for the module."""
    from imax_dist import Request, render
    from imax_dist.output.image.poster import write_poster

    path = tmp_path_factory.mktemp("rendered") / "sea.png"
    rendering = render(Request(PROMPT, size="128x96", model=str(tiny), seed=5, preset="one_jump"))
    assert rendering.pixels is not None
    write_poster(path, rendering.pixels, rendering.recipe)
    return path


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_poster_and_its_recipe_are_all_that_is_left(generate: Imax, tmp_path: Path) -> None:
    outcome = generate("--size", "128x96", "--out", tmp_path / "new/folder/sea.png", "--checkpoint-every", 1)
    assert outcome.code == 0
    assert names(tmp_path / "new/folder") == ["sea.png", "sea.recipe.json"]
    assert read_pixels(tmp_path / "new/folder/sea.png").shape == (96, 128, 3)


def test_what_a_killed_run_left_beside_the_poster_goes(generate: Imax, tmp_path: Path) -> None:
    for name in (".sea-0123456789ab.png", ".sea.recipe-0123456789ab.json", ".sun-0123456789ab.png"):
        (tmp_path / name).write_bytes(b"half")
    assert generate("--size", "128x96", "--out", tmp_path / "sea.png").code == 0
    assert names(tmp_path) == [".sun-0123456789ab.png", "sea.png", "sea.recipe.json"]


def test_the_command_makes_the_file_that_python_makes(generate: Imax, rendered: Path, tmp_path: Path) -> None:
    generate("--size", "128x96", "--seed", 5, "--preset", "one_jump", "--out", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == rendered.read_bytes()


def test_stdout_has_the_result_and_stderr_the_stages(generate: Imax, tmp_path: Path) -> None:
    outcome = generate("--size", "128x96", "--out", tmp_path / "sea.png")
    assert outcome.out.count("\n") == 1
    assert outcome.out.startswith(f"{tmp_path / 'sea.png'}  128x96 (1.79x native 80x48)")
    stages = ["start up", "load model", "embed prompt", "native pass", "enlarge guidance", "target-size pass"]
    stages += ["decode", "write"]
    told = [line.strip().partition("  ")[0] for line in outcome.err.splitlines()]
    assert [stage for stage in told if stage != "join ranks"] == stages, "a line only if it took 5 ms"


def test_json_is_one_object_on_stdout_and_nothing_else(generate: Imax, tmp_path: Path) -> None:
    outcome = generate("--size", "128x96", "--out", tmp_path / "sea.png", "--json", "-v")
    result = json.loads(outcome.out)
    assert outcome.out.count("\n") == 1
    assert (result["out"], result["size"]) == (str(tmp_path / "sea.png"), "128x96")
    assert result["pixels_sha256"] == read_recipe(tmp_path / "sea.png")["pixels_sha256"]
    assert set(result["seconds"]) == {
        "start", "load", "join", "prompt", "native", "endpoint", "extrapolated", "decode", "write", "total",
    }  # fmt: skip
    parts = sum(result["seconds"].values()) - result["seconds"]["total"]
    assert 0.8 * result["seconds"]["total"] < parts <= result["seconds"]["total"]
    assert result["peak_memory_gib"]["host"] > 0.1


def test_stages_cover_a_guide_that_takes_long_to_read(
    generate: Imax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imax_dist.pipeline import guide

    def slow(*given: Any, **named: Any) -> Any:
        time.sleep(0.5)
        return read_guide(*given, **named)

    read_guide = guide.read_guide
    monkeypatch.setattr(guide, "read_guide", slow)
    Image.new("RGB", (80, 60), "orange").save(tmp_path / "photo.png")
    words = ("--size", "128x96", "--guide", tmp_path / "photo.png", "--out", tmp_path / "sea.png")
    outcome = generate(*words, "--json")
    seconds = json.loads(outcome.out)["seconds"]
    assert seconds["picture"] > 0.5
    assert "read picture" in outcome.err
    total = seconds.pop("total")
    assert 0 <= total - sum(seconds.values()) < 0.4, "the half second is in a stage"


def test_the_time_of_a_command_begins_with_its_process() -> None:
    program = (
        "import time; time.sleep(0.3); from imax_dist.cli.main import _process_age_s as age; print(age())"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.3 < float(done.stdout) < time.monotonic() - began + 0.1


def test_quiet_says_nothing_on_stderr(generate: Imax, tmp_path: Path) -> None:
    assert generate("--size", "64x64", "--out", tmp_path / "sea.png", "-q").err == ""


def test_an_old_name_of_a_preset_is_said_once(generate: Imax, tmp_path: Path) -> None:
    poster = ("--size", "64x64", "--preset", "imax_late")
    said = generate(*poster, "--count", 2, "--out", tmp_path / "sea.png").err
    assert said.count("imax_late is imax now; `--preset imax --set start.sigma=0.6` is close to what it") == 1
    assert generate(*poster, "--out", tmp_path / "quiet.png", "-q").err == ""


def test_verbose_prints_the_sigmas_and_every_step(generate: Imax, tmp_path: Path) -> None:
    outcome = generate("--size", "128x128", "--preset", "official", "--out", tmp_path / "sea.png", "-v")
    assert "native sigmas  1.0000 0.8571 0.6000 0.0000" in outcome.err
    assert "target sigmas  1.0000 0.9474 0.8571 0.6667 0.0000" in outcome.err
    assert "step   4/4  sigma 0.6667" in outcome.err
    assert "native sigmas" not in outcome.out


def test_at_native_size_there_are_no_target_sigmas(generate: Imax, tmp_path: Path) -> None:
    outcome = generate("--size", "64x48", "--out", tmp_path / "sea.png", "-v")
    assert "64x48 (native)" in outcome.out
    assert "native sigmas" in outcome.err
    assert "target sigmas" not in outcome.err


@pytest.mark.parametrize(("size", "shape"), [("90x75", (75, 90)), ("17x130", (130, 17)), ("16x16", (16, 16))])
def test_any_size_ends_in_exactly_that_size(
    generate: Imax, tmp_path: Path, size: str, shape: tuple[int, int]
) -> None:
    assert generate("--size", size, "--out", tmp_path / "sea.png").code == 0
    assert read_pixels(tmp_path / "sea.png").shape == (*shape, 3)


def test_without_options_it_is_poster_png_at_twice_native(
    generate: Imax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert generate().code == 0
    assert names(tmp_path) == ["poster.png", "poster.recipe.json"]
    assert read_pixels(tmp_path / "poster.png").shape == (128, 128, 3)


def test_another_seed_is_another_picture(generate: Imax, rendered: Path, tmp_path: Path) -> None:
    generate("--size", "128x96", "--seed", 6, "--preset", "one_jump", "--out", tmp_path / "other.png")
    assert not np.array_equal(read_pixels(tmp_path / "other.png"), read_pixels(rendered))


def test_set_changes_switches_of_the_preset(generate: Imax, tmp_path: Path) -> None:
    generate(
        "--size", "128x96", "--preset", "paper", "--out", tmp_path / "sea.png",
        "--set", "rope.rule=none", "--set", "rope.floor=true", "--set", "guidance_scale.extrapolated=3",
    )  # fmt: skip
    recipe = read_recipe(tmp_path / "sea.png")
    assert recipe["request"]["method"] == {
        "rope": {"rule": "none", "floor": True}, "guidance_scale": {"extrapolated": 3},
    }  # fmt: skip
    assert recipe["plan"]["method"]["rope"]["rule"] == "none"
    assert recipe["plan"]["method"]["guidance"]["projection"] == "gaussian"
    assert recipe["plan"]["guidance_scale"]["extrapolated"] == 3.0


@pytest.mark.parametrize("ending", [".png", ".recipe.json"])
def test_a_recipe_renders_the_same_file_again(
    imax: Imax, rendered: Path, tmp_path: Path, ending: str
) -> None:
    recipe = rendered.with_suffix(ending)
    outcome = imax("generate", "--recipe", recipe, "--trust-recipe", "--out", tmp_path / "again.png")
    assert outcome.code == 0
    assert "same bits as the recipe" in outcome.out
    assert (tmp_path / "again.png").read_bytes() == rendered.read_bytes()


def test_a_recipe_whose_bits_are_others_says_what_differs(imax: Imax, rendered: Path, tmp_path: Path) -> None:
    recipe = read_recipe(rendered)
    recipe["pixels_sha256"] = "0" * 64
    recipe["environment"]["torch"] = "1.0"
    (tmp_path / "old.json").write_text(json.dumps(recipe))

    words = ("generate", "--recipe", tmp_path / "old.json", "--trust-recipe", "--out", tmp_path / "again.png")
    outcome = imax(*words, "--json")

    result = json.loads(outcome.out)
    assert result["same_bits"] is False
    assert [line.split(" -> ")[0] for line in result["differences"]] == ["torch: 1.0"]
    shown = imax(*words)
    assert "NOT the bits of the recipe\n  torch: 1.0 -> " in shown.out


@pytest.fixture
def interrupted(tiny: Path, tmp_path: Path) -> Path:
    """``sea.png`` stopped after two steps of its target-size pass: checkpoints of both are there."""
    from imax_dist import Request, render
    from imax_dist.errors import Preempted
    from imax_dist.pipeline.checkpoint import CheckpointFolder

    steps: list[RenderEvent] = []
    folder = CheckpointFolder(tmp_path / "sea.checkpoints", every=1)
    with pytest.raises(Preempted, match=r"stopped after step 2 of 4 of the target-size pass"):
        render(
            Request(PROMPT, size="128x96", model=str(tiny), seed=5, preset="one_jump"),
            checkpoints=folder,
            listen=lambda event: steps.extend([event] * isinstance(event, StepDone)),
            stop=lambda: len(steps) >= 5,
        )
    return tmp_path / "sea.png"


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_an_interrupted_poster_goes_on_and_is_the_same_file(
    generate: Imax, interrupted: Path, rendered: Path, resume: str
) -> None:
    outcome = generate(
        "--size",
        "128x96",
        "--seed",
        5,
        "--preset",
        "one_jump",
        "--out",
        interrupted,
        "--resume",
        resume,
        "-v",
    )
    assert outcome.code == 0
    assert "resumed after step 2 of the target-size pass" in outcome.err
    assert outcome.err.count("step ") - outcome.err.count("after step ") == 2
    assert interrupted.read_bytes() == rendered.read_bytes()
    assert names(interrupted.parent) == ["sea.png", "sea.recipe.json"]


def test_never_starts_over(generate: Imax, interrupted: Path, rendered: Path) -> None:
    outcome = generate(
        "--size",
        "128x96",
        "--seed",
        5,
        "--preset",
        "one_jump",
        "--out",
        interrupted,
        "--resume",
        "never",
        "-v",
    )
    assert "resumed" not in outcome.err
    assert "step   1/4" in outcome.err
    assert interrupted.read_bytes() == rendered.read_bytes()


def test_a_torn_checkpoint_is_passed_over_with_a_note(
    generate: Imax, interrupted: Path, rendered: Path
) -> None:
    newest = interrupted.with_suffix(".checkpoints") / "step-100002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    outcome = generate("--size", "128x96", "--seed", 5, "--preset", "one_jump", "--out", interrupted)
    assert outcome.code == 0
    assert "not resumed: " in outcome.err
    assert "resumed after step 1 of the target-size pass" in outcome.err
    assert interrupted.read_bytes() == rendered.read_bytes()


def test_checkpoints_of_another_poster_are_passed_over_with_a_note(generate: Imax, interrupted: Path) -> None:
    outcome = generate("--size", "128x96", "--seed", 6, "--preset", "one_jump", "--out", interrupted)
    assert outcome.code == 0
    assert outcome.err.count("belongs to another poster or other settings; use --resume never") == 2
    assert "resumed after" not in outcome.err


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        ("none there", 66, r"--resume must: there is no checkpoint in "),
        ("another poster", 65, r"belongs to another poster or other settings"),
        ("torn", 65, r"cannot be read as a checkpoint"),
    ],
)
def test_must_fails_where_nothing_can_be_gone_on_from(
    generate: Imax, interrupted: Path, damage: str, code: int, message: str
) -> None:
    folder, seed = interrupted.with_suffix(".checkpoints"), 5
    if damage == "none there":
        shutil.rmtree(folder)
    elif damage == "torn":
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[:-9])
    else:
        seed = 6
    outcome = generate(
        "--size",
        "128x96",
        "--seed",
        seed,
        "--preset",
        "one_jump",
        "--out",
        interrupted,
        "--resume",
        "must",
        "-q",
    )
    assert outcome.code == code
    assert message in outcome.err
    assert not interrupted.exists()


def test_an_older_poster_stays_when_the_new_one_fails(generate: Imax, rendered: Path, tmp_path: Path) -> None:
    shutil.copy(rendered, tmp_path / "sea.png")
    assert generate("--out", tmp_path / "sea.png", "--set", "rope.factor=-1", "--overwrite").code == 78
    assert (tmp_path / "sea.png").read_bytes() == rendered.read_bytes()


def test_settings_of_your_own_are_taken_by_path(generate: Imax, tmp_path: Path) -> None:
    """As ``imax plan`` and a pool's settings take them."""
    preset, parallel = tmp_path / "mine.yaml", tmp_path / "ranks.yaml"
    preset.write_text("rope: {rule: none}\n", encoding="utf-8")
    parallel.write_text("engine: torch\nkernel: cpu\n", encoding="utf-8")
    out = tmp_path / "sea.png"
    outcome = generate("--size", "64x48", "--preset", preset, "--parallel", parallel, "--out", out)
    assert outcome.code == 0, outcome.err
    recipe = read_recipe(out)
    assert recipe["request"]["preset"] == str(preset)
    assert recipe["plan"]["method"]["rope"]["rule"] == "none"
    assert recipe["environment"]["kernel"] == "cpu"


def test_several_seeds_are_several_posters_of_one_load(
    generate: Imax, rendered: Path, tmp_path: Path
) -> None:
    outcome = generate(
        "--size",
        "128x96",
        "--seed",
        4,
        "--preset",
        "one_jump",
        "--count",
        2,
        "-o",
        tmp_path / "sea.png",
        "--json",
    )
    assert [json.loads(line)["out"] for line in outcome.out.splitlines()] == [
        str(tmp_path / "sea-4.png"),
        str(tmp_path / "sea-5.png"),
    ]
    assert (tmp_path / "sea-5.png").read_bytes() == rendered.read_bytes(), "as alone"
    assert outcome.err.count("load model") == 1


def test_the_poster_of_another_request_is_kept(generate: Imax, rendered: Path, tmp_path: Path) -> None:
    out = tmp_path / "sea.png"
    shutil.copy(rendered, out)
    before = out.read_bytes()
    other = ("--size", "128x96", "--seed", 6, "--preset", "one_jump", "--out", out)
    outcome = generate(*other)
    assert outcome.code == 64
    assert f"--out {out} holds another picture already; give another name, or --overwrite" in outcome.err
    assert out.read_bytes() == before
    assert generate("--size", "128x96", "--seed", 5, "--preset", "one_jump", "--out", out, "-q").code == 0, (
        "the same request may"
    )
    assert out.read_bytes() == before
    assert generate(*other, "--overwrite", "-q").code == 0
    assert out.read_bytes() != before
    out.write_bytes(b"not ours")
    assert generate(*other).code == 64
    assert out.read_bytes() == b"not ours"


def test_out_of_memory_looks_for_a_plan_of_the_poster_that_was_being_made(
    imax: Imax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def plan(request: Request, **_: object) -> str:
        asked.append(request.seed)
        return "start 2 ranks: there is room"

    def render(renderer: Renderer, request: Request, **_: object) -> SimpleNamespace:
        if request.seed == 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.20 GiB")
        return SimpleNamespace(picture=None)

    monkeypatch.setattr(out_of_memory, "smallest_plan", plan)
    monkeypatch.setattr(Renderer, "render", render)
    ended = imax("generate", "a red sun", "--seeds", "7,8,9", "--out", tmp_path / "sea.png", "-q")
    assert ended.code == OutOfMemory.exit_code
    assert "rank 0 of 1 ran out of memory (CUDA out of memory); start 2 ranks: there is room" in ended.err
    assert asked == [8]
