"""One poster to be made, and its folder on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imax_dist.config import fingerprint, from_mapping, to_mapping
from imax_dist.output.atomic import write_json
from imax_dist.output.own_files import check_name, require_real_folder
from imax_dist.pipeline.named_files import named_files
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method

HASH_LENGTH = 16
LARGEST_DONE = 1 << 16


@dataclass(frozen=True)
class Job:
    """A request with a name. Larger ``priority`` goes first, then the manifest's order."""

    id: str
    request: Request
    priority: int = 0
    position: int = 0
    fingerprint: str = ""
    """SHA-256 of the request, the recipe its preset stands for and the files it names."""


def make_job(
    request: Request,
    *,
    name: str | None = None,
    priority: int = 0,
    position: int = 0,
    method: Any = None,
) -> Job:
    """A job called ``name``, or by the hash of its request. Raises BadValue or BadConfig.

    ``method`` is ``method_of(request)``, where the caller has it already.
    """
    if name is not None:
        check_name(name)
    made_of = {"request": to_mapping(request), "method": method or method_of(request)} | {
        "files": named_files(request)
    }
    return Job(
        id=name or request.fingerprint[:HASH_LENGTH],
        request=request,
        priority=priority,
        position=position,
        fingerprint=fingerprint(made_of),
    )


def method_of(request: Request) -> Any:
    """All switches that the request's preset and its own changes stand for, as JSON values."""
    return to_mapping(load_method(request))


def request_of(mapping: dict[str, Any], *, where: str) -> Request:
    """A request from its stored JSON."""
    return from_mapping(Request, mapping, where=where)


@dataclass(frozen=True)
class JobFolder:
    """``<out>/<id>``: request.json, events.jsonl, checkpoints/, proof.png, poster.png, DONE."""

    path: Path

    @classmethod
    def of(cls, out: Path, job_id: str) -> JobFolder:
        """Raises BadValue for an id that names no folder, and for a link in its place."""
        check_name(job_id)
        return cls(require_real_folder(out / job_id))

    @property
    def request(self) -> Path:
        return self.path / "request.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def proof(self) -> Path:
        return self.path / "proof.png"

    @property
    def poster(self) -> Path:
        return self.path / "poster.png"

    @property
    def done(self) -> Path:
        return self.path / "DONE"

    def open(self, job: Job) -> None:
        """Make the folder and say in it what is to be made. Raises CannotWrite or NoPermission."""
        record = {"id": job.id, "fingerprint": job.fingerprint, "request": to_mapping(job.request)}
        write_json(self.request, record)

    def finish(self, fingerprint: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Write DONE, the last file of a poster; returns what it says."""
        record = {
            "fingerprint": fingerprint,
            "file": self.poster.name,
            "bytes": self.poster.stat().st_size,
            "sha256": hash_file(self.poster),
            **facts,
        }
        write_json(self.done, record)
        return record

    def finished(self, fingerprint: str, *, read_all: bool = False) -> dict[str, Any] | None:
        """What DONE says, if it is of this request and the poster is there with the size it had.

        ``read_all`` compares the hash of the whole file too.
        """
        record = self._read_done()
        if record is None or record.get("fingerprint") != fingerprint or not self.poster.is_file():
            return None
        if record.get("bytes") != self.poster.stat().st_size:
            return None
        if read_all and record.get("sha256") != hash_file(self.poster):
            return None
        return record

    def _read_done(self) -> dict[str, Any] | None:
        try:
            if self.done.stat().st_size > LARGEST_DONE:
                return None
            record = json.loads(self.done.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
