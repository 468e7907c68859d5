"""Weights that do not fit the config.json beside them: the tensor and both shapes, or what is torn."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from imax_dist.cli.main import main
from imax_dist.errors import BadValue, MissingInput
from imax_dist.models.find import find_model
from imax_dist.models.load import load_model
from imax_dist.models.tiny import make_tiny

CPU = torch.device("cpu")
WIDENED = {
    "transformer": "context_embedder.weight",
    "vae": "decoder.conv_in.weight",
    "text_encoder": "embeddings.position_embedding.weight",
    "text_encoder_2": "shared.weight",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny("flux-schnell", tmp_path / "model")


def weights(folder: Path, part: str) -> Path:
    return next((folder / part).glob("*.safetensors"))


def widen(file: Path, name: str) -> None:
    tensors = load_file(file)
    x = tensors[name]
    tensors[name] = torch.zeros(x.shape[0] + 1, *x.shape[1:])
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("part", WIDENED)
def test_a_tensor_of_another_shape_is_named_with_both(folder: Path, part: str) -> None:
    widen(weights(folder, part), WIDENED[part])
    message = rf"{part} does not fit its config.json: tensor {WIDENED[part]} is \(.*\) in the file and \("
    with pytest.raises(BadValue, match=message) as refused:
        load_model(str(folder), device=CPU)
    assert len(str(refused.value).splitlines()) == 1
    assert "ignore_mismatched_sizes" not in str(refused.value)


@pytest.mark.parametrize("part", WIDENED)
def test_a_check_without_loading_sees_shapes(
    folder: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    widen(weights(folder, part), WIDENED[part])
    assert main(["model", "check", str(folder), "--no-load"]) == 64
    assert f"tensor {WIDENED[part]} is (" in capsys.readouterr().err


def whole(file: Path, name: str) -> None:
    tensors = load_file(file)
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("part", WIDENED)
def test_a_tensor_of_whole_numbers_in_a_folder_is_refused(
    folder: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The libraries would cast it: a picture of noise."""
    whole(weights(folder, part), WIDENED[part])
    message = (
        f"{part}/{weights(folder, part).name}: tensor {WIDENED[part]} is stored as int8, whose scale is not"
    )
    with pytest.raises(BadValue, match=message):
        load_model(str(folder), device=CPU)
    assert main(["model", "check", str(folder), "--no-load"]) == 64
    assert message in capsys.readouterr().err


def test_a_torn_autoencoder_is_named_with_the_reason(folder: Path) -> None:
    file = weights(folder, "vae")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(MissingInput, match=r"vae is incomplete: .*deserializing header: incomplete metadata"):
        load_model(str(folder), device=CPU, with_text_encoders=False)


def test_a_text_encoders_file_of_another_shape_is_named_with_both(folder: Path, tmp_path: Path) -> None:
    for part in ("text_encoder_2", "transformer"):
        shutil.copytree(folder / part, tmp_path / part)
    file = weights(tmp_path, "text_encoder_2")
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    widen(file, name)
    named = tmp_path / "transformer/net.yaml"
    source = weights(tmp_path, "transformer").name
    named.write_text(f"source: {source}\nvae: {folder}\ntext_encoders: [{file}, {folder}]\n")
    message = (
        rf"{file} is not the T5EncoderModel of black-forest-labs/FLUX.1-schnell \(text_encoder_2\): 1 tensor "
        rf"of another shape: {name} is \(33, 32\) in the file and \(32, 32\) in the network"
    )
    with pytest.raises(BadValue, match=message):
        find_model(str(named))


def test_a_tensor_of_whole_numbers_in_a_file_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(weights(folder, "transformer"), tmp_path / "one/net.safetensors")
    whole(tmp_path / "one/net.safetensors", "context_embedder.weight")
    shutil.copy(folder / "transformer/config.json", tmp_path / "one")
    named = tmp_path / "one/net.yaml"
    named.write_text(f"source: net.safetensors\nvae: {folder}\ntext_encoders: {folder}\n")
    with pytest.raises(
        BadValue, match=r"context_embedder.weight is stored as int8, whose scale is not known"
    ):
        load_model(str(named), device=CPU, with_text_encoders=False)
