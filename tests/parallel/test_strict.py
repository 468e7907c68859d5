"""Nothing that NCCL would refuse or wait for for ever, in renders of every kind on two to four ranks."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from strict import Message, Operation, Strict, refusals, replay
from tiny_flux import make_tiny_flux

from imax_dist.models.tiny import TINY, make_tiny
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
SHARED = {"text": {"copies": "shared"}}
GUIDED = {"guidance_scale": {"native": 1.0, "extrapolated": 3.0}}
CASCADE = {"cascade": [2.0], "start": {"sigma": 0.8}, "reference": {"kind": "per_step"}}
NETWORKS = [name for name in TINY if name not in ("flux-dev", "flux-schnell")]
HALVES = "a prompt for each half"
Case = tuple[dict[str, Any], dict[str, Any]]
"""A request's fields and how its ranks share the work."""
CASES: dict[str, Case] = {
    "odd tokens, ring": ({}, {"ulysses": 1, "ring": 4}),
    "odd tokens, Ulysses": ({}, {"ulysses": 4, "ring": 1}),
    "fewer text tokens than ranks": ({"prompt": "sun"}, {"ulysses": 2, "ring": 2}),
    "replicated text, shared copies": ({"method": SHARED}, {"ulysses": 2, "ring": 2, "text": "replicated"}),
    "fewer rows of the VAE than ranks": ({"size": "256x16"}, {"ulysses": 1, "ring": 4}),
    "a cascade": ({"size": "192x160", "method": CASCADE}, {"ulysses": 2, "ring": 2}),
    "native pass on all ranks": ({}, {"ulysses": 2, "ring": 2, "native": "shared"}),
    "maps in files": ({}, {"ulysses": 2, "ring": 2, "vae_memory_gib": 0.001}),
}


def watched(topology: Topology, fields: dict[str, Any], parallel: dict[str, Any]) -> tuple[Any, Any]:
    with Strict() as strict:
        rendering = render(Request(**fields), topology=topology, parallel=ParallelSettings(**parallel))
        assert (rendering.pixels is not None) == topology.is_first
    return strict.log, strict.refused


def watched_all(topology: Topology, cases: dict[str, Case]) -> dict[str, Any]:
    """What every case asked for, or its traceback: a process group costs most."""
    found: dict[str, Any] = {}
    for name, (fields, parallel) in cases.items():
        try:
            found[name] = watched(topology, fields, parallel)
        except Exception:
            found[name] = traceback.format_exc()
    return found


@pytest.fixture(scope="module")
def on_four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """FLUX on every kind of mesh, and two halves of the ranks with a prompt each."""
    place = tmp_path_factory.mktemp("four")
    common = {"prompt": PROMPT, "dtype": "float64", "steps": 2, "native_steps": 1}
    own = {**common, "size": "144x112", "model": str(make_tiny_flux(place / "flux"))}
    cases = {name: ({**own, **fields}, parallel) for name, (fields, parallel) in CASES.items()}
    schnell = {**common, "size": "112x80", "model": str(make_tiny("flux-schnell", place / "schnell"))}
    cases[HALVES] = ({**schnell, "method": GUIDED}, {"cfg": "split", "ulysses": 2, "ring": 1})
    return run_ranks(4, watched_all, cases, timeout_s=200)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every other network, as it is."""
    place = tmp_path_factory.mktemp("two")
    common = {"prompt": PROMPT, "size": "112x80", "dtype": "float64", "steps": 2, "native_steps": 1}
    cases = {name: ({**common, "model": str(make_tiny(name, place / name))}, {}) for name in NETWORKS}
    return run_ranks(2, watched_all, cases, timeout_s=200)


def check(found: list[dict[str, Any]], name: str) -> None:
    broken = [own[name] for own in found if isinstance(own[name], str)]
    assert broken == []
    logs, refused = zip(*(own[name] for own in found), strict=True)
    assert list(refused) == [[]] * len(found)
    assert replay(list(logs)) == []
    assert len(logs[0]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, HALVES])
def test_a_render_on_four_ranks_goes_through_with_every_operation_blocking(on_four: Any, name: str) -> None:
    check(on_four, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_so_does_every_network(on_two: Any, name: str) -> None:
    check(on_two, name)


def test_what_nccl_refuses_is_seen() -> None:
    """Gaps, types and nothing at all, as tensors; an empty one in a collective of one rank."""
    assert refusals(torch.zeros(2, 3).t()) == ["(3, 2) is not contiguous"]
    assert refusals(torch.zeros(2, dtype=torch.int16)) == ["torch.int16 is no type of NCCL's"]
    assert refusals(torch.zeros(2, dtype=torch.bfloat16)) == []
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with Strict() as strict:
            dist.all_reduce(torch.zeros(0))
            dist.broadcast(torch.zeros(3), src=0)
    finally:
        dist.destroy_process_group()
    assert strict.refused == ["allreduce_: (0,) is empty"]
    assert [operation.name for operation in strict.log] == ["allreduce_", "broadcast_"]


def both(name: str, *, size: int = 8) -> Operation:
    return Operation(name, (0, 1), size, "torch.float32")


def batch(*messages: Message) -> Operation:
    return Operation("batch", messages=messages)


def message(kind: str, peer: int, size: int = 8) -> Message:
    return Message(kind, peer, size, "torch.float32")


def test_a_replay_sees_another_order_other_sizes_and_a_missing_partner() -> None:
    reduce, gather = both("allreduce_"), both("_allgather_base_")
    assert replay([[reduce, gather], [reduce, gather]]) == []
    assert "wait for ever" in replay([[reduce, gather], [gather, reduce]])[0]
    assert "wait for ever" in replay([[reduce], []])[0]
    assert "sizes differ" in replay([[reduce], [both("allreduce_", size=4)]])[0]
    there, back = batch(message("send", 1)), batch(message("recv_", 0))
    assert replay([[there], [back]]) == []
    assert "against" in replay([[there], [batch(message("recv_", 0, 4))]])[0]
    assert "wait for ever" in replay([[there], [batch(message("send", 0))]])[0]
    split = Operation("alltoall_base_", (0, 1), 8, "torch.float32", (1, 2), (1, 2))
    assert replay([[split], [split._replace(received=(2, 2), sent=(2, 2))]]) == []
    assert "disagree" in replay([[split], [split]])[0]
