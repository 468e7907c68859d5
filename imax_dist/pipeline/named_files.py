"""Files that a request names by path, and what they hold now.

Apart because jobs asks this of ten thousand requests and must not import the rest of a render.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from imax_dist.models.lora import parse_lora
from imax_dist.pipeline.request import Request


def named_files(request: Request) -> dict[str, str]:
    """SHA-256 of the guide and of LoRA files by path, of those that are on this host."""
    named = [request.guide, *(parse_lora(text)[0] for text in request.lora)]
    found = {name: Path(name) for name in named if name is not None and Path(name).is_file()}
    stats = {name: path.stat() for name, path in found.items()}
    return {name: _hash(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@lru_cache(maxsize=1024)
def _hash(path: str, *_size_and_time: int) -> str:
    """Of a file as long as it is the same: a LoRA may stand in each of 500 lines."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
