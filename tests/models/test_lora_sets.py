"""What a loaded model is asked next: other LoRA files, on float and GGUF weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised_files import matrices, quantised, write_gguf
from ranks import run_ranks
from safetensors.torch import load_file, save_file
from torch import Tensor

from imax_dist.errors import MissingInput
from imax_dist.models.load import Loading, change_loras, load, load_model
from imax_dist.models.tiny import make_tiny
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.renderer import Renderer, render
from imax_dist.pipeline.request import Request

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("flux-schnell", tmp_path_factory.mktemp("sets") / "flux-schnell")


def test_sets_change_on_a_loaded_model_and_leave_the_base_as_it_was(
    flux: Path, lora: Path, tmp_path: Path
) -> None:
    """Bit for bit, in bfloat16 too: what merging rounds away is not taken off again but put back."""
    other = tmp_path / "other.safetensors"
    save_file({key: -3.0 * x for key, x in matrices().items()}, other)
    base = load(str(flux), Loading(CPU, None, "bfloat16")).transformer.state_dict()
    how = Loading(CPU, None, "bfloat16", (str(lora),), keeps_base=True)
    model = load(str(flux), how)
    for files in ((f"{other}:0.7", str(lora)), (), (str(lora),), (str(other),), ()):
        change_loras(model, how._replace(loras=files))
        fresh = load(str(flux), how._replace(loras=files))
        assert model.spec == fresh.spec
        assert model.notes == fresh.notes
        found, expected = (each.transformer.state_dict() for each in (model, fresh))
        assert all(torch.equal(found[key], x) for key, x in expected.items())
    assert all(torch.equal(found[key], x) for key, x in base.items())


def test_one_renderer_changes_sets_without_reading_the_weights_again(
    flux: Path, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures are those of models loaded for each; a refused set leaves the next request whole."""
    from imax_dist.pipeline import renderer

    loads: list[Any] = []
    ours = renderer.load_requested
    monkeypatch.setattr(renderer, "load_requested", lambda *a, **k: loads.append(a) or ours(*a, **k))
    shared = {"size": "96x80", "model": str(flux), "steps": 1, "native_steps": 1}
    sets = ((), (f"{lora}:0.5",), (str(lora),), ())
    with renderer.Renderer() as one:
        made = [one.render(Request("a red sun", lora=files, **shared)).latents for files in sets]
        with pytest.raises(MissingInput):
            one.render(Request("a red sun", lora=("nowhere.safetensors",), **shared))
        again = one.render(Request("a red sun", lora=sets[1], **shared)).latents
    assert len(loads) == 1
    for files, latents in zip(sets, made, strict=True):
        assert torch.equal(latents, render(Request("a red sun", lora=files, **shared)).latents)
    assert torch.equal(again, made[1])


def rounded(flux: Path, folder: Path) -> Path:
    """The pipeline with float32 weights that hold exactly the numbers of its 8-bit ones.

    diffusers multiplies a block's scale and its codes in float16, and so rounds each weight by up to 2^-11.
    """
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.Q8_0
    shutil.copytree(flux, folder)
    (weights,) = (folder / "transformer").glob("*.safetensors")
    tensors = {name: x.float() for name, x in load_file(weights).items()}
    for name, x in tensors.items():
        if x.ndim > 1 and x.shape[-1] % 32 == 0:
            codes = gguf.quants.quantize(x.numpy(), kind)
            tensors[name] = torch.from_numpy(gguf.quants.dequantize(codes, kind)).half().float()
    save_file(tensors, weights)
    return folder


def latents_of(topology: Topology, folder: str, loras: tuple[str, ...]) -> Tensor:
    request = Request(
        "a red sun", size="96x80", model=folder, steps=1, native_steps=1, dtype="float32", lora=loras
    )
    settings = ParallelSettings(ring=topology.world_size)
    return render(request, parallel=settings, topology=topology).latents


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_lora_has_the_same_effect_on_gguf_weights_as_on_their_numbers(
    flux: Path, lora: Path, tmp_path: Path, ranks: int
) -> None:
    """To float32's rounding: beside the weights or in them, B A x is the same."""
    exact = rounded(flux, tmp_path / "exact")
    file = tmp_path / "small.gguf"
    write_gguf(flux / "transformer", file)
    folder = quantised(flux, tmp_path / "model", str(file))
    bare = latents_of(Topology.alone(), str(exact), ())
    expected = latents_of(Topology.alone(), str(exact), (str(lora),))
    allowed = 2e-5 * expected.abs().max()
    for found in run_ranks(ranks, latents_of, str(folder), (str(lora),)):
        assert (found - expected).abs().max() < allowed
    assert (bare - expected).abs().max() > 10 * allowed, "a LoRA changes the picture"


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_lora_has_the_same_effect_on_int8_weights_as_on_their_numbers(
    flux: Path, lora: Path, tmp_path: Path, ranks: int
) -> None:
    """Of torchao, which runs on a CPU; to float32's rounding as well."""
    pytest.importorskip("torchao")
    folder = quantised(flux, tmp_path / "model", "torchao-int8")
    exact = shutil.copytree(flux, tmp_path / "exact")
    network = load_model(
        str(folder), device=torch.device("cpu"), dtype="float32", with_text_encoders=False
    ).transformer
    tensors = {
        name: x if type(x) is Tensor else x.dequantize().contiguous()
        for name, x in network.state_dict().items()
    }
    save_file(tensors, next((exact / "transformer").glob("*.safetensors")))
    bare = latents_of(Topology.alone(), str(exact), ())
    expected = latents_of(Topology.alone(), str(exact), (str(lora),))
    allowed = 2e-5 * expected.abs().max()
    for found in run_ranks(ranks, latents_of, str(folder), (str(lora),)):
        assert (found - expected).abs().max() < allowed
    assert (bare - expected).abs().max() > 10 * allowed


def test_sets_change_on_gguf_weights_too(flux: Path, lora: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    write_gguf(flux / "transformer", file)
    folder = quantised(flux, tmp_path / "model", str(file))
    shared = {"size": "96x80", "model": str(folder), "steps": 1, "native_steps": 1}
    sets: tuple[tuple[str, ...], ...] = ((), (str(lora),), (f"{lora}:0.5",), ())
    with Renderer() as one:
        made = [one.render(Request("a red sun", lora=files, **shared)).latents for files in sets]
    for files, latents in zip(sets, made, strict=True):
        assert torch.equal(latents, render(Request("a red sun", lora=files, **shared)).latents)
