"""LoKr and LoHa files: what they add to the weights, what does not fit, and the base weights put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from imax_dist.errors import BadValue
from imax_dist.models.load import Loading, change_loras, load
from imax_dist.models.tiny import make_tiny

CPU = torch.device("cpu")
LAYER = "single_transformer_blocks.0.attn.to_q"


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("flux-schnell", tmp_path_factory.mktemp("products") / "flux-schnell")


def loaded(folder: Path, *loras: str, **how: Any) -> Any:
    return load(str(folder), Loading(CPU, None, "float32", loras, **how))


def weight_of(model: Any) -> Tensor:
    weight: Tensor = model.transformer.get_submodule(LAYER).weight
    return weight.detach().clone()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(0.0, 0.3, shape)).float()


def lokr(side: int, *, full: bool) -> tuple[dict[str, Tensor], np.ndarray[Any, Any]]:
    """A file's layer of side x side, and what it adds, by NumPy."""
    small, rank = side // 4, 3
    first, a, b = drawn(4, 4), drawn(small, rank, seed=1), drawn(rank, small, seed=2)
    if full:
        second = drawn(small, small, seed=3)
        return {"lokr_w1": first, "lokr_w2": second, "alpha": torch.tensor(7.0)}, np.kron(first, second)
    parts = {"lokr_w1": first, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(6.0)}
    return parts, 2.0 * np.kron(first.numpy(), a.numpy() @ b.numpy())


def loha(side: int) -> tuple[dict[str, Tensor], np.ndarray[Any, Any]]:
    parts = {
        f"hada_w{n}_{half}": drawn(*((side, 3) if half == "a" else (3, side)), seed=10 * n + (half == "a"))
        for n in (1, 2)
        for half in "ab"
    }
    a1, b1, a2, b2 = (parts[name].numpy() for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
    return {**parts, "alpha": torch.tensor(1.5)}, 0.5 * (a1 @ b1) * (a2 @ b2)


def written(path: Path, layer: str, parts: dict[str, Tensor]) -> Path:
    save_file({f"{layer}.{name}": x.contiguous() for name, x in parts.items()}, path)
    return path


@pytest.mark.parametrize("kind", ["LoKr", "LoKr of whole factors", "LoHa"])
@pytest.mark.parametrize("names", ["transformer.{}", "diffusion_model.{}", "lycoris_{}"])
def test_a_product_is_added_to_the_layer_it_names(flux: Path, tmp_path: Path, kind: str, names: str) -> None:
    plain = weight_of(loaded(flux))
    side = plain.shape[0]
    parts, added = loha(side) if kind == "LoHa" else lokr(side, full="whole" in kind)
    layer = names.format(LAYER.replace(".", "_") if names.startswith("lycoris") else LAYER)
    file = written(tmp_path / "style.safetensors", layer, parts)
    model = loaded(flux, f"{file}:0.5")
    expected = plain.numpy() + 0.5 * added
    assert np.abs(weight_of(model).numpy() - expected).max() < 1e-6
    assert model.notes == (f"lora style.safetensors x 0.5: 1 of 1 layer ({kind[:4]})",)


def test_the_base_weights_come_back_when_the_set_changes(flux: Path, tmp_path: Path) -> None:
    model = loaded(flux, keeps_base=True)
    before = weight_of(model)
    file = written(
        tmp_path / "style.safetensors", f"transformer.{LAYER}", lokr(before.shape[0], full=True)[0]
    )
    change_loras(model, Loading(CPU, None, "float32", (str(file),)))
    assert not torch.equal(weight_of(model), before)
    change_loras(model, Loading(CPU, None, "float32"))
    assert torch.equal(weight_of(model), before)


@pytest.mark.parametrize(
    ("layer", "parts", "sentence"),
    [
        ("transformer.nowhere.to_q", {}, r"0 of 1 layer \(LoKr\) fit; transformer\.nowhere"),
        (f"transformer.{LAYER}", {"lokr_w1": drawn(2, 2)}, r"makes a change of \(\d+, \d+\), but the"),
        (f"transformer.{LAYER}", {"lokr_w1": drawn(2, 2)[0]}, r"lacks the factors of a layer \(Dimension"),
        (f"transformer.{LAYER}", {"lokr_w2_b": None}, r"lacks the factors of a layer \('lokr_w2_b'\)"),
    ],
)  # fmt: skip
def test_a_product_that_fits_nothing_is_refused(
    flux: Path, tmp_path: Path, layer: str, parts: dict[str, Tensor | None], sentence: str
) -> None:
    given = {**lokr(48, full=False)[0], **parts}
    file = written(tmp_path / "x.safetensors", layer, {k: x for k, x in given.items() if x is not None})
    with pytest.raises(BadValue, match=sentence):
        loaded(flux, str(file))
