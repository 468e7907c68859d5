"""ICC profiles that are installed on this system, found by name as colour settings of other programs do."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from imax_dist.errors import BadValue
from imax_dist.named_file import plain_size
from imax_dist.output.image.profile import LARGEST, Profile, parse_profile, read_profile

ENDINGS = (".icc", ".icm")
MOST_FILES = 5_000
MOST_SHOWN = 5
COLORSYNC = "Library/ColorSync/Profiles"
ELSEWHERE = (f"/{COLORSYNC}", f"/System/{COLORSYNC}", f"~/{COLORSYNC}", "~/.color/icc")


def profile_named(text: str) -> Profile:
    """The profile of a file, or the installed one whose file or description has this name.

    Raises MissingInput or BadValue as ``read_profile`` does, BadValue for a name that none or several have.
    """
    named = text.lower().endswith(ENDINGS) or "/" in text or "\\" in text
    if named or plain_size(text, "ICC profile") is not None:
        return read_profile(Path(text))
    installed = installed_profiles()
    found = {
        profile.sha256: path
        for path, profile in installed
        if _squeezed(text) in (_squeezed(path.stem), _squeezed(profile.name))
    }
    if len(found) == 1:
        return read_profile(found.popitem()[1])
    if found:
        files = ", ".join(map(str, found.values()))
        raise BadValue(f"ICC profile {text!r} is any of {files}; name the file")
    raise BadValue(
        f"ICC profile {text[:80]!r} is neither a file nor installed here; {_near(text, installed)}"
    )


def installed_profiles() -> list[tuple[Path, Profile]]:
    """RGB and CMYK profiles in the system's and the user's folders; what is not a profile is passed over."""
    found = []
    for path in _files():
        try:
            if path.stat().st_size <= LARGEST:
                found.append((path, parse_profile(path.read_bytes(), where=str(path))))
        except (BadValue, OSError):
            continue
    return found


def _files() -> Iterator[Path]:
    seen = 0
    for folder in profile_folders():
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.suffix.lower() in ENDINGS and path.is_file():
                seen += 1
                if seen > MOST_FILES:
                    return
                yield path


def profile_folders() -> list[Path]:
    """Where systems keep profiles: ``color/icc`` of each data folder (XDG), ColorSync, Windows' spooler."""
    homes = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = [Path(each).expanduser() for each in (homes, *shared.split(os.pathsep)) if each]
    windows = os.environ.get("SYSTEMROOT")
    places = [folder / name for folder in folders for name in ("color/icc", "icc")]
    places += [Path(place).expanduser() for place in ELSEWHERE]
    return places + ([Path(windows) / "System32/spool/drivers/color"] if windows else [])


def _squeezed(name: str) -> str:
    """``ISO Coated v2`` and ``ISOcoated_v2`` are one name."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _near(text: str, installed: list[tuple[Path, Profile]]) -> str:
    names = sorted({profile.name for _, profile in installed})
    if not names:
        return "no profile is installed here; name a file ending in .icc, or ask the print shop for theirs"
    close = difflib.get_close_matches(text, names, n=MOST_SHOWN, cutoff=0.4) or names[:MOST_SHOWN]
    return f"near it: {', '.join(close)} (imax list profiles shows all)"
