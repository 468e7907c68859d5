"""Which rank this is, on which device, and that a world of one needs no process group."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks

from imax_dist.errors import BadConfig
from imax_dist.parallel.topology import (
    DUMPS,
    Topology,
    detect,
    keep_dumps_apart,
    pick_device,
    process_group,
    put_messages_first,
)

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")


def test_without_a_launcher_a_process_stands_alone() -> None:
    topology = detect({}, device="cpu")
    assert topology == Topology(0, 1, 0, torch.device("cpu"))
    assert topology.is_first


def test_torchruns_variables_are_read() -> None:
    topology = detect({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, device="cpu")
    assert topology == Topology(5, 8, 1, torch.device("cpu"))
    assert not topology.is_first


def test_without_a_local_rank_the_rank_counts() -> None:
    assert detect({"RANK": "3", "WORLD_SIZE": "4"}, device="cpu").local_rank == 3


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_the_backend_follows_the_device(device: str, backend: str) -> None:
    assert Topology(0, 2, 0, torch.device(device)).backend == backend


def test_ranks_that_share_a_gpu_talk_over_gloo() -> None:
    assert Topology(0, 2, 0, torch.device("cuda", 0), shares_gpu=True).backend == "gloo"


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:1", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(BadConfig, match=r"is not known; choose auto, cpu or cuda"):
        pick_device(device)


@WITHOUT_GPU
def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_the_cpu() -> None:
    with pytest.raises(BadConfig, match=r"torch sees no CUDA device; use --device cpu"):
        pick_device("cuda")
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"RANK": "a"},
            r"RANK is 'a' in the environment, not a whole number; start ranks with imax launch or",
        ),
        ({"RANK": "0", "WORLD_SIZE": ""}, r"WORLD_SIZE is '' in the environment"),
        ({"LOCAL_RANK": "-1"}, r"LOCAL_RANK is '-1' in the environment"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK 2 is not below WORLD_SIZE 2; ranks count from 0"),
        ({"WORLD_SIZE": "0"}, r"RANK 0 is not below WORLD_SIZE 0"),
    ],
)
def test_variables_that_no_launcher_sets_are_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        detect(variables, device="cpu")


@pytest.mark.parametrize(
    ("given", "missing"),
    [({}, "MASTER_ADDR expected, but not set"), ({"MASTER_ADDR": "localhost", "MASTER_PORT": "x"}, "'x'")],
)
def test_ranks_without_a_place_to_meet_say_so(
    given: dict[str, str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As srun starts them: numbered, and nothing else."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", **given}.items():
        monkeypatch.setenv(name, value)
    refused = pytest.raises(BadConfig, match=f"ranks cannot connect: .*{missing}.*imax launch")
    with refused, process_group(detect(device="cpu")):
        raise AssertionError("they cannot have met")


def test_more_local_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto", local_rank=1) == torch.device("cuda", 1)
    with pytest.raises(BadConfig, match=r"local rank 2 has no GPU: this host has 2; start as many ranks"):
        pick_device("cuda", local_rank=2)


def test_messages_go_first_on_gpus_unless_the_user_says_otherwise() -> None:
    unset: dict[str, str] = {}
    put_messages_first(unset)
    assert unset == {"TORCH_NCCL_HIGH_PRIORITY": "1"}
    chosen = {"TORCH_NCCL_HIGH_PRIORITY": "0"}
    put_messages_first(chosen)
    assert chosen == {"TORCH_NCCL_HIGH_PRIORITY": "0"}


def dumps_of(prefix: str, store: dist.Store) -> list[str]:
    """Of a gang's two ranks: where torch is told to dump."""
    found = []
    for rank in range(2):
        environment = {DUMPS: prefix} if prefix else {}
        keep_dumps_apart(environment, Topology(rank, 2, rank, torch.device("cpu")), store)
        found.append(environment.get(DUMPS, ""))
    return found


def test_two_gangs_in_one_pod_dump_into_folders_of_their_own(tmp_path: Path) -> None:
    pod = tmp_path / "logs" / "pod-0"
    gangs = [dumps_of(str(pod / "nccl-rank-"), dist.HashStore()) for _ in range(2)]
    folders = [Path(first).parent for first, _ in gangs]
    assert all(first == second for first, second in gangs), "a gang's dumps are read together"
    assert sorted(pod.iterdir()) == sorted(folders)
    assert len(set(folders)) == 2
    assert {Path(first).name for first, _ in gangs} == {"nccl-rank-"}
    (again,) = set(dumps_of(gangs[0][0], dist.HashStore()))
    assert Path(again).parent.parent == pod, "a process that joins another gang leaves the first's folder"


def test_dumps_without_a_folder_or_with_one_that_cannot_be_made_fail_no_poster(tmp_path: Path) -> None:
    assert dumps_of("", dist.HashStore()) == ["", ""]
    assert dumps_of("nccl-rank-", dist.HashStore()) == ["nccl-rank-"] * 2
    (tmp_path / "file").touch()
    assert len(set(dumps_of(str(tmp_path / "file" / "pod-0" / "nccl-rank-"), dist.HashStore()))) == 1


def test_a_world_of_one_joins_nothing() -> None:
    with process_group(Topology.alone()):
        assert not dist.is_initialized()


def joined(topology: Topology) -> tuple[int, int, str]:
    return dist.get_rank(), dist.get_world_size(), dist.get_backend()


def test_ranks_join_through_the_launchers_store() -> None:
    assert run_ranks(2, joined) == [(0, 2, "gloo"), (1, 2, "gloo")]
