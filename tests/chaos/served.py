"""``python -m tests.chaos.served [--store postgres]``: orders over HTTP while what serves them is killed.

`imax serve` on a Ray node of this machine (with --threads: its gangs are threads of the server), on SQLite,
or two of them on one PostgreSQL; posters go to an object store (moto's server). Servers, ranks, the database
and the object store are killed in turn while clients order under keys of their own, and ask again when nobody
answers. At the end every order is one job, every poster was made and delivered once with the latents of its
like, and what was cancelled is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.run import DEADLINES, ENVIRONMENT, spread
from tests.chaos.shop import Log, busy, patiently, wait_until
from tests.object_store import Door, ObjectStore
from tests.postgres import PostgresServer
from tests.service.http_client import Answer, Client
from tests.tiny_flux import make_tiny_flux

JOBS = "/v1/images/jobs"
SIZES = ("128x96", "96x128", "112x112", "256x192")
AWAY_S = 5.0
STEPS = 40
CANCELLED_EACH = 10
BUCKET = "posters"
THREADS_WAIT = 20.0
"""Times the deadlines: a thread that is late cannot be killed, and would go on beside its successor."""
NO_ANSWER = (OSError, ValueError)
"""Also HTTPException, and a body that was cut off."""


@dataclass
class Server:
    """`imax serve` at one port; started again after it was killed."""

    command: list[str]
    base: str
    log: Path
    process: subprocess.Popen[str] = field(init=False)

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, text=True)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(120 * busy())

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer | None:
        """None if nobody answers, or answers that this is no moment."""
        try:
            answer = Client(self.base)(method, path, body, **headers)
        except (*NO_ANSWER, Exception) as error:
            if not isinstance(error, NO_ANSWER) and "http" not in type(error).__module__:
                raise
            return None
        return None if answer.status in (429, 500, 502, 503) else answer


@dataclass
class Farm:
    """All that can be killed, and what was found wrong."""

    out: Path
    servers: list[Server]
    orders: dict[str, str] = field(default_factory=dict)
    """Keys and the ids of their jobs."""
    cancelled: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    database: PostgresServer | None = None
    objects: ObjectStore | None = None
    door: Door | None = None
    model: str = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """The first answer of any server; asked again until there is one."""

        def once() -> Answer | None:
            answers = (server.ask(method, path, body, **headers) for server in self.servers)
            return next((answer for answer in answers if answer is not None), None)

        found: Answer = wait_until(f"an answer to {method} {path}", once, 180)
        return found

    def order(self, number: int) -> None:
        """Twice under one key, as a client that heard nothing the first time."""
        key = f"order-{number:04}"
        size = SIZES[number % len(SIZES)]
        body = {"prompt": "a red sun over the sea", "size": size, "preset": "one_jump", "steps": STEPS}
        body |= {"native_steps": 3, "model": self.model}
        for _ in range(2):
            answer = self.ask("POST", JOBS, body, Idempotency_Key=key)
            if answer.status not in (200, 202):
                self.wrong.append(f"{key}: {answer.status} {answer.body[:200]!r}")
                return
            if self.orders.setdefault(key, answer.json["id"]) != answer.json["id"]:
                self.wrong.append(f"{key} is two jobs")
        if number % CANCELLED_EACH == CANCELLED_EACH - 1:
            self.cancel(self.orders[key])

    def cancel(self, job: str) -> None:
        if self.ask("DELETE", f"{JOBS}/{job}").status < 300:
            self.cancelled.add(job)

    def states(self) -> Counter[str]:
        listed = [self.ask("GET", f"{JOBS}/{job}").json["state"] for job in self.orders.values()]
        return Counter(listed)

    def running(self) -> bool:
        """A poster was begun and has not ended, as the events of the folder tell."""
        events = Log(self.out / "events.jsonl").events()
        begun = [event for event in events if event["event"] in ("job.started", "job.done", "job.queued")]
        return bool(begun) and begun[-1]["event"] == "job.started"

    def ranks(self) -> list[int]:
        events = Log(self.out / "events.jsonl").events()
        pids = [pid for e in events if e["event"] == "gang.ready" for pid in e.get("pids", [])]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def kill_server(farm: Farm, rng: random.Random) -> None:
    server = rng.choice(farm.servers)
    server.end(signal.SIGKILL)
    server.start()


def stop_server(farm: Farm, rng: random.Random) -> None:
    server = rng.choice(farm.servers)  # one that still starts has nothing to lay down
    wait_until("the server to be there", lambda: server.ask("GET", "/healthz"), 180)
    if (code := server.end(signal.SIGTERM)) not in (0, 75):
        farm.wrong.append(f"SIGTERM ended a server with {code}")
    server.start()


def kill_rank(farm: Farm, rng: random.Random) -> None:
    if ranks := farm.ranks():
        with suppress(ProcessLookupError):
            os.kill(rng.choice(ranks), signal.SIGKILL)


def kill_database(farm: Farm, rng: random.Random) -> None:
    assert farm.database is not None
    farm.database.stop()
    time.sleep(AWAY_S)
    farm.database.start()
    for server in farm.servers:
        if server.process.poll() is not None:
            farm.wrong.append(f"a database that was away ended a server with {server.process.returncode}")
            server.start()


def kill_object_store(farm: Farm, rng: random.Random) -> None:
    assert farm.door is not None
    assert farm.objects is not None
    port = farm.door.port
    farm.door.close()
    time.sleep(AWAY_S)
    farm.door = Door(farm.objects.port, own=port)


def refuse_objects(farm: Farm, rng: random.Random) -> None:
    assert farm.door is not None
    farm.door.failures = 3


FAULTS: dict[str, Callable[[Farm, random.Random], None]] = {
    "server killed": kill_server,
    "server SIGTERM": stop_server,
    "rank killed": kill_rank,
    "database killed": kill_database,
    "object store away": kill_object_store,
    "object store answers 503": refuse_objects,
}


def storm(farm: Farm, options: argparse.Namespace) -> dict[str, list[float]]:
    """Orders and faults in turn, until there are enough of both; seconds until the API answered again."""
    rng, dealt = random.Random(options.seed), defaultdict[str, list[float]](list)
    without = {"database killed": farm.database is None, "rank killed": options.threads}
    kinds = [kind for kind in FAULTS if not without.get(kind)]
    ordered = 0
    for number in range(options.faults):
        while ordered < options.jobs * (number + 1) // options.faults:
            farm.order(ordered)
            ordered += 1
        wait_until("a poster at work", lambda: farm.running() or not unfinished(farm), 180)
        kind = kinds[number % len(kinds)]
        print(f"{kind} after {ordered} orders", flush=True)
        began = time.monotonic()
        FAULTS[kind](farm, rng)
        farm.ask("GET", "/v1/queue")
        dealt[kind].append(time.monotonic() - began)
        time.sleep(rng.uniform(0.0, 2.0))
    return dealt


def unfinished(farm: Farm) -> int:
    states = farm.states()
    return sum(states[name] for name in ("queued", "running"))


def verdict(farm: Farm, options: argparse.Namespace) -> list[str]:
    """What is wrong; empty if all is well."""
    wrong = list(farm.wrong)
    states = {job: farm.ask("GET", f"{JOBS}/{job}").json["state"] for job in farm.orders.values()}
    for job, state in states.items():
        if state not in (("cancelled", "done") if job in farm.cancelled else ("done",)):
            wrong.append(f"{job} is {state}")
    if len(set(farm.orders.values())) != options.jobs:
        wrong.append(f"{len(set(farm.orders.values()))} jobs of {options.jobs} orders")
    made: dict[str, set[str]] = {}
    for number, job in enumerate(farm.orders.values()):
        record = farm.out / job / "DONE"
        if states[job] == "done":
            done = json.loads(record.read_text())
            made.setdefault(SIZES[number % len(SIZES)], set()).add(done["latents_sha256"])
            wrong += not_delivered(farm, job, done)
        elif record.exists():
            wrong.append(f"{job} was cancelled and is there")
    wrong += [f"posters of {size} differ" for size, found in made.items() if len(found) > 1]
    events = Log(farm.out / "events.jsonl").events()
    finished = Counter(event["job"] for event in events if event["event"] == "job.done")
    return wrong + [f"{job} was made {times} times" for job, times in finished.items() if times > 1]


def not_delivered(farm: Farm, job: str, done: dict[str, Any]) -> list[str]:
    assert farm.objects is not None
    try:
        found = farm.objects.client().head_object(Bucket=BUCKET, Key=f"run/{job}/poster.png")
    except Exception as error:
        return [f"{job} was not delivered: {error}"]
    size = done["files"]["poster.png"]["bytes"]
    return [] if found["ContentLength"] == size else [f"{job}: {found['ContentLength']} bytes were delivered"]


@contextmanager
def cluster_of_one() -> Iterator[Any]:
    """One node, which outlives the servers that use it."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 4, "include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=node))
    try:
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def farm_of(folder: Path, options: argparse.Namespace) -> Iterator[Farm]:
    model = str(make_tiny_flux(folder / "model"))
    service, pool = folder / "service.yaml", folder / "pool.yaml"
    service.write_text(yaml.safe_dump({"models": [model], "waiting": 10_000, "per_minute": 1_000_000}))
    settings = {"gangs": 1, "ranks": 1, "device": "cpu", "threads": 1, "checkpoint_every": 3}
    settings |= {"retry": {"attempts": 6, "backoff": 0.5, "longest_backoff": 5}}
    patience = busy() * (THREADS_WAIT if options.threads else 1.0)
    settings |= {"deadlines": {name: patience * seconds for name, seconds in DEADLINES.items()}}
    pool.write_text(yaml.safe_dump({**settings, "deliver": f"s3://{BUCKET}/run"}))
    with ExitStack() as held:
        objects = ObjectStore()
        held.callback(objects.close)
        objects.client().create_bucket(Bucket=BUCKET)
        door = Door(objects.port)
        os.environ.update(objects.environment(door.port))
        database = PostgresServer() if options.store == "postgres" else None
        store = []
        if database is not None:
            held.callback(database.close)
            store = ["--store", database.new_database()]
        program = "tests.chaos.in_threads" if options.threads else "imax_dist"
        command = [sys.executable, "-m", program, "serve"]
        command += ["--out", str(folder / "out"), "-q", "--pool", str(pool), "--config", str(service), *store]
        if not options.threads:
            command += ["--ray", held.enter_context(cluster_of_one()).address]
        servers = []
        for number in range(1 if database is None else 2):
            port = free_port()
            log = folder / f"server-{number}.log"
            servers.append(Server([*command, "--port", str(port)], f"http://127.0.0.1:{port}", log))
        farm = Farm(folder / "out", servers, database=database, objects=objects, door=door, model=model)
        for server in servers:
            server.start()
        try:
            yield farm
        finally:
            for server in servers:
                server.process.kill()
                server.process.wait()


def free_port() -> int:
    """One that the system gives to no connection while its server is away."""
    for port in random.sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


def run(folder: Path, options: argparse.Namespace) -> int:
    started = time.monotonic()
    with farm_of(folder, options) as farm:
        try:
            dealt = storm(farm, options)
            wait_until("the last poster", lambda: not unfinished(farm), 60.0 * options.minutes)
            wrong = verdict(farm, options)
        except BaseException:
            for log in sorted(folder.glob("server-*.log")):
                print("\n".join(log.read_text().splitlines()[-30:]), file=sys.stderr)
            raise
        codes = [server.end(signal.SIGTERM) for server in farm.servers]
    wrong += [f"a server that has nothing to do ended with {code}" for code in codes if code]
    print("| fault | times | API answers again after s |\n|---|---|---|")
    print("\n".join(f"| {kind} | {len(found)} | {spread(found, '.1f')} |" for kind, found in dealt.items()))
    took = time.monotonic() - started
    print(f"{options.store}: {options.jobs} orders, {len(farm.cancelled)} cancelled, {took:.0f} s")
    print("\n".join(wrong) or "every order one job, every poster once and delivered, all latents alike")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--threads", action="store_true", help="gangs are threads of the servers: no Ray")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=20, help="the last posters may take this long")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    folder = Path(tempfile.mkdtemp(prefix="imax-chaos-"))
    try:
        return run(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
