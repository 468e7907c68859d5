"""Run a function on several gloo ranks: fresh processes, fresh process group, hard timeout."""

from __future__ import annotations

import multiprocessing
import pickle
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

from imax_dist.parallel.topology import Topology, process_group

PRELOADED = [
    "torch.distributed.device_mesh",
    "diffusers.models.transformers.transformer_flux",
    "diffusers.models.autoencoders.autoencoder_kl",
    "transformers.models.clip.modeling_clip",
    "transformers.models.t5.modeling_t5",
    "imax_dist.pipeline.renderer",
    "xfuser_preloaded",
]


def run_ranks(
    world_size: int, function: Callable[..., Any], *args: Any, timeout_s: float = 240, device: str = "cpu"
) -> list[Any]:
    """``function(topology, *args)`` on every rank; the results by rank. Kills all ranks at the timeout.

    A world of one joins no process group: it is this process. A ``device`` is every rank's.
    """
    if world_size == 1:
        return [function(Topology(0, 1, 0, torch.device(device)), *args)]
    context = forked()
    store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    pipes = [context.Pipe(duplex=False) for _ in range(world_size)]
    processes = [
        context.Process(
            target=_rank,
            args=(rank, world_size, store.port, pipes[rank][1], device, function, args),
            daemon=True,
        )
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    try:
        return _collect([receiver for receiver, _ in pipes], timeout_s)
    finally:
        for process in processes:
            process.join(timeout=2)
            process.kill()
            process.join()


def forked() -> Any:
    """The start of processes as copies of one that has the libraries and has not touched a GPU."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _rank(
    rank: int,
    world_size: int,
    port: int,
    sender: Connection,
    device: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    place = torch.device(device)
    topology = Topology(rank, world_size, rank, place, shares_gpu=place.type == "cuda")
    try:
        store = dist.TCPStore("127.0.0.1", port, None, is_master=False, timeout=timedelta(seconds=30))
        with process_group(topology, store=store, timeout_s=60):
            sender.send_bytes(pickle.dumps(("result", function(topology, *args))))
            dist.barrier() if world_size > 1 else None
    except BaseException:
        sender.send_bytes(pickle.dumps(("error", traceback.format_exc())))


def _collect(receivers: list[Connection], timeout_s: float) -> list[Any]:
    results: dict[int, Any] = {}
    deadline = time.monotonic() + timeout_s
    while len(results) < len(receivers):
        waiting = [r for i, r in enumerate(receivers) if i not in results]
        ready = wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"{len(waiting)} of {len(receivers)} ranks did not finish in {timeout_s} s")
        for receiver in ready:
            kind, value = pickle.loads(receiver.recv_bytes())
            if kind == "error":
                raise AssertionError(f"rank {receivers.index(receiver)} failed:\n{value}")
            results[receivers.index(receiver)] = value
    return [results[rank] for rank in range(len(receivers))]
