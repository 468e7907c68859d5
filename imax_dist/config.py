"""Settings files: YAML to mappings, with errors that name the key and the nearest right one.

A named file lives in ``configs/<kind>/<name>.yaml``. ``--set a.b=value`` changes one key of a loaded
mapping before it becomes a dataclass.
"""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from imax_dist.errors import BadConfig, MissingInput
from imax_dist.named_file import plain_size

LARGEST_FILE = 4 << 20
LONGEST_SHOWN = 200


@functools.cache
def config_folder() -> Path:
    """``configs/`` of an installed package, or of the checkout it runs from."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def named_configs(kind: str) -> dict[str, Path]:
    """The files of one kind (``presets``, ``models``, ...) by name."""
    folder = config_folder() / kind
    return dict(_yaml_files(folder, folder.stat().st_mtime_ns)) if folder.is_dir() else {}


@functools.lru_cache(maxsize=64)
def _yaml_files(folder: Path, _changed: int) -> dict[str, Path]:
    """Of a folder as long as nothing is added to it: a manifest asks for each of its lines."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


KINDS = {
    "architectures": "architecture",
    "encoders": "text encoder",
    "hardware": "hardware",
    "jobs": "pool",
    "models": "model",
    "papers": "paper table",
    "parallel": "parallel",
    "presets": "preset",
    "service": "service",
    "studies": "study",
}
"""The folders of ``configs``, and what one file of each is called in a sentence."""


def load_named(kind: str, name: str) -> dict[str, Any]:
    """The mapping of ``configs/<kind>/<name>.yaml``. Raises BadConfig for an unknown name."""
    known = named_configs(kind)
    if name not in known:
        raise BadConfig(
            f"{KINDS[kind]} {name[:LONGEST_SHOWN]!r} is not known; {suggestion(name, list(known))}"
        )
    return copy.deepcopy(_shipped(known[name], known[name].stat().st_mtime_ns))


@functools.cache
def _shipped(path: Path, _changed: int) -> dict[str, Any]:
    """A file of ``configs``, parsed once and by libyaml where it is built: some commands read a hundred."""
    return load_yaml(path, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def load_config(kind: str, name: str) -> tuple[dict[str, Any], str]:
    """A file of ``configs/<kind>`` by name, or a YAML file by its path; its mapping and where it came from.

    Raises BadConfig for an unknown name, MissingInput for a path without a file.
    """
    if not name.endswith((".yaml", ".yml")):
        return load_named(kind, name), f"configs/{kind}/{name}.yaml"
    if plain_size(name, f"{KINDS[kind]} file") is None:
        raise MissingInput(f"{KINDS[kind]} file {name} does not exist")
    return load_yaml(Path(name)), name


def load_yaml(path: Path, loader: Any = yaml.SafeLoader) -> dict[str, Any]:
    """A YAML file whose top level is a mapping. Raises BadConfig with the line of a mistake."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BadConfig(f"{path} is larger than any settings file ({LARGEST_FILE >> 20} MiB)")
        loaded = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise BadConfig(f"{path}: not valid YAML: {str(error)[:LONGEST_SHOWN]}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise BadConfig(f"{path}{line}: not valid YAML") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadConfig(f"{path}: the top level must be `key: value` lines")
    return cast(dict[str, Any], loaded)


def set_key(mapping: dict[str, Any], assignment: str) -> None:
    """Apply ``a.b=value`` (read as YAML) to a nested mapping in place. Raises BadConfig if it cannot."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise BadConfig(
            f"--set {assignment[:LONGEST_SHOWN]!r} is not KEY=VALUE; write for example rope.rule=none"
        )
    try:
        _refuse_aliases(text)
        value = yaml.safe_load(text) if text.strip() else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        shown = assignment[:LONGEST_SHOWN]
        raise BadConfig(f"--set {shown!r}: the value is not valid YAML, or holds an alias") from error
    *parents, last = key.strip().split(".")
    for parent in parents:
        if mapping.get(parent) is None:
            mapping[parent] = {}
        child = mapping[parent]
        if not isinstance(child, dict):
            raise BadConfig(f"--set {assignment[:LONGEST_SHOWN]!r}: {parent} holds a single value, not keys")
        mapping = child
    mapping[last] = value


def _refuse_aliases(text: str) -> None:
    """Aliases can make a short text a structure of billions of parts. Raises ValueError."""
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise ValueError("YAML aliases are not supported")


def choice(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """The registry entry ``name``. Raises BadConfig, with the nearest right name, if there is none."""
    if name not in known:
        raise BadConfig(f"{kind}: {name[:LONGEST_SHOWN]!r} is not known; {suggestion(name, list(known))}")
    return known[name]


def suggestion(wrong: str, known: list[str]) -> str:
    """``did you mean "x"? known: x, y`` - the second half of a sentence about a wrong name."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(wrong[:LONGEST_SHOWN].casefold(), list(folded), n=1, cutoff=0.5)
    listing = "known: " + ", ".join(known)
    return f"did you mean {folded[close[0]]!r}? {listing}" if close else listing
