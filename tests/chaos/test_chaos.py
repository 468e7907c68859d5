"""The chaos run's own parts: what it deals, what it reads of logs, what it keeps over an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import spread
from tests.chaos.shop import Fault, Log, Record, last_step
from tests.chaos.strikes import STRIKES, deal


@pytest.mark.parametrize("count", [len(STRIKES), 100])
def test_every_kind_is_dealt_and_the_same_seed_deals_the_same(count: int) -> None:
    dealt = deal(1, count, set())
    assert len(dealt) == count
    assert set(dealt) == set(STRIKES)
    assert dealt == deal(1, count, set()) != deal(2, count, set())


def test_a_kind_that_cannot_be_dealt_here_is_not_dealt() -> None:
    assert set(deal(1, 60, {"disk full"})) == set(STRIKES) - {"disk full"}
    assert len(set(deal(1, 3, set()))) == 3


def test_a_log_is_read_on_and_torn_lines_wait(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = Log(path)
    assert log.events() == []
    path.write_text('{"event": "step", "stage": "extrapolated", "index": 4}\n{"event": "st')
    assert len(log.events()) == 1
    with path.open("a") as file:
        file.write('ep", "stage": "extrapolated", "index": 5}\n')
    assert last_step(log.events()) == 5
    path.rename(tmp_path / "moved")
    assert len(log.events()) == 2, "a log that is away says what it said"
    assert last_step([*log.events(), {"event": "job.started"}]) == 0


def test_what_was_dealt_outlives_an_interruption(tmp_path: Path) -> None:
    record = Record.read(tmp_path / "record.json")
    record.dealt.append(Fault("kill", 1.5, "poster-0001", "gang-0", 7, seen_s=0.25))
    record.cancelled.add("poster-0002")
    record.seconds, record.sittings = 12.5, 2
    record.write()
    assert Record.read(record.path) == record


def test_a_table_says_the_median_and_the_largest() -> None:
    assert spread([None, 3.0, 1.0, 2.0], ".1f") == "2.0 (3.0)"
    assert spread([1.26], ".1f") == "1.3"
    assert spread([None]) == "-"
