"""Settings files: YAML to frozen dataclasses, with errors that name the key and the nearest right one.

A named file lives in ``configs/<kind>/<name>.yaml``. ``--set a.b=value`` changes one key of a loaded
mapping before it becomes a dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

import yaml

from imax_dist.errors import BadConfig, MissingInput
from imax_dist.named_file import plain_size

Settings = TypeVar("Settings")

PLAIN = frozenset((str, int, float, bool, type(None)))
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
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
    return load_yaml(known[name])


def load_config(kind: str, name: str) -> tuple[dict[str, Any], str]:
    """A file of ``configs/<kind>`` by name, or a YAML file by its path; its mapping and where it came from.

    Raises BadConfig for an unknown name, MissingInput for a path without a file.
    """
    if not name.endswith((".yaml", ".yml")):
        return load_named(kind, name), f"configs/{kind}/{name}.yaml"
    if plain_size(name, f"{KINDS[kind]} file") is None:
        raise MissingInput(f"{KINDS[kind]} file {name} does not exist")
    return load_yaml(Path(name)), name


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping. Raises BadConfig with the line of a mistake."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BadConfig(f"{path} is larger than any settings file ({LARGEST_FILE >> 20} MiB)")
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
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


def from_mapping(cls: type[Settings], mapping: Mapping[str, Any], *, where: str) -> Settings:
    """Build the dataclass ``cls``; ``where`` (a file or option) starts every error message.

    Raises BadConfig for an unknown key, a missing one, or a value of the wrong type.
    """
    entries, values = _entries(cast(Any, cls)), {}
    for key, value in mapping.items():
        entry = entries.get(key)
        if entry is None or not entry.given:
            shown, known = str(key)[:LONGEST_SHOWN], [name for name, each in entries.items() if each.given]
            raise BadConfig(f"{where}: unknown key {shown!r}; {suggestion(str(key), known)}")
        plain = type(value) in entry.plain
        values[key] = value if plain else _convert(entry.hint, value, where=f"{where}: {key}")
    for name, entry in entries.items():
        if entry.required and entry.given and name not in values:
            raise BadConfig(f"{where}: key {name!r} is missing")
    return cls(**values)


def require_types(settings: Any) -> None:
    """For ``__post_init__``: values as in a settings file, lists as tuples. Raises BadConfig."""
    for name, entry in _entries(cast(Any, type(settings))).items():
        value = getattr(settings, name)
        if type(value) not in entry.plain and value is not entry.default:
            object.__setattr__(settings, name, _convert(entry.hint, value, where=name))


class _Entry(typing.NamedTuple):
    """What is known of a dataclass's field before any value is."""

    hint: Any
    plain: frozenset[type]  # classes whose values need no conversion
    default: Any  # where it needs none either
    required: bool
    given: bool  # is an argument of the class


@functools.cache
def _entries(cls: type[Any]) -> dict[str, _Entry]:
    """Fields by name; a manifest asks for each of its lines, and evaluating types takes long."""
    kept, hints = {str, int, bool, type(None)}, typing.get_type_hints(cls)

    def entry(field: dataclasses.Field[Any]) -> _Entry:
        hint, usual = hints[field.name], field.default
        options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
        required = usual is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        sound = usual if isinstance(usual, str) or usual == () else dataclasses.MISSING
        return _Entry(hint, frozenset(kept.intersection(options)), sound, required, field.init)

    return {field.name: entry(field) for field in dataclasses.fields(cls)}


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


def to_mapping(settings: Any) -> Any:
    """A dataclass as plain JSON values."""
    kind = type(settings)
    if kind in PLAIN:
        return settings
    if (names := _field_names(cast(Any, kind))) is not None:
        values = [(name, getattr(settings, name)) for name in names]
        return {name: item if type(item) in PLAIN else to_mapping(item) for name, item in values}
    if isinstance(settings, tuple | list):
        return [to_mapping(item) for item in settings]
    if kind is dict or isinstance(settings, Mapping):
        return {key: item if type(item) in PLAIN else to_mapping(item) for key, item in settings.items()}
    return settings


@functools.cache
def _field_names(kind: type[Any]) -> tuple[str, ...] | None:
    """Of a dataclass; None for another class."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def canonical(value: Any) -> str:
    """A value's canonical JSON: the same settings give the same text everywhere."""
    return CANONICAL.encode(to_mapping(value))


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where=where)
    if origin is Literal:
        return _convert_literal(hint, value, where=where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise BadConfig(f"{where} must hold keys, got {_shown(value)}")
        return from_mapping(cast(type[Any], hint), value, where=where)
    if origin is tuple:
        items = value if isinstance(value, tuple) else _expect(list, value, where=where)
        return tuple(_convert(typing.get_args(hint)[0], item, where=where) for item in items)
    if origin in (dict, Mapping):
        return dict(_expect(dict, value, where=where))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _float(value, where=where)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise BadConfig(f"{where} must be a finite number, got {value}")
    return _expect(hint, value, where=where)


def _convert_union(hint: Any, value: Any, *, where: str) -> Any:
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    present = [option for option in options if option is not type(None)]
    listed = [option for option in present if typing.get_origin(option) is tuple]
    single = [option for option in present if option not in listed]
    chosen = listed if listed and isinstance(value, list | tuple) else single
    return _convert(chosen[0], value, where=where)


def _convert_literal(hint: Any, value: Any, *, where: str) -> Any:
    choices = typing.get_args(hint)
    if not any(type(value) is type(option) and value == option for option in choices):
        options = [str(option).lower() if isinstance(option, bool) else str(option) for option in choices]
        near = suggestion(value[:LONGEST_SHOWN] if isinstance(value, str) else "", options)
        raise BadConfig(f"{where}: {_shown(value)} is not a choice; {near}")
    return value


def _expect(hint: Any, value: Any, *, where: str) -> Any:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}
    if (isinstance(value, bool) and hint is not bool) or not isinstance(value, hint):
        wanted = names.get(hint, "keys and values")
        raise BadConfig(f"{where} must be {wanted}, got {_shown(value)}")
    return value


def _float(value: int, *, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise BadConfig(f"{where} is too large a number") from error


def _shown(value: Any) -> str:
    """``repr``, but never long: values come from strangers."""
    return (repr(value) if isinstance(value, str) else reprlib.repr(value))[:LONGEST_SHOWN]
