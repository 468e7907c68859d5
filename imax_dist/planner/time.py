"""Seconds of a step, a stage and a poster on a cluster. Kernels run one after the other; see DECISIONS 31."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from imax_dist.planner import communication
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.split import Split
from imax_dist.planner.vae import starting, vae_time
from imax_dist.planner.workload import MIB, Pass, Workload

GUIDANCE_PASSES = 20
"""Times that filter and Euler step read or write the float32 latents."""
MERGE_PASSES = 6
"""Times that merging a ring block's attention reads or writes the float32 output."""
FUSED_SHARE = 0.7
"""Of the bytes of a block's element-wise kernels, what is left once they are compiled: a step of
FLUX.1's shape on an H100, 1024 and 2048 px, eager and compiled (BENCHMARKS.md, "One GPU")."""
NETWORK_WIDTH = 64.0
"""Channels of a super-resolution network's convolutions."""
CALL_S = 1e-4
"""Host seconds of one call of torch.distributed on a GPU: assumed, tests/bench/two_gpus.py measures it."""
NativeBy = Literal["rank0", "shared"]
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
    products = net.linear_flops(tokens.image / split.ranks, tokens.text / split.ranks)
    linear = products / rates.linear.at(net.width)
    reading = work.element * float(net.parameters) / device.weight_bandwidth
    linear = linear + reading if device.kind == "cpu" else max(linear, reading)
    attention = net.attention_flops(own, tokens.tokens) / rates.attention.at(net.head_dim)
    fused = FUSED_SHARE if work.compiled else 1.0
    merging = 4.0 * MERGE_PASSES * (split.ring if split.ring > 1 else 0)
    packing = PACKING_PASSES["ulysses"] * (split.ulysses > 1) + PACKING_PASSES["ring"] * (split.ring > 1)
    moved = (
        own * net.blocks * net.width * (fused * net.traffic[work.dtype] + merging + packing * work.element)
    )
    elementwise = moved / device.memory_bandwidth.at(work.element * own * net.width / MIB)
    operations = net.operations + net.blocks * host_work(split, dispatch=device.dispatch, kind=device.kind)
    begun = starting(device, operations, linear + attention + elementwise)
    talking = communication.seconds(net, tokens, split, cluster, element=work.element, attention=attention)
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


def host_work(split: Split, *, dispatch: float, kind: str) -> float:
    """What a block on several ranks adds to the host's work, as starts of kernels.

    Kernels counted on ``meta`` tensors: 5 for an exchange of heads, 8 a place of a ring. Calls of
    collectives: two for heads, one a hop, each about CALL_S. On CPUs the measured link holds it all.
    """
    if split.ranks == 1 or kind == "cpu" or not dispatch:
        return 0.0
    kernels = 8 * split.ring if split.ring > 1 else 5
    calls = 2 * (split.ulysses > 1) + split.ring - 1
    return kernels + calls * CALL_S / dispatch


@dataclass(frozen=True)
class PosterTime:
    """Seconds of one poster by stage; the prompt is rank 0's, and so is a native pass that is not shared."""

    prompt: float
    native: float
    enlarge: float
    extrapolated: float
    decode: float
    step: StepTime
    """The longest step of the last pass."""
    native_by: NativeBy = "rank0"
    """Who makes the native picture: rank0 or shared, the faster one where the planner chooses."""

    @property
    def total(self) -> float:
        return self.prompt + self.native + self.enlarge + self.extrapolated + self.decode


def network_time(work: Workload, split: Split, cluster: Cluster) -> float:
    """Seconds in which super-resolution networks enlarge the references."""
    rate = cluster.hardware.rates_of(work.dtype).convolution.at(NETWORK_WIDTH)
    return sum(one.flops * one.width * one.rows(split.ranks) for one in work.by_network) / rate


def poster_time(work: Workload, split: Split, cluster: Cluster) -> PosterTime:
    """Of a poster on a gang whose model is loaded."""
    device, alone = cluster.hardware, Split()
    rates = device.rates_of(work.dtype)
    native_by, native = _native(work, split, cluster)
    steps = [(each.steps, step_time(work, each, split, cluster)) for each in work.extrapolated]
    prompt = 2.0 * work.network.encoder_parameters * work.prompt_tokens / rates.linear.at(4096.0)
    enlarge = network_time(work, split, cluster) + work.enlarged * (
        vae_time(work, "decoder", work.native_grid, split=alone, cluster=cluster)
        + vae_time(work, "encoder", work.grid, split=split, cluster=cluster)
    )
    return PosterTime(
        prompt=prompt,
        native=sum(count * step.total for count, step in native),
        enlarge=enlarge,
        extrapolated=sum(count * step.total for count, step in steps),
        decode=vae_time(work, "decoder", work.grid, split=split, cluster=cluster),
        step=max((step for _, step in steps or native), key=lambda step: step.total),
        native_by=native_by,
    )


def _native(work: Workload, split: Split, cluster: Cluster) -> tuple[NativeBy, list[tuple[int, StepTime]]]:
    """Who makes the native picture, and its steps: (how many, how long)."""
    fits = all(each.image >= split.ranks for each in work.native)
    ways: dict[NativeBy, Split] = {"rank0": Split()}
    if fits and split.ranks > 1:
        ways["shared"] = split
    if work.native_by != "auto":
        ways = {work.native_by: ways.get(work.native_by, Split())}
    made = {
        name: [(each.steps, step_time(work, each, own, cluster)) for each in work.native]
        for name, own in ways.items()
    }
    return min(made.items(), key=lambda way: sum(count * step.total for count, step in way[1]))
