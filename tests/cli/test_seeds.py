"""Several posters of one prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from imax_dist.cli.seeds import outputs, seeds_of
from imax_dist.errors import BadValue


@pytest.mark.parametrize(
    ("text", "first", "count", "seeds"),
    [
        (None, 0, None, [0]),
        (None, 7, 3, [7, 8, 9]),
        ("3", 0, None, [3]),
        ("3, 7,10-12", 0, None, [3, 7, 10, 11, 12]),
        ("5,5,4-6", 0, None, [5, 4, 6]),
    ],
)
def test_seeds_are_counted_or_listed(
    text: str | None, first: int, count: int | None, seeds: list[int]
) -> None:
    assert seeds_of(text, first=first, count=count) == seeds


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        (None, 0, "--count 0 is outside 1 to 1000"),
        (None, 1001, "--count 1001 is outside"),
        ("3", 2, "--seeds says how many; omit --count"),
        ("a", None, "write for example 3,7,10-12"),
        ("", None, "write for example 3,7,10-12"),
        ("-3", None, "write for example"),
        ("9-3", None, "a range must rise"),
        ("0-999999999999", None, "at most 1000 seeds"),
        ("0-999,2000", None, "at most 1000 seeds"),
    ],
)
def test_other_seeds_are_refused(text: str | None, count: int | None, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        seeds_of(text, first=0, count=count)


def test_each_seed_has_its_own_file() -> None:
    assert outputs(Path("o/sea.png"), [3]) == [Path("o/sea.png")]
    assert outputs(Path("o/sea.png"), [3, 4]) == [Path("o/sea-3.png"), Path("o/sea-4.png")]
    assert outputs(Path("o/{seed}/sea.png"), [3, 4]) == [Path("o/3/sea.png"), Path("o/4/sea.png")]
    assert outputs(Path("sea_{seed}.png"), [3]) == [Path("sea_3.png")]
