"""Names beside a plot's points, none over another where there is room. Lengths are points of 1/72 inch."""

from __future__ import annotations

from collections.abc import Mapping

Point = tuple[float, float]
Box = tuple[float, float, float, float]
SIZE = 7.0
"""Of the letters."""
WIDTH, HEIGHT = 0.56 * SIZE, 1.1 * SIZE
"""Of a character."""
_GAP = 2.5


def offsets(points: Mapping[str, Point], panel: Point) -> dict[str, Point]:
    """Where each label's lower left corner lies from its point, on a panel of that width and height."""
    taken: list[Box] = [(x - 1, y - 1, x + 1, y + 1) for x, y in points.values()]
    found = {}
    for label, (x, y) in sorted(points.items(), key=lambda item: -len(item[0])):
        width = WIDTH * len(label)
        free = [(_box((x + dx, y + dy), width), (dx, dy)) for dx, dy in _places(width)]
        box, found[label] = min(free, key=lambda place: _cost(place[0], taken, panel))
        taken.append(box)
    return found


def _places(width: float) -> list[Point]:
    """Right, left, above, below, then the four corners, and the same a line further away."""
    middle = -HEIGHT / 3
    near = [
        (_GAP, middle),
        (-width - _GAP, middle),
        (-width / 2, _GAP),
        (-width / 2, -HEIGHT - _GAP),
        *((dx, dy) for dx in (_GAP, -width - _GAP) for dy in (_GAP, -HEIGHT - _GAP)),
    ]
    return near + [(dx, dy + shift) for shift in (HEIGHT, -HEIGHT) for dx, dy in near]


def _box(corner: Point, width: float) -> Box:
    return (*corner, corner[0] + width, corner[1] + HEIGHT)


def _cost(box: Box, taken: list[Box], panel: Point) -> float:
    """The area that is covered twice or lies outside of the panel."""
    covered = sum(shared(box, other) for other in taken)
    inside = shared(box, (0.0, 0.0, *panel))
    return covered + (box[2] - box[0]) * (box[3] - box[1]) - inside


def shared(one: Box, other: Box) -> float:
    """The area of both."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
