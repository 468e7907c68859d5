"""Counts what ranks send each other: every collective, its bytes, in order, by layer.

A context manager that watches torch's own collective operators, so that nothing is counted twice, nothing
is forgotten, and xfuser's and diffusers' exchanges are seen as well as ours. Nothing outside the block
changes.

    with Traffic() as traffic:
        engine = traffic.by_layer(engine)
        ...
    traffic.layer_bytes()        # one number for every call of the engine
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from imax_dist.parallel.engines import AttentionEngine

COMMUNICATION = ("c10d", "_c10d_functional")
SILENT = {"barrier", "monitored_barrier_", "wait_tensor", "_wrap_tensor_autograd"}
"""Operators that move no tensor."""
COMPUTE = "attention"
"""How a kernel's own work appears among the events."""


@dataclass(frozen=True)
class Event:
    """One operator: bytes this rank sends to others, and the layer it belongs to (None: outside)."""

    name: str
    sent: int
    layer: int | None


class Traffic(TorchDispatchMode):
    """What this rank sends and computes inside the block, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.layers = 0
        self._layer: int | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func._schema.name.partition("::")
        if space in COMMUNICATION and name not in SILENT:
            if name not in SENT:
                raise NotImplementedError(f"traffic: how much {name} sends is not known")
            self.events.append(Event(name, SENT[name](args), self._layer))
        elif "scaled_dot_product" in name:
            self.events.append(Event(COMPUTE, 0, self._layer))
        return func(*args, **(kwargs or {}))

    def by_layer(self, engine: AttentionEngine) -> AttentionEngine:
        """The engine with every call counted as a layer of its own."""

        def counted(*args: Any, **kwargs: Any) -> Tensor:
            self._layer, self.layers = self.layers, self.layers + 1
            try:
                return engine(*args, **kwargs)
            finally:
                self._layer = None

        return counted

    def layer_bytes(self) -> list[int]:
        """Bytes sent within each call of the engine."""
        return [self.sent(layer) for layer in range(self.layers)]

    def sent(self, layer: int | None) -> int:
        """Bytes sent within a layer, or outside all of them."""
        return sum(event.sent for event in self.events if event.layer == layer)

    def sequence(self) -> list[tuple[str, int | None]]:
        """Names and layers in order, without bytes: must be the same on every rank."""
        return [(event.name, event.layer) for event in self.events]


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _all_to_all(args: Any) -> int:
    """(output, input, group, output rows, input rows): all but the piece a rank keeps."""
    _, given, group, _, rows, *_ = args
    return _but_own(given, dist.ProcessGroup.unbox(group), rows)


def _functional_all_to_all(args: Any) -> int:
    """(input, output rows, input rows, group's name)."""
    given, _, rows, name = args
    return _but_own(given, _group_named(name), rows)


def _group_named(name: str) -> Any:
    from torch.distributed.distributed_c10d import _resolve_process_group  # type: ignore[attr-defined]

    resolve: Callable[[Any], Any] = _resolve_process_group
    return resolve(name)


def _but_own(given: Tensor, group: Any, rows: list[int]) -> int:
    """``rows`` by rank, or none for equal pieces."""
    kept = rows[group.rank()] / given.shape[0] if rows else 1 / group.size()
    sent: int = round(_bytes(given) * (1 - kept))
    return sent


def _all_gather(args: Any) -> int:
    """(output, input, group): the input, to every other rank."""
    sent: int = _bytes(args[1]) * (dist.ProcessGroup.unbox(args[2]).size() - 1)
    return sent


def _functional_all_gather(args: Any) -> int:
    """(input, ranks, group's name)."""
    sent: int = _bytes(args[0]) * (args[1] - 1)
    return sent


def _broadcast(args: Any) -> int:
    """(tensors, group, root): from the root to every other rank."""
    group = dist.ProcessGroup.unbox(args[1])
    return _all_of(args) * (group.size() - 1) if group.rank() == args[2] else 0


def _all_of(args: Any) -> int:
    """(tensors, ...)."""
    return sum(map(_bytes, args[0]))


def _nothing(args: Any) -> int:
    """The other side counts it."""
    del args
    return 0


SENT: dict[str, Callable[[Any], int]] = {
    "alltoall_base_": _all_to_all,
    "all_to_all_single": _functional_all_to_all,
    "_allgather_base_": _all_gather,
    "all_gather_into_tensor": _functional_all_gather,
    "broadcast_": _broadcast,
    "allreduce_": _all_of,
    "send": _all_of,
    "recv_": _nothing,
}
"""Bytes an operator makes this rank send, from its arguments."""
