"""Seconds of a whole poster: every stage from the prompt to the file, and a gang's start before the first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from imax_dist.planner.cluster import Cluster
from imax_dist.planner.split import Split
from imax_dist.planner.time import StepTime, step_time
from imax_dist.planner.vae import vae_time
from imax_dist.planner.workload import Workload

NETWORK_WIDTH = 64.0
"""Channels of a super-resolution network's convolutions."""
PUT_AWAY_S = 7e-9
"""Of rank 0's host, a pixel that it takes from a GPU; the GPU goes on meanwhile."""
WRITE_S = {"gpu": 8e-9, "cpu": 42e-9}
"""Of rank 0's host, a pixel of the poster's file: rounded, hashed and filtered by one core, 7 ns, while eight
more, or the same one, compress it as PNG, 33 ns of CPU (BENCHMARKS.md, "Print files")."""
COMPILING_S = 46.0
"""To compile FLUX.1's blocks for two sizes on an H100: 59 s, of which 13 ran (BENCHMARKS.md)."""
NativeBy = Literal["rank0", "shared", "ahead"]
"""Rank 0 alone while the others wait, all ranks together, or each rank for another poster of the batch."""


@dataclass(frozen=True)
class PosterTime:
    """Seconds of one poster by stage; the prompt and the file are rank 0's."""

    prompt: float
    native: float
    enlarge: float
    extrapolated: float
    decode: float
    write: float
    step: StepTime
    """The longest step of the last pass."""
    native_by: NativeBy = "rank0"
    """Who makes the native picture: what is asked for, or the fastest where the planner chooses."""

    @property
    def render(self) -> float:
        """All but the file."""
        return self.prompt + self.native + self.enlarge + self.extrapolated + self.decode

    @property
    def total(self) -> float:
        return self.render + self.write

    @property
    def stages(self) -> dict[str, float]:
        """By their names for people."""
        return {
            "prompt": self.prompt,
            "native pass": self.native,
            "larger passes": self.extrapolated,
            "VAE": self.enlarge + self.decode,
            "file": self.write,
        }

    def lost(self, alone: PosterTime, ranks: int) -> dict[str, float]:
        """The share of the ranks' time that each stage loses; all together 1 - the efficiency."""
        whole = ranks * self.total
        return {name: (ranks * own - alone.stages[name]) / whole for name, own in self.stages.items()}


def poster_time(work: Workload, split: Split, cluster: Cluster, *, posters: int = 1) -> PosterTime:
    """Of a poster on a gang whose model is loaded, and which makes so many ``posters`` like it in turn."""
    device = cluster.hardware
    native_by, native, native_step = _native(work, split, cluster, posters)
    steps = [(each.steps, step_time(work, each, split, cluster)) for each in work.extrapolated]
    prompt = 2.0 * work.network.encoder_parameters * work.prompt_tokens
    pixels = work.network.autoencoder.factor**2 * work.latents
    put_away = PUT_AWAY_S * pixels if device.kind == "gpu" else 0.0
    return PosterTime(
        prompt=prompt / device.rates_of(work.dtype).linear.at(4096.0),
        native=native,
        enlarge=enlarge_time(work, split, cluster),
        extrapolated=sum(count * step.total for count, step in steps),
        decode=max(put_away, vae_time(work, "decoder", work.grid, split=split, cluster=cluster)),
        write=WRITE_S[device.kind] * pixels,
        step=max([step for _, step in steps] or native_step, key=lambda step: step.total),
        native_by=native_by,
    )


def enlarge_time(work: Workload, split: Split, cluster: Cluster) -> float:
    """Pictures decoded, enlarged and encoded between the passes, the native one's decode by rank 0 alone."""
    total = network_time(work, split, cluster)
    for one in work.enlarged:
        ranks = split if one.by_all else Split()
        if one.before is not None:
            total += vae_time(work, "decoder", one.before, split=ranks, cluster=cluster)
        total += vae_time(work, "encoder", one.after, split=split, cluster=cluster)
    return total


def network_time(work: Workload, split: Split, cluster: Cluster) -> float:
    """Seconds in which super-resolution networks enlarge the references."""
    rate = cluster.hardware.rates_of(work.dtype).convolution.at(NETWORK_WIDTH)
    return sum(one.flops * one.width * one.rows(split.ranks) for one in work.by_network) / rate


def start_time(work: Workload, cluster: Cluster) -> float:
    """Of a gang before its first poster: weights read once a node, kernels loaded, blocks compiled."""
    device, network = cluster.hardware, work.network
    numbers = (
        network.transformer.parameters + network.autoencoder.parameter_count + network.encoder_parameters
    )
    reading = work.element * numbers / device.disk if device.disk else 0.0
    return device.warm_up + reading + (COMPILING_S if work.compiled else 0.0)


def _native(
    work: Workload, split: Split, cluster: Cluster, posters: int
) -> tuple[NativeBy, float, list[StepTime]]:
    """Who makes the native picture, its seconds in each poster, and its steps.

    Ahead on GPUs alone: on CPUs every rank's text encoders would be in the one memory of the host.
    """
    ways: dict[NativeBy, tuple[Split, float]] = {"rank0": (Split(), 1.0)}
    if split.ranks > 1 and posters > 1 and cluster.hardware.kind == "gpu":
        ways["ahead"] = Split(), math.ceil(posters / split.ranks) / posters
    fits = split.ranks > 1 and all(each.image >= split.ranks for each in work.native)
    if fits and work.native_by != "rank0":
        ways["shared"] = split, 1.0
    if work.native_by == "shared":
        ways = {"shared": ways["shared"]} if fits else {"rank0": ways["rank0"]}
    found = {}
    for name, (own, share) in ways.items():
        steps = [(each.steps, step_time(work, each, own, cluster)) for each in work.native]
        found[name] = share * sum(count * step.total for count, step in steps), [step for _, step in steps]
    best = min(found, key=lambda name: found[name][0])
    return best, *found[best]
