"""What the chaos run breaks: a Ray cluster, a driver of one batch, its folder and its logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

PATIENCE_S = 90.0
NODE_STARTS = 4
READY_STEP = 4
"""A poster this far into its target-size pass can be struck."""
Event = dict[str, Any]


@dataclass
class Fault:
    """What was done to whom, and what came of it."""

    kind: str
    at: float
    job: str
    gang: str
    step: int
    seen_s: float | None = None
    back_s: float | None = None
    lost_steps: int | None = None
    over: bool = False
    """Nothing more is to come of it."""


class Log:
    """An event log that is read on from where it was read to; a log that is away says what it said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._events: list[Event] = []

    def events(self) -> list[Event]:
        """All whole lines so far; what a killed writer or a full disk left of one is none."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except OSError:
            return self._events
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError):
                self._events.append(json.loads(line))
        return self._events


@dataclass
class Record:
    """What has to be known after an interruption: ``record.json`` in the run's folder."""

    path: Path
    dealt: list[Fault] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sittings: int = 0

    @classmethod
    def read(cls, path: Path) -> Record:
        if not path.is_file():
            return cls(path)
        found = json.loads(path.read_text())
        dealt = [Fault(**fault) for fault in found.pop("dealt")]
        return cls(path, dealt, set(found.pop("cancelled")), **found)

    def write(self) -> None:
        facts = {
            "dealt": [asdict(fault) for fault in self.dealt],
            "cancelled": sorted(self.cancelled),
            "wrong": self.wrong,
            "seconds": self.seconds,
            "sittings": self.sittings,
        }
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(facts, indent=1))
        draft.replace(self.path)


@dataclass
class Shop:
    """The cluster, the driver and the folder."""

    cluster: Any
    out: Path
    manifest: Path
    pool: Path
    record: Record
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)
    pids: dict[int, float] = field(default_factory=dict)
    """Of ranks, and when they had joined."""
    nodes: list[Any] = field(default_factory=list)
    switches: Path = Path("/nonexistent")
    _begun: int = 0
    _logs: dict[Path, Log] = field(default_factory=dict)

    @property
    def cancelled(self) -> set[str]:
        return self.record.cancelled

    @property
    def wrong(self) -> list[str]:
        return self.record.wrong

    @property
    def driver(self) -> subprocess.Popen[str]:
        return self.drivers[-1]

    @property
    def ended(self) -> bool:
        return self.driver.poll() is not None

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "imax_dist", "batch", str(self.manifest), "--out", str(self.out)]
        return [*command, "--ray", self.cluster.address, "--pool", str(self.pool), "-q"]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "IMAX_CHAOS_DRIVER": "1"}

    def start(self) -> None:
        """One more driver, in a process group of its own."""
        self._begun = self._starts()
        name = f"driver-{self.out.name}-{self.record.sittings}-{len(self.drivers)}.log"
        log = (self.pool.parent / name).open("w")
        given = {"stdout": log, "stderr": log, "text": True, "start_new_session": True}
        self.drivers.append(subprocess.Popen(self.command(), env=self.environment(), **given))  # type: ignore

    def end(self) -> None:
        """Leave no driver behind, whatever happened."""
        for driver in self.drivers:
            driver.kill()
            driver.wait()

    def events(self) -> list[Event]:
        return self._log(self.out / "events.jsonl").events()

    def events_since(self, moment: float) -> list[Event]:
        return [event for event in self.events() if seconds_of(event) >= moment - 0.01]

    def events_of(self, job: str) -> list[Event]:
        return self._log(self.out / job / "events.jsonl").events()

    def left(self) -> list[int]:
        """Ranks that live; not processes that the system gave a rank's number to later."""
        found = []
        for pid, joined in self.pids.items():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.create_time() <= joined and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(pid)
        return found

    def gangs(self) -> dict[str, Event]:
        """Gangs that are joined now, as their ``gang.ready`` described them."""
        joined: dict[str, Event] = {}
        for event in self.events():
            if event["event"] == "batch.started":
                joined.clear()
            elif event["event"] == "gang.ready":
                joined[event["gang"]] = event
                self.pids.update(dict.fromkeys(event["pids"], seconds_of(event)))
            elif event["event"] in ("gang.lost", "gang.released"):
                joined.pop(event["gang"], None)
        return joined

    def working(self) -> list[tuple[str, str, int]]:
        """(gang, job, step) of every poster that is in its target-size pass now."""
        if self._starts() <= self._begun:
            return []  # the new driver has not begun: what the log says is of the one before
        current: dict[str, str] = {}
        for event in self.events():
            if event["event"] == "batch.started":
                current.clear()
            elif event["event"] == "job.started":
                current[event["gang"]] = event["job"]
            elif event["event"].startswith(("job.", "gang.lost")) and "gang" in event:
                current.pop(event["gang"], None)
        joined = self.gangs()
        steps = {job: last_step(self.events_of(job)) for job in current.values()}
        found = [(gang, job, steps[job]) for gang, job in current.items() if gang in joined]
        return [one for one in found if one[2] >= READY_STEP]

    def _log(self, path: Path) -> Log:
        return self._logs.setdefault(path, Log(path))

    def _starts(self) -> int:
        return sum(event["event"] == "batch.started" for event in self.events())


def last_step(events: list[Event]) -> int:
    """The step the attempt that runs now has reached; 0 before its first."""
    for event in reversed(events):
        if event["event"] == "job.started":
            return 0
        if event["event"] == "step" and event["stage"] == "extrapolated":
            return int(event["index"])
    return 0


def seconds_of(event: Event) -> float:
    return datetime.fromisoformat(event["ts"]).timestamp()


def busy() -> float:
    """How many times longer things may take on a machine that is busy with other work."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 2)


def wait_until(what: str, condition: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """The first true value of ``condition``; longer on a machine that is busy with other work."""
    began = time.monotonic()
    while time.monotonic() - began < seconds * busy():
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError(f"waited {time.monotonic() - began:.0f} s for {what}")


def patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 s to start, which a busy machine may need more than once."""
    for _ in range(NODE_STARTS - 1):
        with suppress(Exception):
            return start()
    return start()
