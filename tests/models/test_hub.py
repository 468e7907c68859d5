"""Models from the hub, by huggingface_hub's own client against a local server that speaks its protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, Hub, serving

from imax_dist.models.tiny import make_tiny

pytestmark = pytest.mark.slow
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
ASK = """
import json, sys
from imax_dist.errors import ImaxError
from imax_dist.models import find
for source, revision in json.loads(sys.argv[1]):
    try:
        print(json.dumps({"folder": str(find.model_folder(source, revision))}))
    except ImaxError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two revisions of a tiny pipeline, with a second copy of weights at the top, as FLUX.1's have."""
    root = tmp_path_factory.mktemp("hub")
    first = make_tiny("flux-schnell", root / "first")
    (first / "flux1-schnell.safetensors").write_bytes(b"a second copy")
    second = Path(shutil.copytree(first, root / "second"))
    (second / "imax.yaml").write_text((first / "imax.yaml").read_text() + "# later\n")
    return {"main": first, "v2": second}


@pytest.fixture
def hub(models: dict[str, Path]) -> Iterator[Hub]:
    with serving(Hub({"ours/tiny": dict(models)})) as one:
        yield one


def ask(hub: Hub, home: Path, *wanted: tuple[str, str | None], **environment: str) -> list[dict[str, Any]]:
    """What a process of its own finds for every (source, revision), its cache in ``home``."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(wanted)],
        env={**inherited, **own}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_model_comes_whole_by_revision_and_without_what_nothing_reads(
    hub: Hub, models: dict[str, Path], tmp_path: Path
) -> None:
    main, tagged = ask(hub, tmp_path, ("ours/tiny", None), ("ours/tiny", "v2"))
    for found, revision in ((main, "main"), (tagged, "v2")):
        folder = Path(found["folder"])
        assert folder.name == hub.sha("ours/tiny", revision)
        for file in models[revision].rglob("*"):
            copy = folder / file.relative_to(models[revision])
            if file.is_file() and file.name != "flux1-schnell.safetensors":
                assert copy.read_bytes() == file.read_bytes()
        assert not (folder / "flux1-schnell.safetensors").exists()
    assert not [path for _, path, _ in hub.asked if path.endswith("flux1-schnell.safetensors")]
    hub.down = True
    (again,) = ask(hub, tmp_path, ("ours/tiny", None))
    assert again == main, "what is in the cache needs no hub"


def test_what_the_hub_refuses_is_one_sentence_each(hub: Hub, tmp_path: Path) -> None:
    hub.gated.add("ours/tiny")
    gated, nowhere = ask(hub, tmp_path / "a", ("ours/tiny", None), ("ours/nothing", None))
    assert (gated["error"], nowhere["error"]) == ("NoPermission", "MissingInput")
    assert gated["message"] == (
        "model ours/tiny is gated: accept its licence on its page, then set HF_TOKEN or run hf auth login"
    )
    assert nowhere["message"] == "model ours/nothing was not found on the hub; check the spelling"
    allowed, unknown = ask(hub, tmp_path / "b", ("ours/tiny", None), ("ours/tiny", "v9"), HF_TOKEN=TOKEN)
    assert "folder" in allowed
    assert unknown["message"] == (
        "model ours/tiny has no revision 'v9'; omit it, or give a branch, tag or commit"
    )


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """In pieces of 10 MiB, as the client writes them."""
    piece = 10 << 20
    folder = tmp_path / "big"
    (folder / "transformer").mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(os.urandom(1 << 20) * 24)
    with serving(Hub({"ours/big": {"main": folder}}, cut={WEIGHTS: 15 << 20})) as hub:
        (found,) = ask(hub, tmp_path / "home", ("ours/big", None))
    assert "folder" in found, found
    assert (Path(found["folder"]) / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    parts = [part for method, path, part in hub.asked if method == "GET" and path.endswith(WEIGHTS)]
    assert parts == [None, f"bytes={piece}-"]


def test_a_download_that_cannot_end_is_named_and_ends_the_next_time(
    hub: Hub, models: dict[str, Path], tmp_path: Path
) -> None:
    hub.cut[WEIGHTS] = 0
    (broken,) = ask(hub, tmp_path, ("ours/tiny", None))
    assert broken["error"] == "MissingInput"
    assert "the download of model ours/tiny was interrupted" in broken["message"]
    assert "run the same command again: it resumes where it stopped" in broken["message"]
    (offline,) = ask(hub, tmp_path, ("ours/tiny", None), HF_HUB_OFFLINE="1")
    assert offline["error"] == "MissingInput", "a part is not a model"
    del hub.cut[WEIGHTS]
    (found,) = ask(hub, tmp_path, ("ours/tiny", None))
    assert (Path(found["folder"]) / WEIGHTS).read_bytes() == (models["main"] / WEIGHTS).read_bytes()


def test_offline_takes_what_is_there_and_names_what_is_not(hub: Hub, tmp_path: Path) -> None:
    (online,) = ask(hub, tmp_path, ("ours/tiny", None))
    before = len(hub.asked)
    found, missing = ask(hub, tmp_path, ("ours/tiny", None), ("ours/other", None), HF_HUB_OFFLINE="1")
    assert found == online
    assert len(hub.asked) == before, "nothing was asked"
    assert missing["message"].startswith(
        "model ours/other is not in the local cache and HF_HUB_OFFLINE is set; download it first"
    )


def test_a_hub_that_is_down_is_not_taken_for_a_missing_model(hub: Hub, tmp_path: Path) -> None:
    hub.down = True
    (found,) = ask(hub, tmp_path, ("ours/tiny", None))
    assert found["message"].startswith(
        "model ours/tiny is not in the local cache and the hub cannot be reached; download it first"
    )
