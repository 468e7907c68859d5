"""Faults of ranks, nodes and drivers, and what the batch makes of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.chaos.environment import ENVIRONMENT_FAULTS, PREEMPTED
from tests.chaos.harmed_ranks import HARMED
from tests.chaos.shop import PATIENCE_S, Event, Fault, Shop, last_step, patiently, seconds_of, wait_until

Strike = Callable[[Shop, Fault, int], None]


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


def send(number: signal.Signals) -> Strike:
    def strike_rank(shop: Shop, fault: Fault, pid: int) -> None:
        with suppress(ProcessLookupError):  # its gang was lost at this very moment
            os.kill(pid, number)

    return strike_rank


def spoil(harm: Callable[[Path], None]) -> Strike:
    """Harm the newest checkpoint, then kill the rank."""

    def strike_rank(shop: Shop, fault: Fault, pid: int) -> None:
        for file in sorted((shop.out / fault.job / "checkpoints").glob("step-*.safetensors"))[-1:]:
            with suppress(FileNotFoundError):  # a newer one has taken its place
                harm(file)
        send(signal.SIGKILL)(shop, fault, pid)

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


def end_driver(number: signal.Signals) -> Strike:
    def end(shop: Shop, fault: Fault, pid: int) -> None:
        shop.driver.send_signal(number)
        code = shop.driver.wait(PATIENCE_S)
        fault.seen_s = time.time() - fault.at
        if code not in (-signal.SIGKILL, PREEMPTED, 0):
            shop.wrong.append(f"{number.name} ended the driver with {code}")
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
    wait_until("the drain to be seen", lambda: seen(shop, fault) or shop.ended, 30)
    shop.nodes.remove(node)
    shop.cluster.remove_node(node)
    shop.nodes.append(patiently(lambda: shop.cluster.add_node(num_cpus=2)))


STRIKES: dict[str, Strike] = {
    "kill": send(signal.SIGKILL),
    "stop": send(signal.SIGSTOP),
    "torn checkpoint": spoil(tear),
    "flipped bit": spoil(flip_bit),
    "driver kill": end_driver(signal.SIGKILL),
    "driver SIGTERM": end_driver(signal.SIGTERM),
    "drain": drain,
    **ENVIRONMENT_FAULTS,
    **HARMED,
}
SHARES = {"kill": 5, "stop": 3, "torn checkpoint": 2, "flipped bit": 2, "driver kill": 2, "drain": 2}
"""How often each is dealt beside the others, which are dealt once in so many."""


def deal(seed: int, count: int, without: set[str]) -> list[str]:
    """``count`` kinds in an order of their own: each kind once, as far as they go, the rest by its share."""
    rng = random.Random(seed)
    kinds = [kind for kind in STRIKES if kind not in without]
    once = rng.sample(kinds, min(count, len(kinds)))
    rest = rng.choices(kinds, [SHARES.get(kind, 1) for kind in kinds], k=count - len(once))
    dealt = once + rest
    rng.shuffle(dealt)
    return dealt


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
    moment = fault.at + (fault.seen_s or 0.0)
    later: list[Event] = []
    before: list[Event] = []
    for event in shop.events_of(fault.job):
        (later if seconds_of(event) > moment else before).append(event)
    steps = [event for event in later if event["event"] == "step" and event["stage"] == "extrapolated"]
    if steps:
        fault.back_s = seconds_of(steps[0]) - fault.at
        fault.lost_steps = max(0, last_step(before) - (int(steps[0]["index"]) - 1))
        return True
    return any(event["event"] == "job.done" for event in later) or (shop.out / fault.job / "DONE").exists()
