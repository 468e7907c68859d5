"""Seconds until a hang is seen, by the length of a step and the kind: `python -m tests.bench.hangs`.

Two real ranks on gloo with the network's attention in a ring, blocks made slow by sleeping, watched as
`imax launch` watches them. A step has 57 blocks, FLUX.1's number, and begins where a third step would.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from imax_dist.events import StageStarted, StepDone
from imax_dist.launcher.watch import RankWatch
from imax_dist.liveness.heartbeat import EVIDENCE_WANTED, beating
from imax_dist.liveness.silence import Silence
from imax_dist.parallel.engines import marking
from imax_dist.parallel.engines import torch as torch_engine
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import build_mesh
from imax_dist.parallel.sequence import JointLayout, gather
from imax_dist.parallel.topology import Topology, process_group
from tests.ranks import forked

BLOCKS = 57
FAULTY_BLOCK = 4
AT = "at"
LONGEST_S = 60.0


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def skip_hop() -> None:
    """From here on this rank posts no hop: it goes on to what ends the step, where it waits."""
    torch_engine.rotate = _own_block  # type: ignore[attr-defined]


def never_end() -> None:
    time.sleep(1e6)


def nothing() -> None:
    """The rank is only slow: see ``slowed``."""


SKIPPED = "hop skipped"
KINDS: dict[str, Callable[[], None]] = {
    "stopped": stop,
    SKIPPED: skip_hop,
    "computes for ever": never_end,
    "ten times slower": nothing,
}


def _own_block(key: Any, value: Any, lengths: Any, mesh: Any) -> Iterator[tuple[int, Any, Any]]:
    del lengths
    yield mesh.ring_index, key, value


def rank_main(rank: int, port: int, folder: str, kind: str, step_s: float, device: str) -> None:
    """A step's blocks; rank 1 has a fault in one of them, and says when."""
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=False, timeout=timedelta(seconds=60))
    place = torch.device(device, rank) if device == "cuda" else torch.device(device)
    with (
        beating(rank, Path(folder), device=place) as beacon,
        process_group(Topology(rank, 2, rank, place), store=store, timeout_s=600),
    ):
        mesh = build_mesh(Topology(rank, 2, rank, place, beacon), ulysses=1, ring=2)
        engine = marking(TorchEngine(mesh), beacon)
        layout = JointLayout.of(text_tokens=8, image_tokens=56, ranks=2)
        qkv = [torch.randn(1, 32, 4, 16, device=place) for _ in range(3)]
        beacon.on_event(StageStarted("extrapolated", 28))
        beacon.on_event(StepDone("extrapolated", 2, 28, 0.9, step_s))
        block_s = step_s / BLOCKS
        for block in range(1, (FAULTY_BLOCK if kind == SKIPPED else BLOCKS) + 1):
            if block == FAULTY_BLOCK and rank == 1:
                Path(folder, AT).write_text(str(time.time()))
                KINDS[kind]()
            slowed = kind == "ten times slower" and rank == 1 and block >= FAULTY_BLOCK
            time.sleep(block_s * (10 if slowed else 1))
            engine(*qkv, layout=layout)
        gather(qkv[0], layout.joint, mesh, dim=1)


def seconds_until_seen(
    kind: str, step_s: float, *, limits: Silence | None = None, device: str = "cpu"
) -> tuple[float | None, str]:
    """Between the fault and the diagnosis, with what it says; None if nothing was seen within a while."""
    context = forked()
    store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as place:
        folder, evidence = Path(place, "beacons"), Path(place, "evidence")
        folder.mkdir()
        ranks = [
            context.Process(
                target=rank_main, args=(rank, store.port, str(folder), kind, step_s, device), daemon=True
            )
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        try:
            with RankWatch(folder, evidence=evidence, limits=limits):
                return _await_verdict(folder, evidence, patience_s=LONGEST_S)
        finally:
            for process in ranks:
                process.kill()
                process.join()


def _await_verdict(folder: Path, evidence: Path, *, patience_s: float) -> tuple[float | None, str]:
    begun = time.time()
    while not (folder / AT).exists() and time.time() - begun < 2 * patience_s:
        time.sleep(0.05)
    struck = (folder / AT).stat().st_mtime
    while not (folder / EVIDENCE_WANTED).exists():
        if time.time() - struck > patience_s:
            return None, "nothing"
        time.sleep(0.05)
    seen = (folder / EVIDENCE_WANTED).stat().st_mtime - struck
    while not (evidence / "diagnosis.json").exists():
        time.sleep(0.05)
    diagnosis = json.loads((evidence / "diagnosis.json").read_text())
    stacks = sorted(path.name for path in evidence.glob("*.stacks.txt"))
    return seen, f"{diagnosis['kind']}: {diagnosis['says']} [{', '.join(stacks)}]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=float, nargs="+", default=[0.6, 7.0, 20.0, 92.0], help="seconds")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    for kind in options.kinds:
        for step_s in options.steps:
            seconds, said = seconds_until_seen(kind, step_s)
            seen = "not called a hang" if seconds is None else f"{seconds:.1f} s"
            print(f"| {kind} | {step_s:g} s | {seen} | {said} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
