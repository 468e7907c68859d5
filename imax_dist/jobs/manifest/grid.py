"""``--grid``: every combination of a few values, a poster each, with the values in its id and its label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from itertools import product
from typing import Any, NamedTuple

import yaml

from imax_dist.config import set_key, suggestion
from imax_dist.errors import BadConfig, BadValue
from imax_dist.jobs.job import Job
from imax_dist.jobs.make_job import make_job
from imax_dist.output.image.poster import SHEET_FIELDS
from imax_dist.pipeline.request import Request
from imax_dist.settings_mapping import from_mapping, to_mapping

MOST = 1_000
"""Posters of one grid."""
REQUEST_FIELDS = tuple(entry.name for entry in fields(Request))
NATIVE = {"prompt", "seed", "model", "lora", "native_steps", "dtype"}
"""Fields that the native picture shows; others show in a small render of the whole recipe."""
EXAMPLE = "write for example seed=1..8 strength=.2,.5"


class Axis(NamedTuple):
    """A field of a request, or a switch of its recipe by its dotted name, and the values it takes."""

    name: str
    values: tuple[Any, ...]


class Cell(NamedTuple):
    """One poster of a grid."""

    job: Job
    label: str


def read_grid(texts: Sequence[str]) -> tuple[Axis, ...]:
    """``seed=1..8``, ``preset=imax,quick``: axes in this order. Raises BadValue or BadConfig."""
    axes = tuple(_axis(text) for text in texts)
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise BadValue(f"--grid names {name} twice; put all its values into one list")
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST:
        raise BadValue(f"--grid asks for {count} posters; at most {MOST} per line")
    return axes


def shows_in_native(axes: Sequence[Axis]) -> bool:
    """Whether native pictures tell the cells apart."""
    return all(axis.name in NATIVE for axis in axes)


def grid_cells(jobs: Sequence[Job], axes: Sequence[Axis]) -> list[Cell]:
    """Each job once for every combination, the last axis fastest. Raises BadValue, also for one id twice."""
    cells: list[Cell] = []
    for job in jobs:
        for values in product(*(axis.values for axis in axes)):
            chosen = {axis.name: value for axis, value in zip(axes, values, strict=True)}
            words = ["_".join(f"{name}-{_word(name, value, axes)}" for name, value in chosen.items())]
            own = [] if len(jobs) == 1 else [job.id]
            made = make_job(
                _changed(job.request, chosen),
                name="_".join([*own, *words])[:100],
                priority=job.priority,
                position=len(cells),
            )
            shown = ", ".join(f"{name} {_shown(value)}" for name, value in chosen.items())
            cells.append(Cell(made, ": ".join([*own, shown])))
    if len({cell.job.id for cell in cells}) < len(cells):
        raise BadValue("--grid gives two posters one id; name fewer axes, or shorter values")
    return cells


def _axis(text: str) -> Axis:
    name, equals, listed = text.partition("=")
    name = name.strip()
    if not equals or not name or not listed.strip():
        raise BadValue(f"--grid {text!r} is not NAME=VALUES; {EXAMPLE}")
    if "." not in name and name not in REQUEST_FIELDS:
        raise BadConfig(f"--grid: unknown field {name[:80]!r}; {suggestion(name[:80], list(REQUEST_FIELDS))}")
    between = re.fullmatch(r"\s*(\d{1,9})\s*\.\.\s*(\d{1,9})\s*", listed)
    if between is None:
        values = tuple(_value(part, text) for part in listed.split(","))
    else:
        first, last = int(between[1]), int(between[2])
        if not 0 <= last - first < MOST:
            raise BadValue(f"--grid {text!r}: a range must rise, and holds at most {MOST} values")
        values = tuple(range(first, last + 1))
    return Axis(name, tuple(dict.fromkeys(values)))


def _value(part: str, text: str) -> Any:
    """A number, true, false or a word."""
    try:
        value = yaml.safe_load(part) if "*" not in part and "&" not in part else None
    except (yaml.YAMLError, ValueError, RecursionError):
        value = None
    if value is None or isinstance(value, dict | list):
        raise BadValue(f"--grid {text!r}: {part.strip()[:80]!r} is not a single value; {EXAMPLE}")
    return value


def _changed(request: Request, chosen: dict[str, Any]) -> Request:
    """``request`` with these values; a size, scale or paper among them replaces the size it had."""
    mapping = to_mapping(request)
    method: dict[str, Any] = mapping.pop("method")
    sized = {name for name in ("size", "scale", *SHEET_FIELDS) if name in chosen}
    if sized:
        mapping.update(size=None, scale=None)
    if sized & {"size", "scale"}:
        mapping.update(dict.fromkeys(("paper", "bleed", "dpi")))
    for name, value in chosen.items():
        if "." in name:
            set_key(method, f"{name}={value}")
        else:
            mapping[name] = value
    given = {name: value for name, value in mapping.items() if value is not None}
    return from_mapping(Request, {**given, "method": method}, where="--grid")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _word(name: str, value: Any, axes: Sequence[Axis]) -> str:
    """A value in an id: itself, or its place among the others where it holds what an id cannot."""
    text = _shown(value)
    if re.fullmatch(r"[A-Za-z0-9.]{1,24}", text):
        return text
    values = next(axis.values for axis in axes if axis.name == name)
    return str(values.index(value) + 1)
