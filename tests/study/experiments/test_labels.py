"""Names beside the points of a Pareto plot: read without guessing which point they belong to."""

from __future__ import annotations

from itertools import combinations

from imax_dist.study.experiments.labels import HEIGHT, WIDTH, offsets, shared

PANEL = (160.0, 170.0)


def test_no_label_covers_another_or_leaves_the_panel() -> None:
    """A column of points closer than a line, a row at the upper edge, and one in the corner."""
    column = {str(10 + k): (80.0, 60.0 + 5.0 * k) for k in range(5)}
    row = {str(20 + k): (30.0 + 9.0 * k, 168.0) for k in range(4)}
    points = {**column, **row, "1 2 3 4": (159.0, 1.0)}
    found = offsets(points, PANEL)
    boxes = []
    for label, (x, y) in points.items():
        left, low = x + found[label][0], y + found[label][1]
        boxes.append((left, low, left + WIDTH * len(label), low + HEIGHT))
        assert shared(boxes[-1], (0.0, 0.0, *PANEL)) > 0.98 * WIDTH * len(label) * HEIGHT, label
    assert sum(shared(one, other) for one, other in combinations(boxes, 2)) < 1.0
