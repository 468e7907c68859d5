"""Several posters of one prompt: their seeds, and a file name for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from imax_dist.errors import BadValue

MOST = 1_000
PLACE = "{seed}"


def seeds_of(text: str | None, *, first: int, count: int | None) -> list[int]:
    """The seeds of ``--seeds 3,7,10-12``, or ``count`` of them from ``first`` on. Raises BadValue."""
    if text is None:
        if count is not None and not 1 <= count <= MOST:
            raise BadValue(f"--count {count} is outside 1 to {MOST}")
        return [first + index for index in range(count or 1)]
    if count is not None:
        raise BadValue("--seeds says how many; omit --count")
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,19})(?:\s*-\s*(\d{1,19}))?\s*", part)
        if found is None:
            raise BadValue(
                f"--seeds {text!r} is not a list of numbers and ranges; write for example 3,7,10-12"
            )
        low, high = int(found[1]), int(found[2] or found[1])
        if not 0 <= high - low < MOST or len(seeds) + high - low >= MOST:
            raise BadValue(f"--seeds {text!r}: a range must rise, and at most {MOST} seeds are rendered")
        seeds.extend(range(low, high + 1))
    return list(dict.fromkeys(seeds))


def outputs(out: Path, seeds: Sequence[int]) -> list[Path]:
    """A file for each seed: ``{seed}`` in the name is replaced; else several become ``sea-3.png``."""
    if PLACE in str(out):
        return [Path(str(out).replace(PLACE, str(seed))) for seed in seeds]
    if len(seeds) == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{seed}{out.suffix}") for seed in seeds]
