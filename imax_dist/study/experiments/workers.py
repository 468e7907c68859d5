"""Draw cells in this process or in several; what is in the cache already is not drawn again."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.util import Finalize

import torch

from imax_dist.errors import BadValue, GangLost
from imax_dist.models.libraries import quiet_libraries
from imax_dist.study.experiments.cell import Cell
from imax_dist.study.experiments.draw import CellRenderer, ResultCache

OnProgress = Callable[[int, int], None]
"""Called with the number of cells done and of all."""


@dataclass(frozen=True)
class Drawing:
    """What a process needs to draw and measure cells."""

    cache: ResultCache
    measures: tuple[str, ...]
    testbed: bool
    device: str

    def renderer(self) -> CellRenderer:
        """A renderer, to be closed."""
        return CellRenderer(self.cache, list(self.measures), testbed=self.testbed, device=self.device)


def draw_all(cells: list[Cell], drawing: Drawing, *, processes: int, on_progress: OnProgress) -> list[str]:
    """The cells' keys, in order; every cell's picture and measures are then in the cache.

    Raises the first error of any process; what was drawn stays, and the next run resumes from there. Raises
    BadValue for fewer than one process.
    """
    if processes < 1:
        raise BadValue(f"processes: {processes} is too few; ask for 1 or more")
    if processes == 1 or len(cells) < 2:
        return _draw_here(cells, drawing, on_progress)
    return _draw_in_processes(cells, drawing, min(processes, len(cells)), on_progress)


def _draw_here(cells: list[Cell], drawing: Drawing, on_progress: OnProgress) -> list[str]:
    keys = []
    with closing(drawing.renderer()) as renderer:
        for cell in cells:
            keys.append(renderer.make(cell))
            on_progress(len(keys), len(cells))
    return keys


def _draw_in_processes(
    cells: list[Cell], drawing: Drawing, processes: int, on_progress: OnProgress
) -> list[str]:
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=prepare_worker)
    try:
        futures = [pool.submit(_draw_one, drawing, cell) for cell in cells]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            on_progress(done, len(cells))
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise GangLost(
            f"one of the study's {processes} processes was killed (most often for lack of memory); "
            "run the same command again to resume, with fewer --processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def prepare_worker() -> None:
    """What a process of the pool does first: one thread, quiet libraries, an end when the study ends."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    quiet_libraries()
    torch.set_num_threads(1)


def _leave_with_parent() -> None:
    """End this process when the study is gone: a pool's process would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw_one(drawing: Drawing, cell: Cell) -> str:
    return _renderer_of(drawing).make(cell)


@functools.cache
def _renderer_of(drawing: Drawing) -> CellRenderer:
    """This process's renderer: models are loaded once and freed when the process ends."""
    renderer = drawing.renderer()
    Finalize(renderer, renderer.close, exitpriority=10)
    return renderer
