"""Which names may become paths, and which files may be removed: only this program's own, one by one.

A folder of posters may come from a stranger, and so may every name in it. A name becomes a path after
``check_name``; files are removed by ``remove_files``, which follows no link and enters no folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import unicodedata
from contextlib import suppress
from pathlib import Path

from imax_dist.errors import BadValue, CannotWrite
from imax_dist.output.atomic import write_bytes, write_error

LONGEST_NAME = 100
LONGEST_NAME_BYTES = 200
"""File systems end at 255, and a name has endings added."""
CONTACT_SHEET = "contact-sheet.jpg"
BATCH_FILES = (
    r"events\.jsonl(\.1)?|contact-sheet\.jpg|index\.html|report\.(html|pdf)|batch.*\.(sqlite.*|lock|lease)"
)
"""What lies beside the posters' folders."""
LARGEST_PAGE = 1 << 30
BESIDE_POSTER = r"(-print|\.recipe|\.native|\.preview)?"
"""What the names of files that go with a poster add to its own."""


def check_name(name: str) -> None:
    """Raise BadValue unless ``name``, wherever it comes from, is safe as the name of a poster's folder."""
    if not _is_plain(name):
        raise BadValue(
            f"id {name[:120]!r} cannot name a folder; use up to {LONGEST_NAME} letters, digits, dots, dashes "
            "and underscores, beginning with a letter or digit"
        )
    if re.fullmatch(BATCH_FILES, name, flags=re.IGNORECASE):
        raise BadValue(f"id {name!r} is a file of the batch itself; choose another")


def is_name(name: str) -> bool:
    """Whether ``check_name`` takes it."""
    return _is_plain(name) and not re.fullmatch(BATCH_FILES, name, flags=re.IGNORECASE)


def _is_plain(name: str) -> bool:
    """Letters of any script as ``composed`` writes them, digits, and dots, dashes, underscores after them."""
    if not 0 < len(name) <= LONGEST_NAME or not name[0].isalnum() or composed(name) != name:
        return False
    try:
        short = len(name.encode()) <= LONGEST_NAME_BYTES
    except UnicodeEncodeError:  # half of a character
        return False
    return short and all(sign.isalnum() or sign in "._-" or _is_mark(sign) for sign in name)


def _is_mark(sign: str) -> bool:
    """An accent or a vowel sign that stands on the letter before it."""
    return unicodedata.category(sign) in ("Mn", "Mc")


def composed(name: str) -> str:
    """A name with each letter and its accents as one sign (NFC), however it was typed."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Equal for names that some disks take for one: of another case, or with accents written apart."""
    return name.lower() if name.isascii() else composed(unicodedata.normalize("NFD", name).casefold())


def require_real_folder(path: Path) -> Path:
    """``path``, if it is a folder or nothing yet. Raises BadValue for a link, CannotWrite for a file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return path
    except OSError as error:
        raise write_error(path, error) from error
    if stat.S_ISLNK(mode):
        raise BadValue(f"{path} is a link, and nothing is written or removed through links; remove it")
    if not stat.S_ISDIR(mode):
        raise CannotWrite(f"{path} is not a folder; move it away")
    return path


def own_files(folder: Path, pattern: str) -> list[Path]:
    """Regular files in ``folder`` whose whole name matches; no links, and none behind one."""
    if not folder.is_dir() or folder.is_symlink():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(pattern, path.name) and is_file(path))


def is_file(path: Path) -> bool:
    """Whether a regular file, no link to one, is there."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def remove_files(folder: Path, pattern: str) -> None:
    """Remove ``own_files``, then the folder if nothing else is in it. Raises NoPermission or CannotWrite."""
    try:
        for path in own_files(folder, pattern):
            path.unlink(missing_ok=True)
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise write_error(folder, error) from error


def remove_unfinished(out: Path) -> None:
    """Remove what a killed process left while it wrote ``out`` or a file beside it that goes with it.

    What a living process writes is locked (output/atomic.py) and stays, as does all on a disk without locks.
    """
    pattern = rf"\.{re.escape(out.stem)}{BESIDE_POSTER}-[0-9a-f]{{12}}\.[a-z]+"
    for path in own_files(out.parent, pattern):
        with suppress(OSError):
            _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def write_page_file(path: Path, content: bytes, *, mark: bytes) -> None:
    """Write a page; one that is there is replaced only if it holds ``mark``, as those of this program do.

    Raises CannotWrite for somebody else's file, and what ``write_bytes`` raises.
    """
    if path.is_symlink() or (path.exists() and not _holds(path, mark)):
        raise CannotWrite(f"{path} was not written by this program and is kept; move it away")
    write_bytes(path, content)


def _holds(path: Path, mark: bytes) -> bool:
    try:
        return is_file(path) and path.stat().st_size <= LARGEST_PAGE and mark in path.read_bytes()
    except OSError as error:
        raise write_error(path, error) from error
