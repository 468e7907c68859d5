"""How much room there is on the disks a service writes to: that of its folder, and of a queue in a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from imax_dist.service.reading import MIB
from imax_dist.wording import file_size


@dataclass
class Room:
    """``places`` are folders by what lies there, in words."""

    places: dict[str, Path]
    least_mib: int

    @classmethod
    def of(cls, out: Path, place: Path | str, least_mib: int) -> Room:
        """Of the posters in ``out`` and the queue at ``place``; a database has a disk of its own."""
        queue = {"the queue": place.parent} if isinstance(place, Path) else {}
        return cls({"posters": out, **queue}, least_mib)

    def free(self) -> int:
        """Bytes that may still be written where there are fewest; 0 where a folder cannot be looked at."""
        try:
            return min(map(_free, self.places.values()))
        except OSError:
            return 0

    def why_too_little(self) -> str:
        """What there is too little of, in words without paths, which strangers may read; empty if enough."""
        for what, folder in self.places.items():
            try:
                free = _free(folder)
            except OSError as error:
                return f"the disk of {what} cannot be checked: {error.strerror}"
            if free < self.least_mib * MIB:
                least = file_size(self.least_mib * MIB)
                return f"the disk of {what} has {file_size(free)} free, and needs {least}"
        return ""


def _free(folder: Path) -> int:
    """0 as well on a disk that takes no more names of files."""
    found = os.statvfs(folder)
    return 0 if found.f_files and not found.f_favail else found.f_bavail * found.f_frsize
