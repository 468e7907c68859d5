"""A user's own defaults of ``imax generate``: a file that ``imax list defaults`` shows.

What it says becomes part of the request, as if it stood on the command line, so that a recipe records it; a
recipe that is rendered again takes nothing from it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imax_dist.config import load_yaml
from imax_dist.settings_mapping import from_mapping, to_mapping


@dataclass(frozen=True)
class UserDefaults:
    """The keys of the file: options of ``imax generate`` of the same name. None: as without the file."""

    model: str | None = None
    preset: str | None = None
    dtype: str | None = None
    dpi: float | None = None
    parallel: str | None = None
    engine: str | None = None
    kernel: str | None = None
    quality: str | None = None
    compile: str | None = None
    text_encoders: str | None = None
    device: str | None = None
    checkpoint_every: int | None = None
    keep_native: bool | None = None


def file_of_user() -> Path:
    """``~/.config/imax/defaults.yaml``, or under ``$XDG_CONFIG_HOME``."""
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "imax" / "defaults.yaml"


def read_defaults() -> dict[str, Any]:
    """What the file says, if there is one that may be read. Raises BadConfig, naming the key."""
    path = file_of_user()
    if not os.access(path, os.R_OK) or not path.is_file():
        return {}
    read = from_mapping(UserDefaults, load_yaml(path), where=str(path))
    return {name: value for name, value in to_mapping(read).items() if value is not None}


def of_user(options: argparse.Namespace) -> Mapping[str, Any]:
    """The defaults for a command line read without them.

    Nothing for a recipe, nor for ranks on several machines, whose users' files may differ.
    """
    ranks = os.environ.get("WORLD_SIZE", "1")
    apart = os.environ.get("LOCAL_WORLD_SIZE", ranks) != ranks
    found = {} if options.recipe is not None or apart else read_defaults()
    return {**found, "of_user": found} if found else {}


def sentence(found: Mapping[str, Any]) -> str:
    """What was taken from the file, for stderr."""
    return f"defaults of {file_of_user()}: " + ", ".join(f"{key} {value}" for key, value in found.items())
