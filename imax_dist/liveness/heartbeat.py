"""A thread in every rank that says twice a second that the process lives, and where its beacon stands."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from imax_dist.liveness.beacon import BETWEEN, CHECKPOINT, Beacon, Place
from imax_dist.liveness.evidence import write_evidence

EVERY_S = 0.5
BYTES = 1 << 16
"""Read or written between two beats: fewer are no sign of life of a load or a write."""
CPU_SHARE = 0.2
"""Of a core, between two beats, in a stage that the CPU computes."""
COMPUTED_BY_CPU = ("load", "prompt", "picture", "write", "deliver", CHECKPOINT, BETWEEN)
EVIDENCE_WANTED = "evidence-wanted"
"""The file by whose presence a launcher asks its ranks for evidence."""


@dataclass(frozen=True)
class RankReport:
    """A rank as it was last seen. ``beat`` counts beats, ``moved`` whatever went on in it."""

    rank: int
    beat: int = 0
    moved: int = 0
    place: Place = field(default_factory=Place)
    usual: float = 0.0
    host: str = ""
    pid: int = 0
    leaving: bool = False
    """Its host has been told that it is shutting down."""

    @property
    def name(self) -> str:
        return f"rank {self.rank} ({self.host}, process {self.pid})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> RankReport:
        return cls(**{**record, "place": Place(**record["place"])})


def staying() -> bool:
    """No host is shutting down."""
    return False


class Heartbeat:
    """Beats until it is stopped; ``send`` gets each report, in this thread."""

    def __init__(
        self,
        rank: int,
        beacon: Beacon,
        send: Callable[[RankReport], None],
        *,
        device: torch.device,
        leaving: Callable[[], bool] = staying,
    ) -> None:
        self._beacon = beacon
        self._send = send
        self._device = device
        self._leaving = leaving
        self._last_report = RankReport(rank, host=socket.gethostname(), pid=os.getpid())
        self._active = 0
        self._seen = _activity()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def start(self) -> Heartbeat:
        self._beat()
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        if self._device.index is not None:  # a thread's own device is the first: half a GiB there a process
            torch.cuda.set_device(self._device)
        while not self._stopped.wait(EVERY_S):
            with suppress(OSError):  # a folder that is gone has no reader either
                self._beat()

    def _beat(self) -> None:
        self._beacon.look()
        place = self._beacon.place
        seen = _activity()
        moved, computed = (new - old for new, old in zip(seen, self._seen, strict=True))
        self._seen = seen
        by_cpu = self._device.type != "cuda" or place.stage in COMPUTED_BY_CPU
        busy = moved >= BYTES or (by_cpu and computed >= CPU_SHARE * EVERY_S)
        self._active += bool(busy and not place.waiting and not place.steps)
        self._last_report = RankReport(
            self._last_report.rank,
            beat=self._last_report.beat + 1,
            moved=self._beacon.passed + self._active,
            place=place,
            usual=self._beacon.usual,
            host=self._last_report.host,
            pid=self._last_report.pid,
            leaving=self._leaving(),
        )
        self._send(self._last_report)


class ReportFile:
    """Where a rank's reports go that a launcher reads; also asked there for evidence."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.path = folder / f"rank-{rank}.json"
        self._rank = rank
        self._given = False

    def __call__(self, report: RankReport) -> None:
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(report.to_json()))
        draft.replace(self.path)
        if not self._given and (self.path.parent / EVIDENCE_WANTED).exists():
            self._given = True
            write_evidence(self.path.parent, self._rank)


@contextmanager
def beating(rank: int, folder: Path, *, device: torch.device) -> Iterator[Beacon]:
    """A beacon whose reports lie in ``folder`` until the block ends; the file of a killed process stays."""
    file, beacon = ReportFile(folder, rank), Beacon(device)
    heartbeat = Heartbeat(rank, beacon, file, device=device).start()
    yield beacon
    heartbeat.stop()
    file.path.unlink(missing_ok=True)


def read_reports(folder: Path) -> list[RankReport]:
    """Of the ranks that have beaten at least once, by rank."""
    found = [RankReport.from_json(json.loads(path.read_text())) for path in folder.glob("rank-*.json")]
    return sorted(found, key=lambda report: report.rank)


def _activity() -> tuple[int, float]:
    """Bytes this process has read and written in any way, and its CPU seconds."""
    times = os.times()
    with suppress(OSError):
        lines = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        counts = {name: int(value) for name, value in lines}
        own = counts["rchar"] + counts["wchar"] + counts["read_bytes"] + counts["write_bytes"]
        return own, times.user + times.system
    return 0, times.user + times.system
