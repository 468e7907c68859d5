"""Mappings, as settings files and JSON hold them, to frozen dataclasses and back; their fingerprints.

What is wrong is a BadConfig that names the key and the nearest right one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, cast

from imax_dist.config import LONGEST_SHOWN, suggestion
from imax_dist.errors import BadConfig

Settings = TypeVar("Settings")

PLAIN = frozenset((str, int, float, bool, type(None)))
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


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
