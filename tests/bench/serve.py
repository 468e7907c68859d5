"""The API under load: 200 clients that submit and poll 1 000 small posters while two gangs render.

``python -m tests.bench.serve`` starts ``imax serve`` on loopback with a tiny network, so that HTTP, queue and
pool are measured and not the model; ``--plain 0.1`` has gangs that render nothing and say after so many
seconds that they are done. Latencies are the clients' own, in another process. Each client also asks a
server that only answers ``{}``, as often as it polls: what that takes, the machine and the clients take. At
the end every poster must be there once. Prints a table with one row.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from imax_dist.models.tiny import make_tiny

BASE = "/v1/images/jobs"
POLL_S = 1.0
SUBMIT_S = 4.0
"""Between two posters of a client, on average; meanwhile it polls."""
TWICE = 0.1
"""Share of submissions that a client sends again with the same key, as after a lost answer."""
OVER = ("done", "failed", "cancelled")
KINDS = ("submit", "poll", "bare")


@dataclass
class Load:
    """What the clients saw."""

    host: str
    port: int
    model: str
    patience: float
    bare: int = 0
    """The port of the server that only answers."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    ids: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    refused: int = 0


class Connection:
    """One kept-alive connection of HTTP/1.1."""

    def __init__(self, load: Load, port: int | None = None) -> None:
        self._load = load
        self._port = port or load.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __call__(self, kind: str, method: str, path: str, body: Any = None, key: str = "") -> Any:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._load.host, self._port)
        reader, writer = self._streams
        raw = b"" if body is None else json.dumps(body).encode()
        extra = f"Idempotency-Key: {key}\r\nContent-Type: application/json\r\n" if raw else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n{extra}\r\n"
        began = time.perf_counter()
        writer.write(head.encode() + raw)
        status = int((await reader.readline()).split()[1])
        length = 0
        while (line := await reader.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = json.loads(await reader.readexactly(length))
        self._load.seconds[kind].append(time.perf_counter() - began)
        if status >= 400:
            self._load.refused += 1
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer


async def client(load: Load, number: int, jobs: int) -> None:
    """Submit ``jobs`` posters with pauses, and poll the oldest that is not over all the while."""
    rng, ask, waiting = random.Random(number), Connection(load), []
    bare = Connection(load, load.bare)
    await asyncio.sleep(rng.uniform(0, SUBMIT_S))
    deadline = time.monotonic() + load.patience
    next_at = time.monotonic()
    while (jobs or waiting) and time.monotonic() < deadline:
        if jobs and time.monotonic() >= next_at:
            jobs -= 1
            next_at = time.monotonic() + rng.uniform(0.5, 1.5) * SUBMIT_S
            waiting.append(await submit(load, ask, f"client-{number}-{jobs}", twice=rng.random() < TWICE))
        await bare("bare", "GET", "/")
        if waiting:
            state = (await ask("poll", "GET", f"{BASE}/{waiting[0]}"))["state"]
            if state in OVER:
                load.states[waiting.pop(0)] = state
                continue
        await asyncio.sleep(rng.uniform(0.5, 1.5) * POLL_S)


async def submit(load: Load, ask: Connection, key: str, *, twice: bool = False) -> str:
    """One poster; its id. ``twice``: as after a lost answer."""
    body = {"prompt": f"poster {key}", "size": "64x64", "model": load.model, "steps": 1}
    made = await ask("submit", "POST", BASE, body, key)
    if twice:
        again = await ask("submit", "POST", BASE, body, key)
        assert again["id"] == made["id"], "one key made two jobs"
    load.ids.append(made["id"])
    return str(made["id"])


async def warm_up(load: Load, gangs: int) -> None:
    """Until every gang has made a poster: Ray's start and the loading of models are not measured."""
    ask = Connection(load)
    ids = [await submit(load, ask, f"first-{number}") for number in range(4 * gangs)]
    while ids:
        if (await ask("poll", "GET", f"{BASE}/{ids[0]}"))["state"] in OVER:
            ids.pop(0)
        else:
            await asyncio.sleep(POLL_S)
    load.seconds = {kind: [] for kind in KINDS}


async def run_clients(load: Load, clients: int, jobs: int) -> None:
    await asyncio.gather(*(client(load, number, jobs // clients) for number in range(clients)))


def share(values: list[float], part: float) -> float:
    """A quantile in milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(part * len(values)))]


def start(folder: Path, model: Path, gangs: int, plain: float | None) -> subprocess.Popen[str]:
    settings = folder / "service.yaml"
    limits = {"models": [str(model)], "waiting": 100_000, "per_minute": 1_000_000}
    settings.write_text("# The load test.\n" + yaml.safe_dump(limits))
    options = ["--out", folder / "out", "--port", 0, "--gangs", gangs, "--config", settings, "-q"]
    program = ["imax_dist"] if plain is None else ["tests.bench.serve_plain", plain]
    return python(*program, "serve", *options)


def python(*module: object) -> subprocess.Popen[str]:
    """A process that says its address first."""
    command = [sys.executable, "-m", *map(str, module)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])


def lost_and_doubled(out: Path, load: Load, *, plain: bool) -> tuple[int, int]:
    """Jobs without a finished poster, and posters made more than once or without being asked for."""
    with sqlite3.connect(out / "batch.sqlite") as database:
        kept = [row[0] for row in database.execute("SELECT id FROM jobs WHERE state = 'done'")]
    done = set(kept) if plain else {path.parent.name for path in out.glob("*/DONE")}
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    ended = [event["job"] for event in events if event["event"] == "job.done"]
    lost = len(set(load.ids) - (done & set(kept)))
    return lost, len(ended) - len(set(ended)) + len(load.ids) - len(set(load.ids)) + len(done - set(load.ids))


async def measured(load: Load, server: psutil.Process, options: argparse.Namespace) -> tuple[float, float]:
    """Wall seconds, and the server's processor seconds, of all that the clients do."""
    await warm_up(load, options.gangs)
    began, before = time.perf_counter(), server.cpu_times()
    await run_clients(load, options.clients, options.jobs)
    after = server.cpu_times()
    return time.perf_counter() - began, after.user + after.system - before.user - before.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--gangs", type=int, default=2)
    parser.add_argument("--patience", type=float, default=900.0)
    parser.add_argument("--plain", type=float, metavar="SECONDS", help="gangs that only wait so long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imax-bench-") as name:
        folder, model = Path(name), make_tiny("flux-schnell", Path(name) / "model")
        server = start(folder, model, options.gangs, options.plain)
        bare = python("tests.bench.serve_plain", "bare")
        try:
            load = Load("127.0.0.1", port_of(server), str(model), options.patience, port_of(bare))
            wall, spent = asyncio.run(measured(load, psutil.Process(server.pid), options))
        finally:
            bare.kill()
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
        lost, doubled = lost_and_doubled(folder / "out", load, plain=options.plain is not None)
    tell(load, options, wall=wall, spent=spent, lost=lost, doubled=doubled)
    if lost or doubled or load.refused or code not in (0, 75):
        sys.exit(f"lost {lost}, doubled {doubled}, refused {load.refused}, exit code {code}")


def tell(
    load: Load, options: argparse.Namespace, *, wall: float, spent: float, lost: int, doubled: int
) -> None:
    """The table."""
    requests = len(load.seconds["submit"]) + len(load.seconds["poll"])
    cells = {
        "clients": options.clients,
        "posters": len(load.ids),
        "s": f"{wall:.0f}",
        "requests/s": f"{requests / wall:.0f}",
        "CPU ms a request": f"{1000 * spent / requests:.2f}",
        **{f"{kind} p50 / p99 ms": times(load.seconds[kind]) for kind in KINDS},
        "lost": lost,
        "doubled": doubled,
        "load": f"{os.getloadavg()[0]:.0f}",
    }
    for line in (cells, ["---"] * len(cells), cells.values()):
        print("|", " | ".join(map(str, line)), "|")


def times(values: list[float]) -> str:
    return f"{share(values, 0.5):.1f} / {share(values, 0.99):.1f}"


if __name__ == "__main__":
    main()
