"""A LoRA of one layer and quantised copies of a tiny FLUX, for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

LAYER = "transformer.single_transformer_blocks.0.attn.to_q"


def matrices(width: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(2, width, generator=generator) * 0.3
    up = torch.randn(32, 2, generator=generator) * 0.3
    return {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}


def quantised(flux: Path, folder: Path, name: str) -> Path:
    shutil.copytree(flux, folder)
    with (folder / "imax.yaml").open("a") as settings:
        settings.write(f"quantize: {name}\n")
    return folder


def write_gguf(transformer: Path, file: Path, *, seed: int | None = None) -> None:
    """The transformer's tensors in 8 bits a weight where a row has blocks of 32; ``seed``: other ones."""
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(file), "flux")
    noise = None if seed is None else torch.Generator().manual_seed(seed)
    for name, tensor in load_file(next(transformer.glob("*.safetensors"))).items():
        values = tensor.float() if noise is None else torch.randn(tensor.shape, generator=noise)
        if values.ndim > 1 and values.shape[-1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(values.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
