"""``make chaos``: a batch of small posters on two gangs of two ranks while things are broken on purpose.

A Ray cluster of three raylets on this machine, the real command as a driver, seeded faults of ranks, nodes
and drivers and of what is around them (surroundings.py). At the end every poster must be there once with the
latents of an undisturbed run, those cancelled only after a retry, and no process may be left. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.surroundings import SURROUNDINGS, imax, own_disk

FAULTS = (
    ["kill"] * 4
    + ["stop"] * 3
    + ["torn checkpoint"] * 2
    + ["flipped bit"] * 2
    + ["driver kill"] * 2
    + ["driver SIGTERM"]
    + ["drain"] * 2
)
REQUESTS = [
    {"prompt": "a red sun over the sea", "size": "256x192"},
    {"prompt": "a house on a green hill", "size": "192x256"},
    {"prompt": "two white boats", "size": "224x224"},
    {"prompt": "a tree under a blue sky", "size": "320x160"},
]
POOL = {
    "gangs": 2,
    "ranks": 2,
    "device": "cpu",
    "threads": 1,
    "checkpoint_every": 3,
    "deadlines": {
        "place": 90,
        "join": 90,
        "first_step": 90,
        "step_least": 6,
        "stage": 90,
        "heartbeat": 8,
        "stop": 30,
    },
    "retry": {"attempts": 6, "backoff": 0.5, "longest_backoff": 5},
}
PATIENCE_S = 90.0


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


@dataclass
class Shop:
    """The cluster, the driver and the folder."""

    cluster: Any
    out: Path
    manifest: Path
    pool: Path
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    nodes: list[Any] = field(default_factory=list)
    switches: Path = Path("/nonexistent")
    cancelled: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

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
        log = (self.pool.parent / f"driver-{self.out.name}-{len(self.drivers)}.log").open("w")
        given = {"stdout": log, "stderr": log, "text": True, "start_new_session": True}
        self.drivers.append(subprocess.Popen(self.command(), env=self.environment(), **given))  # type: ignore

    def end(self) -> None:
        """Leave no driver behind, whatever happened."""
        for driver in self.drivers:
            driver.kill()
            driver.wait()

    def events(self) -> list[dict[str, Any]]:
        return read_events(self.out / "events.jsonl")

    def gangs(self) -> dict[str, dict[str, Any]]:
        """Gangs that are joined now, as their ``gang.ready`` described them."""
        joined: dict[str, dict[str, Any]] = {}
        for event in self.events():
            if event["event"] == "batch.started":
                joined.clear()
            elif event["event"] == "gang.ready":
                joined[event["gang"]] = event
                self.pids.update(event["pids"])
            elif event["event"] in ("gang.lost", "gang.released"):
                joined.pop(event["gang"], None)
        return joined

    def working(self) -> list[tuple[str, str, int]]:
        """(gang, job, step) of every poster that is in its target-size pass now."""
        found: list[tuple[str, str, int]] = []
        current: dict[str, str] = {}
        begun = sum(event["event"] == "batch.started" for event in self.events())
        if begun < len(self.drivers):
            return found  # the new driver has not begun: what the log says is of the one before
        for event in self.events():
            if event["event"] == "batch.started":
                current.clear()
            elif event["event"] == "job.started":
                current[event["gang"]] = event["job"]
            elif event["event"].startswith(("job.", "gang.lost")):
                current.pop(event["gang"], None)
        for gang, job in current.items():
            step = last_step(read_events(self.out / job / "events.jsonl"))
            if gang in self.gangs() and step >= 4:
                found.append((gang, job, step))
        return found


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole lines of an event log."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def last_step(events: list[dict[str, Any]]) -> int:
    """The step the attempt that runs now has reached; 0 before its first."""
    step = 0
    for event in events:
        if event["event"] == "job.started":
            step = 0
        elif event["event"] == "step" and event["stage"] == "extrapolated":
            step = int(event["index"])
    return step


def seconds_of(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["ts"]).timestamp()


def wait_until(what: str, condition: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """The first true value of ``condition``; longer on a machine that is busy with other work."""
    patience = seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 2)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError(f"waited {patience:.0f} s for {what}")


def strike(shop: Shop, kind: str, rng: random.Random) -> Fault | None:
    """Break something while a poster is being made; None once the batch has ended."""
    found = wait_until("a poster at work", lambda: shop.working() or shop.ended)
    if found is True:
        return None
    gang, job, step = rng.choice(found)
    fault = Fault(kind, time.time(), job, gang, step)
    pid = rng.choice(shop.gangs()[gang]["pids"])
    STRIKES[kind](shop, fault, pid)
    return fault


def send(number: signal.Signals) -> Callable[[Shop, Fault, int], None]:
    def strike_rank(shop: Shop, fault: Fault, pid: int) -> None:
        os.kill(pid, number)

    return strike_rank


def spoil(harm: Callable[[Path], None]) -> Callable[[Shop, Fault, int], None]:
    """Harm the newest checkpoint, then kill the rank."""

    def strike_rank(shop: Shop, fault: Fault, pid: int) -> None:
        for file in sorted((shop.out / fault.job / "checkpoints").glob("step-*.safetensors"))[-1:]:
            with suppress(FileNotFoundError):  # a newer one has taken its place
                harm(file)
        os.kill(pid, signal.SIGKILL)

    return strike_rank


def tear(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_bit(file: Path) -> None:
    """The lowest bit of one number, which stays finite."""
    with file.open("r+b") as content:
        content.seek(-4, os.SEEK_END)
        low = content.read(1)[0]
        content.seek(-4, os.SEEK_END)
        content.write(bytes([low ^ 1]))


def end_driver(number: signal.Signals) -> Callable[[Shop, Fault, int], None]:
    def end(shop: Shop, fault: Fault, pid: int) -> None:
        shop.driver.send_signal(number)
        shop.driver.wait(PATIENCE_S)
        fault.seen_s = time.time() - fault.at
        shop.start()

    return end


def drain(shop: Shop, fault: Fault, pid: int) -> None:
    """The node of the gang is to go away in 20 s; another one takes its place."""
    node_id = shop.gangs()[fault.gang]["nodes"][0]
    node = next(node for node in shop.nodes if node.node_id == node_id)
    command = ["ray", "drain-node", "--address", shop.cluster.address, "--node-id", node_id]
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "chaos"]
    ray_command = [sys.executable, "-m", "ray.scripts.scripts", *command[1:], *reason]
    subprocess.run([*ray_command, "--deadline-remaining-seconds", "20"], check=True, capture_output=True)
    fault.at = time.time()
    wait_until("the drain to be seen", lambda: seen(shop, fault), 30)
    shop.nodes.remove(node)
    shop.cluster.remove_node(node)
    shop.nodes.append(shop.cluster.add_node(num_cpus=2))


STRIKES: dict[str, Callable[[Shop, Fault, int], None]] = {
    "kill": send(signal.SIGKILL),
    "stop": send(signal.SIGSTOP),
    "torn checkpoint": spoil(tear),
    "flipped bit": spoil(flip_bit),
    "driver kill": end_driver(signal.SIGKILL),
    "driver SIGTERM": end_driver(signal.SIGTERM),
    "drain": drain,
    **SURROUNDINGS,
}


def seen(shop: Shop, fault: Fault) -> bool:
    """The pool has noticed."""
    if fault.seen_s is None:
        names = ("gang.lost", "gang.draining")
        for event in shop.events():
            late = seconds_of(event) >= fault.at - 0.01
            if event["event"] in names and late and event["gang"] == fault.gang:
                fault.seen_s = seconds_of(event) - fault.at
                break
    return fault.seen_s is not None


def back(shop: Shop, fault: Fault) -> bool:
    """The poster makes steps again, or is done (it was in its last steps)."""
    events = read_events(shop.out / fault.job / "events.jsonl")
    later = [event for event in events if seconds_of(event) > fault.at + (fault.seen_s or 0.0)]
    before = [event for event in events if seconds_of(event) <= fault.at + (fault.seen_s or 0.0)]
    steps = [event for event in later if event["event"] == "step" and event["stage"] == "extrapolated"]
    if steps:
        fault.back_s = seconds_of(steps[0]) - fault.at
        fault.lost_steps = max(0, last_step(before) - (int(steps[0]["index"]) - 1))
        return True
    return any(event["event"] == "job.done" for event in later) or (shop.out / fault.job / "DONE").exists()


def storm(shop: Shop, seed: int, count: int, without: set[str]) -> list[Fault]:
    """One fault after another: each of the surroundings once, the others by their share."""
    rng = random.Random(seed)
    around = [kind for kind in SURROUNDINGS if kind not in without]
    kinds = around + rng.sample(FAULTS, max(0, min(len(FAULTS), count - len(around))))
    rng.shuffle(kinds)
    faults = []
    for kind in kinds:
        fault = strike(shop, kind, rng)
        if fault is None:
            break
        faults.append(fault)
        print(f"{kind}: {fault.job} at step {fault.step} on {fault.gang}", flush=True)
        if not fault.over:
            wait_until(f"the loss of {fault.gang}", lambda fault=fault: seen(shop, fault) or shop.ended)
            wait_until(f"{fault.job} to go on", lambda fault=fault: back(shop, fault) or shop.ended)
        time.sleep(rng.uniform(0.0, 4.0))
    return faults


def prepare(folder: Path, posters: int, steps: int) -> tuple[Path, Path, Path]:
    """Manifests of the whole batch and of one poster of each kind, and the pool's settings."""
    lines = [
        {
            **REQUESTS[i % len(REQUESTS)],
            "id": f"poster-{i:02}",
            "preset": "one_jump",
            "steps": steps,
            "native_steps": 3,
        }
        for i in range(posters)
    ]
    whole, one_each, pool = folder / "whole.jsonl", folder / "calm.jsonl", folder / "pool.yaml"
    whole.write_text("\n".join(map(json.dumps, lines)))
    one_each.write_text("\n".join(map(json.dumps, lines[: len(REQUESTS)])))
    pool.write_text(yaml.safe_dump(POOL))
    return whole, one_each, pool


def refused_checkpoints(out: Path) -> int:
    """How many files a resuming poster passed over."""
    logs = [read_events(path) for path in out.glob("*/events.jsonl")]
    return sum("not resumed: " in event.get("text", "") for events in logs for event in events)


def hashes(out: Path) -> dict[str, str]:
    return {p.parent.name: json.loads(p.read_text())["latents_sha256"] for p in sorted(out.glob("*/DONE"))}


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def verdict(shop: Shop, calm: dict[str, str], posters: int) -> list[str]:
    """What is wrong; empty if all is well."""
    wrong = list(shop.wrong)
    made = hashes(shop.out)
    if len(made) != posters:
        wrong.append(f"{len(made)} of {posters} posters are there")
    reference = list(calm.values())
    wrong += [
        f"{job} differs from the undisturbed run"
        for job, value in made.items()
        if value != reference[int(job[-2:]) % len(REQUESTS)]
    ]
    finished = [event["job"] for event in shop.events() if event["event"] == "job.done"]
    wrong += [f"{job} was made twice" for job in set(finished) if finished.count(job) > 1]
    shop.gangs()
    deadline = time.monotonic() + 10
    while (left := [pid for pid in shop.pids if lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return wrong + [f"process {pid} is left" for pid in left]


def table(faults: list[Fault]) -> str:
    rows = ["| fault | seen after s | back to work after s | steps lost |", "|---|---|---|---|"]
    for fault in faults:
        numbers = ["-" if value is None else f"{value:.1f}" for value in (fault.seen_s, fault.back_s)]
        lost = "-" if fault.lost_steps is None else fault.lost_steps
        rows.append(f"| {fault.kind} | {numbers[0]} | {numbers[1]} | {lost} |")
    return "\n".join(rows)


def last_words(folder: Path) -> str:
    """What the batch and its drivers said last, for whoever looks into a failed run."""
    logs = [folder / "disk" / "out" / "events.jsonl", *sorted(folder.glob("driver-*.log"))]
    tails = [log.read_text(encoding="utf-8").splitlines()[-40:] for log in logs if log.is_file()]
    return "\n\n".join("\n".join(tail) for tail in tails)


def out_of_time(number: int, frame: object) -> None:
    raise TimeoutError("the time limit is over")


def trial(folder: Path, options: argparse.Namespace) -> tuple[list[Fault], list[str], int]:
    """The calm run, the storm and what came of it: the faults, what is wrong, checkpoints passed over."""
    from ray.cluster_utils import Cluster

    whole, one_each, pool = prepare(folder, options.posters, options.steps)
    switches, shops = folder / "switches", []
    switches.mkdir()
    site = str(Path(__file__).parent / "site")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH", "")]))
    os.environ["IMAX_CHAOS"] = str(switches)
    with own_disk(folder / "disk") as may_be_full:
        small = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20}
        cluster = Cluster(initialize_head=True, head_node_args=small)
        try:
            nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
            calm = Shop(cluster, folder / "calm", one_each, pool, nodes=nodes)
            shop = Shop(cluster, folder / "disk" / "out", whole, pool, nodes=nodes, switches=switches)
            shops += [calm, shop]
            calm.start()
            if calm.driver.wait(300):
                raise RuntimeError("the undisturbed run failed")
            shop.start()
            faults = storm(shop, options.seed, options.faults, set() if may_be_full else {"disk full"})
            finish(shop, options.limit_s)
            wrong = verdict(shop, hashes(calm.out), options.posters)
            return faults, wrong, refused_checkpoints(shop.out)
        finally:
            for each in shops:
                each.end()
            cluster.shutdown()


def finish(shop: Shop, limit_s: float) -> None:
    """Let the batch end; what was cancelled must be missing then, and is made after a retry."""
    code = shop.driver.wait(limit_s)
    if code:
        shop.wrong.append(f"the last driver exited {code}")
    made = shop.cancelled & hashes(shop.out).keys()
    shop.wrong.extend(f"{job} was cancelled and is there" for job in sorted(made))
    if shop.cancelled:
        said = imax(shop, "retry", str(shop.out))
        if said.returncode:
            shop.wrong.append(f"retry ended with {said.returncode}: {said.stderr}")
        shop.start()
        shop.wrong += (
            [f"after the retry the driver exited {code}"] if (code := shop.driver.wait(limit_s)) else []
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--posters", type=int, default=48)
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument("--faults", type=int, default=23, help="how many, at most 23")
    parser.add_argument("--limit-s", type=int, default=900, help="give up after this long")
    options = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1")
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(options.limit_s)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="imax-chaos-") as name:
        folder = Path(name)
        try:
            faults, wrong, refused = trial(folder, options)
        except BaseException:
            print(last_words(folder), file=sys.stderr, flush=True)
            raise
    print(table(faults))
    took = time.monotonic() - started
    print(f"seed {options.seed}: {options.posters} posters, {len(faults)} faults, {took:.0f} s")
    print(f"{refused} spoilt checkpoints were passed over")
    least = options.faults // 2
    wrong += [] if len(faults) >= least else [f"only {len(faults)} faults were dealt before the batch ended"]
    print("\n".join(wrong) or "every poster once, all latents those of the undisturbed run, no process left")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
