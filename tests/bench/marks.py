"""What a beacon costs: `python -m tests.bench.marks` prints microseconds a mark, and the share of a step.

A step of FLUX.1 marks 57 blocks and two exchanges in each; on a GPU the bookkeeping is
the same and an event is recorded and asked for each mark, which is measured where there is one.
"""

from __future__ import annotations

import sys
import time

import torch

from imax_dist.events import StageStarted
from imax_dist.liveness.beacon import Beacon

BLOCKS, COUNT = 57, 20_000


class NoEvent:
    """Costs nothing and is passed at once."""

    def record(self) -> None:
        pass

    def query(self) -> bool:
        return True


def seconds_a_block(beacon: Beacon) -> float:
    """Of one block's marks: its beginning, and the way into two exchanges and out of them."""
    beacon.on_event(StageStarted("extrapolated", 28))
    started = time.perf_counter()
    for number in range(COUNT):
        beacon.block()
        for _ in range(2):
            with beacon.waiting("a hop"):
                pass
        if number % 100 == 0:
            beacon.look()
    return (time.perf_counter() - started) / COUNT


def main() -> int:
    cases = {"CPU": Beacon(), "GPU, bookkeeping alone": Beacon("cuda", events=NoEvent)}
    if torch.cuda.is_available():
        cases["GPU"] = Beacon("cuda")
    print("| marks on a | us a block | us a step of 57 blocks | of a step of 0.5 s |\n|---|---|---|---|")
    for name, beacon in cases.items():
        taken = seconds_a_block(beacon)
        share = 100 * BLOCKS * taken / 0.5
        print(f"| {name} | {1e6 * taken:.1f} | {1e6 * BLOCKS * taken:.0f} | {share:.2f} % |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
