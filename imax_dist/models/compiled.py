"""A network's blocks compiled one by one with torch.compile, the same code for all blocks of a kind.

Only this module imports the compiler, and only where it is asked for. Engines stay out of the graphs: their
lengths change from step to step (patch shift) and their collectives must come in one order on all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from imax_dist.errors import BadConfig
from imax_dist.models.find import find_model
from imax_dist.models.quantised import quantisation_of
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Heads, KeyHeads
from imax_dist.wording import first_line

VERSIONS = 64
"""Of one piece of code, at most: kinds of blocks share code. After torch's own 8 the rest runs uncompiled."""


class Untraced:
    """An engine that the compiler calls and does not look into."""

    def __init__(self, engine: AttentionEngine) -> None:
        self.engine = engine

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        return self.engine(query, key, value, layout=layout, text_weight=text_weight)


def blocks_of(transformer: nn.Module) -> list[nn.Module]:
    """The entries of the network's own lists of modules: its blocks, whatever the network calls them."""
    lists = [child for child in transformer.children() if isinstance(child, nn.ModuleList)]
    return [block for blocks in lists for block in blocks]


def compile_blocks(model: Any, *, backend: str = "inductor") -> None:
    """Compile every block of a model's transformer, any length with one graph; weights keep their names.

    Nothing is compiled before a block is first called. Raises BadConfig for a network without such lists.
    """
    blocks = blocks_of(model.transformer)
    if not blocks:
        raise BadConfig(f"parallel: compile regional: model {model.spec.name} has no list of blocks")
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, VERSIONS)
    for block in blocks:
        block.compile(backend=backend, dynamic=True)
    model.wrap_engine = Untraced


def check_compilable(name: str, device: torch.device) -> None:
    """Before anything is loaded. Raises BadConfig for quantised weights, or where torch cannot compile."""
    settings, folder = find_model(name)
    if quantisation_of(settings, folder) is not None:
        raise BadConfig(
            f"parallel: compile regional: the transformer of model {name} is quantised "
            f"({quantisation_of(settings, folder)}), which is not compiled; set compile: none"
        )
    try:
        torch.compile(lambda x: (x.sin() + 1.0) * x)(torch.ones(33, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        raise BadConfig(
            f"parallel: compile regional: torch cannot compile for {device.type} here "
            f"({first_line(error)}); install a C++ compiler, and Triton for a GPU, or set compile: none"
        ) from error
