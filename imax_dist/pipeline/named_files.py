"""Files that a request names by path, and what they hold now."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from imax_dist.models.files.assembled import named_parts
from imax_dist.models.lora.merge import parse_lora
from imax_dist.named_file import plain_size
from imax_dist.pipeline.request import Request, network_file


class Parts(NamedTuple):
    """What goes with a model in one file: its VAE, and text encoders or a folder of them and tokenizers."""

    vae: str | None = None
    encoders: tuple[str, ...] = ()

    def beside(self, model: str) -> str:
        """All together as one model. Raises BadValue for a model that is not a single file, MissingInput."""
        return named_parts(model, vae=self.vae, text_encoders=self.encoders)


NO_PARTS = Parts()


def named_files(request: Request) -> dict[str, str]:
    """SHA-256 of the guide, an enlarging network and LoRA files by path, of those that are on this host.

    Raises as ``plain_size`` for what is there and is not a file to be read: a folder, a pipe, an empty file.
    """
    named = [] if request.guide is None else [(request.guide, Path(request.guide), "guide")]
    network = network_file(request.method)
    if network is not None:
        named.append((network, Path(network), "super-resolution model"))
    for text in request.lora:
        source = parse_lora(text)[0]
        named.append((source, _only_file(Path(source)), "lora"))
    found = {name: path for name, path, what in named if plain_size(path, what) is not None}
    stats = {name: path.stat() for name, path in found.items()}
    return {name: _hash(str(found[name]), stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _only_file(path: Path) -> Path:
    """The LoRA of a folder that holds one."""
    inside = list(path.glob("*.safetensors")) if path.suffix != ".safetensors" else []
    return inside[0] if len(inside) == 1 else path


@lru_cache(maxsize=1024)
def _hash(path: str, size: int, _time: int) -> str:
    """Of a file as long as it is the same: a LoRA may stand in each of 500 lines."""
    hashed = hashlib.sha256()
    with Path(path).open("rb") as file:
        for begin in range(0, size, 1 << 20):
            hashed.update(file.read(min(1 << 20, size - begin)))
    return hashed.hexdigest()
