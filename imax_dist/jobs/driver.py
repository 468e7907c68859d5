"""Becoming the driver of a store: the only one of a file, one of several of a database.

Of several, each gives signs of life and listens for those of the others. One that was silent for
``EXPIRES_S`` by the listener's own clock, while the database answered, is dismissed: its jobs are queued
again, and its next write is refused. One of this host whose process is gone is dismissed at once. A database
that was away ends nobody.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from imax_dist.errors import BadConfig, CannotWrite, FolderBusy
from imax_dist.jobs.lease import BEAT_S, EXPIRES_S, Holder, driver_of, hold, this_holder
from imax_dist.jobs.store import Store, free, open_store
from imax_dist.jobs.store.files import store_path
from imax_dist.jobs.store.sqlite import Sqlite
from imax_dist.settings_mapping import from_mapping


@contextmanager
def drive(
    place: Path | str, shard: str | None = None, *, out: Path | None = None
) -> Iterator[tuple[Store, Callable[[], None]]]:
    """The store at ``place`` as its driver, and a check that its folder is still there and this driver's.

    ``out``, the posters' folder, is held as well where the store lies elsewhere. Raises FolderBusy if a file
    or ``out`` has a driver that lives; CannotWrite, NoPermission, StoreUnavailable.
    """
    if isinstance(place, Path):
        with ExitStack() as held:
            leases = [held.enter_context(hold(place, shard))]
            if out is not None and place.absolute().parent != out.absolute():
                leases.append(held.enter_context(hold(store_path(out, shard), shard)))

            def check() -> None:
                for lease in leases:
                    lease.check()

            store = held.enter_context(closing(Store(place, guard=check)))
            store.fence(str(leases[0].holder))
            yield store, check
        return
    if out is not None:
        _require_no_file_driver(out)
    with closing(open_store(place)) as store, one_of_many(store):
        yield store, free


def _require_no_file_driver(out: Path) -> None:
    """A folder that several drivers of a database fill has none of a file."""
    for path in sorted(out.glob("batch*.lease")):
        if (holder := driver_of(path.with_suffix(".sqlite"))) is not None:
            raise FolderBusy(
                f"{out} is being filled by {holder}, from a queue in a file; stop that process first"
            )


class StoreListener:
    """Hears the other drivers' signs of life."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, expires_s: float = EXPIRES_S) -> None:
        self._clock = clock
        self._expires_s = expires_s
        self._beats: dict[int, tuple[int, float]] = {}

    def silent(self, beats: dict[int, int]) -> list[int]:
        """Drivers whose beats have not changed for too long."""
        now = self._clock()
        before, self._beats = self._beats, {}
        for number, count in beats.items():
            known = before.get(number)
            self._beats[number] = known if known is not None and known[0] == count else (count, now)
        return [number for number, (_, since) in self._beats.items() if now - since > self._expires_s]

    def forget(self) -> None:
        """The database was away, and so was everybody's sign of life."""
        self._beats = {}


@contextmanager
def one_of_many(store: Store, *, beat_s: float = BEAT_S, expires_s: float = EXPIRES_S) -> Iterator[int]:
    """A driver's number for the length of the block, with a heartbeat in a thread."""
    assert not isinstance(store.database, Sqlite)
    holder, ended = this_holder(), threading.Event()
    number = store.join(str(holder), json.dumps(asdict(holder)))
    listener = StoreListener(expires_s=expires_s)

    def beat() -> None:
        while not ended.wait(beat_s):
            try:
                silent = listener.silent(store.beat())
                for other in {*silent, *_dead(store)} - {number}:
                    store.dismiss(other)
            except CannotWrite:
                listener.forget()
            except FolderBusy:
                return  # replaced: the run hears of it when it next writes

    thread = threading.Thread(target=beat, daemon=True, name=f"imax-driver-{os.getpid()}")
    thread.start()
    try:
        yield number
    finally:
        ended.set()
        thread.join(timeout=beat_s + expires_s)
        with suppress(CannotWrite):  # the others hear its silence
            for other in {*_dead(store)} - {number}:  # killed since the last beat, and nobody else may come
                store.dismiss(other)
            store.leave()


def _dead(store: Store) -> list[int]:
    """Drivers that are known to be gone, without waiting for their silence."""
    return [driver.number for driver in store.drivers() if _is_dead(driver.holder)]


def _is_dead(holder: str) -> bool:
    try:
        return from_mapping(Holder, json.loads(holder), where="driver").dead
    except (ValueError, TypeError, AttributeError, BadConfig):
        return False
