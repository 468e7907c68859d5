"""Files that people name in requests and settings: which fields name one, and what is opened.

A field of a dataclass says ``field(metadata=NO_FILE)`` if its text never names a file, or gives a function of
its value; text in a field without a mark counts as a file's name, so that a new field is denied until it is
marked.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imax_dist.errors import BadManifest, MissingInput, NoPermission

MARK = "names_file"
FILE = {MARK: True}
NO_FILE = {MARK: False}
LARGEST = 64 << 30
"""Bytes; what is larger is neither a picture nor a LoRA, but a file like /proc/kcore."""
LONGEST_SHOWN = 80


def fields_naming_files(cls: type[Any], values: Mapping[str, Any]) -> list[str]:
    """Which of ``values``, by field of the dataclass ``cls``, name a file; so does an unknown field."""
    marks = {entry.name: entry.metadata.get(MARK, True) for entry in dataclasses.fields(cls)}
    found = []
    for name, value in values.items():
        mark = marks.get(name, True)
        if _holds_text(value) and (mark(value) if callable(mark) else mark):
            found.append(name)
    return found


def _holds_text(value: Any) -> bool:
    """Numbers, true, false and nothing name no file."""
    if isinstance(value, Mapping):
        return any(map(_holds_text, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_text, value))
    return value is not None and not isinstance(value, bool | int | float) and value != ""


def plain_size(path: str | Path, what: str) -> int | None:
    """Bytes of a regular file that is safe to read to its end; None if there is nothing of that name.

    Opens nothing: a pipe or /proc/kmsg would be waited for. Raises MissingInput for what is not a file or
    cannot be a name, BadManifest for an empty or huge file, NoPermission where looking is not allowed.
    """
    shown = f"{what} {str(path)[:LONGEST_SHOWN]}"
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise NoPermission(f"{shown} cannot be read: {error.strerror}") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        raise MissingInput(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(found.st_mode):
        raise MissingInput(f"{shown} is a folder; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise MissingInput(f"{shown} is not a regular file")
    if not 0 < found.st_size <= LARGEST:
        size = "is empty" if found.st_size == 0 else f"is larger than {LARGEST >> 30} GiB"
        raise BadManifest(f"{shown} {size}")
    return found.st_size
