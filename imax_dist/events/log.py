"""``events.jsonl``: the one way of events to JSON and back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, get_args

from imax_dist.errors import BadConfig
from imax_dist.events import batch, render
from imax_dist.events.batch import InJob, PoolEvent
from imax_dist.events.render import RenderEvent
from imax_dist.settings_mapping import from_mapping

VERSION = 1
LONGEST_LINE = 1 << 20
Event: TypeAlias = RenderEvent | PoolEvent

TYPES: dict[str, type[Event]] = {
    "stage.started": render.StageStarted,
    "step": render.StepDone,
    "progress": render.Progress,
    "stage.done": render.StageDone,
    "checkpoint.started": render.CheckpointStarted,
    "checkpoint": render.CheckpointWritten,
    "preview": render.PreviewWritten,
    "note": render.Note,
    "memory": render.MemoryPeak,
    "batch.started": batch.BatchStarted,
    "batch.planned": batch.BatchPlanned,
    "batch.stopping": batch.BatchStopping,
    "batch.note": batch.BatchNote,
    "batch.done": batch.BatchDone,
    "cluster.starting": batch.ClusterStarting,
    "gang.building": batch.GangBuilding,
    "gang.ready": batch.GangReady,
    "gang.failed": batch.GangFailed,
    "gang.lost": batch.GangBroken,
    "gang.draining": batch.GangDraining,
    "gang.released": batch.GangReleased,
    "job.started": batch.JobStarted,
    "job.queued": batch.JobQueued,
    "job.done": batch.JobDone,
    "job.proofed": batch.JobProofed,
    "job.failed": batch.JobFailed,
    "job.cancelled": batch.JobCancelled,
}
"""By the name they have in a file; InJob has the name of the event inside it."""
NAMES = {kind: name for name, kind in TYPES.items()}
RENDER_TYPES = get_args(RenderEvent)
OMITTED = {"skipped": False, "gang": None}
"""Fields that a line has only where they say something."""


class Logged(NamedTuple):
    """A line of an event log; ``ts`` is its time as written (RFC 3339)."""

    ts: str
    event: Event

    @property
    def moment(self) -> float:
        """Seconds since the epoch, 0 where the line holds no time."""
        try:
            return datetime.fromisoformat(self.ts).timestamp()
        except (ValueError, OverflowError):
            return 0.0


def as_json(event: Event) -> dict[str, Any]:
    """``{"event": name, **fields}``, plain JSON values."""
    if isinstance(event, InJob):
        inside = as_json(event.event)
        outside = {"gang": event.gang} if event.gang else {}
        return {"event": inside.pop("event"), **outside, "job": event.job, **inside}
    fields = {entry.name: getattr(event, entry.name) for entry in dataclasses.fields(event)}
    shown = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if name not in OMITTED or value != OMITTED[name]
    }
    return {"event": NAMES[type(event)], **shown}


def from_json(record: Mapping[str, Any]) -> Event | None:
    """The event of a line; fields that are not known are passed over.

    None for a name, or for values, that this version does not know: logs outlive programs.
    """
    name = record.get("event")
    kind = TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        return None
    known = {entry.name for entry in dataclasses.fields(kind)}
    try:
        event = from_mapping(kind, {k: v for k, v in record.items() if k in known}, where="event")
    except BadConfig:
        return None
    if isinstance(event, RENDER_TYPES) and isinstance(record.get("job"), str):
        return InJob(record["job"], event, str(record.get("gang", "")))
    return event


def append_to(path: Path, *, largest: int | None = None, **also: Any) -> Callable[[Event], None]:
    """A listener that appends a line an event: time (RFC 3339, UTC), version, name, ``also``, fields.

    What a killed writer or a full disk left of a line stays one of its own. A log of over ``largest`` bytes
    becomes ``events.jsonl.1``, in place of an earlier one.
    """

    def listen(event: Event) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = as_json(event)
        line = {"ts": moment, "v": VERSION, "event": fields.pop("event"), **also, **fields}
        with open(path, "ab+", opener=_without_links) as file:
            end = file.seek(0, os.SEEK_END)
            torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            file.write(b"\n" * torn + json.dumps(line, ensure_ascii=False).encode() + b"\n")
            full = largest is not None and file.tell() > largest
        if full:
            path.replace(earlier(path))

    return listen


def earlier(path: Path) -> Path:
    """Where a log goes that has become too long."""
    return path.with_name(f"{path.name}.1")


def _without_links(path: str, flags: int) -> int:
    """Opens no link: the folder may be a stranger's, and its links lead anywhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def read_log(path: Path, **also: Any) -> Iterator[Logged]:
    """The events of a log that are known; empty if the file does not exist.

    ``also`` are fields that lines may lack: a job's own log of old names no job. A truncated line (the writer
    was killed) and one longer than any event are skipped.
    """
    if not path.name.endswith(".1"):
        yield from read_log(earlier(path), **also)
    if path.is_symlink() or not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line) if len(line) <= LONGEST_LINE else None
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and (event := from_json({**also, **record})) is not None:
                yield Logged(str(record.get("ts", "")), event)
