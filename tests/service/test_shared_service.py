"""``imax serve`` on PostgreSQL: a real one, real HTTP; where one service works, renders of a tiny network."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from http_client import Client
from postgres import PostgresServer
from served import served, wait_until
from tiny_flux import make_tiny_flux

from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.store import open_store
from imax_dist.jobs.task import Finished, GangFactory, Report, Task
from imax_dist.service.job_view import BASE
from imax_dist.service.settings import ServiceSettings

POOL = PoolSettings(device="cpu", threads=1, checkpoint_every=1, idle=3600)
PATIENCE_S = 240.0
"""Seconds on a quiet machine; others have waited minutes."""


class Waits:
    """A gang that takes a while and renders nothing: two that load one model would be two processes."""

    ranks = 1

    def __init__(self, name: str, ranks: int) -> None:
        assert ranks == 1
        self.name = name
        self._ends: dict[str, float] = {}

    def start(self, tasks: Sequence[Task]) -> None:
        self._ends = {task.job_id: time.monotonic() + 0.2 for task in tasks}

    def poll(self) -> Report:
        over = [job for job, end in self._ends.items() if time.monotonic() > end]
        self._ends = {job: end for job, end in self._ends.items() if job not in over}
        facts = {"pixels_sha256": "ab", "bytes": 1, "seconds": 0.2}
        return Report([], {job: Finished(facts) for job in over})

    def stop(self, job_id: str) -> None: ...

    def draining(self) -> bool:
        return False

    def destroy(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}


class Farm:
    """One queue in a database, one folder, and services over both."""

    def __init__(self, folder: Path, url: str) -> None:
        self.out, self.url = folder / "posters", url
        self.model = str(make_tiny_flux(folder / "tiny"))
        self.settings = ServiceSettings(models=(self.model,), per_minute=100_000, waiting=1000)

    def serve(self, build: GangFactory | None = None) -> Any:
        return served(self.out, self.settings, pool=POOL, gangs=True, build=build, place=self.url)

    def order(self, ask: Client, key: str, steps: int = 1) -> str:
        asked = {"prompt": key, "size": "64x64", "model": self.model, "preset": "one_jump", "steps": steps}
        made = ask("POST", BASE, {**asked, "native_steps": steps}, Idempotency_Key=key)
        assert made.status in (200, 202), made.body
        return str(made.json["id"])

    def ended(self) -> list[str]:
        """Posters in the order they were finished, as their own logs have it."""
        logs = [path.read_text().splitlines() for path in self.out.glob("*/events.jsonl")]
        events = [json.loads(line) for lines in logs for line in lines]
        return [event["job"] for event in events if event["event"] == "job.done"]


@pytest.fixture
def farm(postgres: PostgresServer, tmp_path: Path) -> Farm:
    return Farm(tmp_path, postgres.new_database())


def progress(ask: Client, job: str) -> int:
    return int((ask("GET", f"{BASE}/{job}").json.get("progress") or {}).get("step") or 0)


def state(ask: Client, job: str) -> str:
    return str(ask("GET", f"{BASE}/{job}").json.get("state"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_service_on_a_database_goes_on_where_it_was_stopped(farm: Farm) -> None:
    with farm.serve() as here:
        job = farm.order(here.client(), "long", steps=40)
        wait_until(lambda: progress(here.client(), job) > 2, PATIENCE_S)
    with farm.serve() as here:
        assert farm.order(here.client(), "long", steps=40) == job
        wait_until(lambda: state(here.client(), job) == "done", PATIENCE_S)
        assert here.client()("GET", f"{BASE}/{job}").json["attempts"] == 2
    assert farm.ended() == [job]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_services_on_one_queue_outlive_their_database(farm: Farm, postgres: PostgresServer) -> None:
    """While it is away requests are refused with a time to come again, and gangs work on: nothing is lost."""
    with farm.serve(Waits) as first, farm.serve(Waits) as second:
        asks = [first.client(), second.client()]
        ids = [farm.order(asks[number % 2], f"poster-{number}") for number in range(20)]
        wait_until(lambda: len(farm.ended()) >= 2, PATIENCE_S)
        postgres.stop()
        try:
            away = [ask("GET", f"{BASE}/{ids[0]}") for ask in asks]
            ordered = asks[0]("POST", BASE, {"prompt": "x", "size": "64x64", "model": farm.model})
        finally:
            postgres.start()
        assert [answer.status for answer in (*away, ordered)] == [503, 503, 503]
        assert int(ordered.headers["retry-after"]) > 0
        assert "nothing was lost" in ordered.message
        wait_until(lambda: len(farm.ended()) >= len(ids), PATIENCE_S)
        wait_until(lambda: {state(asks[1], job) for job in ids} == {"done"}, PATIENCE_S)
    assert sorted(farm.ended()) == sorted(ids), "each once"
    store = open_store(farm.url)
    assert store.counts() == {"done": len(ids)}
    assert store.drivers() == []
    store.close()
