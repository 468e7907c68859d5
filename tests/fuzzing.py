"""What the fuzzers share: seeded damage to bytes and JSON, and for how long.

`IMAX_FUZZ_SECONDS=3600 pytest tests/... -k mutated` looks longer; mutation N is the same on every machine.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import time
from collections.abc import Iterator
from typing import Any

SECONDS = float(os.environ.get("IMAX_FUZZ_SECONDS", "inf"))
MUTATIONS = int(os.environ.get("IMAX_FUZZ_MUTATIONS", "10000"))
"""If seconds are given; the suite has a fixed number of each kind."""
LONGEST_S = 20.0
"""Of one command on damaged input, on a busy machine."""
MOST_KIB = 700 << 10
"""By which all of them together may grow a process."""
CODES = {0, 2, 64, 65, 66, 73, 75, 76, 77, 78}
"""Every exit code of GUIDE but internal error (70) and no cluster (69)."""
JSON_VALUES = ["null", "[]", "{}", "3", '"x"', "1e999", '{"file": "../../x"}', "[" * 5000, "", "\x00", "NaN"]
OTHER_VALUES: list[Any] = [None, [], {}, -1, 1e30, True, "", "<b>", ["../x"], "x" * 5000, 10**400, {"a": {}}]


def rounds(count: int) -> Iterator[tuple[int, random.Random]]:
    """``count`` numbered generators, or as many as there is time for."""
    deadline = time.monotonic() + SECONDS
    for number in range(count if math.isinf(SECONDS) else MUTATIONS):
        if time.monotonic() > deadline:
            return
        yield number, random.Random(number)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to three changes: bytes and bits, lengths, cuts, parts taken twice or left out."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        rng.choice([_bytes, _bits, _number, _cut, _repeat, _remove])(changed, rng)
    return bytes(changed)


def _place(content: bytearray, rng: random.Random) -> int:
    """Headers are short and decide most, so half of the places lie in the first 256 bytes."""
    end = max(1, len(content))
    return rng.randrange(min(256, end) if rng.random() < 0.5 else end)


def _bytes(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        if content:
            content[_place(content, rng)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])


def _bits(content: bytearray, rng: random.Random) -> None:
    if content:
        content[_place(content, rng)] ^= 1 << rng.randrange(8)


def _number(content: bytearray, rng: random.Random) -> None:
    """Four bytes that may be a length, a width or an offset."""
    at = _place(content, rng)
    value = rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, rng.randrange(1 << 32)])
    content[at : at + 4] = value.to_bytes(4, rng.choice(["big", "little"]))


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _repeat(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    content[at:at] = content[at : at + rng.randint(1, 300)] * rng.randint(1, 20)


def _remove(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    del content[at : at + rng.randint(1, 64)]


def other_value(text: str, rng: random.Random) -> str:
    """A JSON object with one value, at any depth, of another type; other texts come back as they are."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    place = value
    while isinstance(place, dict) and place:
        key = rng.choice(sorted(place))
        if not isinstance(place[key], dict) or rng.random() < 0.3:
            place[key] = rng.choice(OTHER_VALUES)
            break
        place = place[key]
    return json.dumps(value)


def peak_kib() -> int:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
