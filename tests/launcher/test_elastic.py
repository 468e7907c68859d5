"""Which exit code stands for many, and which nodes can meet at all."""

from __future__ import annotations

import pytest

from imax_dist.errors import BadValue
from imax_dist.launcher.elastic import Nodes, telling_code, worth_another_try


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ([-9, 70], 70),
        ([1], 70),
        ([143, 75], 75),
        ([70, 65], 65),
        ([75, 73], 73),
        ([70, 2, 75], 2),
        ([69, -15], 69),
    ],
)
def test_a_wrong_request_is_reported_before_a_lost_rank(codes: list[int], told: int) -> None:
    assert telling_code(codes) == told


def test_only_lost_ranks_are_started_again() -> None:
    assert [code for code in (0, 2, 64, 65, 66, 69, 70, 73, 75, 76, 77, 78) if worth_another_try(code)] == [
        70
    ]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ranks_per_node": 0}, "--ranks must be at least 1, got 0"),
        ({"ranks_per_node": 1, "count": 0}, "--nodes must be at least 1, got 0"),
        ({"ranks_per_node": 1, "count": 2, "index": 2}, "--node-rank 2: 2 nodes count from 0 to 1"),
        ({"ranks_per_node": 1, "count": 2}, "2 nodes need a rendezvous: give --rendezvous HOST:PORT"),
        ({"ranks_per_node": 1, "count": 2, "rendezvous": "node0"}, "'node0' is not HOST:PORT"),
        ({"ranks_per_node": 1, "count": 2, "rendezvous": "node0:99999"}, "is not HOST:PORT"),
    ],
)
def test_nodes_that_cannot_meet_are_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadValue, match=sentence):
        Nodes(**given)  # type: ignore[arg-type]
