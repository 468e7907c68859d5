"""Numbers beside a plot's points, none over another where there is room. Lengths are points of 1/72 inch."""

from __future__ import annotations

import math
from collections.abc import Mapping

Point = tuple[float, float]
Box = tuple[float, float, float, float]
SIZE = 6.0
"""Of the letters."""
_NEAR = 3.5  # points that one label stands for
_WIDTH, _HEIGHT = 0.62 * SIZE, 1.1 * SIZE  # of a character
_GAP = 2.5


def gathered(points: Mapping[int, Point]) -> dict[str, Point]:
    """One point with one label, ``1 2``, for those that cannot be told apart."""
    groups: list[tuple[Point, list[int]]] = []
    for number, point in points.items():
        near = next((numbers for other, numbers in groups if math.dist(point, other) < _NEAR), None)
        if near is None:
            groups.append((point, [number]))
        else:
            near.append(number)
    return {" ".join(map(str, numbers)): point for point, numbers in groups}


def offsets(points: Mapping[str, Point], panel: Point) -> dict[str, Point]:
    """Where each label's lower left corner lies from its point, on a panel of that width and height."""
    taken: list[Box] = [(x - 1, y - 1, x + 1, y + 1) for x, y in points.values()]
    found = {}
    for label, (x, y) in sorted(points.items(), key=lambda item: -len(item[0])):
        width = _WIDTH * len(label)
        free = [(_box((x + dx, y + dy), width), (dx, dy)) for dx, dy in _places(width)]
        box, found[label] = min(free, key=lambda place: _cost(place[0], taken, panel))
        taken.append(box)
    return found


def _places(width: float) -> list[Point]:
    """Right, left, above, below, then the four corners, and the same a line further away."""
    middle = -_HEIGHT / 3
    near = [
        (_GAP, middle),
        (-width - _GAP, middle),
        (-width / 2, _GAP),
        (-width / 2, -_HEIGHT - _GAP),
        *((dx, dy) for dx in (_GAP, -width - _GAP) for dy in (_GAP, -_HEIGHT - _GAP)),
    ]
    return near + [(dx, dy + shift) for shift in (_HEIGHT, -_HEIGHT) for dx, dy in near]


def _box(corner: Point, width: float) -> Box:
    return (*corner, corner[0] + width, corner[1] + _HEIGHT)


def _cost(box: Box, taken: list[Box], panel: Point) -> float:
    """The area that is covered twice or lies outside of the panel."""
    covered = sum(_shared(box, other) for other in taken)
    inside = _shared(box, (0.0, 0.0, *panel))
    return covered + (box[2] - box[0]) * (box[3] - box[1]) - inside


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
