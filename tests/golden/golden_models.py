"""The networks of the golden file: weights made from their tensors' names, by no library's generator.

Weights are uniform, from PCG64's raw bits, whose stream NumPy promises to keep. They are large, so that
attention is peaked and a wrong weight or a token counted twice cannot hide. Text encoders are exact: parts of
them are float32 even for float64 weights, and processors differ in its last bits, so that embeddings are
signs here and their blocks add nothing.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from imax_dist.cli.main import main

EMBEDDED = Path(__file__).parent / "embedded"
"""Configuration and tokenizers of the embedded model as they were; its weights may be trained again."""
SCALES = ("weight", "gamma", "running_var")
"""How the names of vectors end that multiply (norms) or divide."""
DEVIATION = {"vae": 1.0}
"""Of a component's matrices, times the root of their inputs; 1.5 for all others."""


def make_embedded(folder: Path) -> Path:
    """A model folder in the embedded model's architecture."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    shutil.copytree(EMBEDDED, folder)
    for kind, name in ((FluxTransformer2DModel, "transformer"), (AutoencoderKL, "vae")):
        kind.from_config(kind.load_config(folder / name)).save_pretrained(folder / name)
    for network, config, name in (
        (CLIPTextModel, CLIPTextConfig, "text_encoder"),
        (T5EncoderModel, T5Config, "text_encoder_2"),
    ):
        network(config.from_pretrained(folder / name)).save_pretrained(folder / name)
    return fill(folder)


def make_tiny(name: str, folder: Path) -> Path:
    """The tiny pipeline of ``name``, as ``imax model make-tiny`` makes it, with weights of ours."""
    assert main(["model", "make-tiny", name, str(folder), "--json"]) == 0
    return fill(folder)


def fill(folder: Path) -> Path:
    """Replace every floating-point tensor of the folder by what its component and name say."""
    for path in sorted(folder.rglob("*.safetensors")):
        component = path.relative_to(folder).parts[0]
        make = exact if component.startswith("text_encoder") else peaked
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = make(component, name, tuple(tensor.shape))
        if make is exact and "gemma" in (path.parent / "config.json").read_text():
            embeddings = next(name for name in tensors if name.endswith("embed_tokens.weight"))
            tensors[embeddings] /= tensors[embeddings].shape[1] ** 0.5  # the network multiplies by it
        save_file(tensors, path, metadata=metadata)
    return folder


def exact(component: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Signs for embeddings, zeros for other matrices, so that sums of squares are whole numbers."""
    if len(shape) == 1 or "projection" in name:
        return peaked(component, name, shape)
    embeds = "embed" in name or name == "shared.weight"
    return uniform(component, name, shape).sign() if embeds else torch.zeros(shape, dtype=torch.float64)


def peaked(component: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Matrices with peaked values; vectors near 0, or near 1 where they scale (norms)."""
    values = uniform(component, name, shape)
    if len(shape) > 1:
        return values * (DEVIATION.get(component, 1.5) * (3.0 / values[0].numel()) ** 0.5)
    return 0.1 * values + (1.0 if name.endswith(SCALES) else 0.0)


def uniform(component: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Float64 values in [-1, 1)."""
    seed = hashlib.sha256(f"{component} {name}".encode()).digest()
    bits = np.random.PCG64(int.from_bytes(seed[:8], "little")).random_raw(int(np.prod(shape)))
    return torch.from_numpy((bits >> 11).astype(np.float64) / 2.0**52 - 1.0).reshape(shape)
