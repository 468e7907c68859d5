"""What a pass computes once and every step uses: results of objects that stay the same from step to step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class PassCache:
    """Makes a thing once for the very objects it is made of; for other objects it is made anew.

    Objects are compared by identity, never by value, so that no tensor is read. A place holds one thing and
    what it was made of, so that a table that changes with time takes the place of the one before.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[Hashable, ...], tuple[tuple[object, ...], Any]] = {}

    def __call__(self, place: tuple[Hashable, ...], made_of: tuple[object, ...], make: Callable[[], T]) -> T:
        """The thing at ``place`` if it was made of these very objects, else what ``make`` gives."""
        before = self._made.get(place)
        if before is not None:
            objects, thing = before
            if len(objects) == len(made_of) and all(a is b for a, b in zip(objects, made_of, strict=True)):
                return thing  # type: ignore[no-any-return]
        made = make()
        self._made[place] = made_of, made
        return made
