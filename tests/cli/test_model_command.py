"""``imax model``: the list, what is wrong with a folder or a hub id in one sentence, and tiny pipelines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from imax_dist.cli.model import _free_memory
from imax_dist.config import load_named, named_configs
from imax_dist.models.registry import ARCHITECTURES
from imax_dist.models.tiny import EDITORS, TINY, make_tiny
from imax_dist.models.weights import pipeline_class

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("flux-schnell", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def test_the_list_holds_every_named_model_and_what_it_needs(imax: Any) -> None:
    outcome = imax("model", "list", "--json")
    rows = {row["name"]: row for row in json.loads(outcome.out)}
    assert set(rows) == set(named_configs("models"))
    assert all(row["licence"] and row["native_px"] > 0 for row in rows.values())
    assert (rows["embedded"]["present"], rows["flux-dev"]["gated"]) == (True, True)
    assert rows["flux-dev"]["memory_gb"] == 24.0
    assert rows["flux-dev"]["needs_gb"] > 2 * 24.0, "float32 on a CPU, and a poster"
    assert rows["flux-kontext"]["needs_gb"] == rows["flux-dev"]["needs_gb"]
    assert rows["krea-2"]["needs_gb"] is None, "its cost is not known without its weights"
    assert rows["embedded"]["runs"]
    heading, *lines = imax("model", "list").out.splitlines()
    licences = {line.index(rows[line.split()[0]]["licence"]) for line in lines[: len(rows)]}
    assert licences == {heading.index("licence")}, "one column"


def in_the_hub(repository: str, file: Path, *more: Path, folder: Path) -> Path:
    """A repository of the hub's cache with ``file`` at its root, and ``more`` beside it."""
    snapshot = folder / f"hub/models--{repository.replace('/', '--')}/snapshots/0123"
    snapshot.mkdir(parents=True)
    for each in (file, *more):
        shutil.copy(each, snapshot)
    return snapshot / file.name


@pytest.fixture
def listed(
    imax: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], dict[str, dict[str, str]]]:
    """What ``imax model list`` says of files, by name; the tiny pipeline is there for their other parts."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IMAX_MODELS", str(tiny.parent))

    def ask() -> dict[str, dict[str, str]]:
        rows = json.loads(imax("model", "list", "--json").out)
        return {row["file"]: row for row in rows if "file" in row}

    return ask


def test_a_single_file_in_the_hubs_cache_is_listed_and_whether_it_fits(
    listed: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, config = tiny / WEIGHTS, tiny / "transformer/config.json"
    file = str(in_the_hub("some/one", net, config, folder=tmp_path))
    monkeypatch.setattr("imax_dist.cli.model._free_here", lambda: 64e9)
    row = listed()[file]
    assert row["is"].startswith("the transformer of FLUX.1-schnell, ")
    assert row["runs"].startswith("runs here (")
    assert " GB for twice native size, 64.0 GB free here)" in row["runs"]
    monkeypatch.setattr("imax_dist.cli.model._free_here", lambda: 1.0)
    assert listed()[file]["runs"].startswith("too large for this machine (")
    monkeypatch.delenv("IMAX_MODELS")
    assert listed()[file]["runs"] == "lacks vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2"


def test_the_cache_of_files_that_were_read_counts_as_free(tmp_path: Path) -> None:
    """As in MemAvailable; MemFree was .8 of 20 GB on a machine that had read much."""
    (tmp_path / "read").write_bytes(bytes(256 << 20))
    found = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    free = _free_memory()
    assert free == pytest.approx(1024 * int(found["MemAvailable:"]), rel=0.1)
    assert free > 1024 * int(found["MemFree:"])


def test_a_file_in_the_hubs_cache_that_cannot_be_used_says_why(
    listed: Any, tiny: Path, tmp_path: Path
) -> None:
    file = in_the_hub("some/one", tiny / WEIGHTS, tiny / "transformer/config.json", folder=tmp_path)
    tensors = load_file(file)
    tensors["proj_out.weight"] = tensors["proj_out.weight"][1:].contiguous()
    save_file(tensors, file)
    row = listed()[str(file)]
    assert row["is"] == "not usable"
    assert "1 tensor of another shape: proj_out.weight is (" in row["runs"]


def test_what_is_no_transformer_or_in_diffusers_layout_is_not_listed(
    listed: Any, tiny: Path, tmp_path: Path
) -> None:
    in_the_hub("some/vae", tiny / "vae/diffusion_pytorch_model.safetensors", folder=tmp_path)
    in_the_hub("some/folder", tiny / WEIGHTS, tiny / "model_index.json", folder=tmp_path)
    assert listed() == {}


def test_every_architecture_has_a_tiny_pipeline_under_a_megabyte(tmp_path: Path) -> None:
    """But HunyuanImage: diffusers fixes the projection of its letters at 2048 wide."""
    kinds = set()
    for name in (*TINY, *EDITORS):
        folder = make_tiny(name, tmp_path / name)
        files = [file for file in folder.rglob("*") if file.is_file()]
        most = 11_000_000 if name.startswith("hunyuan-image") else 1_000_000
        assert sum(file.stat().st_size for file in files) < most, name
        kinds.add(pipeline_class(folder))
    assert kinds == set(ARCHITECTURES)
    assert {*TINY, *EDITORS} <= set(named_configs("models"))


def test_check_shows_the_numbers_and_loads(imax: Any, tiny: Path) -> None:
    numbers = json.loads(imax("model", "check", tiny, "--json").out)
    assert (numbers["native_px"], numbers["vae_factor"], numbers["patch"]) == (64, 8, 2)
    assert (numbers["loaded"], numbers["attention_heads"]) == (True, "4 x 8")
    assert json.loads(imax("model", "check", tiny, "--json", "--no-load").out)["loaded"] is False


def test_make_tiny_says_how_to_use_it_and_never_writes_into_a_folder_in_use(
    imax: Any, tmp_path: Path
) -> None:
    outcome = imax("model", "make-tiny", "flux-schnell", tmp_path / "new")
    assert (outcome.code, "imax generate" in outcome.out) == (0, True)
    again = imax("model", "make-tiny", "flux-schnell", tmp_path / "new")
    assert (again.code, "is not empty; give a new folder" in again.err) == (64, True)
    unknown = imax("model", "make-tiny", "flux-pro", tmp_path / "other")
    assert (unknown.code, "there is no tiny pipeline of 'flux-pro'; choose flux-dev" in unknown.err) == (
        64,
        True,
    )
    assert not (tmp_path / "other").exists()


def test_a_missing_shard_or_a_torn_file_is_named(imax: Any, copy: Path) -> None:
    index = {
        "weight_map": {
            "a": "diffusion-00001-of-00002.safetensors",
            "b": "diffusion-00002-of-00002.safetensors",
        }
    }
    (copy / "transformer/diffusion.safetensors.index.json").write_text(json.dumps(index))
    outcome = imax("model", "check", copy)
    assert outcome.code == 66
    assert "transformer: 2 of 2 weight files are missing, first diffusion-00001-of-00002" in outcome.err
    (copy / "transformer/diffusion.safetensors.index.json").unlink()
    (copy / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    outcome = imax("model", "check", copy)
    assert (outcome.code, "vae/diffusion_pytorch_model.safetensors does not open" in outcome.err) == (
        66,
        True,
    )


@pytest.mark.parametrize(("key", "said", "found"), [("vae_factor", 16, 8), ("patch", 1, 2)])
def test_a_model_that_is_not_what_its_settings_say_is_refused_with_numbers(
    imax: Any, copy: Path, key: str, said: int, found: int
) -> None:
    with (copy / "imax.yaml").open("a") as settings:
        settings.write(f"{key}: {said}\n")
    outcome = imax("model", "check", copy)
    assert outcome.code == 78
    assert f"its settings say {key} {said}, but its files make it {found}" in outcome.err


def test_a_pipeline_of_another_class_is_refused_with_the_known_ones(imax: Any, copy: Path) -> None:
    (copy / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    outcome = imax("model", "check", copy)
    assert outcome.code == 64
    assert "is a KandinskyPipeline; supported: FluxPipeline, FluxKontextPipeline" in outcome.err


def test_settings_of_models_with_a_pinned_layout_say_it() -> None:
    """Every model but ours states its VAE factor and packing, so that another file is refused."""
    for name in TINY:
        assert {"vae_factor", "patch"} <= set(load_named("models", name)), name


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: a repository is gated, has no such revision, or is not there."""

    def do_GET(self) -> None:
        codes = {"gated": (403, "GatedRepo"), "revision": (404, "RevisionNotFound")}
        kind = next((kind for kind in codes if f"some/{kind}" in self.path), "")
        status, code = codes.get(kind, (404, "RepoNotFound"))
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


ASK = """
import sys
from imax_dist.errors import ImaxError
from imax_dist.models.find import _download
for source, revision in (("some/gated", None), ("some/revision", "v9"), ("some/nothing", None)):
    try:
        _download(source, revision, ())
    except ImaxError as error:
        print(error.exit_code, error)
"""


def test_gated_models_wrong_revisions_and_unknown_ids_are_one_sentence_each(hub: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    gated, revision, unknown = done.stdout.splitlines()
    assert gated.startswith("77 model some/gated is gated: accept its licence on its page, then set HF_TOKEN")
    assert revision.startswith("66 model some/revision has no revision 'v9'; omit it, or give a branch")
    assert unknown.startswith("66 model some/nothing was not found on the hub; check the spelling")
