"""Messages between pairs of ranks: one batch, through host memory where the backend sends nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks

from imax_dist.errors import BadConfig
from imax_dist.parallel import point_to_point
from imax_dist.parallel.cfg_parallel import build_cfg_parallel
from imax_dist.parallel.mesh import build_mesh
from imax_dist.parallel.point_to_point import needs_host, post
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.fit import check_token_counts


def test_only_gloo_with_memory_of_a_gpu_goes_through_the_host() -> None:
    assert needs_host("cuda", "gloo")
    assert not needs_host("cuda", "nccl")
    assert not needs_host("cpu", "gloo")


def exchanged(topology: Topology, *, host: bool) -> list[list[float]]:
    """Two messages each way, direct or by way of copies, as a GPU's would go."""
    if host:
        point_to_point.needs_host = lambda *_: True  # type: ignore[assignment]
    peer = 1 - topology.rank
    sent = [torch.full((3,), float(10 * topology.rank + k)) for k in range(2)]
    received = [torch.zeros(3) for _ in range(2)]
    posted = post([(x, peer) for x in sent], [(x, peer) for x in received], None)
    assert posted.size == 24
    posted.wait()
    post([], [], None).wait()
    return [x.tolist() for x in received]


@pytest.mark.parametrize("host", [False, True])
def test_messages_arrive_in_the_order_of_the_lists(host: bool) -> None:
    first, second = run_ranks(2, _exchanged_by_host if host else _exchanged)
    assert first == [[10.0] * 3, [11.0] * 3]
    assert second == [[0.0] * 3, [1.0] * 3]


def _exchanged(topology: Topology) -> list[list[float]]:
    return exchanged(topology, host=False)


def _exchanged_by_host(topology: Topology) -> list[list[float]]:
    return exchanged(topology, host=True)


def groups(topology: Topology) -> dict[str, int]:
    """Groups of this rank, beside that of all ranks, for every kind of mesh."""
    found = {}
    for name, build in {
        "u4r1": lambda: build_mesh(topology, ulysses=4, ring=1),
        "u1r4": lambda: build_mesh(topology, ulysses=1, ring=4),
        "u2r2": lambda: build_mesh(topology, ulysses=2, ring=2),
        "halves": lambda: build_cfg_parallel(topology, ulysses=2, ring=1),
    }.items():
        before = len(dist.distributed_c10d._world.pg_map)
        build()
        found[name] = len(dist.distributed_c10d._world.pg_map) - before
    return found


def test_a_mesh_makes_no_more_communicators_than_it_has_axes() -> None:
    for found in run_ranks(4, groups):
        assert found == {"u4r1": 1, "u1r4": 1, "u2r2": 2, "halves": 2}


def test_fewer_image_tokens_than_ranks_are_refused_in_one_sentence() -> None:
    check_token_counts([16, 64], 16)
    check_token_counts([], 16)
    with pytest.raises(BadConfig, match=r"has 12 image tokens, which cannot be split over 16 ranks; start"):
        check_token_counts([12, 64], 16)
