"""The vote against a real HTTP server on this machine: order, cache, budget, and every way to fail."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imax_dist.cli.main import main
from imax_dist.errors import BadConfig, NoPermission
from imax_dist.output.image.png import write_plain_png
from imax_dist.study.experiments.bradley_terry import Vote, strengths, win_rate
from imax_dist.study.experiments.draw import ResultCache
from imax_dist.study.experiments.endpoint import Endpoint, EndpointFailed, _answer_in
from imax_dist.study.experiments.vote import Ballot, Pair, read_answer

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, str], str]]


@contextmanager
def endpoint(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers /v1/chat/completions; gives its base URL and the requests it got."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            status, headers, text = answer(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            said = {"choices": [{"message": {"role": "assistant", "content": text}}]}
            self.wfile.write(json.dumps(said).encode() if status == 200 else b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def pictures_of(body: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    urls = [
        part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"
    ]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]


def brighter(body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
    """A judge that looks: the brighter picture wins."""
    first, second = (picture.mean() for picture in pictures_of(body)[:2])
    winner = "tie" if first == second else "first" if first > second else "second"
    return 200, {}, f'Sure. {{"winner": "{winner}", "reason": "it is brighter"}}'


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    cache = ResultCache(tmp_path / "cache")
    for key, grey in (("dark", 40), ("grey", 90), ("light", 200)):
        write_plain_png(cache.picture(key), np.full((64, 64, 3), grey, np.uint8))
    return cache


def pairs(count: int = 2) -> list[Pair]:
    keys = ("dark", "grey", "light")
    return [
        Pair("2x 64x64", scene, (keys[i], keys[i]), (keys[j], keys[j]))
        for scene in range(count)
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]


def ballot(url: str, cache: ResultCache, tmp_path: Path, *, budget: int = 100) -> Ballot:
    asked = Endpoint(url, "eye", "secret", pause=lambda _: None)
    return Ballot(asked, cache, tmp_path / "votes.jsonl", budget, crops=2)


def silent(done: int, total: int) -> None:
    pass


def test_the_brighter_picture_wins_in_both_orders_and_is_not_asked_again(
    tmp_path: Path, cache: ResultCache
) -> None:
    with endpoint(brighter) as (url, seen):
        votes, stopped = ballot(url, cache, tmp_path).run(pairs(), on_progress=silent)
        again, _ = ballot(url, cache, tmp_path).run(pairs(), on_progress=silent)
    assert (stopped, len(votes), len(seen)) == ("", 6, 12)
    assert again == votes
    table = strengths(votes)
    assert table["light"].mean > table["grey"].mean > table["dark"].mean
    assert seen[0]["path"] == "/v1/chat/completions"
    assert (seen[0]["model"], seen[0]["key"]) == ("eye", "Bearer secret")
    shown = pictures_of(seen[0])
    assert [picture.shape[0] for picture in shown] == [64, 64, 32, 32, 32, 32]
    kept = [json.loads(line) for line in (tmp_path / "votes.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in kept} == {"it is brighter"}


def test_a_judge_that_follows_the_order_makes_ties(tmp_path: Path, cache: ResultCache) -> None:
    with endpoint(lambda _: (200, {}, '{"winner": "first", "reason": "."}')) as (url, _):
        votes, _ = ballot(url, cache, tmp_path).run(pairs(), on_progress=silent)
    assert {vote.share for vote in votes} == {0.5}


def test_a_vote_over_budget_stops_with_what_it_has_and_goes_on(tmp_path: Path, cache: ResultCache) -> None:
    with endpoint(brighter) as (url, seen):
        votes, stopped = ballot(url, cache, tmp_path, budget=5).run(pairs(), on_progress=silent)
        assert (len(votes), len(seen)) == (2, 5)
        assert "budget of 5" in stopped
        votes, stopped = ballot(url, cache, tmp_path, budget=7).run(pairs(), on_progress=silent)
    assert (len(votes), len(seen), stopped) == (6, 12, "")


def test_a_busy_endpoint_is_asked_again_at_its_own_pace() -> None:
    waits: list[float] = []
    answers = iter([(429, {"Retry-After": "7"}, ""), (503, {}, ""), (200, {}, "fine")])
    with endpoint(lambda _: next(answers)) as (url, seen):
        assert Endpoint(url, "eye", pause=waits.append).ask("?", []) == "fine"
    assert len(seen) == 3
    assert 7.0 in waits


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, {}, ""), "status 500"),
        ((400, {}, ""), "status 400"),
        ((200, {}, "I like both"), "could not be read"),
    ],
)
def test_an_endpoint_that_fails_or_talks_nonsense_stops_the_vote(
    tmp_path: Path, cache: ResultCache, answer: tuple[int, dict[str, str], str], message: str
) -> None:
    with endpoint(lambda _: answer) as (url, _):
        votes, stopped = ballot(url, cache, tmp_path).run(pairs(), on_progress=silent)
    assert votes == []
    assert message in stopped


def test_a_refused_key_and_a_dead_address_say_so() -> None:
    with endpoint(lambda _: (401, {}, "")) as (url, _), pytest.raises(NoPermission, match="IMAX_VOTE_KEY"):
        Endpoint(url, "eye").ask("?", [])
    with pytest.raises(EndpointFailed, match="no usable answer"):
        Endpoint("http://127.0.0.1:9/v1", "eye", pause=lambda _: None).ask("?", [])


@pytest.mark.parametrize(
    "environment", [{}, {"IMAX_VOTE_URL": "http://x/v1"}, {"IMAX_VOTE_URL": "x", "IMAX_VOTE_MODEL": "m"}]
)
def test_an_endpoint_needs_an_address_and_a_model(environment: dict[str, str]) -> None:
    with pytest.raises(BadConfig, match="IMAX_VOTE_"):
        Endpoint.from_environment(environment)


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ('{"winner": "Second", "reason": "x"}', "second"),
        ('```json\n{"winner": "tie", "reason": ""}\n```', "tie"),
        ("first", ""),
        ('{"winner": "both"}', ""),
        ('{"winner": }', ""),
    ],
)
def test_an_answer_is_read_from_the_json_in_it(text: str, winner: str) -> None:
    assert read_answer(text)[0] == winner


def test_strengths_follow_the_votes_and_even_votes_make_even_strengths() -> None:
    votes = [Vote("a", "b", scene, 0.5) for scene in range(8)]
    even = strengths(votes)
    assert even["a"].mean == pytest.approx(even["b"].mean)
    won = [Vote("a", "b", scene, 1.0 if scene < 6 else 0.0) for scene in range(8)]
    table = strengths(won)
    assert table["a"].mean == pytest.approx(0.75, abs=0.02)  # the prior pulls it a little to the middle
    assert table["a"].low <= table["a"].mean <= table["a"].high
    assert sum(win_rate(won, "b")) == 2.0


def test_the_command_votes_on_a_study_and_says_who_judged(
    tmp_path: Path, cache: ResultCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    cells = [
        {"scene": scene, "variant": key, "size": "64x64", "scale": 2.0, "key": key, "values": {"facts": grey}}
        for scene in range(2)
        for key, grey in (("dark", 0.1), ("light", 0.9))
    ]
    settings = {"kind": "pictures", "variants": {"dark": {}, "light": {}}}
    folder.mkdir()
    (folder / "results.json").write_text(
        json.dumps({"baseline": "dark", "settings": settings, "cells": cells})
    )
    monkeypatch.delenv("IMAX_VOTE_URL", raising=False)
    assert main(["study", "vote", str(folder)]) == 78
    assert main(["study", "vote", str(folder), "--judge", "testbed"]) == 0
    assert "true measures" in json.loads((folder / "vote.json").read_text())["judge"]
    with endpoint(brighter) as (url, _):
        monkeypatch.setenv("IMAX_VOTE_URL", url)
        monkeypatch.setenv("IMAX_VOTE_MODEL", "eye")
        assert main(["study", "vote", str(folder), "--budget", "2"]) == 75
        assert json.loads((folder / "vote.json").read_text())["complete"] is False
        assert main(["study", "vote", str(folder)]) == 0
    told = json.loads((folder / "vote.json").read_text())
    assert told["judge"].startswith("eye at http")
    assert told["sizes"]["2x 64x64"]["win rate against the baseline"]["light"]["mean"] == 1.0
    assert "vote stopped: the budget" in capsys.readouterr().err


def test_an_answer_that_is_nested_without_end_is_none() -> None:
    with pytest.raises(ValueError, match=r"the answer has no choices\[0\]"):
        _answer_in(b"[" * 100_000)
