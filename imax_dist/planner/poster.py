"""Seconds of a whole poster: every stage from the prompt to the file, and a gang's start before the first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from imax_dist.planner.cluster import Cluster
from imax_dist.planner.memory import USABLE, alone_bytes
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
    passes_ahead: int = 0
    """Passes that each rank makes alone for a poster of its own, the native one first."""

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


class NativeOption(NamedTuple):
    """Who makes the native picture and the first larger ``passes`` after it."""

    native_by: NativeBy
    own: Split
    share: float = 1.0
    """Of the seconds of one rank alone that a poster of the batch costs its gang."""
    passes: int = 0


def poster_time(work: Workload, split: Split, cluster: Cluster, *, posters: int = 1) -> PosterTime:
    """Of a poster on a gang whose model is loaded, and which makes so many ``posters`` like it in turn."""
    found = (_time(work, split, cluster, option) for option in _options(work, split, cluster, posters))
    return min(found, key=lambda each: each.total)


def _options(work: Workload, split: Split, cluster: Cluster, posters: int) -> Iterator[NativeOption]:
    """Those that are possible and allowed, the plainest first.

    Ahead on GPUs alone: on CPUs every rank's text encoders would be in the one memory of the host. Larger
    passes only where a rank has room for them, and never the last.
    """
    fits = split.ranks > 1 and all(each.image >= split.ranks for each in work.native)
    if not (work.native_by == "shared" and fits):
        yield NativeOption("rank0", Split())
    if fits and work.native_by != "rank0":
        yield NativeOption("shared", split)
    if work.native_by == "shared" or not (split.ranks > 1 < posters and cluster.hardware.kind == "gpu"):
        return
    share = math.ceil(posters / split.ranks) / posters
    last = max((each.number for each in work.extrapolated), default=1)
    for passes in range(min(last, first_without_room(work, cluster) or last)):
        yield NativeOption("ahead", Split(), share, passes)


def first_without_room(work: Workload, cluster: Cluster) -> int | None:
    """Number of the first larger pass that one rank has not the memory for; None if it has for all."""
    room = USABLE * cluster.hardware.memory
    full = (each.number for each in work.extrapolated if alone_bytes(work, each, cluster) > room)
    return min(full, default=None)


def _time(work: Workload, split: Split, cluster: Cluster, option: NativeOption) -> PosterTime:
    device = cluster.hardware
    native = [(each.steps, step_time(work, each, option.own, cluster)) for each in work.native]
    ahead = [
        (each.steps, step_time(work, each, Split(), cluster))
        for each in work.extrapolated
        if each.number <= option.passes
    ]
    steps = [
        (each.steps, step_time(work, each, split, cluster))
        for each in work.extrapolated
        if each.number > option.passes
    ]
    prompt = 2.0 * work.network.encoder_parameters * work.prompt_tokens
    pixels = work.network.autoencoder.factor**2 * work.latents
    put_away = PUT_AWAY_S * pixels if device.kind == "gpu" else 0.0
    return PosterTime(
        prompt=prompt / device.rates_of(work.dtype).linear.at(4096.0),
        native=option.share * _seconds(native),
        enlarge=enlarge_time(work, split, cluster, ahead=option.passes, share=option.share),
        extrapolated=option.share * _seconds(ahead) + _seconds(steps),
        decode=max(put_away, vae_time(work, "decoder", work.grid, split=split, cluster=cluster)),
        write=WRITE_S[device.kind] * pixels,
        step=max([step for _, step in steps or native], key=lambda step: step.total),
        native_by=option.native_by,
        passes_ahead=option.passes + 1 if option.native_by == "ahead" else 0,
    )


def _seconds(steps: Iterable[tuple[int, StepTime]]) -> float:
    return sum(count * step.total for count, step in steps)


def enlarge_time(
    work: Workload, split: Split, cluster: Cluster, *, ahead: int = 0, share: float = 1.0
) -> float:
    """Pictures decoded, enlarged and encoded between the passes, the native one's decode by rank 0 alone.

    Those for the first ``ahead`` passes by one rank alone, of which a poster costs its gang this ``share``.
    """
    total = network_time(work, split, cluster, ahead=ahead, share=share)
    for one in work.enlarged:
        alone = one.number <= ahead
        encoding, part = (Split(), share) if alone else (split, 1.0)
        decoding = Split() if one.number == 1 else encoding
        if one.before is not None:
            total += part * vae_time(work, "decoder", one.before, split=decoding, cluster=cluster)
        total += part * vae_time(work, "encoder", one.after, split=encoding, cluster=cluster)
    return total


def network_time(
    work: Workload, split: Split, cluster: Cluster, *, ahead: int = 0, share: float = 1.0
) -> float:
    """Seconds in which super-resolution networks enlarge the references."""
    rate = cluster.hardware.rates_of(work.dtype).convolution.at(NETWORK_WIDTH)
    pixels = (
        each.width * (share * each.rows(1) if each.number <= ahead else each.rows(split.ranks)) * each.flops
        for each in work.by_network
    )
    return sum(pixels) / rate


def start_time(work: Workload, cluster: Cluster) -> float:
    """Of a gang before its first poster: weights read once a node, kernels loaded, blocks compiled."""
    device, network = cluster.hardware, work.network
    numbers = (
        network.transformer.parameters + network.autoencoder.parameter_count + network.encoder_parameters
    )
    reading = work.element * numbers / device.disk if device.disk else 0.0
    return device.warm_up + reading + (COMPILING_S if work.compiled else 0.0)
