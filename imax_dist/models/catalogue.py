"""What ``imax model`` says about a model: what it needs, and whether its folder is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from imax_dist.config import from_mapping, load_named, named_configs
from imax_dist.models.find import SHIPPED
from imax_dist.models.spec import ModelSettings

BYTES_PER_WEIGHT = 2
"""bfloat16."""


@dataclass(frozen=True)
class Entry:
    """One file of configs/models; memory in GB (10^9 bytes) in bfloat16, 0 where it is not known."""

    name: str
    settings: ModelSettings
    memory_gb: float
    text_memory_gb: float
    present: bool
    """Whether the weights are on this disk."""


def catalogue() -> list[Entry]:
    """Every named model, in the order of the files."""
    return [_entry(name) for name in named_configs("models")]


def _entry(name: str) -> Entry:
    settings = from_mapping(ModelSettings, load_named("models", name), where=f"configs/models/{name}.yaml")
    about = settings.about
    return Entry(
        name,
        settings,
        memory_gb=about.parameters * BYTES_PER_WEIGHT if about else 0.0,
        text_memory_gb=about.text_parameters * BYTES_PER_WEIGHT if about else 0.0,
        present=_present(settings),
    )


def _present(settings: ModelSettings) -> bool:
    if settings.source in SHIPPED:
        return SHIPPED[settings.source].is_dir()
    if Path(settings.source).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(settings.source, "model_index.json", revision=settings.revision)
    return isinstance(found, str)


def weight_files(folder: Path) -> list[Path]:
    """Every safetensors file of a pipeline's components."""
    return sorted(folder.glob("*/*.safetensors"))


def faults(folder: Path) -> list[str]:
    """What is not whole, a sentence each: shards an index names, files that do not open."""
    found = []
    for index in sorted(folder.glob("*/*.safetensors.index.json")):
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(shard for shard in shards if not (index.parent / shard).is_file())
        if missing:
            part = index.parent.name
            found.append(
                f"{part}: {len(missing)} of {len(shards)} weight files are missing, first {missing[0]}"
            )
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            found.append(f"{file.relative_to(folder)} does not open: {error}")
    return found
