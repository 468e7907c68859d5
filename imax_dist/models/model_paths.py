"""Folders that hold models: those of ``IMAX_MODELS``, as ComfyUI lays them out or not, and the hub cache.

``IMAX_MODELS`` is a list as PATH is one; a folder of ComfyUI's counts with its ``models``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from imax_dist.models.weights import INDEXES, pipeline_class

VARIABLE = "IMAX_MODELS"
DEPTH = 3
"""Folders below each of the list that are looked into."""
OTHER_KINDS = ("vae", "clip", "text_encoders", "loras", "controlnet", "clip_vision", "upscale_models")
"""ComfyUI's folders of what is not a transformer."""
ENDINGS = (".safetensors", ".sft", ".gguf")


def model_folders() -> list[Path]:
    """The folders of the list that exist."""
    named = [Path(text).expanduser() for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]
    inner = [folder / "models" if (folder / "models").is_dir() else folder for folder in named]
    return [folder for folder in inner if folder.is_dir()]


def model_files() -> Iterator[Path]:
    """Every file of weights in the folders that is not part of a pipeline in diffusers layout."""
    for folder in model_folders():
        yield from _files_below(folder)


def _files_below(folder: Path) -> Iterator[Path]:
    for place, inside, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        is_pipeline = any(index in names for index in INDEXES)
        if depth >= DEPTH or is_pipeline:
            inside.clear()
        if not is_pipeline:
            yield from (Path(place) / name for name in sorted(names) if name.endswith(ENDINGS))


def transformer_files() -> list[Path]:
    """Those of the files that lie where ComfyUI keeps transformers and whole models, or in no such folder."""
    found = [
        path
        for folder in model_folders()
        for path in _files_below(folder)
        if not {folder.name, *path.parent.relative_to(folder).parts} & set(OTHER_KINDS)
    ]
    return list({path.resolve(): path for path in found}.values())


def hub_files() -> list[Path]:
    """Files of weights at the root of repositories in the hub's cache that are not in diffusers layout."""
    from huggingface_hub import constants

    snapshots = sorted(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*"))
    found = [
        path
        for folder in snapshots
        if not any((folder / index).is_file() for index in INDEXES)
        for path in sorted(folder.glob("*"))
        if path.name.endswith(ENDINGS) and path.is_file()
    ]
    return list({path.resolve(): path for path in found}.values())


def find_file(names: Iterable[str]) -> Path | None:
    """The first of ``names`` that lies in the folders."""
    there = {path.name: path for path in model_files()}
    return next((there[name] for name in names if name in there), None)


def find_pipeline(kind: str, source: str) -> Path | None:
    """A pipeline of this class: in the folders, or ``source`` in the hub's cache, whole or in part."""
    for folder in model_folders():
        for index in [
            found for name in INDEXES for way in ("*", "*/*") for found in folder.glob(f"{way}/{name}")
        ]:
            if pipeline_class(index.parent) == kind:
                return index.parent
    from huggingface_hub import try_to_load_from_cache

    for name in (*INDEXES, "tokenizer/tokenizer_config.json"):
        found = try_to_load_from_cache(source, name)
        if isinstance(found, str):
            return Path(found).parents[name.count("/")]
    return None
