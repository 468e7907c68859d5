"""What a store's file system can do for SQLite: a network disk has no memory that its hosts share.

A write-ahead log there looks well on one host and destroys the file with two; on FUSE SQLite may grant it and
fail at the first write. A rollback journal is safe where locks reach all hosts. Sources: SQLite's pages
"Write-Ahead Logging" and "How To Corrupt An SQLite Database File", nfs(5), the Lustre manual on ``flock``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from imax_dist.errors import CannotWrite

MOUNTS = Path("/proc/self/mountinfo")
SHARED = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "gpfs", "beegfs", "9p", "afs"),
        *("glusterfs", "ocfs2", "gfs2", "orangefs", "pvfs2", "virtiofs"),
    )
)
"""Kernel file systems that several hosts may write to."""
NO_LOCKS = re.compile(r"s3fs|gcsfuse|rclone|goofys|mount-?s3|mountpoint|blobfuse2?|sshfs")
"""FUSE file systems whose locks no other host sees, by type or source."""
LOCAL_LOCKS = frozenset(("nolock", "local_lock=all", "local_lock=posix", "localflock", "noflock", "nobrl"))
ADVICE = (
    "keep the queue elsewhere: --store FILE on a disk of this machine, or --store postgresql://... for "
    "several hosts; the posters may stay"
)


class Mount(NamedTuple):
    """A mounted file system."""

    point: str
    kind: str
    source: str
    options: frozenset[str]

    @property
    def shared(self) -> bool:
        """Whether other hosts may write to it, as far as its type says."""
        return self.kind in SHARED or (self.kind.startswith("fuse") and self.kind != "fuseblk")


def mount_of(path: Path, mounts: str | None = None) -> Mount | None:
    """The mount that holds ``path``; ``mounts`` is the text of mountinfo. None where nobody says."""
    try:
        text = MOUNTS.read_text(errors="replace") if mounts is None else mounts
    except OSError:
        return None
    place = os.path.realpath(path)
    found = [mount for line in text.splitlines() if (mount := _mount(line)) is not None]
    over = [
        mount for mount in found if place == mount.point or place.startswith(f"{mount.point.rstrip('/')}/")
    ]
    return max(enumerate(over), key=lambda each: (len(each[1].point), each[0]))[1] if over else None


def require_locks(path: Path, mount: Mount | None) -> None:
    """Raise CannotWrite where two hosts could write to the file at ``path`` at once."""
    if mount is None or not mount.shared:
        return
    if NO_LOCKS.search(f"{mount.kind} {mount.source}"):
        raise CannotWrite(
            f"{path} is on {mount.point} ({mount.kind}), where no host sees another's locks, and a "
            f"database would be damaged; {ADVICE}"
        )
    local = sorted(LOCAL_LOCKS & mount.options)
    if mount.kind == "lustre" and "flock" not in mount.options:
        local = local or ["no flock"]
    if local:
        raise CannotWrite(
            f"{path} is on {mount.point} ({mount.kind}), mounted with {local[0]}: no host sees another's "
            f"locks, and a database would be damaged; mount it with locks, or {ADVICE}"
        )


def _mount(line: str) -> Mount | None:
    """A line of mountinfo (proc(5)): ... POINT OPTIONS [tags] - KIND SOURCE SUPER-OPTIONS."""
    before, dash, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not dash or len(fields) < 6 or len(rest) < 3:
        return None
    options = frozenset(f"{fields[5]},{rest[2]}".split(","))
    return Mount(_plain(fields[4]), rest[0], _plain(rest[1]), options)


def _plain(text: str) -> str:
    """Spaces and such are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)
