"""How long a poster takes: as posters of its kind took here, or else as the planner says."""

from __future__ import annotations

import statistics
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from imax_dist.errors import ImaxError, MissingInput, NoPermission
from imax_dist.pipeline.request import Request
from imax_dist.settings_mapping import fingerprint, to_mapping

MOST_KINDS = 4096
REMEMBERED = 16
Planner = Callable[[Request], float | None]
"""Raises BadValue for what fits nowhere."""


class Estimates:
    """Seconds by kind of request: all but its prompt, seed and pictures."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._planned: OrderedDict[str, float | None] = OrderedDict()
        self._took: OrderedDict[str, deque[float]] = OrderedDict()
        self._kinds: OrderedDict[int, tuple[Request, str]] = OrderedDict()
        self._lock = threading.Lock()

    def seconds(self, request: Request) -> float | None:
        """Of one poster on one gang; None if unknown. Raises BadValue if it fits nowhere."""
        kind = self._kind(request)
        with self._lock:
            if took := self._took.get(kind):
                return statistics.median(took)
            if kind in self._planned:
                return self._planned[kind]
        try:
            planned = self._planner(request)
        except (MissingInput, NoPermission):  # the ranks may have a model that this host has not
            planned = None
        with self._lock:
            self._planned[kind] = planned
            _forget_old(self._planned)
        return planned

    def knows(self, request: Request) -> bool:
        """Whether ``seconds`` answers at once."""
        kind = self._kind(request)
        with self._lock:
            return kind in self._took or kind in self._planned

    def guess(self, request: Request) -> float | None:
        """As ``seconds``; None too for what fits nowhere."""
        try:
            return self.seconds(request)
        except ImaxError:
            return None

    def learn(self, request: Request, seconds: float) -> None:
        """A poster of this kind was made in so many seconds."""
        kind = self._kind(request)
        with self._lock:
            self._took.setdefault(kind, deque(maxlen=REMEMBERED)).append(seconds)
            _forget_old(self._took)

    def typical(self) -> float | None:
        """Median of all that was made here lately."""
        with self._lock:
            took = [seconds for kind in self._took.values() for seconds in kind]
        return statistics.median(took) if took else None

    def _kind(self, request: Request) -> str:
        """Hashed once for a request that is asked for again and again: a row keeps its own."""
        with self._lock:
            known = self._kinds.get(id(request))
        if known is not None and known[0] is request:
            return known[1]
        kind = _kind(request)
        with self._lock:
            self._kinds[id(request)] = request, kind
            _forget_old(self._kinds)
        return kind


def _kind(request: Request) -> str:
    """All that the time depends on; of a guide only where it says how large the poster is."""
    facts = {**to_mapping(request), "prompt": "", "seed": 0, "background": None}
    return fingerprint(facts if request.size is None else {**facts, "guide": request.guide is not None})


def _forget_old(kinds: OrderedDict[Any, Any]) -> None:
    while len(kinds) > MOST_KINDS:
        kinds.popitem(last=False)
