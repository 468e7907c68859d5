"""A super-resolution network in tiles gives what it gives on the whole picture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import gradient, names, picture
from safetensors.torch import save_file
from small_networks import save_rrdb, small_rrdb

from imax_dist.errors import BadManifest, BadValue, MissingInput
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.finish import check, finish
from imax_dist.output.image.settings import FinishSettings
from imax_dist.output.image.super_resolution import enlarged, require_model


def test_tiles_join_without_a_seam(tmp_path: Path) -> None:
    """The halo is wider than the network sees, so inside the picture nothing tells tiles from the whole."""
    path = save_rrdb(tmp_path / "sr.safetensors")
    pixels = gradient(300, 270)
    bands, name = enlarged(bands_of_array(pixels), str(path))
    ours = np.concatenate(list(bands.read()))
    batch = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    whole = small_rrdb()(batch).clamp(0, 1)[0].numpy().transpose(1, 2, 0)
    assert ours.shape == (600, 540, 3)
    assert abs(ours - whole)[40:-40, 40:-40].max() < 1e-5
    assert name == "RRDBNet sr.safetensors, then lanczos"


def test_the_recipe_names_the_network(tmp_path: Path) -> None:
    path = save_rrdb(tmp_path / "sr.safetensors")
    settings = FinishSettings(paper="5x7.5cm", dpi=150, scale=str(path))
    finished = finish(picture(225, 150), tmp_path / "p.tif", settings)
    assert finished.record["scaled"]["by"] == "RRDBNet sr.safetensors, then lanczos"
    assert finished.record["scaled"]["to"] == "295x443"


def test_a_file_that_is_no_network_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "sr.safetensors"
    path.write_bytes(b"-")
    with pytest.raises(BadManifest, match="is not a super-resolution model that can be used"):
        check(tmp_path / "p.tif", FinishSettings(paper="6x4in", dpi=100, scale=str(path)))
    assert names(tmp_path) == ["sr.safetensors"]


def test_a_missing_network_or_another_word_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="does not exist"):
        check(tmp_path / "p.tif", FinishSettings(scale=str(tmp_path / "sr.safetensors")))
    with pytest.raises(BadValue, match="is neither realesrgan-x4plus, realesrgan-x4plus-anime nor"):
        check(tmp_path / "p.tif", FinishSettings(scale="esrgan"))


def test_a_network_of_another_kind_needs_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "sr.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MissingInput, match=r"is not an RRDBNet of RGB pictures, and other .* need spandrel"):
        require_model(str(other))


def test_a_spandrel_that_does_not_load_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a torchvision of another torch: importing it raises RuntimeError, which is no bug of ours."""
    other = tmp_path / "sr.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    (tmp_path / "spandrel.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        MissingInput, match=r"torchvision::nms .*; install the torchvision that belongs to torch"
    ):
        require_model(str(other))
