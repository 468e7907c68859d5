"""A job as clients see it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.state import Done, Failed, Queued, Running
from imax_dist.jobs.store import Row
from imax_dist.output.done import read_done
from imax_dist.output.own_files import is_file
from imax_dist.pipeline.request import Request
from imax_dist.service.estimates import Estimates
from imax_dist.service.feed import Feed
from imax_dist.settings_mapping import to_mapping

BASE = "/v1/images/jobs"
LOOKS = ("preview.jpg", "native.png", "proof.png")
"""Pictures that are there before the poster, the latest first."""
PLAIN = to_mapping(Request("-"))


@dataclass(frozen=True)
class Views:
    """Makes views of rows; ``gangs`` is how many posters are made at once."""

    out: Path
    estimates: Estimates
    feed: Feed
    loras: dict[str, str]
    gangs: Callable[[], int]

    def view(self, row: Row, *, ahead: int | None = None, new: bool = False) -> dict[str, Any]:
        """``ahead`` jobs are taken before it, where that is known; a ``new`` one has no files to look for."""
        state, request = row.state, row.request
        base = f"{BASE}/{row.id}"
        planned = self.estimates.guess(row.job.request)
        files, look = ({}, None) if new else self._there(row)
        return {
            "id": row.id,
            "object": "image.job",
            "state": row.state_name,
            "cancelling": row.cancelling,
            "key": row.key,
            "created": _moment(row.created),
            "changed": _moment(row.changed),
            "request": self.request_view(request),
            "planned_seconds": None if planned is None else round(planned, 1),
            "place": None if ahead is None else ahead + 1,
            "starts_in_seconds": self.starts_in(ahead, planned),
            "progress": self.progress(row, planned),
            "attempts": row.attempts,
            "after": state.after if isinstance(state, Queued) else "",
            "error": {"kind": state.kind, "message": state.message} if isinstance(state, Failed) else None,
            "seconds": state.seconds if isinstance(state, Done) else None,
            "preview": None if look is None else _address(base, look),
            "files": [
                {"name": name, **facts, "url": f"{base}/files/{quote(name)}"} for name, facts in files.items()
            ],
            "events": f"{base}/events",
        }

    def request_view(self, request: dict[str, Any]) -> dict[str, Any]:
        """What differs from a plain request; files of this machine by the names clients know them by."""
        shown = {name: value for name, value in request.items() if value != PLAIN.get(name)}
        if shown.get("guide"):
            shown["guide"] = Path(str(shown["guide"])).name
        names = {path: name for name, path in self.loras.items()}
        if shown.get("lora"):
            shown["lora"] = [_with_name(each, names) for each in shown["lora"]]
        return shown

    def progress(self, row: Row, planned: float | None) -> dict[str, Any] | None:
        """Stage, step and seconds left of a running job."""
        if not isinstance(row.state, Running):
            return None
        live = self.feed.live.get(row.id)
        stage, step, steps = (
            (row.stage, row.step, row.steps) if live is None else (live.stage, live.step, live.steps)
        )
        spent = time.time() - row.state.since if live is None else time.monotonic() - live.began
        at_least = 0.0 if live is None else (live.steps - live.step) * live.step_seconds
        left = None if planned is None else round(max(planned - spent, at_least), 1)
        return {"stage": stage, "step": step, "steps": steps, "seconds_left": left, "gang": row.state.gang}

    def starts_in(self, ahead: int | None, planned: float | None) -> float | None:
        """Seconds until a gang takes a job with so many before it, if those are like the ones of late."""
        typical = self.estimates.typical() or planned
        if ahead is None or typical is None:
            return None
        return round(typical * ahead / max(1, self.gangs()), 1)

    def _there(self, row: Row) -> tuple[dict[str, dict[str, Any]], Path | None]:
        folder = JobFolder.of(self.out, row.id).path
        return _files(row, folder), _look(folder)

    def files(self, row: Row) -> dict[str, dict[str, Any]]:
        """What DONE accounts for: bytes and SHA-256 by name; empty before the poster is finished."""
        return _files(row, JobFolder.of(self.out, row.id).path)

    def look(self, row: Row) -> Path | None:
        """The latest picture that shows what the poster will be."""
        return _look(JobFolder.of(self.out, row.id).path)


def _files(row: Row, folder: Path) -> dict[str, dict[str, Any]]:
    if not isinstance(row.state, Done):
        return {}
    found = read_done(folder).get("files", {})
    return {
        name: {"bytes": facts.get("bytes"), "sha256": facts.get("sha256")} for name, facts in found.items()
    }


def _look(folder: Path) -> Path | None:
    return next((path for path in (folder / name for name in LOOKS) if is_file(path)), None)


def _address(base: str, look: Path) -> str | None:
    try:
        return f"{base}/files/{look.name}?v={look.stat().st_mtime_ns}"
    except OSError:  # a preview goes once its poster is there
        return None


def _with_name(lora: str, names: dict[str, str]) -> str:
    path, colon, weight = lora.rpartition(":")
    known = names.get(path) or names.get(lora)
    return f"{known or 'lora'}{colon}{weight}" if path in names else str(known or "lora")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
