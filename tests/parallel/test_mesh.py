"""Degrees that fit ranks and heads, and who sits where on the mesh."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks

from imax_dist.errors import BadConfig
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, check_degrees, choose_degrees, single_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks


@pytest.mark.parametrize(
    ("ranks", "heads", "given", "expected"),
    [
        (1, 24, {}, (1, 1)),
        (8, 24, {}, (8, 1)),
        (16, 24, {}, (8, 2)),
        (5, 24, {}, (1, 5)),
        (4, 6, {}, (2, 2)),
        (8, 6, {}, (2, 4)),
        (7, 24, {}, (1, 7)),
        (8, 24, {"ulysses": 2}, (2, 4)),
        (8, 24, {"ring": 8}, (1, 8)),
        (8, 24, {"ring": 2}, (4, 2)),
        (8, 24, {"ulysses": 4, "ring": 2}, (4, 2)),
        (8, 24, {"kv_heads": 8}, (8, 1)),
        (16, 32, {"kv_heads": 8}, (8, 2)),
        (3, 24, {"kv_heads": 8}, (1, 3)),
        (3, 24, {"kv_heads": 8, "ulysses": 3}, (3, 1)),
        (12, 24, {"kv_heads": 8}, (4, 3)),
        (4, 24, {"kv_heads": 1}, (1, 4)),
    ],
)
def test_ulysses_is_as_large_as_the_heads_allow_and_the_ring_takes_the_rest(
    ranks: int, heads: int, given: dict[str, int], expected: tuple[int, int]
) -> None:
    assert choose_degrees(ranks, heads=heads, **given) == expected


@pytest.mark.parametrize(("sms", "shares_gpu"), [(0, False), (6, False), (6, True)])
def test_a_rings_hops_keep_to_their_multiprocessors_on_nccl_alone(
    sms: int, shares_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no NCCL in torch for CPUs: its options stand in, as torch's stubs describe them."""
    asked: list[tuple[list[int], dict[str, Any]]] = []
    options = SimpleNamespace(Options=lambda: SimpleNamespace(config=SimpleNamespace(max_ctas=None)))
    monkeypatch.setattr(dist, "ProcessGroupNCCL", options, raising=False)

    def new_group(ranks: list[int], **given: Any) -> dist.ProcessGroup:
        asked.append((ranks, given))
        return dist.ProcessGroup(0, len(ranks))

    monkeypatch.setattr(dist, "new_group", new_group)
    on_gpu = Topology(0, 4, 0, torch.device("cuda", 0), shares_gpu=shares_gpu)
    build_mesh(on_gpu, ulysses=2, ring=2, hop_sms=sms)
    assert all(given["timeout"].total_seconds() == 120 for _, given in asked)
    limited = {tuple(ranks): given["pg_options"] for ranks, given in asked if "pg_options" in given}
    rows = [(0, 2), (1, 3)] if sms and not shares_gpu else []
    assert list(limited) == rows
    assert all((each.config.max_ctas, each._timeout.total_seconds()) == (6, 120) for each in limited.values())


@pytest.mark.parametrize(
    ("ranks", "heads", "given", "message"),
    [
        (4, 24, {"ulysses": 4, "ring": 2}, r"parallel: ulysses 4 x ring 2 needs 8 ranks, but 4 were started"),
        (1, 24, {"ulysses": 2}, r"parallel: ulysses 2 x ring 1 needs 2 ranks, but 1 was started"),
        (1, 24, {"ring": 3}, r"parallel: ulysses 1 x ring 3 needs 3 ranks, but 1 was started"),
        (4, 24, {"ulysses": 3}, r"parallel: ulysses 3 x ring 1 needs 3 ranks, but 4 were started"),
        (8, 24, {"ring": 3}, r"parallel: ulysses 2 x ring 3 needs 6 ranks, but 8 were started"),
        (4, 24, {"ulysses": 0}, r"parallel: ulysses 0 and ring 1 must both be at least 1"),
        (4, 24, {"ring": 0}, r"parallel: ulysses 1 and ring 0 must both be at least 1"),
        (4, 24, {"ulysses": -2, "ring": -2}, r"ulysses -2 and ring -2 must both be at least 1"),
        (
            4,
            6,
            {"ulysses": 4},
            r"ulysses 4 does not divide the model's 6 attention heads; it can be 1, 2, 3, 6",
        ),
        (4, 6, {"ring": 1}, r"ulysses 4 does not divide the model's 6 attention heads"),
        (4, 24, {"kv_heads": 7}, r"the model's 7 key heads do not divide its 24 query heads"),
    ],
)
def test_degrees_that_do_not_fit_are_refused_with_numbers(
    ranks: int, heads: int, given: dict[str, int], message: str
) -> None:
    with pytest.raises(BadConfig, match=message):
        choose_degrees(ranks, heads=heads, **given)


@pytest.mark.parametrize("ranks", range(1, 17))
@pytest.mark.parametrize("heads", [1, 4, 6, 24])
def test_any_number_of_ranks_finds_degrees(ranks: int, heads: int) -> None:
    ulysses, ring = choose_degrees(ranks, heads=heads)
    check_degrees(ranks, ulysses=ulysses, ring=ring)
    assert heads % ulysses == 0


def test_ulysses_joins_neighbours_and_the_ring_goes_across() -> None:
    places = [SequenceMesh(ulysses=2, ring=3, rank=rank) for rank in range(6)]
    assert [(mesh.ring_index, mesh.ulysses_index) for mesh in places] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    assert [list(places[0].ulysses_ranks(index)) for index in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_one_rank_has_no_groups() -> None:
    mesh = single_rank()
    assert (mesh.size, mesh.group, mesh.ulysses_group, mesh.ring_group) == (1, None, None, None)


def members(topology: Topology) -> dict[str, Any]:
    """The ranks of this rank's groups on a mesh of 2 x 2, and what a wrong mesh says."""
    mesh = build_mesh(topology, ulysses=2, ring=2)
    said = []
    for parallel in (ParallelSettings(ulysses=2, ring=4), ParallelSettings(ulysses=4)):
        try:
            join_ranks(parallel, topology, heads=6)
        except BadConfig as error:
            said.append(str(error))
    groups = (mesh.ulysses_group, mesh.ring_group, mesh.group)
    return {"groups": [dist.get_process_group_ranks(group) for group in groups], "said": said}


def test_groups_hold_the_ranks_the_mesh_says() -> None:
    found = run_ranks(4, members)
    assert [each["groups"] for each in found] == [
        [[0, 1], [0, 2], [0, 1, 2, 3]],
        [[0, 1], [1, 3], [0, 1, 2, 3]],
        [[2, 3], [0, 2], [0, 1, 2, 3]],
        [[2, 3], [1, 3], [0, 1, 2, 3]],
    ]
    for each in found:
        assert each["said"] == [
            "parallel: ulysses 2 x ring 4 needs 8 ranks, but 4 were started",
            "parallel: ulysses 4 does not divide the model's 6 attention heads; "
            "it can be 1, 2, 3, 6, the ring takes any number of ranks",
        ]


def test_an_unknown_engine_is_refused() -> None:

    alone = Topology.alone()
    with pytest.raises(BadConfig, match=r"parallel: engine: 'torhc' is not known; did you mean 'torch'"):
        join_ranks(ParallelSettings(engine="torhc"), alone, heads=4)
