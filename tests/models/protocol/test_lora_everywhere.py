"""A LoRA file reaches the weights of every network that diffusers has a loader for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from guidance_of import WITHOUT_LORA
from safetensors.torch import save_file

from imax_dist.errors import BadConfig
from imax_dist.models.load import Loading, load
from imax_dist.models.tiny import EDITORS, TINY

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", [*TINY, *EDITORS])
def test_a_lora_is_added_to_the_layer_it_names(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    def loaded(*loras: str) -> torch.nn.Module:
        model = load(str(folders[name]), Loading(CPU, None, "float32", loras))
        return model.transformer  # type: ignore[attr-defined]

    plain = loaded()
    layers = {key: module for key, module in plain.named_modules() if key.endswith("to_q")}
    layer, module = next(reversed(layers.items()))
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(2, module.in_features, generator=generator) * 0.3
    up = torch.randn(module.out_features, 2, generator=generator) * 0.3
    file = tmp_path / "style.safetensors"
    key = f"transformer.{layer}"
    save_file({f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}, file)

    if name in WITHOUT_LORA:
        with pytest.raises(BadConfig, match=r"diffusers has no LoRA loader for a LuminaPipeline"):
            loaded(f"{file}:0.5")
        return
    merged = loaded(f"{file}:0.5").get_submodule(layer)
    assert (merged.weight - module.weight - 0.5 * up @ down).abs().max() < 1e-6
