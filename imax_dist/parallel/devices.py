"""Which devices the ranks compute on: all of one kind, no GPU twice; checked when the ranks join."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from imax_dist.errors import BadConfig
from imax_dist.parallel.collectives import all_gather_single
from imax_dist.parallel.topology import Topology

LONGEST = 1024
"""Bytes of what one rank says in the collective."""
LOOK_S, LOOKS, PATIENCE = 0.5, 60, 4
GIVEN_BACK = 64 << 20
"""Bytes between two looks: fewer are no sign of a process that ends."""


class Device(NamedTuple):
    """``name`` as torch reports it, ``identity`` different for every GPU of a cluster."""

    name: str
    host: str
    identity: str


def check_devices(topology: Topology) -> list[str]:
    """The host of every rank, by rank.

    Raises the same BadConfig on every rank if GPUs differ, or two ranks share one where none is to be shared.
    CPUs are not compared.
    """
    if topology.world_size == 1:
        return [socket.gethostname()]
    found = gather_devices(own_device(topology.device), topology)
    if topology.device.type == "cuda":
        refuse_unequal(found, shared=topology.shares_gpu)
    return [device.host for device in found]


def own_device(device: torch.device) -> Device:
    """This rank's GPU, or its host's processor."""
    if device.type != "cuda":
        return Device(device.type, socket.gethostname(), "")
    facts = torch.cuda.get_device_properties(device)
    return Device(facts.name, socket.gethostname(), str(facts.uuid))


def wait_for_memory(free: Callable[[], tuple[int, int]], *, sleep: Callable[[float], None]) -> None:
    """Wait while a GPU's memory, ``free`` bytes of all, is given back: killed ranks take seconds for 60 GB.

    Not at all on one that is nine tenths free, and two seconds for what another process keeps.
    """
    before, total = free()
    still = 0
    for _ in range(LOOKS):
        if 10 * before >= 9 * total or still == PATIENCE:
            return
        sleep(LOOK_S)
        now, _ = free()
        still = 0 if now - before >= GIVEN_BACK else still + 1
        before = now


def gather_devices(own: Device, topology: Topology) -> list[Device]:
    """Every rank's device, by rank."""
    said = gather_texts(json.dumps([part[:80] for part in own], ensure_ascii=False), topology)
    return [Device(*json.loads(text)) for text in said]


def gather_texts(own: str, topology: Topology) -> list[str]:
    """What every rank says, by rank; up to ``LONGEST`` bytes, none of them 0."""
    text = own.encode()
    piece = torch.zeros(1, LONGEST, dtype=torch.uint8)
    piece[0, : len(text)] = torch.tensor(list(text), dtype=torch.uint8)
    gathered = torch.empty(topology.world_size, LONGEST, dtype=torch.uint8, device=topology.device)
    all_gather_single(gathered, piece.to(topology.device), None)
    return [bytes(row).rstrip(b"\0").decode() for row in gathered.cpu().tolist()]


def refuse_unequal(devices: Sequence[Device], *, shared: bool = False) -> None:
    """Raise BadConfig for two kinds of GPU, or two ranks on one unless it may be ``shared``."""
    first = devices[0]
    for rank, device in enumerate(devices):
        if device.name != first.name:
            raise BadConfig(
                f"parallel: rank 0 computes on {first.name} ({first.host}), rank {rank} on {device.name} "
                f"({device.host}); all ranks of a poster need the same kind of GPU"
            )
        other = next(k for k, one in enumerate(devices) if one.identity == device.identity)
        if other != rank and not shared:
            raise BadConfig(
                f"parallel: ranks {other} and {rank} compute on the same GPU of {device.host} "
                f"({device.identity}); give each rank its own, by LOCAL_RANK or CUDA_VISIBLE_DEVICES"
            )
