"""Servers for tests/bench/serve.py: ``imax serve`` with gangs that only wait, and one that only answers.

``python -m tests.bench.serve_plain SECONDS serve --out ...`` is ``imax serve`` in all but its gangs: each
says after so many seconds that its poster is done. Queue, pool and HTTP do all their work, and nothing is
rendered. ``python -m tests.bench.serve_plain bare`` answers every request with ``{}``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from imax_dist.cli.main import main
from imax_dist.jobs.task import Finished, Report, Task
from imax_dist.service import server

FACTS = {"pixels_sha256": "0" * 64, "bytes": 0}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class PlainGang:
    """Takes ``seconds`` for every poster and makes none."""

    ranks = 1

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self._seconds = seconds
        self._ends: dict[str, float] = {}

    def start(self, tasks: Sequence[Task]) -> None:
        self._ends = {task.job_id: time.monotonic() + self._seconds for task in tasks}

    def poll(self) -> Report:
        over = [job for job, end in self._ends.items() if time.monotonic() >= end]
        for job in over:
            del self._ends[job]
        return Report([], {job: Finished({**FACTS, "seconds": self._seconds}) for job in over})

    def stop(self, job_id: str) -> None: ...

    def draining(self) -> bool:
        return False

    def destroy(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}


def serve(seconds: float, arguments: list[str]) -> int:
    """``imax serve`` without Ray."""

    def build(name: str, _ranks: int) -> PlainGang:
        return PlainGang(name, seconds)

    vars(server).update(ray_cluster=lambda *_, **__: nullcontext(), RayGangs=lambda _: build)
    return main(arguments)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readline():
        while (await reader.readline()).strip():
            continue
        writer.write(ANSWER)


async def bare() -> None:
    door = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}/", flush=True)
    await door.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        asyncio.run(bare())
    sys.exit(serve(float(sys.argv[1]), sys.argv[2:]))
