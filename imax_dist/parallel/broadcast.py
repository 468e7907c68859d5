"""Rank 0 makes something once; every rank gets the same bits, or the same error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from imax_dist import errors
from imax_dist.parallel.topology import Topology

T = TypeVar("T")


def from_first_rank(make: Callable[[], T], topology: Topology) -> T:
    """Run ``make`` on rank 0 and give all ranks its result, the tensors in it on their own devices.

    A result is None, a bool, a number, a string, a tensor, or a tuple, list or dict (by strings) of results.
    If ``make`` raises, every rank raises an ImaxError of the same class, so that none waits for a lost rank.
    """
    if topology.world_size == 1:
        return make()
    tensors: list[Tensor] = []
    header: dict[str, Any] = {}
    if topology.is_first:
        try:
            header = {"result": _packed(make(), tensors)}
            tensors = [x.to(topology.device).contiguous() for x in tensors]
        except Exception as error:
            _broadcast_json({"error": _describe_error(error)}, topology)
            raise
    header = _broadcast_json(header, topology)
    if "error" in header:
        name, message = header["error"]
        raise _error_of_another(name, message)

    def received(dtype: str, shape: list[int]) -> Tensor:
        if topology.is_first:
            x = tensors.pop(0)
        else:
            x = torch.empty(shape, dtype=getattr(torch, dtype), device=topology.device)
        with topology.marks.waiting("what rank 0 sends"):
            dist.broadcast(x, src=0)
        return x

    return cast(T, _unpacked(header["result"], received))


def on_every_rank(make: Callable[[], T], topology: Topology) -> T:
    """Run ``make`` on every rank and give each its own; if it raises on any, every rank raises that error.

    The lowest rank's error is the one that all raise, so that the reason is what a person sees, and not that
    another rank's connection was closed. A rank that failed itself raises its own.
    """
    if topology.world_size == 1:
        return make()
    made: T | None = None
    own: Exception | None = None
    try:
        made = make()
    except Exception as error:
        own = error
    failed = highest(topology.world_size - topology.rank if own else 0, topology)
    if failed:
        source = topology.world_size - failed
        sent = {"error": _describe_error(own, source)} if own and source == topology.rank else {}
        name, message = _broadcast_json(sent, topology, source=source)["error"]
        if own is None or (source != topology.rank and str(own) == message):
            raise _error_of_another(name, message)
        raise own
    return cast(T, made)


def highest(value: int, topology: Topology) -> int:
    """The largest ``value`` any rank brought, on every rank."""
    if topology.world_size == 1:
        return value
    shared = torch.tensor(value, device=topology.device)
    with topology.marks.waiting("the agreement of ranks"):
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return int(shared.item())


def _packed(result: Any, tensors: list[Tensor]) -> Any:
    """``result`` in JSON, its kinds of containers named; its tensors are appended to ``tensors``."""
    if isinstance(result, Tensor):
        tensors.append(result)
        return {"tensor": [str(result.dtype).removeprefix("torch."), list(result.shape)]}
    if isinstance(result, Mapping):
        return {"dict": {name: _packed(part, tensors) for name, part in result.items()}}
    if isinstance(result, tuple | list):
        kind = "tuple" if isinstance(result, tuple) else "list"
        return {kind: [_packed(part, tensors) for part in result]}
    if result is None or isinstance(result, bool | int | float | str):
        return result
    raise TypeError(f"a {type(result).__name__} cannot be broadcast")


def _unpacked(packed: Any, received: Callable[[str, list[int]], Tensor]) -> Any:
    """The inverse, in the same order; ``received`` gives a tensor of a dtype and shape."""
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return received(*content)
    if kind == "dict":
        return {name: _unpacked(part, received) for name, part in content.items()}
    parts = [_unpacked(part, received) for part in content]
    return tuple(parts) if kind == "tuple" else parts


def _error_of_another(name: str, message: str) -> errors.ImaxError:
    """The error another rank met and says to the user."""
    error: errors.ImaxError = getattr(errors, name)(message)
    error.already_reported = True
    return error


def _describe_error(error: Exception, rank: int = 0) -> tuple[str, str]:
    if isinstance(error, errors.ImaxError):
        return type(error).__name__, str(error)
    return "ImaxError", f"rank {rank} failed: {type(error).__name__}: {error}"


def _broadcast_json(value: dict[str, Any], topology: Topology, *, source: int = 0) -> dict[str, Any]:
    content = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
    length = torch.tensor(len(content), device=topology.device)
    with topology.marks.waiting(f"what rank {source} sends"):
        dist.broadcast(length, src=source)
        buffer = torch.empty(int(length.item()), dtype=torch.uint8, device=topology.device)
        if topology.rank == source:
            buffer.copy_(content)
        dist.broadcast(buffer, src=source)
        decoded: dict[str, Any] = json.loads(bytes(buffer.cpu().tolist()))
    return decoded
