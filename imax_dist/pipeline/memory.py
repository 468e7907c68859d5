"""The largest amount of memory this process has held."""

from __future__ import annotations

import resource
import sys
from typing import Any


def peak_memory() -> dict[str, float]:
    """GiB at the peak: ``host`` (resident set), and ``gpu`` if torch used one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peaks["gpu"] = torch.cuda.max_memory_allocated() / 2**30
    return peaks


def peak_bytes() -> int:
    """The peak that decides whether a poster fits: of the GPU if torch used one, else of the process."""
    peaks = peak_memory()
    return round(peaks.get("gpu", peaks["host"]) * 2**30)
