"""The judge over the ranks of one node: fed by files in a folder, it kills ranks that hang, with evidence.

It sits in ``imax launch``, or, where torchrun or srun started them, in each of the ranks (among.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from imax_dist.errors import GangLost
from imax_dist.liveness.heartbeat import EVIDENCE_WANTED, RankReport, read_reports
from imax_dist.liveness.judge import Diagnosis, Judge
from imax_dist.liveness.silence import Silence

LOOK_S = 0.5
EVIDENCE_S = 2.0
"""For ranks to leave their stacks."""
JUDGED = "judged"
"""The file of the one that came to a diagnosis first, of several that look at the same ranks."""


class RankWatch:
    """Looks at ``folder`` in a thread of its own, for the length of the block.

    ``evidence``: where stacks are kept. ``alive``: a file that is touched while the ranks are well, for a
    probe from outside to look at. ``notice``: a file whose appearance is as good as a SIGTERM. ``compiled``:
    first steps may compile the network's blocks. ``speaker`` begins the sentence of a diagnosis.
    """

    def __init__(
        self,
        folder: Path,
        *,
        evidence: Path,
        alive: Path | None = None,
        notice: Path | None = None,
        limits: Silence | None = None,
        compiled: bool = False,
        speaker: str = "imax launch",
    ) -> None:
        self._folder = folder
        self._speaker = speaker
        self._notice = notice
        self._evidence = evidence
        self._alive = alive
        self._judge = Judge((limits or Silence()).where(compiled=compiled), time.monotonic)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="rank watch")

    def __enter__(self) -> RankWatch:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._stopped.wait(LOOK_S):
            now = time.monotonic()
            if now - looked > 4 * LOOK_S:  # this launcher itself was away
                self._judge.excuse(now - looked)
            looked = now
            with suppress(OSError, ValueError):
                if self._look():
                    return

    def _look(self) -> bool:
        """Whether the ranks hang, and were killed or will be by the first that saw it."""
        self._heed()
        reports = read_reports(self._folder)
        self._judge.keep([report.rank for report in reports])
        for report in reports:
            self._judge.see(report)
        diagnosis = self._judge.diagnose()
        if diagnosis is None:
            if self._alive is not None:
                self._alive.touch()
            return False
        try:
            (self._folder / JUDGED).touch(exist_ok=False)
        except FileExistsError:
            return True
        text = f"{self._speaker}: {diagnosis.sentence}; evidence in {self._evidence}"
        print(text, file=sys.stderr, flush=True)
        self._keep(diagnosis, reports)
        _kill([report.pid for report in reports])
        return True

    def _heed(self) -> None:
        """Stop as at a SIGTERM when the machine is about to be taken away."""
        if self._notice is not None and self._notice.exists():
            record = (
                f"{self._notice} announces that this machine is being taken back; stopping with a checkpoint"
            )
            print(f"{self._speaker}: {record}", file=sys.stderr, flush=True)
            self._notice = None
            os.kill(os.getpid(), signal.SIGTERM)

    def _keep(self, diagnosis: Diagnosis, reports: list[RankReport]) -> None:
        """Stacks of the ranks that still beat, the state of each process, and what was concluded."""
        (self._folder / EVIDENCE_WANTED).touch()
        time.sleep(EVIDENCE_S)
        with suppress(OSError):
            self._evidence.mkdir(parents=True, exist_ok=True)
            for path in (*self._folder.glob("*.stacks.txt"), *self._folder.glob("*.nccl.json")):
                shutil.copy(path, self._evidence)
            ranks = [{**report.to_json(), "process": _state(report.pid)} for report in reports]
            record = {"kind": diagnosis.kind, "says": diagnosis.sentence, "ranks": ranks}
            (self._evidence / "diagnosis.json").write_text(json.dumps(record, indent=1) + "\n")


def _kill(pids: list[int]) -> None:
    """This process last, if it is one of them."""
    for pid in pids:
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if os.getpid() in pids:
        os._exit(GangLost.exit_code)


def _state(pid: int) -> str:
    """What the system says of a process, for example ``T (stopped)``."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("State:"))
    return "gone"
