"""Numbers with units as people write them: ``80 GB``, ``989 TFLOP/s``, ``400 Gbit/s``, ``10 us``."""

from __future__ import annotations

import re
from typing import Literal

from imax_dist.errors import BadConfig

Kind = Literal["memory", "rate", "bandwidth", "time"]

PREFIXES = {"": 1.0, "K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
UNITS: dict[Kind, dict[str, float]] = {
    "memory": {f"{name}B": size for name, size in {**PREFIXES, **BINARY}.items()},
    "rate": {f"{name}FLOP/s": size for name, size in PREFIXES.items()},
    "bandwidth": {
        **{f"{name}B/s": size for name, size in {**PREFIXES, **BINARY}.items()},
        **{f"{name}bit/s": size / 8 for name, size in PREFIXES.items()},
    },
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
}
"""Unit -> bytes, FLOP/s, bytes a second, seconds."""
EXAMPLES: dict[Kind, str] = {
    "memory": "80 GB",
    "rate": "989 TFLOP/s",
    "bandwidth": "450 GB/s or 400 Gbit/s",
    "time": "10 us",
}


def quantity(value: object, kind: Kind, *, where: str) -> float:
    """``value`` in bytes, FLOP/s, bytes a second or seconds. Raises BadConfig without a unit of ``kind``."""
    text = str(value).strip()
    match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z/]*)", text)
    if match is None:
        raise BadConfig(f"{where}: {text!r} is not a quantity; write for example {EXAMPLES[kind]}")
    number, unit = float(match[1]), match[2]
    if not unit:
        raise BadConfig(f"{where}: {text} has no unit; write for example {EXAMPLES[kind]}")
    if unit not in UNITS[kind]:
        raise BadConfig(f"{where}: {unit!r} is not a unit of {kind}; write for example {EXAMPLES[kind]}")
    if not 0.0 < number * UNITS[kind][unit] < float("inf"):
        raise BadConfig(f"{where}: {text} must be above 0")
    return number * UNITS[kind][unit]
