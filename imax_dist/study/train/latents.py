"""The flow's data: scenes rendered at several sizes and encoded once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.models.patches import pack
from imax_dist.output.atomic import write_file
from imax_dist.pipeline.checkpoint import content_hash
from imax_dist.study.scenes import render, sample_scene, varied_caption
from imax_dist.study.train.autoencoder import encode_mean
from imax_dist.study.train.crops import HELD_OUT, to_unit
from imax_dist.study.train.network import Text
from imax_dist.study.train.precision import mixed_precision
from imax_dist.study.train.text import Tokenizers

VARIATIONS = 4  # captions a scene


@dataclass(frozen=True)
class Bucket:
    """All training pictures of one size: packed latents (N, tokens, 64) and ids (N, 4, 24)."""

    grid: tuple[int, int]
    tokens: torch.Tensor
    clip: torch.Tensor
    t5: torch.Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, Text]:
        """A random batch: float32 tokens and one of each scene's captions."""
        rows = torch.randint(len(self.tokens), (count,), generator=generator)
        phrasing = torch.randint(VARIATIONS, (count,), generator=generator)
        return self.tokens[rows].float(), Text(self.clip[rows, phrasing], self.t5[rows, phrasing])


Buckets = dict[tuple[int, int], Bucket]
"""By (height, width)."""


@torch.no_grad()
def encode_scenes(
    folder: Path, vae: AutoencoderKL, seeds: range, *, size: tuple[int, int], batch: int = 32
) -> Path:
    """Render and encode scenes at ``size`` (height, width); writes one safetensors shard, float16.

    Raises BadManifest if ``folder`` holds shards of another autoencoder.
    """
    parts, maker = [], content_hash({}, vae.state_dict())
    _require_one_autoencoder(folder, maker)
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    for start in range(0, len(seeds), batch):
        pixels = np.stack([render(sample_scene(s), *size) for s in seeds[start : start + batch]])
        images = to_unit(pixels).to(memory_format=torch.channels_last)
        with mixed_precision(images.device):
            latents = encode_mean(vae, images).float()
        parts.append(((latents - shift) * scale).half().contiguous())
    path = folder / f"{size[0]}x{size[1]}-{seeds.start:07d}.safetensors"
    tensors = {"latents": torch.cat(parts), "seeds": torch.arange(seeds.start, seeds.stop)}
    write_file(path, lambda temporary: save_file(tensors, str(temporary), metadata={"vae": maker}))
    return path


def _require_one_autoencoder(folder: Path, maker: str | None = None) -> list[Path]:
    """The shards of ``folder``, all of ``maker`` (the hash of its weights) or of the first shard's.

    Raises BadManifest if one is of another, or no shard; shards of earlier versions do not say.
    """
    shards = sorted(folder.glob("*x*-*.safetensors"))
    for path in shards:
        with _opened(path) as file:
            made_by = (file.metadata() or {}).get("vae", maker)
        maker = maker or made_by
        if made_by != maker:
            raise BadManifest(f"{path} was encoded by another autoencoder; use another --out for each")
    return shards


def load_buckets(folder: Path, tokenizers: Tokenizers) -> Buckets:
    """The shards of ``folder`` by (height, width).

    Raises MissingInput if there are none, BadManifest if they are of several autoencoders, or one is none.
    """
    shards: dict[tuple[int, int], list[dict[str, torch.Tensor]]] = {}
    for path in _require_one_autoencoder(folder):
        tensors = _tensors(path)
        height, width = (8 * side for side in tensors["latents"].shape[2:])
        shards.setdefault((height, width), []).append(tensors)
    if not shards:
        raise MissingInput(f"{folder} holds no encoded scenes; run `imax study encode-scenes` first")
    return {size: _bucket(parts, tokenizers) for size, parts in shards.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A shard to read from. Raises BadManifest for a file of another kind."""
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise BadManifest(f"{path} holds no encoded scenes; remove it, or name another folder") from error


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """Latents and seeds of a shard. Raises BadManifest for scenes that are held out."""
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in ("latents", "seeds")}
    if (last := int(tensors["seeds"].max())) >= HELD_OUT:
        raise BadManifest(
            f"{path} holds scene {last}, but scenes from {HELD_OUT} on are held out; remove it, and encode "
            "others"
        )
    return tensors


def require_sizes(buckets: Buckets, native: tuple[int, int], shares: list[tuple[int, int]]) -> None:
    """Raise MissingInput if the data lack the native size, or one that was given a share."""
    held = ", ".join(size_name(size) for size in sorted(buckets))
    for size, asked in ((native, "the native size"), *((one, "a --share") for one in shares)):
        if size not in buckets:
            raise MissingInput(
                f"the encoded scenes are {held}, but {asked} is {size_name(size)}; run `imax study "
                f"encode-scenes --size {size_name(size)}` into --data first, or ask for a size that is there"
            )


def size_name(size: tuple[int, int]) -> str:
    """``WIDTHxHEIGHT`` of (height, width)."""
    return f"{size[1]}x{size[0]}"


def _bucket(parts: list[dict[str, torch.Tensor]], tokenizers: Tokenizers) -> Bucket:
    latents = torch.cat([part["latents"] for part in parts])
    seeds = torch.cat([part["seeds"] for part in parts]).tolist()
    phrasing = [varied_caption(sample_scene(s), s * VARIATIONS + k) for s in seeds for k in range(VARIATIONS)]
    clip, t5 = tokenizers.ids(phrasing)
    shape = (len(seeds), VARIATIONS, -1)
    grid = (latents.shape[2] // 2, latents.shape[3] // 2)
    return Bucket(grid, pack(latents), clip.reshape(shape), t5.reshape(shape))
