"""The files of a model folder in diffusers layout: configs, weights loaded complete, their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imax_dist.errors import BadConfig, MissingInput


def pipeline_class(folder: Path) -> str:
    """``_class_name`` of model_index.json. Raises MissingInput if the folder is no pipeline."""
    return str(pipeline_index(folder).get("_class_name"))


def pipeline_index(folder: Path) -> dict[str, Any]:
    """model_index.json. Raises MissingInput if the folder is no pipeline."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise MissingInput(f"model folder {folder} has no model_index.json; it is not in diffusers layout")
    return _read_json(index)


def component_config(folder: Path, component: str, *, weights: bool = True) -> dict[str, Any]:
    """config.json of one component. Raises MissingInput naming what is not there, ``weights`` included."""
    config = folder / component / "config.json"
    if not config.is_file():
        raise MissingInput(f"model folder {folder} is incomplete: {component}/config.json is missing")
    if weights and not list((folder / component).glob("*.safetensors")):
        raise MissingInput(
            f"model folder {folder} is incomplete: {component} has no .safetensors weights "
            "(other formats are not loaded)"
        )
    return _read_json(config)


def require_text(folder: Path, *, encoders: Iterable[str], tokenizers: Iterable[str]) -> None:
    """Raise MissingInput unless the text encoders and tokenizers of a pipeline are there."""
    for component in encoders:
        component_config(folder, component)
    for component in tokenizers:
        config = f"{component}/tokenizer_config.json"
        if not (folder / config).is_file():
            raise MissingInput(f"model folder {folder} is incomplete: {config} is missing")


def load_complete(network: Any, folder: Path, **options: Any) -> Any:
    """``network.from_pretrained(folder)``, but MissingInput where the libraries fill a gap with noise.

    Only safetensors are opened: without ``use_safetensors`` the libraries fall back to pickled files.
    """
    module, report = network.from_pretrained(
        folder, output_loading_info=True, use_safetensors=True, **options
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise MissingInput(
            f"{folder} is incomplete: its weights lack {len(missing)} tensors that its config.json asks for, "
            f"the first is {missing[0]}"
        )
    return module


def weights_hash(folder: Path) -> str:
    """SHA-256 over the weights as the index names them: path, size and content of small files.

    Files above 64 MiB count by size and the hub's own content name, so that hashing takes no minutes.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        digest.update(content_or_name(path))
    return digest.hexdigest()


def content_or_name(file: Path) -> bytes:
    """What the hash counts of one file, besides its size."""
    small = file.stat().st_size <= 64 << 20
    return file.read_bytes() if small else file.resolve().name.encode()


def is_gguf(quantize: str | None) -> bool:
    """Whether ``quantize`` of a settings file is a file with the transformer's weights."""
    return quantize is not None and quantize.endswith(".gguf")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"{path} is not readable JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise BadConfig(f"{path} is not a configuration: its top level is not an object")
    return loaded
