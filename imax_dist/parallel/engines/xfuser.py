"""xDiT's USP (package xfuser): its exchange of heads and its ring, our kernels and our count of text.

USP takes any attention function registered with it. Ours leaves out padding, weighs shared text copies and
returns a true log-sum-exp, so that this engine is exact for every length and layout.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.parallel.engines.padded import BlockAttention, joined, padded, repeated, unpadded
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.kernels import Kernel
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.sequence import JointLayout
from imax_dist.parallel.ulysses import divisible_heads
from imax_dist.shapes import Heads, KeyHeads

BACKEND = "imax_dist"
"""The name our attention function is registered under; xfuser's own functions stay as they are."""
BACKWARDS = -1
"""Its ring hands on the keys of the place before."""


class XfuserEngine:
    """See AttentionEngine. Joins xfuser's groups when made: every rank must make it."""

    def __init__(self, mesh: SequenceMesh, *, kernel: Kernel | None = None) -> None:
        self.mesh = mesh
        self.kernel = kernel
        self._library = import_xfuser()
        self._library.attention_backend.register_attention_function(BACKEND)(_attend)
        if mesh.size > 1:
            _make_groups(self._library, mesh)
        self._alone = TorchEngine(mesh, kernel=kernel)

    def __call__(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        if self.mesh.size == 1:
            return self._alone(query, key, value, layout=layout, text_weight=text_weight)
        _make_groups(self._library, self.mesh)  # another engine may have changed the degrees
        blocks = BlockAttention(
            self.mesh, layout, text_weight=text_weight, step=BACKWARDS, kernel=self.kernel
        )
        compute = self._with_replicated_text if layout.text_replicated else self._with_sharded_text
        with _merging_in(query.dtype):
            return compute(query, key, value, blocks, text=layout.text[self.mesh.rank])

    def _with_sharded_text(
        self, query: Heads, key: KeyHeads, value: KeyHeads, blocks: BlockAttention, *, text: int
    ) -> Heads:
        del text  # it lies in the shard like any other token
        key, value = divisible_heads(key, self.mesh), divisible_heads(value, self.mesh)
        q, k, v = (padded(x, blocks.rows).transpose(1, 2) for x in (query, key, value))
        output = self._library.usp(
            q, k, v, backend=BACKEND, combine_qkv_a2a=True, kv_head_repeat=q.shape[1] // k.shape[1],
            attention_kwargs={"blocks": blocks},
        )  # fmt: skip
        return unpadded(output.transpose(1, 2), query.shape[1])

    def _with_replicated_text(
        self, query: Heads, key: KeyHeads, value: KeyHeads, blocks: BlockAttention, *, text: int
    ) -> Heads:
        """xfuser's joint tensors: text in front of the first block. It knows no grouped keys there."""
        key, value = repeated(key, query.shape[2]), repeated(value, query.shape[2])
        own = query.shape[1] - text
        qkv = (query, key, value)
        q, k, v = (padded(x[:, text:], blocks.rows).transpose(1, 2) for x in qkv)
        text_q, text_k, text_v = (x[:, :text].transpose(1, 2) for x in qkv)
        output = self._library.usp(
            q, k, v, joint_query=text_q, joint_key=text_k, joint_value=text_v, joint_strategy="front",
            backend=BACKEND, attention_kwargs={"blocks": blocks},
        ).transpose(1, 2)  # fmt: skip
        return joined(output[:, :text], output[:, text : text + own])


def _attend(
    query: Tensor, key: Tensor, value: Tensor, *, attention_kwargs: dict[str, Any], **ignored: Any
) -> tuple[Tensor, Tensor]:
    """The function USP calls for every block: (B, H, S, D) -> output, log-sum-exp (B, H, S)."""
    del ignored  # no dropout, no causal mask
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    part = attention_kwargs["blocks"](q, k, v)
    return part.output.transpose(1, 2), part.log_sum_exp.transpose(1, 2)


class Library(NamedTuple):
    """The parts of xfuser that are used."""

    usp: Callable[..., Tensor]
    attention_backend: Any
    parallel_state: Any
    runtime_state: Any


def import_xfuser() -> Library:
    """The library, quiet. Raises BadConfig if it is missing or does not import on this machine."""
    try:
        from xfuser.core.distributed import attention_backend, parallel_state, runtime_state
        from xfuser.model_executor.layers.usp import USP
    except (ImportError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, ImportError) and (error.name or "xfuser").split(".")[0] == "xfuser":
            raise BadConfig(
                "parallel: engine xfuser is not installed here; pip install 'imax-dist[gpu]', or use "
                "engine: torch"
            ) from error
        raise BadConfig(
            "parallel: engine xfuser does not import on this machine, as it needs a CUDA build of torch; "
            f"use engine: torch ({type(error).__name__}: {error})"
        ) from error
    for name in logging.root.manager.loggerDict:
        if name.split(".")[0] == "xfuser":
            logging.getLogger(name).setLevel(logging.WARNING)
    return Library(USP, attention_backend, parallel_state, runtime_state)


def _make_groups(library: Library, mesh: SequenceMesh) -> None:
    """Its groups in this mesh's order, Ulysses between neighbours. They replace those of other degrees."""
    state = library.parallel_state
    if state._SP is not None:
        if (state.get_ulysses_parallel_world_size(), state.get_ring_parallel_world_size()) == mesh.degrees:
            return
        state.destroy_model_parallel()
    backend = torch.distributed.get_backend(mesh.group)
    state.init_distributed_environment(
        world_size=mesh.size, rank=mesh.rank, local_rank=_local_rank(), backend=backend
    )
    state.initialize_model_parallel(
        sequence_parallel_degree=mesh.size,
        ulysses_degree=mesh.ulysses,
        ring_degree=mesh.ring,
        backend=backend,
    )
    if not library.runtime_state.runtime_state_is_initialized():
        library.runtime_state._RUNTIME = _no_pipeline()


def _no_pipeline() -> SimpleNamespace:
    """What USP asks its runtime state; xfuser 0.7 makes one only around a pipeline or for a single rank."""
    settings = SimpleNamespace(use_spargeattn_head_balance=False)
    return SimpleNamespace(attention_backend=BACKEND, fp8_comms=None, runtime_config=settings)


def _local_rank() -> int:
    """The GPU this rank computes on, as xfuser sets it as current again."""
    return torch.cuda.current_device() if torch.cuda.is_available() else 0


@contextmanager
def _merging_in(dtype: torch.dtype) -> Iterator[None]:
    """torch's ring, which USP runs, merges in float32; float64 queries must not lose their precision."""
    from torch.distributed.tensor.experimental._attention import _cp_options

    if dtype != torch.float64:
        yield
        return
    before = _cp_options.convert_to_f32
    _cp_options.convert_to_f32 = False
    try:
        yield
    finally:
        _cp_options.convert_to_f32 = before
