"""Ranks refuse to join on unequal or shared GPUs, all with the same sentence."""

from __future__ import annotations

import pytest
from ranks import run_ranks

from imax_dist.errors import BadConfig
from imax_dist.parallel.devices import Device, gather_devices, refuse_unequal, wait_for_memory
from imax_dist.parallel.topology import Topology

H100 = "NVIDIA H100 80GB HBM3"


def gathered(topology: Topology, names: list[str]) -> list[Device]:
    return gather_devices(
        Device(names[topology.rank], f"node{topology.rank}", f"GPU-{topology.rank}"), topology
    )


def test_every_rank_knows_every_device() -> None:
    want = [Device(H100, "node0", "GPU-0"), Device("Grafikkarte ü " * 9, "node1", "GPU-1")]
    for found in run_ranks(2, gathered, [device.name for device in want]):
        assert found == [Device(*(part[:80] for part in device)) for device in want]


@pytest.mark.parametrize(
    ("gib_free", "slept"),
    [
        ([79], 0.0),
        ([10, 10, 40, 75], 1.5),
        ([10, 10, 40, 41, 41, 41, 41, 41], 3.5),
        ([40] * 9, 2.0),
    ],
    ids=["free", "given back", "some is kept", "all is kept"],
)
def test_ranks_wait_for_memory_that_killed_ones_give_back(gib_free: list[int], slept: float) -> None:
    naps: list[float] = []
    looks = iter(gib_free)
    wait_for_memory(lambda: (next(looks) << 30, 80 << 30), sleep=naps.append)
    assert sum(naps) == slept


def test_a_gpu_whose_memory_never_settles_is_not_waited_for_for_ever() -> None:
    naps: list[float] = []
    wait_for_memory(lambda: (len(naps) << 30, 800 << 30), sleep=naps.append)
    assert sum(naps) == 30.0


def test_equal_gpus_of_two_hosts_are_fine() -> None:
    refuse_unequal([Device(H100, "a", "GPU-1"), Device(H100, "b", "GPU-2")])


def test_unequal_or_shared_gpus_are_refused_with_ranks_and_names() -> None:
    with pytest.raises(
        BadConfig, match=r"rank 0 computes on NVIDIA H100 .* \(a\), rank 1 on NVIDIA L40S \(b\)"
    ):
        refuse_unequal([Device(H100, "a", "GPU-1"), Device("NVIDIA L40S", "b", "GPU-2")])
    shared = [Device(H100, "a", f"GPU-{k}") for k in (1, 2, 1)]
    refuse_unequal(shared, shared=True)
    with pytest.raises(BadConfig, match=r"ranks 0 and 2 compute on the same GPU of a \(GPU-1\); give each"):
        refuse_unequal(shared)
