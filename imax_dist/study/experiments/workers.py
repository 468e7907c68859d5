"""Draw cells in this process or in several; what is in the cache already is not drawn again."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch

from imax_dist.errors import BadValue, GangLost, ImaxError
from imax_dist.models.quiet import quiet_libraries
from imax_dist.study.experiments.artist import Artist, Shelf
from imax_dist.study.experiments.cell import Cell

Tell = Callable[[int, int], None]
"""Called with the number of cells done and of all."""
_PATIENCE = 5.0  # seconds between looks at whether the workers live


def draw_all(
    cells: list[Cell], shelf: Shelf, names: list[str], *, processes: int, testbed: bool, device: str,
    tell: Tell,
) -> list[str]:  # fmt: skip
    """The cells' keys, in order; every cell's picture and measures are then in ``shelf``.

    Raises the first error of any process; what was drawn stays, and the next start goes on from there.
    """
    if processes < 1:
        raise BadValue(f"processes: {processes} is too few; ask for 1 or more")
    start = (shelf, names, testbed, device)
    if processes == 1 or len(cells) < 2:
        return _alone(cells, start, tell)
    return _together(cells, start, min(processes, len(cells)), tell)


def _alone(cells: list[Cell], start: tuple[Shelf, list[str], bool, str], tell: Tell) -> list[str]:
    keys = []
    with closing(_artist(start)) as artist:
        for cell in cells:
            keys.append(artist.make(cell))
            tell(len(keys), len(cells))
    return keys


def _together(
    cells: list[Cell], start: tuple[Shelf, list[str], bool, str], processes: int, tell: Tell
) -> list[str]:
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for numbered in enumerate(cells):
        todo.put(numbered)
    for _ in range(processes):
        todo.put(None)
    workers = [context.Process(target=_work, args=(start, todo, done), daemon=True) for _ in range(processes)]
    keys: dict[int, str] = {}
    with _running(workers):
        while len(keys) < len(cells):
            index, outcome = _next(done, workers)
            if isinstance(outcome, ImaxError):
                raise outcome
            keys[index] = outcome
            tell(len(keys), len(cells))
    return [keys[index] for index in range(len(cells))]


@contextmanager
def _running(workers: list[Any]) -> Iterator[None]:
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _next(done: Any, workers: list[Any]) -> tuple[int, Any]:
    while True:
        try:
            result: tuple[int, Any] = done.get(timeout=_PATIENCE)
            return result
        except queue.Empty:
            codes = [worker.exitcode for worker in workers if worker.exitcode not in (None, 0)]
            if codes:
                raise GangLost(f"a process of the study ended with code {codes[0]}; run it again") from None


def _work(start: tuple[Shelf, list[str], bool, str], todo: Any, done: Any) -> None:
    """One worker: cells in, keys or an error out."""
    quiet_libraries()
    torch.set_num_threads(1)
    with closing(_artist(start)) as artist:
        while (item := todo.get()) is not None:
            index, cell = item
            try:
                done.put((index, artist.make(cell)))
            except ImaxError as error:
                done.put((index, error))
                return


def _artist(start: tuple[Shelf, list[str], bool, str]) -> Artist:
    shelf, names, testbed, device = start
    return Artist(shelf, names, testbed=testbed, device=device)
