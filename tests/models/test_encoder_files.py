"""Text encoders in files: alone, or in one checkpoint with transformer and autoencoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_names import z_image
from original_names_of_others import autoencoder
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from imax_dist.cli.main import main
from imax_dist.errors import BadValue
from imax_dist.models.files import single_file
from imax_dist.models.files.assembled import named_parts
from imax_dist.models.find import find_model
from imax_dist.models.lora.merge import find_loras
from imax_dist.models.tiny import make_tiny

CHECKPOINT = {"transformer": "model.diffusion_model.", "vae": "vae."}
QWEN = {**CHECKPOINT, "text_encoder": "text_encoders.qwen3_4b.transformer.model."}
FLUX = {
    **CHECKPOINT,
    "text_encoder": "text_encoders.clip_l.transformer.text_model.",
    "text_encoder_2": "text_encoders.t5xxl.transformer.",
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("IMAX_MODELS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def z_image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("z-image-turbo", tmp_path_factory.mktemp("z-image") / "model")


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("flux-dev", tmp_path_factory.mktemp("flux") / "model")


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def tiny_table(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> None:
    """Make the table of an architecture describe the tiny pipeline ``folder``."""
    published = single_file.architecture_table

    def table(asked: str) -> Mapping[str, Any]:
        found = published(asked)
        if asked != name:
            return found
        tiny = {part: json.loads((folder / part / "config.json").read_text()) for part in found["components"]}
        return {**found, "components": tiny}

    monkeypatch.setattr(single_file, "architecture_table", table)


def checkpoint(folder: Path, file: Path, prefixes: Mapping[str, str]) -> Path:
    """Everything of a pipeline in one file; Z-Image's parts in their published names."""
    renamed = {"transformer": z_image, "vae": autoencoder} if prefixes is QWEN else {}
    tensors = {
        prefix + name: x.contiguous()
        for part, prefix in prefixes.items()
        for name, x in renamed.get(part, dict)(weights(folder / part)).items()
    }
    save_file(tensors, file)
    return file


def with_tokenizers(file: Path, folder: Path, more: str = "") -> Path:
    """A YAML file that names a model's file, and a folder with nothing but tokenizers."""
    words = file.with_name("words")
    words.mkdir(exist_ok=True)
    for tokenizer in folder.glob("tokenizer*"):
        (words / tokenizer.name).symlink_to(tokenizer)
    named = file.with_suffix(".yaml")
    settings = (folder / "imax.yaml").read_text()
    named.write_text(f"source: {file.name}\ntext_encoders: [{more}{words}]\n{settings}")
    return named


def poster(model: Path, out: Path) -> np.ndarray[Any, Any]:
    how = ["--size", "96x80", "--steps", "1", "--native-steps", "1", "--checkpoint-every", "0", "-q"]
    assert main(["generate", "a red sun", "--model", str(model), *how, "--out", str(out)]) == 0
    return np.asarray(Image.open(out))


@pytest.mark.parametrize("named", ["", "all.safetensors, "], ids=["found", "named"])
def test_a_file_with_everything_holds_its_language_model(
    z_image_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    tiny_table(monkeypatch, "z-image-turbo", z_image_folder)
    file = checkpoint(z_image_folder, tmp_path / "all.safetensors", QWEN)
    model = with_tokenizers(file, z_image_folder, named)
    found, expected = (poster(each, tmp_path / f"{n}.png") for n, each in enumerate((model, z_image_folder)))
    assert np.array_equal(found, expected)


def test_a_file_with_everything_holds_both_encoders_of_flux(
    flux_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny_table(monkeypatch, "flux-dev", flux_folder)
    file = checkpoint(flux_folder, tmp_path / "all.safetensors", FLUX)
    found, expected = (
        poster(each, tmp_path / f"{n}.png")
        for n, each in enumerate((with_tokenizers(file, flux_folder), flux_folder))
    )
    assert np.array_equal(found, expected)


def test_a_file_without_an_encoder_is_refused_with_what_there_is(
    flux_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny_table(monkeypatch, "flux-dev", flux_folder)
    file = checkpoint(flux_folder, tmp_path / "all.safetensors", FLUX)
    save_file({"model.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    named = with_tokenizers(file, flux_folder, "other.safetensors, ")
    message = r"is not one of .*/FLUX.1-dev's .*: text_encoder \(CLIPTextModel\), text_encoder_2 \(T5"
    with pytest.raises(BadValue, match=message):
        find_model(str(named))


def eight_bits(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Matrices with a scale beside each, as t5xxl_fp8_e4m3fn_scaled has them, and the numbers meant."""
    stored, meant = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}, dict(tensors)
    for name, x in tensors.items():
        stored[name] = x
        if x.ndim == 2 and name.startswith("encoder.block."):
            scale = torch.tensor(2.0**-6)
            stored[name] = (x.float() / scale).to(torch.float8_e4m3fn)
            stored[name.replace(".weight", ".scale_weight")] = scale
            meant[name] = (stored[name].float() * scale).to(x.dtype)
    return stored, meant


def in_files(folder: Path, root: Path, t5: Mapping[str, Tensor]) -> Path:
    """The pipeline as people keep it: transformer, CLIP and T5 a file each, config.json beside each."""
    clip = {f"text_model.{name}": x for name, x in weights(folder / "text_encoder").items()}
    clip["text_projection.weight"] = torch.eye(32)  # which the published file has too
    files = {
        "transformer": ("net.safetensors", weights(folder / "transformer")),
        "text_encoder": ("clip_l.safetensors", clip),
        "text_encoder_2": ("t5xxl.safetensors", dict(t5)),
    }
    for part, (name, tensors) in files.items():
        (root / part).mkdir(parents=True)
        save_file(tensors, root / part / name)
        (root / part / "config.json").write_bytes((folder / part / "config.json").read_bytes())
    encoders = "../text_encoder/clip_l.safetensors, ../text_encoder_2/t5xxl.safetensors, "
    named = with_tokenizers(root / "transformer/net.safetensors", folder, encoders)
    named.write_text(f"{named.read_text()}vae: {folder}\n")
    return named


@pytest.mark.parametrize("form", ["plain", "fp8 scaled"])
def test_clip_and_t5_in_files_of_their_own_make_the_folders_picture(
    flux_folder: Path, tmp_path: Path, form: str
) -> None:
    stored = meant = weights(flux_folder / "text_encoder_2")
    if form == "fp8 scaled":
        stored, meant = eight_bits(stored)
    folder = tmp_path / "folder"
    shutil.copytree(flux_folder, folder)
    save_file(meant, folder / "text_encoder_2/model.safetensors", metadata={"format": "pt"})
    files = in_files(flux_folder, tmp_path / "files", stored)
    found, expected = (poster(each, tmp_path / f"{n}.png") for n, each in enumerate((files, folder)))
    assert np.array_equal(found, expected)
    if form == "fp8 scaled":
        assert not np.array_equal(found, poster(flux_folder, tmp_path / "rounded-not.png"))


@pytest.mark.parametrize("name", ["x.pt", "x.CKPT", "x.pkl", "x.bin", "x.Pth"])
@pytest.mark.parametrize("what", ["model", "vae", "text encoder", "lora"])
def test_a_pickle_is_refused_by_name_whatever_it_is_given_as(
    flux_folder: Path, tmp_path: Path, what: str, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(b"never opened")
    net = str(flux_folder / "transformer/diffusion_pytorch_model.safetensors")
    given: dict[str, Callable[[], Any]] = {
        "model": lambda: find_model(str(file)),
        "vae": lambda: named_parts(net, vae=str(file), text_encoders=()),
        "text encoder": lambda: named_parts(net, vae=None, text_encoders=[str(file)]),
        "lora": lambda: find_loras([f"{file}:0.5"]),
    }
    with pytest.raises(
        BadValue, match=rf"^{what} .*{name} is a pickled file \({file.suffix}\), which is never"
    ):
        given[what]()
