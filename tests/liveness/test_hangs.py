"""Real ranks that hang in the middle of a long step: seen, named, with their stacks, and killed."""

from __future__ import annotations

import pytest
from bench.hangs import SKIPPED, seconds_until_seen

pytestmark = [pytest.mark.slow, pytest.mark.machines]

STEP_S = 20.0


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("stopped", ("silent: rank 1 ", "has not answered for", "last seen in block", "rank-0.stacks.txt")),
        (SKIPPED, ("behind: rank 0 ", "in a ring hop in block 4", "rank 1 waits in the gathering of tokens")),
    ],
)
def test_a_hang_in_a_step_of_twenty_seconds_is_seen_in_ten(kind: str, says: tuple[str, ...]) -> None:
    seconds, said = seconds_until_seen(kind, STEP_S)
    assert seconds is not None
    assert seconds < 10.0, said
    for part in says:
        assert part in said
