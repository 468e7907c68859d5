"""The text of a manifest's file, and how its name says it is to be read."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.jobs.manifest.files import Parsed, read_jsonl, read_prompts, read_yaml
from imax_dist.jobs.manifest.table import is_table, read_table


def _read_plain(text: str) -> Parsed:
    return read_table(text) if is_table(text) else read_prompts(text)


READERS: dict[str, Callable[[str], Parsed]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_table,
    ".tsv": read_table,
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".txt": _read_plain,
}
WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""How a file begins that is not UTF-8; the longer mark first, since it begins with the shorter."""


def read_lines(path: Path, *, most_mib: int) -> Parsed:
    """The entries and mistakes of a manifest.

    Raises MissingInput if the file does not exist, BadManifest if it is larger, of another kind or no text.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadManifest(f"manifest {path}: the name must end in {', '.join(READERS)}")
    if not path.is_file():
        wrong = "is a folder; name a file in it" if path.is_dir() else "does not exist"
        raise MissingInput(f"manifest {path} {wrong}")
    try:
        if path.stat().st_size > most_mib << 20:
            raise BadManifest(f"manifest {path} is larger than {most_mib} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise BadManifest(f"manifest {path} cannot be read: {error.strerror}") from error
    return reader(_decoded(content, path))


def _decoded(content: bytes, path: Path) -> str:
    encoding = next((name for mark, name in WIDE.items() if content.startswith(mark)), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        line = content.count(b"\n", 0, error.start) + 1
        raise BadManifest(
            f"manifest {path} is not {name} text (line {line}, byte {error.start}); save it as UTF-8 "
            '(in Excel as "CSV UTF-8")'
        ) from error
