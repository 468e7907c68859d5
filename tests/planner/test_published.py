"""The planner's steps against every number xDiT published for FLUX.1 on A100 and H100, denoising alone."""

from __future__ import annotations

import pytest

from imax_dist.planner.split import Split
from tests.bench.published import CELLS, TABLE, Cell, predicted

TOLERANCE = 0.15
MISSED = {("H100", Split(1, 4), False): 0.30}
"""Their eager ring of four takes less of the host than their ring of two; ours takes 8 kernels a place."""


def name_of(cell: Cell) -> str:
    kind = "compiled" if cell.compiled else "eager"
    return f"{cell.size}, {cell.gpu}, {cell.split}, {kind}"


@pytest.mark.parametrize("cell", CELLS, ids=name_of)
def test_a_published_denoising_is_what_the_planner_says(cell: Cell) -> None:
    tolerance = MISSED.get((cell.gpu, cell.split, cell.compiled), TOLERANCE)
    assert predicted(cell) == pytest.approx(cell.denoising, rel=tolerance)


def test_no_more_of_them_was_set_than_is_stated() -> None:
    assert len(CELLS) == 2 * len(TABLE) + 8
    assert sum(cell.fitted for cell in CELLS) == 3
