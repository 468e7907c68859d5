"""diffusers' native context parallelism: its exchange and its gathered ring, our kernels.

The models shard the tokens themselves, so a model needs no plan of its own: what is used here is the
attention below a plan, which any network can be given. Its "ring" gathers all keys and values at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.parallel.engines.padded import BlockAttention, padded, repeated, unpadded
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.kernels import Kernel
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Heads, KeyHeads

FORWARDS = 1
"""Its ring goes on to the keys of the next place."""


def no_replicated_text(engine: str) -> str:
    """The sentence for an engine that cannot do without the text's shards."""
    return (
        f"parallel: engine {engine} cannot hold the text on every rank; set text: sharded, or engine: torch"
    )


class DiffusersEngine:
    """See AttentionEngine. Text is sharded, never replicated; grouped keys are repeated first."""

    def __init__(self, mesh: SequenceMesh, *, kernel: Kernel | None = None) -> None:
        self.mesh = mesh
        self.kernel = kernel
        self._joined: tuple[Any, Any] | None = None if mesh.size == 1 else _join(mesh)
        self._alone = TorchEngine(mesh, kernel=kernel)

    def __call__(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        if self._joined is None:
            return self._alone(query, key, value, layout=layout, text_weight=text_weight)
        if layout.text_replicated:
            raise BadConfig(no_replicated_text("diffusers"))
        blocks = BlockAttention(self.mesh, layout, text_weight=text_weight, step=FORWARDS, kernel=self.kernel)
        wide = (query, repeated(key, query.shape[2]), repeated(value, query.shape[2]))
        q, k, v = (padded(x, blocks.rows) for x in wide)
        attend, config = self._joined
        config.context_parallel_config.convert_to_fp32 = query.dtype != torch.float64
        output = attend(q, k, v, forward_op=_forward(blocks), backward_op=None, _parallel_config=config)
        return unpadded(output, query.shape[1])


def _forward(blocks: BlockAttention) -> Any:
    """The local attention in the form diffusers calls it, (B, S, H, D)."""

    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **ignored: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        del ctx, ignored  # nothing is saved for a backward pass
        output, log_sum_exp = blocks(query, key, value)
        returns_log_sum_exp = rest[-1]
        return (output, log_sum_exp) if returns_log_sum_exp else output

    return forward


def _join(mesh: SequenceMesh) -> tuple[Any, Any]:
    """diffusers' attention over a mesh, and the configuration that carries our groups to it."""
    try:
        from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
        from diffusers.models.attention_dispatch import _templated_context_parallel_attention
    except ImportError as error:
        raise BadConfig(
            "parallel: engine diffusers needs the context parallelism of diffusers 0.42; "
            f"pip install -U diffusers, or use engine: torch ({error})"
        ) from error
    config = ContextParallelConfig(ring_degree=mesh.ring, ulysses_degree=mesh.ulysses)
    config._ring_mesh = _Axis(mesh.ring_group)
    config._ulysses_mesh = _Axis(mesh.ulysses_group)
    config._ring_local_rank = mesh.ring_index
    config._ulysses_local_rank = mesh.ulysses_index
    return _templated_context_parallel_attention, ParallelConfig(context_parallel_config=config)


class _Axis:
    """One axis of a DeviceMesh, as far as diffusers' attention asks it."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def get_group(self) -> Any:
        return self._group
