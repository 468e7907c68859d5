"""Find a model: a name of ``configs/models``, a folder in diffusers layout, a file, or a hub id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imax_dist.config import load_config, load_named, load_yaml, named_configs, suggestion
from imax_dist.errors import BadConfig, MissingInput, NoPermission
from imax_dist.models.files.assembled import Asked, assembled
from imax_dist.models.files.single_file import is_single_file
from imax_dist.models.registry import architecture_of
from imax_dist.models.spec import ModelSettings
from imax_dist.models.weights import component_config, is_gguf
from imax_dist.settings_mapping import from_mapping
from imax_dist.wording import first_line

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
        return settings, model_folder(settings.source, settings.revision, without=_unread(settings))
    asked = asked_for(name)
    if asked is not None:
        folder = assembled(asked)
        given = load_yaml(folder / SETTINGS_FILE)
        return _laid_over(given, name, folder, where=name), folder
    looks_like_source = Path(name).exists() or name.count("/") == 1 or name.startswith((".", "/"))
    if not looks_like_source:
        known = list(named_configs("models"))
        raise BadConfig(
            f"model {name[:200]!r} is not known; {suggestion(name, known)}, a folder in diffusers layout, "
            "a file, or a hub id like black-forest-labs/FLUX.1-dev"
        )
    folder = model_folder(name, None)
    return _settings_of(folder, name), folder


def asked_for(name: str) -> Asked | None:
    """A model in a file, or in files that a YAML file names; None for a folder, a hub id or a name.

    Raises MissingInput for a file that is not there, BadConfig for keys of the YAML that are wrong.
    """
    if name.endswith((".yaml", ".yml")):
        mapping, where = load_config("models", name)
        source, vae = mapping.pop("source", None), mapping.pop("vae", None)
        text = mapping.pop("text_encoders", [])
        if not isinstance(source, str) or not is_single_file(source):
            raise BadConfig(f"{where}: source must name a .safetensors file, got {source!r}")
        beside = Path(name).parent
        return Asked(
            beside / source,
            None if vae is None else str(beside / str(vae)),
            tuple(str(beside / str(each)) for each in ([text] if isinstance(text, str) else text)),
            mapping,
        )
    return Asked(Path(name)) if is_single_file(name) else None


def _unread(settings: ModelSettings) -> Sequence[str]:
    """Files of the hub that nothing will read: weights that a .gguf file stands in for."""
    return ["transformer/*.safetensors*"] if is_gguf(settings.quantize) else []


def _settings_of(folder: Path, name: str) -> ModelSettings:
    """The folder's ``imax.yaml``, laid over its architecture's settings unless it has a native side."""
    own = folder / SETTINGS_FILE
    given = load_yaml(own) if own.is_file() else {}
    if "native_side" in given:
        return from_mapping(ModelSettings, {"source": name, **given}, where=str(own))
    return _laid_over(given, name, folder, where=str(own))


def _laid_over(given: Mapping[str, Any], name: str, folder: Path, *, where: str) -> ModelSettings:
    """Settings of a file laid over those of the folder's architecture."""
    like = architecture_of(name, folder).settings(component_config(folder, "transformer", weights=False))
    mapping = {**load_named("models", like), "source": name, "revision": None}
    for key, value in given.items():
        below = mapping.get(key)
        mapping[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return from_mapping(ModelSettings, mapping, where=where if given else like)


def model_folder(source: str, revision: str | None, *, without: Sequence[str] = ()) -> Path:
    """The folder of a model of the package, of this disk or, downloaded, of the hub. Raises MissingInput.

    ``without``: patterns of files that are not downloaded.
    """
    if source in SHIPPED:
        return SHIPPED[source]
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/")):
        raise MissingInput(f"model folder {source} does not exist")
    return _download(source, revision, without)


def _download(source: str, revision: str | None, without: Sequence[str]) -> Path:
    from httpx2 import HTTPError
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
            f"model {source} has no revision {revision!r}; omit it, or give a branch, tag or commit"
        ) from error
    except RepositoryNotFoundError as error:
        raise MissingInput(f"model {source} was not found on the hub; check the spelling") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
        raise MissingInput(
            f"model {source} is not in the local cache and {why}; download it first (hf download {source}) "
            "or give a folder"
        ) from error
    except HTTPError as error:
        raise MissingInput(
            f"the download of model {source} was interrupted ({first_line(error)}); "
            "run the same command again: it resumes where it stopped"
        ) from error
