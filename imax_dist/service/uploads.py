"""Pictures that clients send: bounded, looked at before anything decodes them, named by their hash."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from imax_dist.errors import BadManifest, BadValue
from imax_dist.jobs.store import UploadQuota
from imax_dist.output.image.reader import open_picture
from imax_dist.output.own_files import is_file
from imax_dist.service.reading import MIB, save_body
from imax_dist.service.refusals import AGAIN_S, Refused
from imax_dist.service.room import Room
from imax_dist.service.settings import ServiceSettings

ID = r"[0-9a-f]{64}"
FOLDER = "_service"
"""Beside the jobs' folders; no job's id begins with an underscore."""
BLOCK = 4096
"""Bytes that the smallest file takes of a disk."""


class Uploads:
    """The pictures in ``<out>/_service/uploads``."""

    def __init__(self, out: Path, settings: ServiceSettings, *, quota: UploadQuota, room: Room) -> None:
        self.folder = (out / FOLDER / "uploads").absolute()
        self._settings = settings
        self._quota = quota
        self._room = room
        self._lock = threading.Lock()

    async def write(self, parts: AsyncIterator[bytes]) -> tuple[Path, str]:
        """What is sent, in a file of its own, and its hash; nothing of it is looked at yet.

        Raises Refused (503) on a disk that is nearly full: what is left is for posters under way.
        """
        if why := await asyncio.to_thread(self._room.why_too_little):
            headers = {"Retry-After": str(AGAIN_S)}
            raise Refused(503, f"{why}; send the picture again later", code="unavailable", headers=headers)
        return await save_body(parts, self.folder)

    def keep(self, written: Path, digest: str, owner: str) -> str:
        """Look at what was written and give it its name: the upload's id.

        Raises Refused for no picture, and for more than the owner's uploads may have together.
        """
        most = self._settings.upload_megapixels
        try:
            size = open_picture(written).bands.size
            if size.megapixels > most:
                text = f"the picture has {size.megapixels:.1f} megapixels; {most:g} are read"
                raise Refused(413, text, code="too_large")
            self._count(digest, written.stat().st_size, owner)
            os.replace(written, self.folder / digest)
        except (BadManifest, BadValue) as error:
            text = re.sub(r"(picture )?\S*\.upload-\w*", "the upload", str(error))
            raise Refused(415, text, code="no_picture") from error
        finally:
            written.unlink(missing_ok=True)
        return digest

    def _count(self, digest: str, size: int, owner: str) -> None:
        """One more of the owner's uploads that are kept. Raises Refused (429)."""
        most = self._settings.upload_times * self._settings.upload_mib * MIB
        size = max(size, BLOCK)
        with self._lock:
            if self._quota.take(owner, digest, size, most=most):
                return
            self._quota.forget([each for each in self._quota.of(owner) if not is_file(self.folder / each)])
            if self._quota.take(owner, digest, size, most=most):
                return
        text = (
            f"your uploads are limited to {most / MIB:g} MiB in total; this one exceeds it; "
            f"each expires {self._settings.upload_hours:g} h after its last use"
        )
        raise Refused(429, text, code="uploads_full", headers={"Retry-After": "3600"})

    def path(self, upload: object) -> Path:
        """The file of an upload. Raises BadValue for what is not an id, or is gone."""
        if not isinstance(upload, str) or re.fullmatch(ID, upload) is None:
            raise BadValue("a picture is given by the id that POST /v1/uploads answered")
        path = self.folder / upload
        if not is_file(path):
            raise BadValue(f"upload {upload[:12]}... no longer exists; send the picture again")
        os.utime(path)
        return path

    def remove_old(self, used: Collection[str]) -> None:
        """Remove uploads older than ``upload_hours`` that are not among the paths ``used``."""
        if not self.folder.is_dir():
            return
        oldest, gone = time.time() - 3600 * self._settings.upload_hours, []
        for path in sorted(self.folder.iterdir()):
            if str(path) not in used and is_file(path) and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
                gone.append(path.name)
        self._quota.forget(gone)
