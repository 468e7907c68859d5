"""Which names may become paths, and which files may be removed: only this program's own, one by one.

A folder of posters may come from a stranger, and so may every name in it. A name becomes a path after
``check_name``; files are removed by ``remove_files``, which follows no link and enters no folder.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from imax_dist.errors import BadValue, CannotWrite
from imax_dist.output.atomic import write_bytes, write_error

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
CONTACT_SHEET = "contact-sheet.jpg"
BATCH_FILES = (
    r"events\.jsonl(\.1)?|contact-sheet\.jpg|index\.html|report\.(html|pdf)|batch.*\.(sqlite.*|lock|lease)"
)
"""What lies beside the posters' folders."""
LARGEST_PAGE = 1 << 30


def check_name(name: str) -> None:
    """Raise BadValue unless ``name``, wherever it comes from, is safe as the name of a poster's folder."""
    if re.fullmatch(NAME, name) is None:
        raise BadValue(
            f"id {name[:120]!r} cannot name a folder; use up to 100 letters, digits, dots, dashes and "
            "underscores, beginning with a letter or digit"
        )
    if re.fullmatch(BATCH_FILES, name, flags=re.IGNORECASE):
        raise BadValue(f"id {name!r} is a file of the batch itself; choose another")


def is_name(name: str) -> bool:
    """Whether ``check_name`` takes it."""
    return re.fullmatch(NAME, name) is not None and not re.fullmatch(BATCH_FILES, name, flags=re.IGNORECASE)


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
