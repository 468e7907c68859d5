"""How numbers and other people's errors are put into sentences."""

from __future__ import annotations

LONGEST_LINE = 300
STAGES = {
    "start": "start up",
    "load": "load model",
    "join": "join ranks",
    "picture": "read picture",
    "prompt": "embed prompt",
    "native": "native pass",
    "endpoint": "enlarge guidance",
    "extrapolated": "target-size pass",
}
"""Stages of a render whose events have shorter names."""


def first_line(error: BaseException | str, *, otherwise: str | None = None) -> str:
    """The first line that says something of an error that may be pages long, cut to one sentence's length.

    ``otherwise`` (default: the error's class) stands for an error that says nothing.
    """
    empty = "" if isinstance(error, str) else type(error).__name__
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), otherwise or empty)
    return first if len(first) <= LONGEST_LINE else f"{first[: LONGEST_LINE - 4]} ..."


def plural(count: int, noun: str, many: str | None = None) -> str:
    """``1 poster``, ``2 posters``, ``0 retries`` (``many`` where an s is not enough)."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def duration(seconds: float) -> str:
    """``0.12 s``, ``43 s``, ``3.9 min``, ``76 min``, ``6.1 h``: as many digits as people read."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def file_size(count: float) -> str:
    """``512 bytes``, ``14.7 kB``, ``3.2 MB``, ``1.5 GB``: of a file, in powers of 1000."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            amount = count / size
            return f"{amount:.0f} {unit}" if amount >= 100 else f"{amount:.3g} {unit}"
    return plural(round(count), "byte")


def stage_name(stage: str) -> str:
    """What people read for a stage of a render: ``target-size pass``, ``cascade pass 2``, ``decode``."""
    return STAGES.get(stage, stage.replace("cascade", "cascade pass"))
