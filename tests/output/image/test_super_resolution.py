"""A super-resolution network in tiles gives what it gives on the whole picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import gradient, names, picture
from safetensors.torch import save_file

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.output.image import super_resolution
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.finish import check, finish
from imax_dist.output.image.settings import FinishSettings
from imax_dist.output.image.super_resolution import enlarged

FEATURES, DEPTH, SCALE = 8, 2, 2


def network(path: Path) -> tuple[Path, Any]:
    """A small SRVGGNet with random weights, saved, and the network itself."""
    pytest.importorskip("spandrel", reason="spandrel is not installed")
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    torch.manual_seed(0)
    model = SRVGGNetCompact(num_feat=FEATURES, num_conv=DEPTH, upscale=SCALE).eval()
    save_file(model.state_dict(), path)
    return path, model


def test_tiles_join_without_a_seam(tmp_path: Path) -> None:
    """The halo is wider than the network sees, so inside the picture nothing tells tiles from the whole."""
    path, model = network(tmp_path / "sr.safetensors")
    pixels = gradient(600, 530)
    bands, name = enlarged(bands_of_array(pixels), path)
    ours = np.concatenate(list(bands.read()))
    batch = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    with torch.no_grad():
        whole = model(batch).clamp(0, 1)[0].numpy().transpose(1, 2, 0)
    assert ours.shape == (1200, 1060, 3)
    assert abs(ours - whole)[40:-40, 40:-40].max() < 1e-5
    assert name == "RealESRGAN Compact sr.safetensors, then lanczos"


def test_the_recipe_names_the_network(tmp_path: Path) -> None:
    path, _ = network(tmp_path / "sr.safetensors")
    settings = FinishSettings(paper="10x15cm", dpi=150, scale=str(path))
    finished = finish(picture(450, 300), tmp_path / "p.tif", settings)
    assert finished.record["scaled"]["by"] == "RealESRGAN Compact sr.safetensors, then lanczos"
    assert finished.record["scaled"]["to"] == "591x886"


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path, _ = network(tmp_path / "sr.safetensors")
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(BadManifest, match="is not a super-resolution model that can be used"):
        finish(picture(), tmp_path / "p.tif", FinishSettings(paper="6x4in", dpi=100, scale=str(path)))
    assert names(tmp_path) == ["sr.safetensors"]


def test_a_missing_network_or_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FinishSettings(scale=str(tmp_path / "sr.safetensors"))
    with pytest.raises(MissingInput, match="does not exist"):
        check(tmp_path / "p.tif", settings)
    (tmp_path / "sr.safetensors").write_bytes(b"-")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MissingInput, match="need spandrel"):
        super_resolution.require_model(tmp_path / "sr.safetensors")


def test_a_spandrel_that_cannot_be_loaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a torchvision of another torch: importing it raises RuntimeError, which is no bug of ours."""
    (tmp_path / "sr.safetensors").write_bytes(b"-")
    (tmp_path / "spandrel.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        MissingInput, match=r"torchvision::nms .*; install the torchvision that belongs to torch"
    ):
        super_resolution.require_model(tmp_path / "sr.safetensors")
