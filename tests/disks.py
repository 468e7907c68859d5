"""File systems of their own for the tests, and their misfortunes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65_534
LONGEST_IN_USE_S = 30


class DyingDisk:
    """An ext4 file system in a file, mounted at ``path``, that the kernel makes read-only on an error."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "dying"
        self.path.mkdir()
        self._image = folder / "dying.ext4"
        with self._image.open("wb") as file:
            file.truncate(32 << 20)
        run(["mkfs.ext4", "-q", str(self._image)])
        self.mount()

    def mount(self) -> None:
        self._device = run(["losetup", "--show", "-f", str(self._image)]).strip()
        run(["mount", "-o", "errors=remount-ro", self._device, str(self.path)])

    def fail(self) -> None:
        """The kernel's own test error: as after a bad block, no write gets through any more."""
        Path(f"/sys/fs/ext4/{Path(self._device).name}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        self.unmount()
        subprocess.run(["e2fsck", "-fy", str(self._image)], capture_output=True, check=False)
        self.mount()

    def unmount(self) -> None:
        """As soon as nobody has a file open there: a rank that was just killed may take a moment to end."""
        deadline = time.monotonic() + LONGEST_IN_USE_S
        while subprocess.run(["umount", str(self.path)], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                users = subprocess.run(["fuser", "-vm", str(self.path)], capture_output=True, check=False)
                raise TimeoutError(f"{self.path} stays in use: {(users.stdout + users.stderr).decode()}")
            time.sleep(0.1)
        run(["losetup", "-d", self._device])


def run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@contextmanager
def without_root_rights() -> Iterator[None]:
    """Act as nobody for a moment if root, who ignores permission bits."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
