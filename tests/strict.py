"""What NCCL would refuse or hang on, seen on gloo: every collective checked, and replayed with all blocking.

    with Strict() as strict:
        ...                                # on every rank
    strict.refused                         # what NCCL does not take: a list of sentences
    replay([log of rank 0, log of rank 1, ...])

``replay`` lets every operation wait until its partners are at theirs, which is stricter than streams are: it
says where ranks would wait for ever, and where sizes, types or splits do not agree.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TAKEN = {
    torch.int8, torch.uint8, torch.bool, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64,
}  # fmt: skip
OTHER_SIDE = {"send": "recv_", "recv_": "send"}


class Message(NamedTuple):
    """One send or receive; ``peer`` is the other's global rank."""

    kind: str
    peer: int
    size: int
    dtype: str


class Operation(NamedTuple):
    """One collective of ``ranks``, or, with ``messages``, one batch of point-to-point messages."""

    name: str
    ranks: tuple[int, ...] = ()
    size: int = 0
    dtype: str = ""
    received: tuple[int, ...] = ()
    sent: tuple[int, ...] = ()
    messages: tuple[Message, ...] = ()


class Strict(TorchDispatchMode):
    """Logs and checks what this rank asks of torch.distributed inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Operation] = []
        self.refused: list[str] = []
        self._batch: list[Message] | None = None
        self._posting = dist.batch_isend_irecv

    def __enter__(self) -> Strict:
        def posting(operations: Any) -> Any:
            self._batch = []
            try:
                return self._posting(operations)
            finally:
                self.log.append(Operation("batch", messages=tuple(self._batch)))
                self._batch = None

        dist.batch_isend_irecv = posting
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        dist.batch_isend_irecv = self._posting
        super().__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func._schema.name.partition("::")
        if space == "c10d":
            self._take_in(name, args, tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))

    def _take_in(self, name: str, args: Any, leaves: list[Any]) -> None:
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        group = next(dist.ProcessGroup.unbox(x) for x in leaves if isinstance(x, torch.ScriptObject))
        ranks = tuple(dist.get_process_group_ranks(group))
        self.refused += [f"{name}: {why}" for x in tensors for why in refusals(x)]
        size, dtype = sum(x.numel() * x.element_size() for x in tensors), str(tensors[0].dtype)
        if name in OTHER_SIDE:
            if self._batch is None:
                self.refused.append(f"{name}: alone, so that NCCL makes a communicator for this pair")
                self.log.append(Operation("batch", messages=(Message(name, ranks[args[2]], size, dtype),)))
            else:
                self._batch.append(Message(name, ranks[args[2]], size, dtype))
            return
        received, sent = (tuple(args[3]), tuple(args[4])) if name == "alltoall_base_" else ((), ())
        equal = tensors[-1].numel() if not sent else tensors[0].shape[1:].numel()
        self.log.append(Operation(name, ranks, equal, dtype, received, sent))


def refusals(x: Tensor) -> list[str]:
    """Why NCCL would not take it."""
    found = [] if x.is_contiguous() else [f"{tuple(x.shape)} is not contiguous"]
    found += [] if x.dtype in TAKEN else [f"{x.dtype} is no type of NCCL's"]
    return found + ([] if x.numel() else [f"{tuple(x.shape)} is empty"])


def replay(logs: list[list[Operation]]) -> list[str]:
    """What stops, or does not fit, when every operation waits for its partners; empty if all goes through."""
    waiting = [deque(log) for log in logs]
    found: list[str] = []
    while any(waiting):
        ready = next((ranks for rank in range(len(logs)) if (ranks := _ready(rank, waiting))), None)
        if ready is None:
            heads = {rank: queue[0] for rank, queue in enumerate(waiting) if queue}
            return [*found, f"ranks wait for ever: {heads}"]
        found += _differences({rank: waiting[rank][0] for rank in ready})
        for rank in ready:
            waiting[rank].popleft()
    return found


def _ready(rank: int, waiting: list[deque[Operation]]) -> set[int]:
    """The ranks that go on together with ``rank``; none if a partner is elsewhere."""
    if not waiting[rank]:
        return set()
    first = waiting[rank][0]
    if first.name != "batch":
        same = all(waiting[k] and waiting[k][0][:2] == first[:2] for k in first.ranks)
        return set(first.ranks) if same else set()
    members, todo = {rank}, [rank]
    while todo:
        own = todo.pop()
        for message in waiting[own][0].messages:
            peer = message.peer
            if not (waiting[peer] and _between(waiting[peer][0], own, OTHER_SIDE[message.kind])):
                return set()
            if peer not in members:
                members.add(peer)
                todo.append(peer)
    return members


def _between(operation: Operation, peer: int, kind: str) -> list[Message]:
    return [message for message in operation.messages if message.peer == peer and message.kind == kind]


def _differences(heads: dict[int, Operation]) -> list[str]:
    """Sizes, types and splits on which partners do not agree."""
    first = next(iter(heads.values()))
    if first.name == "batch":
        return [
            f"ranks {rank} and {peer}: {sent} against {received}"
            for rank, operation in heads.items()
            for peer in {message.peer for message in operation.messages}
            for sent, received in [(_between(operation, peer, "send"), _between(heads[peer], rank, "recv_"))]
            if [own[2:] for own in sent] != [other[2:] for other in received]
        ]
    if first.name == "alltoall_base_":
        return [
            f"ranks {sender} and {receiver} of {first.ranks} disagree on what one sends the other"
            for i, sender in enumerate(first.ranks)
            for j, receiver in enumerate(first.ranks)
            if heads[sender].sent[j] != heads[receiver].received[i]
        ]
    return [] if len({operation[:4] for operation in heads.values()}) == 1 else [f"sizes differ: {heads}"]
