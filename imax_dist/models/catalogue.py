"""What ``imax model`` says about a model: what it needs, and whether its folder is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from safetensors import SafetensorError, safe_open

from imax_dist.config import load_named, named_configs
from imax_dist.models.files.stored import HEADER
from imax_dist.models.find import SHIPPED
from imax_dist.models.spec import ModelSettings
from imax_dist.models.weights import INDEXES, pipeline_index
from imax_dist.settings_mapping import from_mapping
from imax_dist.wording import first_line

BYTES_PER_WEIGHT = 2
"""bfloat16."""


Presence: TypeAlias = Literal["yes", "part", "no"]
WITHOUT_WEIGHTS = ("Tokenizer", "Scheduler", "Processor", "Extractor")
"""How the classes of a pipeline's other components end."""


@dataclass(frozen=True)
class Entry:
    """One file of configs/models; memory in GB (10^9 bytes) in bfloat16, 0 where it is not known."""

    name: str
    settings: ModelSettings
    memory_gb: float
    text_memory_gb: float
    present: Presence
    """Whether the weights are on this disk, all of them or a part."""


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


def _present(settings: ModelSettings) -> Presence:
    if settings.source in SHIPPED:
        return "yes" if SHIPPED[settings.source].is_dir() else "no"
    if Path(settings.source).is_dir():
        return completeness(Path(settings.source))
    from huggingface_hub import try_to_load_from_cache

    for index in INDEXES:
        found = try_to_load_from_cache(settings.source, index, revision=settings.revision)
        if isinstance(found, str):
            return completeness(Path(found).parent)
    return "no"


def completeness(folder: Path) -> Presence:
    """``part`` where a network of the pipeline's index has no weights, or not all of them."""
    networks = [
        name
        for name, entry in pipeline_index(folder).items()
        if isinstance(entry, list)
        and entry[1]
        and not str(entry[1]).removesuffix("Fast").endswith(WITHOUT_WEIGHTS)
    ]
    has_all = all(any((folder / name).glob("*.safetensors")) for name in networks)
    return "yes" if has_all and not faults(folder) else "part"


def weight_files(folder: Path) -> list[Path]:
    """Every safetensors file of a pipeline's components."""
    return sorted(folder.glob("*/*.safetensors"))


def faults(folder: Path) -> list[str]:
    """What is not whole, a sentence each: shards an index names, files that do not open."""
    found = []
    for index in sorted(folder.glob("*/*.safetensors.index.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            found.append(f"{index.parent.name}: {index.name} is not a readable index: {first_line(error)}")
            continue
        missing = sorted(shard for shard in shards if not (index.parent / shard).is_file())
        if missing:
            part = index.parent.name
            found.append(
                f"{part}: {len(missing)} of {len(shards)} weight files are missing, first {missing[0]}"
            )
    for file in weight_files(folder):
        try:
            with safe_open(file, framework=HEADER):
                pass
        except (SafetensorError, OSError) as error:
            found.append(f"{file.relative_to(folder)} does not open: {error}")
    return found
