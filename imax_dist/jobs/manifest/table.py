"""A manifest from a spreadsheet: a header and a poster a row, in the spellings that spreadsheets write."""

from __future__ import annotations

import csv
import functools
import io
import re
import typing
from collections.abc import Iterator
from typing import Any

from imax_dist.jobs.manifest.files import Entry, Mistake, Parsed
from imax_dist.pipeline.request import Request

SEPARATORS = ",;\t"
"""Of two that fit a header equally well, the earlier one is taken."""
OWN_WHOLE = ("count", "priority")
WHOLE = re.compile(r"[+-]?\d{1,30}")
DECIMAL = re.compile(r"([+-]?\d{1,30})[.,](\d{1,30})")
SCIENTIFIC = re.compile(r"[+-]?\d(?:[.,]\d{1,30})?[eE][+-]?\d{1,3}")
TRUE = ("1", "true", "yes", "y", "on")
FALSE = ("0", "false", "no", "n", "off")


def read_table(text: str) -> Parsed:
    """The first row holds the field names, in any case; empty cells are left out.

    The separator is that of a first line ``sep=;``, else the one of comma, semicolon and tab that fits the
    header. Numbers may have a decimal comma.
    """
    separator, skipped, text = _separator(text)
    rows = _rows(text, separator, begins=1 + skipped)
    try:
        _, header = next(rows, (1, []))
        names = [_field_name(cell) for cell in header]
        given = [name for name in names if name]
        if len(set(given)) != len(given):
            yield Mistake(1 + skipped, "the header names a field twice")
            return
        for line, row in rows:
            item = _entry(line, row, names)
            if item is not None:
                yield item
    except csv.Error as error:
        yield Mistake(1, f"not valid CSV: {error}")


def is_table(text: str) -> bool:
    """Whether a text file is a table: spreadsheets call their tab-separated text ``.txt``."""
    header = text.lstrip().partition("\n")[0].split("\t")
    return len(header) > 1 and "prompt" in map(_field_name, header)


def _separator(text: str) -> tuple[str, int, str]:
    """The separator, how many lines came before the header, and the text from the header on."""
    first = text[: text.find("\n") + 1 or len(text)]
    named = re.fullmatch(r"\"?sep=(.)\"?", first.strip("\r\n"), flags=re.IGNORECASE)
    if named:
        return named[1], 1, text[len(first) :]
    try:
        widths = {each: len(next(csv.reader([first], delimiter=each), [])) for each in SEPARATORS}
    except csv.Error:
        return ",", 0, text
    return max(SEPARATORS, key=lambda each: widths[each]), 0, text


def _rows(text: str, separator: str, *, begins: int) -> Iterator[tuple[int, list[str]]]:
    """(line a row begins on, cells); a quoted cell may run over several lines."""
    if separator.isalnum() or separator in "\"' ":
        raise csv.Error(f"sep={separator} separates no cells; write sep=; or sep=,")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    line = begins
    for row in reader:
        yield line, row
        line = begins + reader.line_num


def _field_name(cell: str) -> str:
    return re.sub(r"[\s-]+", "_", cell.strip().lower())


def _entry(line: int, row: list[str], names: list[str]) -> Entry | Mistake | None:
    cells = [cell.strip() for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    if len(cells) > len(names):
        return Mistake(line, f"{len(cells)} cells, but the header has {len(names)}")
    for index, (name, cell) in enumerate(zip(names, cells, strict=False), start=1):
        if cell and not name:
            return Mistake(line, f"cell {index} holds {cell[:80]!r}, but the header names no field there")
    fields = {name: read_cell(name, cell) for name, cell in zip(names, cells, strict=False) if cell}
    return Entry(line, fields) if fields else None


def read_cell(name: str, text: str) -> Any:
    """The value of a cell: a number or true or false where the field ``name`` holds one, else its text.

    What is none stays text, for the field's own sentence. ``1,000`` stays text too: is it one or a thousand?
    """
    kind = field_kinds().get(name)
    if kind is bool:
        return True if text.lower() in TRUE else False if text.lower() in FALSE else text
    if kind in (int, float):
        return _number(text, whole=kind is int)
    return text if "." not in name else str(_number(text)) if DECIMAL.fullmatch(text) else text


def _number(text: str, *, whole: bool = False) -> int | float | str:
    if WHOLE.fullmatch(text):
        return int(text)
    decimal = DECIMAL.fullmatch(text)
    if decimal and len(decimal[2]) == 3 and (whole or "," in text):
        return text
    if decimal or SCIENTIFIC.fullmatch(text):
        return float(text.replace(",", "."))
    return text


@functools.cache
def field_kinds() -> dict[str, type]:
    """int, float or bool for each field that holds one."""
    kinds: dict[str, type] = dict.fromkeys(OWN_WHOLE, int)
    for name, hint in typing.get_type_hints(Request).items():
        for kind in (int, float, bool):
            if hint is kind or kind in typing.get_args(hint):
                kinds[name] = kind
    return kinds
