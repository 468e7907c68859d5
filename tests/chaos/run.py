"""``make chaos``: a batch of small posters on two gangs of two ranks while things are broken on purpose.

A Ray cluster of three raylets on this machine, the real command as a driver, seeded faults of ranks, nodes
and drivers (strikes.py) and of what is around them (environment.py). At the end every poster must be there
once with the latents of an undisturbed run, those cancelled only after a retry, and no process may be left.
With ``--folder`` the same command goes on where it was interrupted, by ``--minutes`` or by anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.environment import imax, own_disk
from tests.chaos.harmed_ranks import where
from tests.chaos.shop import Fault, Record, Shop, busy, patiently, wait_until
from tests.chaos.strikes import back, deal, seen, strike
from tests.tiny_flux import make_tiny_flux

REQUESTS = [
    {"prompt": "a red sun over the sea", "size": "128x96"},
    {"prompt": "a house on a green hill", "size": "96x128"},
    {"prompt": "two white boats", "size": "112x112"},
    {"prompt": "a tree under a blue sky", "size": "320x256"},
]
POOL = {
    "gangs": 2,
    "ranks": 2,
    "device": "cpu",
    "threads": 1,
    "checkpoint_every": 3,
    "retry": {"attempts": 6, "backoff": 0.5, "longest_backoff": 5},
}
DEADLINES = {
    "place": 90.0,
    "join": 90.0,
    "first_step": 90.0,
    "step_least": 6.0,
    "stage": 90.0,
    "heartbeat": 8.0,
    "exchange": 8.0,
    "stop": 30.0,
}
"""On a machine that is free; longer on a busy one."""
ENVIRONMENT = {
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
}
"""Set before Ray is imported, whose workers starve on a busy machine if they are nicer than the rest."""
UNFINISHED = 75
FREED_S = 3.0


class OutOfTime(Exception):
    """``--minutes`` are over: the same command goes on later."""


def prepare(folder: Path, posters: int, steps: int) -> tuple[Path, Path, Path]:
    """Manifests of the whole batch and of one poster of each kind, and the pool's settings."""
    model = folder / "model"
    if not model.is_dir():
        make_tiny_flux(model)
    common = {"model": str(model), "preset": "one_jump", "steps": steps, "native_steps": 3}
    lines = [{**REQUESTS[i % len(REQUESTS)], "id": f"poster-{i:04}", **common} for i in range(posters)]
    whole, one_each, pool = folder / "whole.jsonl", folder / "calm.jsonl", folder / "pool.yaml"
    whole.write_text("\n".join(map(json.dumps, lines)))
    one_each.write_text("\n".join(map(json.dumps, lines[: len(REQUESTS)])))
    limits = {name: round(seconds * busy(), 1) for name, seconds in DEADLINES.items()}
    pool.write_text(yaml.safe_dump({**POOL, "deadlines": limits, "notice": where(folder)}))
    return whole, one_each, pool


def storm(shop: Shop, kinds: Sequence[str], seed: int) -> None:
    """One fault after another, from where an earlier sitting ended."""
    rng = random.Random(seed + len(shop.record.dealt))
    for kind in kinds[len(shop.record.dealt) :]:
        fault = strike(shop, kind, rng)
        if fault is None:
            break
        print(f"{kind}: {fault.job} at step {fault.step} on {fault.gang}", flush=True)
        if not fault.over:
            wait_until(f"the loss of {fault.gang}", lambda fault=fault: seen(shop, fault) or shop.ended)
            wait_until(f"{fault.job} to go on", lambda fault=fault: back(shop, fault) or shop.ended)
        shop.record.dealt.append(fault)
        shop.record.write()
        time.sleep(rng.uniform(0.0, FREED_S))


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
        if code := shop.driver.wait(limit_s):
            shop.wrong.append(f"after the retry the driver exited {code}")
    said = imax(shop, "verify", *map(str, sorted(shop.out.glob("*/poster.png"))))
    if said.returncode:
        shop.wrong.append(f"verify ended with {said.returncode}: {said.stdout[-500:]}{said.stderr[-500:]}")


def hashes(out: Path) -> dict[str, str]:
    return {p.parent.name: json.loads(p.read_text())["latents_sha256"] for p in sorted(out.glob("*/DONE"))}


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
        if value != reference[int(job.rpartition("-")[2]) % len(REQUESTS)]
    ]
    finished = [event["job"] for event in shop.events() if event["event"] == "job.done"]
    wrong += [f"{job} was made twice" for job in set(finished) if finished.count(job) > 1]
    shop.gangs()
    deadline = time.monotonic() + 10
    while (left := shop.left()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return wrong + [f"process {pid} is left" for pid in left]


def refused_checkpoints(out: Path) -> int:
    """How many files a resuming poster passed over."""
    logs = [path.read_text(encoding="utf-8") for path in out.glob("*/events.jsonl")]
    return sum(log.count("not resumed: ") for log in logs)


def table(faults: Sequence[Fault]) -> str:
    rows = ["| fault | times | seen after s | back to work after s | steps lost |", "|---|---|---|---|---|"]
    for kind in sorted({fault.kind for fault in faults}):
        own = [fault for fault in faults if fault.kind == kind]
        spans = [spread([f.seen_s for f in own], ".1f"), spread([f.back_s for f in own], ".1f")]
        rows.append(f"| {kind} | {len(own)} | {' | '.join(spans)} | {spread([f.lost_steps for f in own])} |")
    return "\n".join(rows)


def spread(values: Sequence[float | None], form: str = ".0f") -> str:
    """Median and largest of those that are known."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return (
        f"{statistics.median(known):{form}} ({max(known):{form}})" if len(known) > 1 else f"{known[0]:{form}}"
    )


def last_words(folder: Path) -> str:
    """What the batch and its drivers said last, for whoever looks into a failed run."""
    logs = [folder / "disk" / "out" / "events.jsonl", *sorted(folder.glob("driver-*.log"))]
    tails = [log.read_text(encoding="utf-8").splitlines()[-40:] for log in logs if log.is_file()]
    return "\n\n".join("\n".join(tail) for tail in tails)


@contextmanager
def kept_disk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The batch's folder on a small disk of its own, if there can be one; what is on it outlives the disk."""
    kept = folder / "kept"
    with own_disk(folder / "disk") as may_be_full:
        out = folder / "disk" / "out"
        if kept.is_dir() and not out.exists():
            shutil.copytree(kept, out)
        try:
            yield out, may_be_full
        finally:
            moved = out.with_name("moved")
            if moved.is_dir() and not out.exists():
                moved.rename(out)
            if may_be_full and out.is_dir():
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(out, kept)


@contextmanager
def cluster_of_three(folder: Path) -> Iterator[tuple[Any, list[Any], Path]]:
    """A head and two nodes of two CPUs each, and the folder of the switches that their processes look at."""
    from ray.cluster_utils import Cluster

    switches = folder / "switches"
    shutil.rmtree(switches, ignore_errors=True)
    switches.mkdir()
    site = str(Path(__file__).parent / "site")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH", "")]))
    os.environ["IMAX_CHAOS"] = str(switches)
    small = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=small))
    try:
        yield cluster, [patiently(lambda: cluster.add_node(num_cpus=2)) for _ in range(2)], switches
    finally:
        cluster.shutdown()


def trial(folder: Path, options: argparse.Namespace, record: Record) -> tuple[list[str], int]:
    """The calm run, the storm and what came of it: what is wrong, checkpoints passed over."""
    whole, one_each, pool = prepare(folder, options.posters, options.steps)
    record.sittings += 1
    with kept_disk(folder) as (out, may_be_full), cluster_of_three(folder) as (cluster, nodes, switches):
        calm = Shop(cluster, folder / "calm", one_each, pool, Record(folder / "calm.json"), nodes=nodes)
        shop = Shop(cluster, out, whole, pool, record, nodes=nodes, switches=switches)
        try:
            if len(hashes(calm.out)) < len(REQUESTS):
                calm.start()
                if calm.driver.wait(300 * busy()):
                    raise RuntimeError("the undisturbed run failed")
            shop.start()
            without = {*options.without, *(() if may_be_full else ("disk full",))}
            kinds = deal(options.seed, options.faults, without)
            storm(shop, kinds, options.seed)
            finish(shop, 60.0 * options.minutes)
            return verdict(shop, hashes(calm.out), options.posters), refused_checkpoints(shop.out)
        finally:
            calm.end()
            shop.end()


def out_of_time(number: int, frame: object) -> None:
    raise OutOfTime


def run(folder: Path, options: argparse.Namespace) -> int:
    """The exit status; 75 if there was not time for everything."""
    record, started = Record.read(folder / "record.json"), time.monotonic()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(round(60 * options.minutes))
    try:
        wrong, refused = trial(folder, options, record)
    except OutOfTime:
        print(f"out of time after {len(record.dealt)} faults; the same command with --folder goes on")
        return UNFINISHED
    except BaseException:
        print(last_words(folder), file=sys.stderr, flush=True)
        raise
    finally:
        signal.alarm(0)
        record.seconds += time.monotonic() - started
        record.write()
    faults = record.dealt
    print(table(faults))
    print(
        f"seed {options.seed}: {options.posters} posters, {len(faults)} faults, {record.seconds:.0f} s in "
        f"{record.sittings} sittings, {len(record.cancelled)} cancelled and made after a retry"
    )
    print(f"{refused} spoilt checkpoints were passed over")
    if len(faults) < options.faults:
        wrong.append(f"only {len(faults)} faults were dealt before the batch ended")
    print("\n".join(wrong) or "every poster once, all latents those of the undisturbed run, no process left")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--posters", type=int, default=60)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--faults", type=int, default=20, help="each kind once, as far as they go")
    parser.add_argument("--without", nargs="*", default=[], metavar="KIND", help="faults that are not dealt")
    parser.add_argument("--minutes", type=float, default=20, help="pause or give up after this long")
    parser.add_argument("--folder", type=Path, help="kept, so that the same command goes on; else temporary")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        return run(options.folder.absolute(), options)
    with tempfile.TemporaryDirectory(prefix="imax-chaos-") as name:
        return run(Path(name), options)


if __name__ == "__main__":
    sys.exit(main())
