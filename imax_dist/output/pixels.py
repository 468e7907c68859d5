"""From the decoder's floats to the integers of a file, and their hash."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

EightBit = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def to_eight_bit(pixels: Tensor) -> EightBit:
    """(H, W, 3) floats in [0, 1] to bytes, rounded to nearest."""
    scaled = (pixels.double().numpy() * 255.0).round()
    return scaled.clip(0, 255).astype(np.uint8)


def pixels_hash(image: EightBit) -> str:
    """SHA-256 of height, width and the bytes row by row: equal pictures give equal text."""
    height, width, channels = image.shape
    digest = hashlib.sha256(f"{height}x{width}x{channels} uint8\n".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
