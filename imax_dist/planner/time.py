"""Seconds of a step on a cluster. Kernels run one after the other; see DECISIONS 31."""

from __future__ import annotations

from dataclasses import dataclass

from imax_dist.planner import communication
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.hardware import MIB
from imax_dist.planner.split import Split
from imax_dist.planner.vae import starting
from imax_dist.planner.workload import Pass, Workload

GUIDANCE_PASSES = 20
"""Times that filter and Euler step read or write the float32 latents."""
MERGE_PASSES = 4
"""Times that merging a ring block's attention reads or writes the float32 output: made float32, then both
outputs read and one written."""
KERNELS_A_PLACE = 6
"""Of a ring: sent, merged."""
PIECE_KERNELS = 5
"""Of an exchange of heads, and of each further piece of them with its attention."""
FUSED_SHARE = 0.7
"""Of the bytes of a block's element-wise kernels, what is left once they are compiled: a step of
FLUX.1's shape on an H100, 1024 and 2048 px, eager and compiled (BENCHMARKS.md, "One GPU")."""
FUSED_OPERATIONS = 0.4
"""Of the kernels of a block, what is left: 30 of 76 and 14 of 35, counted by hand."""
MLP_FLOPS = 8.0
"""Of the first half of an MLP, a token and square of the width."""
CALL_S = 1e-4
"""Host seconds of one call of torch.distributed on a GPU: assumed where the hardware file has no ``call``,
which tests/bench/two_gpus.py measures."""
PACKING_PASSES = {"ulysses": 10, "ring": 4}
"""Times that queries, keys, values and output are read or written to be sent: each once on its way out, the
output once more when it is back; keys and values laid together."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step on one rank, by what they go into."""

    linear: float
    attention: float
    elementwise: float
    starting: float
    """Starting kernels, as far as it is not hidden behind them."""
    communication: float
    guidance: float

    @property
    def total(self) -> float:
        return (
            self.linear
            + self.attention
            + self.elementwise
            + self.starting
            + self.communication
            + self.guidance
        )


def step_time(work: Workload, tokens: Pass, split: Split, cluster: Cluster) -> StepTime:
    """One step of ``tokens`` shared by the ranks of ``split``."""
    net, device = work.network.transformer, cluster.hardware
    rates = device.rates_of(work.dtype)
    own = tokens.tokens / split.ranks
    products = net.linear_flops(tokens.seen / split.ranks, tokens.text / split.ranks)
    linear = products / rates.linear.at(net.width)
    reading = work.element * float(net.parameters) / device.weight_bandwidth
    linear = linear + reading if device.kind == "cpu" else max(linear, reading)
    attention = net.attention_flops(own, work.keys(tokens)) / rates.attention.at(net.head_dim)
    fused, started = (FUSED_SHARE, FUSED_OPERATIONS) if work.compiled else (1.0, 1.0)
    merging = 4.0 * MERGE_PASSES * (split.ring if split.ring > 1 else 0)
    packing = PACKING_PASSES["ulysses"] * (split.ulysses > 1) + PACKING_PASSES["ring"] * (split.ring > 1)
    moved = (
        own * net.blocks * net.width * (fused * net.traffic[work.dtype] + merging + packing * work.element)
    )
    elementwise = moved / device.memory_bandwidth.at(work.element * own * net.width / MIB)
    pieces = communication.pieces(net, tokens, split, cluster)
    kernels, calls = host_work(split, pieces) if device.kind == "gpu" else (0, 0)
    operations = started * (net.operations + net.blocks * kernels)
    operations += net.blocks * calls * (device.call or CALL_S) / device.dispatch
    begun = starting(device, operations, linear + attention + elementwise)
    mlp = 0.0
    if device.kind == "gpu" and not work.compiled:  # an engine is not begun from compiled blocks
        mlp = MLP_FLOPS * own * net.width**2 / rates.linear.at(net.width)
    talking = communication.seconds(
        net, tokens, split, cluster, element=work.element, attention=attention, mlp=mlp
    )
    grid = work.grid if tokens in work.extrapolated else work.native_grid
    whole = 4.0 * grid.height * grid.width * work.latent_channels
    guided = GUIDANCE_PASSES * whole / device.memory_bandwidth.at(whole / MIB)
    runs = tokens.runs
    return StepTime(
        linear=runs * linear,
        attention=runs * attention,
        elementwise=runs * elementwise,
        starting=runs * begun + device.step,
        communication=runs * talking,
        guidance=guided,
    )


def host_work(split: Split, pieces: int = 1) -> tuple[int, int]:
    """Kernels and calls of collectives that several ranks add to the host's work in a block.

    Kernels were counted on ``meta`` tensors. Calls: two for each piece of the heads, one a hop. For GPUs: on
    CPUs the measured link holds all of it.
    """
    if split.ranks == 1:
        return 0, 0
    kernels = KERNELS_A_PLACE * split.ring if split.ring > 1 else PIECE_KERNELS * pieces
    return kernels, communication.ULYSSES_CALLS * pieces * (split.ulysses > 1) + split.ring - 1
