"""Events: stages are announced and timed, listeners joined, lines appended."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from imax_dist.events import append_to, both, ignore, stage


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, fields: dict[str, Any]) -> None:
        self.events.append((name, fields))


def test_a_stage_is_announced_before_and_timed_after() -> None:
    heard = Heard()
    with stage(heard, "native", steps=3):
        assert heard.events == [("stage.started", {"stage": "native", "steps": 3})]
    name, fields = heard.events[1]
    assert (name, fields["stage"]) == ("stage.done", "native")
    assert 0 <= fields["seconds"] < 5


def test_a_stage_that_fails_is_not_done() -> None:
    heard = Heard()
    with pytest.raises(ValueError, match="broken"), stage(heard, "decode"):
        raise ValueError("broken")
    assert [name for name, _ in heard.events] == ["stage.started"]


def test_two_listeners_hear_the_same_in_order() -> None:
    order: list[str] = []
    listen = both(
        lambda name, _: order.append(f"first {name}"), lambda name, _: order.append(f"second {name}")
    )
    listen("note", {"text": "resumed"})
    listen("step", {})
    assert order == ["first note", "second note", "first step", "second step"]


def test_the_deaf_listener_does_nothing() -> None:
    ignore("step", {"index": 1})


def test_every_event_is_one_line_with_its_time(tmp_path: Path) -> None:
    listen = append_to(tmp_path / "events.jsonl")
    listen("note", {"text": "été\nline two"})
    append_to(tmp_path / "events.jsonl")("step", {"index": 2, "sigma": 0.5})
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = map(json.loads, lines)
    assert (first["event"], first["text"], first["v"]) == ("note", "été\nline two", 1)
    assert (second["event"], second["index"], second["sigma"]) == ("step", 2, 0.5)
    assert next(iter(first)) == "ts"
    assert first["ts"].endswith("Z")
    assert datetime.fromisoformat(first["ts"]) <= datetime.fromisoformat(second["ts"])
    assert "été" in lines[0]
