"""DONE: a poster is the set of its files, each with size and hash; DONE is written last."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imax_dist.errors import BadManifest
from imax_dist.output.atomic import write_error, write_json
from imax_dist.output.own_files import is_file, own_files, remove_files

FILE = "DONE"
DELIVERED = "DELIVERED"
"""Where the poster was sent to (jobs/deliver.py); written after DONE."""
REQUEST = "request.json"
PICTURE = "poster.png"
POSTER_FILES = r"poster(-print)?\.(png|tiff?|jpe?g|pdf)|poster\.recipe\.json"
LOOKS = r"(native|proof)\.png"
"""Pictures of a poster's native pass."""
UNFINISHED = (
    r"\.(poster(-print|\.recipe)?|native|preview|proof|request|DONE|DELIVERED)-[0-9a-f]{12}(\.[a-z]+)?"
)
"""Temporary files that a killed process left (output/atomic.py)."""
LARGEST = 1 << 20


def write_done(
    folder: Path, fingerprint: str, names: Iterable[str], facts: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Account for the files ``names`` of a poster and remove what is left of an earlier one.

    Returns what DONE says, and the names of files that might be taken for the poster's but that this program
    did not write: they are kept. Raises CannotWrite or NoPermission.
    """
    made = {name: _account(folder / name) for name in names}
    foreign = _remove_stale(folder, made, str(facts.get("pixels_sha256")))
    looks = {path.name: _account(path) for path in own_files(folder, LOOKS)}
    record = {
        "fingerprint": fingerprint,
        "file": PICTURE,
        **made[PICTURE],
        "files": {**made, **looks},
        **facts,
    }
    write_json(folder / FILE, record)
    return record, foreign


def read_done(folder: Path) -> dict[str, Any]:
    """What DONE says; empty if it is missing, damaged, or names what no poster consists of."""
    record = _read(folder / FILE)
    files = record.get("files", {})
    sound = isinstance(files, dict) and all(
        re.fullmatch(f"{POSTER_FILES}|{LOOKS}", name) and isinstance(facts, dict)
        for name, facts in files.items()
    )
    return record if sound else {}


def read_delivered(folder: Path) -> dict[str, Any]:
    """Where a poster was sent to, and of which request it was; empty if missing or damaged."""
    return _read(folder / DELIVERED)


def read_request(folder: Path) -> dict[str, Any]:
    """The job's record of its request; empty if missing or damaged."""
    return _read(folder / REQUEST)


def difference(folder: Path, record: dict[str, Any], fingerprint: str, *, read_all: bool = False) -> str:
    """Why ``record`` is not the finished poster of the request ``fingerprint``; empty if it is.

    Compares sizes, and with ``read_all`` hashes, of every file. A DONE of before files were listed accounts
    for the picture alone.
    """
    if not record:
        return f"{FILE} is missing or damaged"
    if record.get("fingerprint") != fingerprint:
        return "it was made for an earlier request"
    files = record.get("files") or {PICTURE: {name: record.get(name) for name in ("bytes", "sha256")}}
    if PICTURE not in files:
        return f"{FILE} does not account for {PICTURE}"
    problems = (_file_difference(folder / name, facts, read_all) for name, facts in files.items())
    return next((problem for problem in problems if problem), "")


def stale_reason(path: Path) -> str:
    """Why a file in a job's folder is not of the poster that is there for the request of now, or empty.

    Empty too for files outside of job folders.
    """
    request, record = read_request(path.parent), read_done(path.parent)
    if "fingerprint" not in request:
        return ""
    if not record:
        return "its poster is not finished"
    if record.get("fingerprint") != request["fingerprint"]:
        return "it was made for an earlier request"
    facts = record.get("files", {}).get(path.name)
    if facts is None:
        return "" if belongs(path, record) else f"{FILE} does not account for it"
    return _file_difference(path, facts, read_all=True)


def belongs(path: Path, record: dict[str, Any]) -> bool:
    """Whether DONE accounts for the file, or it was finished later from the very same pixels."""
    if path.name in record.get("files", {}) or path.name == record.get("file"):
        return True
    return bool(record) and _pixels_of(path) == str(record.get("pixels_sha256"))


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path, *, looks: bool) -> None:
    """Remove unfinished files of a killed process, and with ``looks`` pictures of an earlier native pass."""
    remove_files(folder, UNFINISHED)
    for path in own_files(folder, LOOKS) if looks else ():
        if _pixels_of(path):
            _remove(path)


def _account(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _file_difference(path: Path, facts: dict[str, Any], read_all: bool) -> str:
    if not is_file(path):
        return f"{path.name} is missing"
    size = path.stat().st_size
    if facts.get("bytes") != size:
        return f"{path.name} has {size} bytes, not the {facts.get('bytes')} that were written"
    if read_all and facts.get("sha256") != hash_file(path):
        return f"{path.name} does not hold what was written"
    return ""


def _remove_stale(folder: Path, made: Iterable[str], pixels: str) -> list[str]:
    """Files of an earlier poster go, known by the earlier DONE or the recipe inside; others are named.

    What was finished from the very ``pixels`` by hand is kept.
    """
    before = read_done(folder).get("files", {})
    foreign = []
    for path in own_files(folder, POSTER_FILES):
        if path.name in made:
            continue
        listed = path.name in before and not _file_difference(path, before[path.name], read_all=True)
        held = _pixels_of(path)
        if listed or held not in ("", pixels):
            _remove(path)
        elif not held:
            foreign.append(path.name)
    return foreign


def _pixels_of(path: Path) -> str:
    """The hash of the pixels that the recipe inside states, ``?`` if it states none; empty without one."""
    from imax_dist.output.image.provenance import find_recipe  # late: image libraries, which status needs not

    try:
        recipe = find_recipe(path)
    except (BadManifest, OSError):
        return ""
    return "" if recipe is None else str(recipe.get("pixels_sha256") or "?")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        if not is_file(path) or path.stat().st_size > LARGEST:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
