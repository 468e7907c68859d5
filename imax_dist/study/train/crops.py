"""Random crops of scenes at several resolutions: what the autoencoder learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from imax_dist.study.scenes import render, sample_scene
from imax_dist.study.scenes.canvas import View

HELD_OUT = 1_000_000  # scene seeds from here on are never trained on
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CropBank:
    """Rendered pictures to cut crops from, each with its share of the crops."""

    pictures: tuple[tuple[float, list[Pixels]], ...]

    def draw(self, count: int, size: int, rng: np.random.Generator) -> torch.Tensor:
        """(count, 3, size, size) in -1..1, half of them mirrored."""
        shares = np.array([share for share, _ in self.pictures])
        crops = np.empty((count, size, size, 3), np.uint8)
        for k in range(count):
            bank = self.pictures[rng.choice(len(shares), p=shares / shares.sum())][1]
            picture = bank[int(rng.integers(len(bank)))]
            i, j = (int(rng.integers(side - size + 1)) for side in picture.shape[:2])
            crop = picture[i : i + size, j : j + size]
            crops[k] = crop[:, ::-1] if rng.random() < 0.5 else crop
        return to_unit(crops)


def to_unit(pixels: Pixels) -> torch.Tensor:
    """(batch, height, width, 3) bytes to (batch, 3, height, width) floats in -1..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(images: torch.Tensor) -> Pixels:
    """The inverse of ``to_unit``, clamped and rounded."""
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def fill_bank(seed: int, *, scale: float = 1.0) -> CropBank:
    """Pictures at 128, 256 and 512 px and zoomed windows at 128 px; ``scale`` 1 is 3000 pictures."""
    rng = np.random.default_rng([seed, 7])
    plan = ((0.6, 128, 2000, False), (0.15, 128, 500, True), (0.15, 256, 400, False), (0.10, 512, 100, False))
    pictures = []
    for share, size, count, zoomed in plan:
        bank = []
        for _ in range(max(2, int(count * scale))):
            scene = sample_scene(int(rng.integers(HELD_OUT)))
            bank.append(render(scene, size, size, zoom=random_view(rng) if zoomed else None))
        pictures.append((share, bank))
    return CropBank(tuple(pictures))


def random_view(rng: np.random.Generator) -> View:
    """A window 1/4 to 1 of the scene's height, anywhere in a square scene."""
    height = float(0.25 ** rng.random())
    left, top = (1 - height) * rng.random(2)
    return View(float(left), float(top), height)


def held_out(count: int, size: int) -> Pixels:
    """(count, size, size, 3) renders of scenes no training run sees."""
    return np.stack([render(sample_scene(HELD_OUT + k), size, size) for k in range(count)])
