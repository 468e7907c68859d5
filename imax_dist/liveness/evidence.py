"""What a hung rank leaves behind: the stacks of its threads, and what NCCL was doing.

Apart because it is called from whichever thread still runs, and imports nothing that could wait.
"""

from __future__ import annotations

import faulthandler
import threading
from contextlib import suppress
from pathlib import Path

import torch

RECORDER_S = 2.0
"""NCCL's recorder takes locks that a stuck communicator may hold."""


def write_evidence(folder: Path, rank: int) -> None:
    """``rank-N.stacks.txt`` with every thread's stack; ``rank-N.nccl.json`` where NCCL records."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"rank-{rank}.stacks.txt").open("w") as file:
        faulthandler.dump_traceback(file, all_threads=True)
    recorder = getattr(torch._C._distributed_c10d, "_dump_nccl_trace_json", None)
    if recorder is not None and torch.cuda.is_available():
        asking = threading.Thread(
            target=_keep, args=(recorder, folder / f"rank-{rank}.nccl.json"), daemon=True
        )
        asking.start()
        asking.join(RECORDER_S)


def _keep(recorder: object, path: Path) -> None:
    with suppress(Exception):  # whatever it raises says less than the stacks
        record = recorder()  # type: ignore[operator]
        path.write_bytes(record if isinstance(record, bytes) else str(record).encode())
