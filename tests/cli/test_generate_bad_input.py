"""Bad input to ``imax generate``: one sentence, the right exit code, no traceback, nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from disks import without_root_rights
from tiny_flux import edit_json, make_tiny_flux

from imax_dist.cli import generate as module
from imax_dist.errors import BadConfig
from imax_dist.models import libraries

Imax = Callable[..., Any]


def check(outcome: Any, code: int, message: str) -> None:
    """One sentence on stderr that holds ``message``, nothing on stdout."""
    assert (outcome.code, outcome.out) == (code, "")
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("imax generate: ")
    assert message in lines[0]
    assert "internal error" not in lines[0]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


MISTAKES: list[tuple[list[str], int, str]] = [
    (["--model", "embeded"], 78, "model 'embeded' is not known; did you mean 'embedded'?"),
    (["--model", "/no/such/folder"], 66, "model folder /no/such/folder does not exist"),
    (["--preset", "imx"], 78, "preset 'imx' is not known; did you mean 'imax'?"),
    (["--set", "rope.rul=none"], 78, "unknown key 'rul'; did you mean 'rule'?"),
    (["--set", "rope.rule=nne"], 78, "rope.rule: 'nne' is not known; did you mean 'none'?"),
    (["--set", "guidance.schedule=papr"], 78, "'papr' is not known; did you mean 'paper'?"),
    (["--set", "rope"], 78, "--set 'rope' is not KEY=VALUE; write for example rope.rule=none"),
    (["--set", "rope.rule.x=1"], 78, "rule must be text, got {'x': 1}"),
    (["--set", "time_shift.native=-1"], 78, "shifts must be above 0, got native -1.0"),
    (["--set", "time_shift.native=.nan"], 78, "native must be a finite number, got nan"),
    (["--set", "rope.factor=0"], 78, "rope.factor must be above 0, got 0.0"),
    (["--size", "8x8"], 64, "the width is 8 px, but a side must be between 16 and 65536 px"),
    (["--size", "128x15"], 64, "the height is 15 px"),
    (["--size", "70000x64"], 64, "the width is 70000 px"),
    (["--size", "60000x60000"], 64, "size 60000x60000 has 3600 megapixels; at most 1000 are rendered"),
    (["--size", "large"], 64, "size 'large' is not WIDTHxHEIGHT in pixels; write for example 1024x1536"),
    (["--steps", "0"], 64, "steps 0 is outside 1 to 1000"),
    (["--native-steps", "100000"], 64, "native_steps 100000 is outside 1 to 1000"),
    (["--seed", "-1"], 64, "seed -1 is outside 0 to 9223372036854775807"),
    (["--dtype", "float8"], 78, "dtype 'float8' is not known; choose float64, float32, bfloat16, float16"),
    (["--ulysses", "2"], 78, "parallel: ulysses 2 x ring 1 needs 2 ranks, but 1 was started"),
    (["--ring", "3"], 78, "parallel: ulysses 1 x ring 3 needs 3 ranks, but 1 was started"),
    (["--ulysses", "0"], 78, "parallel: ulysses 0 and ring 1 must both be at least 1"),
    (["--parallel", "rng"], 78, "parallel 'rng' is not known; did you mean 'ring'?"),
    (["--device", "tpu"], 78, "device 'tpu' is not known; choose auto, cpu or cuda"),
    (["--resume", "must"], 66, "--resume must: there is no checkpoint in"),
    (["--parallel", "no.yaml"], 66, "parallel file no.yaml does not exist"),
    (["--preset", "no.yaml"], 66, "preset file no.yaml does not exist"),
    (["--recipe", "some.json"], 66, "recipe some.json does not exist"),
]


@pytest.mark.parametrize(("options", "code", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_sentence_and_its_exit_code(
    imax: Imax, tiny: Path, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    model = [] if "--model" in options else ["--model", tiny]
    out = tmp_path / "out" / "sea.png"
    check(imax("generate", "a red sun", "--out", out, "-q", *model, *options), code, message)
    assert files(tmp_path) == []


def test_a_prompt_is_needed(imax: Imax, tmp_path: Path) -> None:
    for prompt in ([], [""]):
        outcome = imax("generate", *prompt, "--out", tmp_path / "sea.png")
        check(outcome, 64, "no prompt was given; say what the poster shows, or give --recipe FILE")
    check(imax("generate", "  ", "--out", tmp_path / "sea.png"), 64, "the prompt is empty")
    check(imax("generate", "x" * 8001, "--out", tmp_path / "sea.png"), 64, "at most 8000 are read")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there_is_reported(imax: Imax, tmp_path: Path) -> None:
    outcome = imax("generate", "a red sun", "--device", "cuda", "--out", tmp_path / "sea.png")
    check(outcome, 78, "torch sees no CUDA device; use --device cpu")


def test_a_hub_id_without_network_says_so(
    imax: Imax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    outcome = imax("generate", "a red sun", "--model", "no-one/no-model", "--out", tmp_path / "sea.png", "-q")
    check(outcome, 66, "model no-one/no-model is not in the local cache and HF_HUB_OFFLINE is set")


def without_rope(folder: Path) -> None:
    edit_json(folder / "model_index.json", _class_name="PixArtSigmaPipeline")


def torn(folder: Path) -> None:
    path = folder / "transformer/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def wrong_settings(folder: Path) -> None:
    (folder / "imax.yaml").write_text("native_sid: 64\n")


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (without_rope, 64, "its transformer has no rotary positions, which the method scales"),
        (without_index, 66, "has no model_index.json; it is not in diffusers layout"),
        (torn, 66, "is not a readable .safetensors file: Error while deserializing header"),
        (wrong_settings, 78, "unknown key 'native_sid'; did you mean 'native_side'?"),
    ],
)
def test_a_model_that_does_not_fit_is_reported(
    imax: Imax, tmp_path: Path, damage: Callable[[Path], None], code: int, message: str
) -> None:
    model = make_tiny_flux(tmp_path / "model")
    damage(model)
    outcome = imax("generate", "a red sun", "--model", model, "--out", tmp_path / "out/sea.png", "-q")
    check(outcome, code, message)
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("{", 65, "holds no readable recipe"),
        ("[]", 65, "its top level is not an object"),
        ('{"format": "other"}', 65, "is not a recipe of this program (imax-recipe/1)"),
        ({"prompt": "a sun", "sede": 1}, 78, "unknown key 'sede'; did you mean 'seed'?"),
        ({"prompt": "a sun", "seed": -1}, 64, "seed -1 is outside 0 to"),
        ({"size": "64x64"}, 64, "the prompt is empty"),
    ],
)
def test_a_recipe_that_is_none_is_refused(
    imax: Imax, tmp_path: Path, content: str | dict[str, Any], code: int, message: str
) -> None:
    text = (
        content if isinstance(content, str) else json.dumps({"format": "imax-recipe/1", "request": content})
    )
    (tmp_path / "old.json").write_text(text)
    check(imax("generate", "--recipe", tmp_path / "old.json", "--out", tmp_path / "sea.png"), code, message)


@pytest.mark.parametrize("extra", [["a blue sun"], ["--seed", "3"], ["--set", "patch_shift=false"]])
def test_a_recipe_is_rendered_as_it_is(imax: Imax, tmp_path: Path, extra: list[str]) -> None:
    (tmp_path / "old.json").write_text('{"format": "imax-recipe/1", "request": {"prompt": "a sun"}}')
    outcome = imax("generate", *extra, "--recipe", tmp_path / "old.json", "--out", tmp_path / "sea.png")
    check(outcome, 64, "--recipe renders a recipe as it is; omit the prompt and its options")


def test_an_unknown_ending_or_a_folder_is_refused_before_any_work(imax: Imax, tmp_path: Path) -> None:
    outcome = imax("generate", "a red sun", "--out", tmp_path / "sea.bmp")
    check(outcome, 64, "sea.bmp: posters are written as")
    (tmp_path / "sea.png").mkdir()
    outcome = imax("generate", "a red sun", "--out", tmp_path / "sea.png")
    check(outcome, 64, "sea.png is a folder; give the name of a file")


def test_a_path_below_a_file_is_refused_before_any_work(imax: Imax, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = imax("generate", "a red sun", "--out", tmp_path / "file/sea.png")
    check(outcome, 73, "file is a file, and a folder is needed there; name another")


def test_a_folder_without_permission_is_refused_before_any_work(imax: Imax) -> None:
    with TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        locked = Path(outer) / "locked"
        locked.mkdir(mode=0o555)
        with without_root_rights():
            outcome = imax("generate", "a red sun", "--out", locked / "sea.png", "-q")
        check(outcome, 77, f"no permission for {locked}")
        assert files(locked) == []


@contextmanager
def files_may_not_grow(limit: int) -> Iterator[None]:
    """The kernel refuses to make any file larger, as on a full disk."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


@pytest.mark.parametrize(("every", "what"), [(0, "sea.png"), (1, "step-000001.safetensors")])
def test_a_disk_without_room_leaves_nothing(
    imax: Imax, tiny: Path, tmp_path: Path, every: int, what: str
) -> None:
    arguments = ("--model", tiny, "--size", "128x128", "--out", tmp_path / "sea.png", "-q")
    with files_may_not_grow(500):
        outcome = imax("generate", "a red sun", *arguments, "--checkpoint-every", every)
    check(outcome, 73, f"{what} cannot be written: ")
    assert "too large" in outcome.err
    assert files(tmp_path) == []


def test_a_full_disk_is_called_full(imax: Imax, tiny: Path, small_disk: Path) -> None:
    room = os.statvfs(small_disk)
    (small_disk / "other").write_bytes(bytes(room.f_bavail * room.f_frsize - (8 << 10)))
    arguments = ("--model", tiny, "--size", "128x128", "--out", small_disk / "sea.png", "-q")
    outcome = imax("generate", "a red sun", *arguments, "--checkpoint-every", 0)
    check(outcome, 73, "sea.png cannot be written: the disk is full")
    assert files(small_disk) == [small_disk / "other"]


def test_debug_adds_a_traceback_and_keeps_the_exit_code(imax: Imax, tmp_path: Path) -> None:
    outcome = imax("generate", "a red sun", "--preset", "imx", "--out", tmp_path / "sea.png", "--debug", "-q")
    assert outcome.code == 78
    assert outcome.err.startswith("Traceback (most recent call last)")
    assert BadConfig.__name__ in outcome.err
    assert outcome.err.splitlines()[-1].startswith("imax generate: preset 'imx' is not known")


def test_a_bug_is_called_one_and_shown_with_debug(
    imax: Imax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError("off by one")

    monkeypatch.setattr(module, "check_output", bug)
    arguments = ("generate", "a red sun", "--out", tmp_path / "sea.png")
    outcome = imax(*arguments)
    assert outcome.code == 70
    assert (
        outcome.err == "imax generate: internal error: ZeroDivisionError: off by one (--debug shows where)\n"
    )
    assert "in bug" in imax(*arguments, "--debug").err


def test_an_unreadable_model_file_is_reported(imax: Imax, tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "model"))
    (copy / "vae/config.json").write_bytes(b"\xff\xfe")
    outcome = imax("generate", "a red sun", "--model", copy, "--out", tmp_path / "out/sea.png", "-q")
    check(outcome, 78, "vae/config.json is not readable JSON")


@pytest.mark.parametrize("wrong", [("--model", "nosuch"), ("--set", "start.sigma=2")])
def test_a_mistake_is_told_before_the_networks_libraries_are_imported(
    imax: Imax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, str]
) -> None:
    def imported() -> None:
        raise AssertionError("too early")

    monkeypatch.setattr(libraries, "quiet_libraries", imported)
    outcome = imax("generate", "a red sun", *wrong, "--out", tmp_path / "sea.png", "-q")
    assert outcome.code in (66, 78)
    assert not list(tmp_path.iterdir())
