"""A model without its weights: config.json of each part and how many parameters it has.

From the folder if the model is on this disk, else from ``configs/architectures``; nothing is downloaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imax_dist.config import load_named, named_configs
from imax_dist.errors import MissingInput
from imax_dist.models.components import Configs
from imax_dist.models.files.single_file import tables
from imax_dist.models.files.stored import header
from imax_dist.models.files.stored import shapes as tensor_shapes
from imax_dist.models.find import EMBEDDED, asked_for, find_model
from imax_dist.models.load import describe_model
from imax_dist.models.registry import ARCHITECTURES
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.weights import SINGLE_MARK, component_config
from imax_dist.settings_mapping import from_mapping


@dataclass(frozen=True)
class Blueprint:
    """``configs`` by component; ``stored`` parameters by component, empty if the weights are not here."""

    spec: ModelSpec
    configs: dict[str, dict[str, Any]]
    stored: dict[str, int]
    source: str


def find_blueprint(name: str) -> Blueprint:
    """The blueprint of a name of configs/models, a folder, or a hub id.

    Raises MissingInput, BadConfig, or BadValue for a damaged file.
    """
    named = named_configs("models")
    settings = _settings(name) if name in named else None
    source = settings.source if settings is not None else name
    revision = settings.revision if settings is not None else None
    here = Path(source).is_dir() or not _is_hub_id(source) or asked_for(source) is not None
    if source == "embedded" or here or _cached(source, revision):
        return _from_disk(name)
    for table in tables():
        if table["source"] == source and table.get("counted"):
            return _from_table(name, table, settings or _settings(str(table["settings"])))
    known = ", ".join(str(table["source"]) for table in tables() if table.get("counted"))
    raise MissingInput(
        f"model {source} is not on this disk and configs/architectures does not describe it; "
        f"download it first; described: {known}"
    )


def _from_disk(name: str) -> Blueprint:
    spec = describe_model(name)
    folder = find_model(name)[1]
    parts = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
    weighty = [part for part in parts if list((folder / part).glob("*.safetensors"))]
    return Blueprint(
        spec=spec,
        configs={part: component_config(folder, part) for part in weighty},
        stored={part: stored_parameters(folder / part) for part in weighty},
        source="the package" if folder == EMBEDDED else str(folder),
    )


def _from_table(name: str, table: Mapping[str, Any], settings: ModelSettings) -> Blueprint:
    parts = {part: dict(config) for part, config in table["components"].items()}
    index = {"_class_name": table["pipeline"], **table.get("index", {})}
    configs = Configs(parts["transformer"], parts["vae"], index, parts["text_encoder"])
    spec = ARCHITECTURES[table["pipeline"]].facts(name, settings, configs, "")
    return Blueprint(spec=spec, configs=parts, stored={}, source="configs/architectures")


def stored_parameters(folder: Path) -> int:
    """Elements of all tensors in a folder's safetensors files, from their headers alone.

    Raises BadValue for a file that is not safetensors.
    """
    if (folder / SINGLE_MARK).is_file():
        (weights,) = folder.glob("*.safetensors")
        prefix = str(json.loads((folder / SINGLE_MARK).read_text(encoding="utf-8"))["prefix"])
        return sum(math.prod(shape) for shape in tensor_shapes(weights, prefix).values())
    return sum(
        math.prod(tensor.shape) for path in folder.glob("*.safetensors") for tensor in header(path).values()
    )


def _settings(name: str) -> ModelSettings:
    return from_mapping(ModelSettings, load_named("models", name), where=f"configs/models/{name}.yaml")


def _is_hub_id(source: str) -> bool:
    return source.count("/") == 1 and not source.startswith((".", "/"))


def _cached(source: str, revision: str | None) -> bool:
    """Whether a whole snapshot is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = [
        try_to_load_from_cache(source, name, revision=revision)
        for name in ("model_index.json", "transformer/config.json", "vae/config.json")
    ]
    return all(isinstance(path, str) for path in found)
