"""Which rank am I, who started me, and on which device do I compute."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from imax_dist.errors import BadConfig
from imax_dist.liveness.beacon import SILENT, Marks

BY_LAUNCHER = "start ranks with imax launch or torchrun, which set all of them, or unset RANK and WORLD_SIZE"
DUMPS, GANG = "TORCH_FR_DUMP_TEMP_FILE", "imax/gang"
DEFAULT_TIMEOUT_S = 3600.0
"""Long: other ranks wait in it while rank 0 loads, makes the native picture or takes the poster."""


@dataclass(frozen=True)
class Topology:
    """One process among ``world_size``; a world of one has no process group at all."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    marks: Marks = field(default=SILENT, compare=False, repr=False)
    """Says where this rank is, to whoever watches over the ranks."""
    shares_gpu: bool = False
    """For tests: other ranks compute on the same GPU, which NCCL refuses; gloo carries everything instead."""

    @classmethod
    def alone(cls, device: torch.device | str = "cpu", *, marks: Marks = SILENT) -> Topology:
        """One process, without a launcher."""
        return cls(0, 1, 0, torch.device(device), marks)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def gpu(self) -> str:
        """torch's name of it; empty on a CPU."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""

    @property
    def backend(self) -> str:
        return "nccl" if self.device.type == "cuda" and not self.shares_gpu else "gloo"


def detect(environment: Mapping[str, str] | None = None, *, device: str = "auto") -> Topology:
    """Read torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK), or stand alone without them.

    ``device`` is auto (CUDA when there is one), cpu or cuda. Raises BadConfig if it is not available, or for
    variables that no launcher sets.
    """
    variables = os.environ if environment is None else environment
    rank, world_size = _number(variables, "RANK", 0), _number(variables, "WORLD_SIZE", 1)
    local_rank = _number(variables, "LOCAL_RANK", rank)
    if not 0 <= rank < world_size:
        raise BadConfig(
            f"RANK {rank} is not below WORLD_SIZE {world_size}; ranks count from 0; {BY_LAUNCHER}"
        )
    return Topology(
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        device=pick_device(device, local_rank=local_rank),
    )


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name, str(default))
    if not text.isdecimal():
        raise BadConfig(f"{name} is {text!r} in the environment, not a whole number; {BY_LAUNCHER}")
    return int(text)


def pick_device(device: str, *, local_rank: int = 0) -> torch.device:
    """The device of a local rank. Raises BadConfig for an unknown or missing one."""
    if device not in ("auto", "cpu", "cuda"):
        raise BadConfig(f"device {device!r} is not known; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadConfig("device cuda: torch sees no CUDA device; use --device cpu")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise BadConfig(
            f"local rank {local_rank} has no GPU: this host has {torch.cuda.device_count()}; "
            "start as many ranks per host as it has GPUs"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def process_group(
    topology: Topology, *, store: Any | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Iterator[None]:
    """Join the default process group for the length of the block; a world of one joins nothing.

    ``store`` is a torch.distributed Store the launcher made (Ray); without it torchrun's variables are used.
    The group is destroyed only after success: NCCL's destroy waits for the other ranks, so a rank that fails
    alone abandons it instead, and its process should end (DECISIONS 64).
    """
    on_gpu = topology.device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(topology.device)
        put_messages_first(os.environ)
    if topology.world_size == 1:
        yield
        return
    timeout = timedelta(seconds=timeout_s)
    store = store or _launchers_store(timeout)
    if on_gpu:
        keep_dumps_apart(os.environ, topology, store)
    dist.init_process_group(
        backend=topology.backend,
        store=store,
        rank=topology.rank,
        world_size=topology.world_size,
        timeout=timeout,
        device_id=topology.device if topology.backend == "nccl" else None,
    )
    try:
        yield
    except BaseException:
        abandon_process_group()
        raise
    dist.destroy_process_group()


def _launchers_store(timeout: timedelta) -> Any:
    """Where torchrun's variables say. Raises BadConfig if they do not."""
    try:
        return next(rendezvous("env://", timeout=timeout))[0]
    except ValueError as error:  # one that is missing, or a port that is not a number
        why = str(error).split("rendezvous: ")[-1]
        raise BadConfig(f"ranks cannot connect: {why}; {BY_LAUNCHER}") from error


def put_messages_first(environment: MutableMapping[str, str]) -> None:
    """Let NCCL's kernels go before those of attention that have not begun, unless the user set it otherwise.

    Where an attention kernel fills the GPU, what travels beside it would else start when it has ended.
    """
    environment.setdefault("TORCH_NCCL_HIGH_PRIORITY", "1")


def keep_dumps_apart(environment: MutableMapping[str, str], topology: Topology, store: Any) -> None:
    """Let NCCL dump into a folder of this gang's alone, and make it: torch writes into one that is there.

    torch names a dump by its rank, and two gangs in one pod, or one after the other, have a rank 0 each.
    ``store`` tells every rank the gang's name; ``TORCH_FR_DUMP_TEMP_FILE`` without a folder is left as it is.
    """
    folder, begin = os.path.split(environment.get(DUMPS, ""))
    if not folder:
        return
    if topology.is_first:
        store.set(GANG, f"gang-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}")
    own = Path(folder if not Path(folder).name.startswith("gang-") else Path(folder).parent)
    own /= store.get(GANG).decode()
    environment[DUMPS] = str(own / begin)
    with suppress(OSError):  # evidence only: no poster fails for it
        own.mkdir(parents=True, exist_ok=True)


def abandon_process_group(*, wait_s: float = 5.0) -> None:
    """Leave the process group without waiting for any other rank, for at most ``wait_s`` seconds."""
    if dist.is_initialized():
        leaving = threading.Thread(target=_abort, daemon=True)
        leaving.start()
        leaving.join(wait_s)


def _abort() -> None:
    """Abort every communicator; whatever that raises is less important than why the rank failed."""
    with suppress(Exception):
        dist.distributed_c10d._abort_process_group()
