"""One poster to be made, and its folder on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imax_dist.output import done
from imax_dist.output.atomic import write_json
from imax_dist.output.own_files import check_name, require_real_folder
from imax_dist.pipeline.request import Request
from imax_dist.settings_mapping import from_mapping, to_mapping


@dataclass(frozen=True)
class Job:
    """A request with a name. Larger ``priority`` goes first, then the manifest's order."""

    id: str
    request: Request
    priority: int = 0
    position: int = 0
    fingerprint: str = ""
    """SHA-256 of the request, the recipe its preset stands for and the files it names."""


def request_of(mapping: dict[str, Any], *, where: str) -> Request:
    """A request from its stored JSON."""
    return from_mapping(Request, mapping, where=where)


@dataclass(frozen=True)
class JobFolder:
    """``<out>/<id>``: request.json, events.jsonl, checkpoints/, preview.jpg, proof.png, poster.png, DONE."""

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
    def preview(self) -> Path:
        """The last preview of a poster that is being made; gone when it is done."""
        return self.path / "preview.jpg"

    @property
    def hangs(self) -> Path:
        """Evidence of attempts that hung, a folder each."""
        return self.path / "hangs"

    @property
    def proof(self) -> Path:
        return self.path / "proof.png"

    @property
    def poster(self) -> Path:
        return self.path / "poster.png"

    def open(self, job: Job) -> None:
        """Make the folder and say in it what is to be made. Raises CannotWrite or NoPermission.

        What a killed process left unfinished goes, and the native pictures of an earlier request.
        """
        before = done.read_request(self.path).get("fingerprint", job.fingerprint)
        done.remove_leftovers(self.path, looks=before != job.fingerprint)
        record = {"id": job.id, "fingerprint": job.fingerprint, "request": to_mapping(job.request)}
        write_json(self.request, record)

    def finish(
        self, fingerprint: str, facts: dict[str, Any], *, names: Iterable[str] = (done.PICTURE,)
    ) -> tuple[dict[str, Any], list[str]]:
        """Write DONE, the last file of a poster: see ``output.done.write_done``."""
        return done.write_done(self.path, fingerprint, names, facts)

    def finished(self, fingerprint: str, *, read_all: bool = False) -> dict[str, Any] | None:
        """What DONE says, if it is of this request and every file is there with the size it had.

        ``read_all`` compares the hashes too.
        """
        record = done.read_done(self.path)
        return None if done.difference(self.path, record, fingerprint, read_all=read_all) else record

    def difference(self, fingerprint: str, *, read_all: bool = False) -> str:
        """Why this is not the finished poster of the request ``fingerprint``; empty if it is."""
        return done.difference(self.path, done.read_done(self.path), fingerprint, read_all=read_all)
