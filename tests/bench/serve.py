"""The API under load: 200 clients that submit and poll 1 000 small posters while two gangs render.

``python -m tests.bench.serve`` starts ``imax serve`` on loopback with a tiny network, so that HTTP, queue and
pool are measured and not the model. Latencies are the clients' own, in another process. At the end every
poster must be there once. Prints a row of a table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
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

import yaml

from imax_dist.models.tiny import make_tiny

BASE = "/v1/images/jobs"
POLL_S = 1.0
SUBMIT_S = 4.0
"""Between two posters of a client, on average; meanwhile it polls."""
TWICE = 0.1
"""Share of submissions that a client sends again with the same key, as after a lost answer."""
OVER = ("done", "failed", "cancelled")


@dataclass
class Load:
    """What the clients saw."""

    host: str
    port: int
    model: str
    patience: float
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"submit": [], "poll": []})
    ids: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    refused: int = 0


class Connection:
    """One kept-alive connection of HTTP/1.1."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __call__(self, kind: str, method: str, path: str, body: Any = None, key: str = "") -> Any:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._load.host, self._load.port)
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
    await asyncio.sleep(rng.uniform(0, SUBMIT_S))
    deadline = time.monotonic() + load.patience
    next_at = time.monotonic()
    while (jobs or waiting) and time.monotonic() < deadline:
        if jobs and time.monotonic() >= next_at:
            jobs -= 1
            next_at = time.monotonic() + rng.uniform(0.5, 1.5) * SUBMIT_S
            waiting.append(await submit(load, ask, f"client-{number}-{jobs}", twice=rng.random() < TWICE))
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
    load.seconds = {"submit": [], "poll": []}


async def run_clients(load: Load, clients: int, jobs: int, gangs: int) -> float:
    """Seconds that it took."""
    await warm_up(load, gangs)
    began = time.perf_counter()
    await asyncio.gather(*(client(load, number, jobs // clients) for number in range(clients)))
    return time.perf_counter() - began


def share(values: list[float], part: float) -> float:
    """A quantile in milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(part * len(values)))]


def start(folder: Path, model: Path, gangs: int) -> tuple[subprocess.Popen[str], str]:
    settings = folder / "service.yaml"
    plain = {"models": [str(model)], "waiting": 100_000, "per_minute": 1_000_000}
    settings.write_text("# The load test.\n" + yaml.safe_dump(plain))
    options = [
        "--out",
        str(folder / "out"),
        "--port",
        "0",
        "--gangs",
        str(gangs),
        "--config",
        str(settings),
        "-q",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "imax_dist", "serve", *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def lost_and_doubled(out: Path, load: Load) -> tuple[int, int]:
    """Jobs without a finished poster, and posters made more than once or without being asked for."""
    done = {path.parent.name for path in out.glob("*/DONE")}
    with sqlite3.connect(out / "batch.sqlite") as database:
        kept = [row[0] for row in database.execute("SELECT id FROM jobs WHERE state = 'done'")]
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    ended = [event["job"] for event in events if event["event"] == "job.done"]
    lost = len(set(load.ids) - (done & set(kept)))
    return lost, len(ended) - len(set(ended)) + len(load.ids) - len(set(load.ids)) + len(done - set(load.ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--gangs", type=int, default=2)
    parser.add_argument("--patience", type=float, default=900.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imax-bench-") as name:
        folder = Path(name)
        process, address = start(folder, make_tiny("flux-schnell", folder / "model"), options.gangs)
        host, port = address.removeprefix("http://").rstrip("/").split(":")
        load = Load(host, int(port), str(folder / "model"), options.patience)
        try:
            wall = asyncio.run(run_clients(load, options.clients, options.jobs, options.gangs))
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
        lost, doubled = lost_and_doubled(folder / "out", load)
    print("| clients | posters | s | requests/s | submit p50 / p99 ms | poll p50 / p99 ms | lost | doubled |")
    print("|---|---|---|---|---|---|---|---|")
    submit, poll = load.seconds["submit"], load.seconds["poll"]
    rate = (len(submit) + len(poll)) / wall
    times = [f"{share(each, 0.5):.1f} / {share(each, 0.99):.1f}" for each in (submit, poll)]
    row = [options.clients, len(load.ids), f"{wall:.0f}", f"{rate:.0f}", *times, lost, doubled]
    print(f"| {' | '.join(map(str, row))} |")
    if lost or doubled or load.refused or code not in (0, 75):
        sys.exit(f"lost {lost}, doubled {doubled}, refused {load.refused}, exit code {code}")


if __name__ == "__main__":
    main()
