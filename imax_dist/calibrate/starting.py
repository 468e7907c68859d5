"""What a step costs besides its kernels: starting them from Python, and what is outside the network.

A loop of small kernels flatters it: Python itself is read from memory again after each kernel whose tensors
fill the caches. So a small FLUX is run at a poster's width, and what its kernels do not explain is counted.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from imax_dist.events import RenderEvent, StepDone
from imax_dist.models.joint_attention import JointProcessor, TableAsIds
from imax_dist.models.load import load_model
from imax_dist.models.tiny import make_tiny
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings, join_for
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request
from imax_dist.planner.transformer import Transformer, flux

SIDE, TEXT, STEPS = 224, 16, 40
BLOCKS = 2
"""Of each kind."""
Kernels = Callable[[Transformer, int, int], float]
"""Seconds that the kernels of a pass over so many image and text tokens take by themselves."""


def measure_starting(device: torch.device, kernels: Kernels) -> tuple[float, float]:
    """Seconds to start a kernel, and of a step outside the network."""
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    steps: list[float] = []
    passes: list[float] = []

    def listen(event: RenderEvent) -> None:
        if isinstance(event, StepDone) and event.stage == "extrapolated":
            steps.append(clock())

    with tempfile.TemporaryDirectory() as folder:
        made = make_tiny("flux-dev", Path(folder) / "tiny")
        model, net = _widened(load_model(str(made), device=device))
        model.transformer.register_forward_pre_hook(lambda *_: passes.append(-clock()))
        model.transformer.register_forward_hook(lambda *_: passes.append(passes.pop() + clock()))
        ranks = join_for(model, ParallelSettings(), Topology.alone(device))
        size = f"{SIDE}x{SIDE}"
        request = Request(
            "-", size=size, model=str(made), steps=STEPS, native_steps=1, method={"patch_shift": False}
        )
        render_with(model, ranks, request, listen=listen)
    network = statistics.median(passes)
    whole = statistics.median(after - before for before, after in itertools.pairwise(steps))
    alone = kernels(net, (SIDE // 16) ** 2, TEXT)
    return max(network - alone, 0.1 * network) / net.operations, max(whole - network, 0.0)


def _widened(model: Any) -> tuple[Any, Transformer]:
    """The tiny pipeline around a network of width 256, which is no model's, with random weights."""
    heads, head_dim = 4, 64
    axes = (16, 24, 24)
    config = dict(model.transformer.config) | dict(
        num_layers=BLOCKS, num_single_layers=BLOCKS, num_attention_heads=heads, attention_head_dim=head_dim,
        axes_dims_rope=axes,
    )  # fmt: skip
    transformer = type(model.transformer).from_config(config).to(model.device, model.dtype).eval()
    transformer.pos_embed = TableAsIds()
    transformer.set_attn_processor(JointProcessor())
    spec = dataclasses.replace(model.spec, heads=heads, kv_heads=heads, head_dim=head_dim, rope_axes=axes)
    wide = type(model)(spec, transformer=transformer, vae=model.vae, encoders=model.encoders)
    return wide, flux(config)
