"""Events: stages are announced and timed, listeners joined, lines appended, and old logs still read."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from imax_dist import events
from imax_dist.events import (
    BatchStarted,
    GangReady,
    InJob,
    JobCancelled,
    JobDone,
    JobStarted,
    Note,
    PoolEvent,
    RenderEvent,
    StageDone,
    StageStarted,
    StepDone,
    both,
    ignore,
    stage,
)
from imax_dist.events.log import TYPES, append_to, as_json, from_json, read_log

STEP = StepDone("native", 2, 4, 0.5, seconds=1.25)


def test_a_stage_is_announced_before_and_timed_after() -> None:
    heard: list[RenderEvent] = []
    with stage(heard.append, "native", steps=3):
        assert heard == [StageStarted("native", 3)]
    done = heard[1]
    assert isinstance(done, StageDone)
    assert done.stage == "native"
    assert 0 <= done.seconds < 5


def test_a_stage_that_fails_is_not_done() -> None:
    heard: list[RenderEvent] = []
    with pytest.raises(ValueError, match="broken"), stage(heard.append, "decode"):
        raise ValueError("broken")
    assert heard == [StageStarted("decode")]


def test_two_listeners_hear_the_same_in_order() -> None:
    order: list[tuple[str, PoolEvent]] = []
    listen = both(lambda event: order.append(("first", event)), lambda event: order.append(("second", event)))
    one, two = InJob("sea", Note("resumed")), InJob("sea", STEP)
    listen(one)
    listen(two)
    assert order == [("first", one), ("second", one), ("first", two), ("second", two)]


def test_the_deaf_listener_does_nothing() -> None:
    ignore(STEP)


def test_every_event_is_one_line_with_its_time(tmp_path: Path) -> None:
    append_to(tmp_path / "events.jsonl")(Note("été\nline two"))
    append_to(tmp_path / "events.jsonl", attempt=3)(STEP)
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = map(json.loads, lines)
    assert (first["event"], first["text"], first["v"]) == ("note", "été\nline two", 1)
    fields = {"stage": "native", "index": 2, "steps": 4, "sigma": 0.5, "seconds": 1.25}
    assert second == {"ts": second["ts"], "v": 1, "event": "step", "attempt": 3, **fields}
    assert next(iter(first)) == "ts"
    assert first["ts"].endswith("Z")
    assert datetime.fromisoformat(first["ts"]) <= datetime.fromisoformat(second["ts"])
    assert "été" in lines[0]
    assert [logged.event for logged in read_log(tmp_path / "events.jsonl")] == [Note("été\nline two"), STEP]


def test_what_was_torn_by_a_kill_or_a_full_disk_costs_no_later_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_to(path)(STEP)
    path.write_bytes(path.read_bytes()[:-9])
    append_to(path)(Note("goes on"))
    append_to(path)(STEP)
    assert [logged.event for logged in read_log(path)] == [Note("goes on"), STEP]
    assert len(path.read_text().splitlines()) == 3


def test_every_event_has_a_name_and_comes_back_from_json() -> None:
    kinds = {*get_args(RenderEvent), *get_args(PoolEvent)}
    assert kinds == {*TYPES.values(), InJob}
    assert kinds <= {value for value in vars(events).values() if isinstance(value, type)}
    values: dict[str, Any] = {"int": 3, "float": 0.5, "str": "sea", "bool": True, "str | None": "gang-0"}
    values |= {"tuple[int, ...]": (1, 2), "tuple[str, ...]": ("a", "b")}
    for name, kind in TYPES.items():
        event = kind(**{entry.name: values[str(entry.type)] for entry in dataclasses.fields(kind)})
        line = json.loads(json.dumps(as_json(event)))
        assert line["event"] == name
        assert from_json(line) == event
        if isinstance(event, get_args(RenderEvent)):
            inside = InJob("sea", event, "gang-0")
            assert from_json(json.loads(json.dumps(as_json(inside)))) == inside


def test_lines_of_older_logs_are_read(tmp_path: Path) -> None:
    """As version 0.1 wrote them: a job's own log does not name the job."""
    log = tmp_path / "events.jsonl"
    lines = [
        {"ts": "2026-11-23T04:00:00.000Z", "event": "job.started", "gang": "gang-0", "attempt": 1},
        {
            "event": "step",
            "attempt": 1,
            "stage": "native",
            "index": 1,
            "steps": 4,
            "sigma": 1.0,
            "seconds": 2,
        },
        {"event": "job.done", "gang": "gang-0", "sha256": "ab", "bytes": 9, "seconds": 3.5, "attempts": 1},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    started, step, done = read_log(log, job="sea")
    assert started.event == JobStarted("sea", "gang-0")
    assert datetime.fromtimestamp(started.moment).year == 2026
    assert step.event == InJob("sea", StepDone("native", 1, 4, 1.0, seconds=2.0))
    assert (done.moment, done.event) == (0.0, JobDone("sea", "gang-0", "ab", 9, seconds=3.5, attempts=1))
    old = {"event": "gang.ready", "gang": "g", "ranks": 2, "seconds": 1.5, "pids": [7], "later": "field"}
    assert from_json(old) == GangReady("g", 2, 1.5, (7,))
    assert from_json({"event": "job.cancelled", "job": "sea"}) == JobCancelled("sea")


NO_EVENTS = [
    "not json",
    "[1]",
    "{}",
    '{"event": "step"}',
    '{"event": 3}',
    '{"event": "unheard.of", "job": "x"}',
    '{"event": "note", "text": 3}',
    '{"event": "stage.done", "stage": "x", "seconds": 1e999}',
    '{"event": "note", "text": "torn',
    "[" * 100_000,
    '{"event": "note", "text": "' + "x" * (1 << 20) + '"}',
]


@pytest.mark.parametrize("line", NO_EVENTS, ids=lambda line: line[:30])
def test_a_line_that_is_no_event_is_passed_over(tmp_path: Path, line: str) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text(line + '\n{"event": "batch.started", "posters": 2, "waiting": 1}\n', encoding="utf-8")
    assert [logged.event for logged in read_log(log)] == [BatchStarted(2, 1)]
    assert list(read_log(tmp_path / "none.jsonl")) == []
