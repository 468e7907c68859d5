"""Find a model: a name of ``configs/models``, a folder in diffusers layout, or a hub id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from imax_dist.config import from_mapping, load_named, load_yaml, named_configs, suggestion
from imax_dist.errors import BadConfig, MissingInput, NoPermission
from imax_dist.models.base import ModelSettings

EMBEDDED = Path(__file__).parent / "embedded" / "weights"
SINGLE_SIZE = EMBEDDED.parent / "single_size"
"""The variant that knows its native size only; its VAE is a link to the first one's."""
SETTINGS_FILE = "imax.yaml"
WANTED_FILES = ["*.json", "*/*.safetensors", "*/*.txt", "*/*.model", SETTINGS_FILE]
"""Weights in component folders only: FLUX.1 also has a second copy of them at the top, 24 GB."""


def find_model(name: str) -> tuple[ModelSettings, Path]:
    """Settings and folder of ``name``. Raises BadConfig or MissingInput if there is no such model."""
    if name in named_configs("models"):
        settings = from_mapping(
            ModelSettings, load_named("models", name), where=f"configs/models/{name}.yaml"
        )
        return settings, _folder(settings.source, settings.revision, without=_unread(settings))
    looks_like_source = Path(name).exists() or name.count("/") == 1 or name.startswith((".", "/"))
    if not looks_like_source:
        known = list(named_configs("models"))
        raise BadConfig(
            f"model {name!r} is not known; {suggestion(name, known)}, a folder in diffusers layout, "
            "or a hub id like black-forest-labs/FLUX.1-dev"
        )
    folder = _folder(name, None)
    return _settings_of(folder, name), folder


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


def whole(network: Any, folder: Path, **options: Any) -> Any:
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


def _unread(settings: ModelSettings) -> Sequence[str]:
    """Files of the hub that nothing will read: weights that a .gguf file stands in for."""
    return ["transformer/*.safetensors*"] if is_gguf(settings.quantize) else []


def _settings_of(folder: Path, name: str) -> ModelSettings:
    """An ``imax.yaml`` in the folder, else the settings its architecture names."""
    from imax_dist.models.load import architecture_of

    own = folder / SETTINGS_FILE
    if own.is_file():
        mapping = {"source": name, **load_yaml(own)}
        return from_mapping(ModelSettings, mapping, where=str(own))
    like = architecture_of(name, folder).settings(component_config(folder, "transformer"))
    settings = from_mapping(ModelSettings, load_named("models", like), where=like)
    return dataclasses.replace(settings, source=name, revision=None)


def _folder(source: str, revision: str | None, *, without: Sequence[str] = ()) -> Path:
    if source in ("embedded", SINGLE_SIZE.name):
        return EMBEDDED if source == "embedded" else SINGLE_SIZE
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/")):
        raise MissingInput(f"model folder {source} does not exist")
    return _download(source, revision, without)


def _download(source: str, revision: str | None, without: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        wanted, unread = WANTED_FILES, list(without)
        found = snapshot_download(source, revision=revision, allow_patterns=wanted, ignore_patterns=unread)
        return Path(found)
    except GatedRepoError as error:
        raise NoPermission(
            f"model {source} is gated: accept its licence on its page, then set HF_TOKEN or run hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise MissingInput(
            f"model {source} has no revision {revision!r}; leave it out, or give a branch, tag or commit"
        ) from error
    except RepositoryNotFoundError as error:
        raise MissingInput(f"model {source} was not found on the hub; check the spelling") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
        raise MissingInput(
            f"model {source} is not in the local cache and {why}; download it first (hf download {source}) "
            "or give a folder"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"{path} is not readable JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise BadConfig(f"{path} is not a configuration: its top level is not an object")
    return loaded
