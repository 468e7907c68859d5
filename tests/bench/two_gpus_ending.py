"""A rank that ends alone under the launcher: how long the other lives on, and with which code all end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

FAILING_RANK = Path(__file__).parents[1] / "launcher" / "failing_rank.py"
LAUNCH = "from imax_dist.launcher.elastic import Nodes, run_ranks; import sys; "
LAUNCH += "sys.exit(run_ranks(sys.argv[1:], Nodes(2), drain_s=5))"
LONGEST_S = 200.0


def seconds_until_the_others_end(how: str, *, device: str) -> tuple[float, int]:
    """From the fault to the end of all; ``how``: out of memory, or killed."""
    with tempfile.TemporaryDirectory() as folder:
        struck = Path(folder, "struck")
        words = ["generate", "a red sun", "--out", f"{folder}/x.png", "--device", device]
        command = [sys.executable, "-c", LAUNCH, str(FAILING_RANK), *words]
        ended = subprocess.run(
            command,
            check=False,
            capture_output=True,
            timeout=LONGEST_S,
            env=_environment(how, struck, device=device),
        )
        return time.time() - float(struck.read_text()), ended.returncode


def _environment(how: str, struck: Path, *, device: str) -> dict[str, str]:
    import os

    real = {} if device == "cpu" else {"FAILING_RANK_REAL": "1"}
    return {**os.environ, "FAILING_RANK_HOW": how, "FAILING_RANK_STRUCK": str(struck), **real}
