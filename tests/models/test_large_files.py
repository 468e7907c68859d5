"""Files that are larger than this machine's memory: their headers are read all the same."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from imax_dist.cli.main import main
from imax_dist.errors import BadValue
from imax_dist.models.catalogue import faults
from imax_dist.models.files.stored import header, numbers
from imax_dist.models.model_paths import transformer_files

LARGER_THAN_MEMORY = 4 << 40


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """4 TiB of one tensor, of which the disk keeps nothing but the header."""
    file = tmp_path / "models/net/huge.safetensors"
    file.parent.mkdir(parents=True)
    entry = {"dtype": "F32", "shape": [LARGER_THAN_MEMORY // 4], "data_offsets": [0, LARGER_THAN_MEMORY]}
    text = json.dumps({"weight": entry}).encode()
    with file.open("wb") as sparse:
        sparse.write(struct.pack("<Q", len(text)) + text)
        sparse.truncate(8 + len(text) + LARGER_THAN_MEMORY)
    return file


def test_a_header_is_read_of_a_file_larger_than_memory(huge: Path) -> None:
    assert header(huge)["weight"].shape == (LARGER_THAN_MEMORY // 4,)
    assert faults(huge.parent.parent) == []


def test_a_list_of_models_goes_on_past_a_file_larger_than_memory(
    huge: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAX_MODELS", str(huge.parent.parent))
    assert main(["model", "list", "--json"]) == 0
    rows = {row["file"]: row for row in json.loads(capsys.readouterr().out) if "file" in row}
    assert rows[str(huge)]["is"] == "not usable"
    assert "not one of the supported networks" in rows[str(huge)]["runs"]


def test_a_file_that_cannot_be_mapped_is_one_sentence(huge: Path) -> None:
    with pytest.raises(
        BadValue, match=r"huge.safetensors \(.*\) cannot be mapped into this machine's memory: "
    ):
        numbers(huge, "", torch.float32)


def test_only_files_that_may_be_models_are_listed(
    huge: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder of ComfyUI's has folders of its own: what lies in loras/flux is as much a LoRA as in loras."""
    for place in ("loras", "loras/flux", "vae/flux", "text_encoders/qwen", "checkpoints/flux"):
        (tmp_path / "models" / place).mkdir(parents=True)
        (tmp_path / "models" / place / "x.safetensors").write_bytes(b"-")
    monkeypatch.setenv("IMAX_MODELS", str(tmp_path))
    found = {str(file.relative_to(tmp_path / "models")) for file in transformer_files()}
    assert found == {"net/huge.safetensors", "checkpoints/flux/x.safetensors"}
