"""Find a model: a name of ``configs/models``, a folder in diffusers layout, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imax_dist.config import from_mapping, load_named, load_yaml, named_configs, suggestion
from imax_dist.errors import BadConfig, MissingInput, NoPermission
from imax_dist.models.registry import architecture_of
from imax_dist.models.single_file import refuse_single_file
from imax_dist.models.spec import ModelSettings
from imax_dist.models.weights import component_config, is_gguf

EMBEDDED = Path(__file__).parent / "embedded" / "weights"
SHIPPED = {"embedded": EMBEDDED}
"""Models inside the package, by their settings' source."""
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
    refuse_single_file(name)
    looks_like_source = Path(name).exists() or name.count("/") == 1 or name.startswith((".", "/"))
    if not looks_like_source:
        known = list(named_configs("models"))
        raise BadConfig(
            f"model {name[:200]!r} is not known; {suggestion(name, known)}, a folder in diffusers layout, "
            "or a hub id like black-forest-labs/FLUX.1-dev"
        )
    folder = _folder(name, None)
    return _settings_of(folder, name), folder


def _unread(settings: ModelSettings) -> Sequence[str]:
    """Files of the hub that nothing will read: weights that a .gguf file stands in for."""
    return ["transformer/*.safetensors*"] if is_gguf(settings.quantize) else []


def _settings_of(folder: Path, name: str) -> ModelSettings:
    """The folder's ``imax.yaml``, laid over its architecture's settings unless it has a native side."""
    own = folder / SETTINGS_FILE
    given = load_yaml(own) if own.is_file() else {}
    if "native_side" in given:
        return from_mapping(ModelSettings, {"source": name, **given}, where=str(own))
    like = architecture_of(name, folder).settings(component_config(folder, "transformer", weights=False))
    mapping = {**load_named("models", like), "source": name, "revision": None}
    for key, value in given.items():
        below = mapping.get(key)
        mapping[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return from_mapping(ModelSettings, mapping, where=str(own) if given else like)


def _folder(source: str, revision: str | None, *, without: Sequence[str] = ()) -> Path:
    if source in SHIPPED:
        return SHIPPED[source]
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
