"""Bytes a rank needs at its fullest: what stays (weights), and the stage that holds the most."""

from __future__ import annotations

from dataclasses import dataclass, replace

from imax_dist.planner.cluster import Cluster
from imax_dist.planner.split import Split
from imax_dist.planner.vae import vae_bytes
from imax_dist.planner.workload import Pass, Workload

USABLE = 0.96
"""Of a device's memory: the allocator's fragments and other processes take the rest."""
ATTENTION_HELD = 12.0
"""N x D tensors alive in a single-stream block's attention: residual, norm, MLP (4), q k v twice (6)."""
EVEN_HELD = 2.0
"""More of them in half precision: queries in whole blocks, and the output of the keys that are over."""
ULYSSES_HELD = 6.0
"""More of them with Ulysses: q, k, v packed by receiver, and received."""
RING_HELD = 4.0
"""More with a ring: the block of keys and values in hand and the one coming."""
RING_MERGE_BYTES = 12.0
"""A token and channel: the merged output, the part to be merged, the difference, float32."""
WHOLE_LATENTS = 8
"""Float32 copies of the whole latents: noise, reference, velocity, filters."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes of the fullest rank, the first one, which also holds the text encoders."""

    weights: float
    encoders: float
    step: float
    """Activations, tokens in transit, positions, latents."""
    vae: float
    reserve: float
    prompt: float = 0.0
    """Of text encoders that leave a crowded GPU after the prompt (pipeline/prompt.py); else they are
    ``encoders``, which stay."""

    @property
    def stages(self) -> float:
        return max(self.step, self.vae, self.prompt)

    @property
    def total(self) -> float:
        return self.weights + self.encoders + self.stages + self.reserve

    @property
    def fullest(self) -> str:
        """The stage that sets the peak, in people's words."""
        if self.prompt == self.stages:
            return "the prompt"
        return "a step" if self.step >= self.vae else "the VAE"


def rank_memory(work: Workload, split: Split, cluster: Cluster) -> RankMemory:
    """Of rank 0 of a gang."""
    network, element = work.network, work.element
    alone = Split()
    steps = [step_bytes(work, each, alone) for each in work.native]
    steps += [step_bytes(work, each, split) for each in work.extrapolated]
    held = 4.0 * WHOLE_LATENTS * work.latents * work.latent_channels
    weights = element * float(network.transformer.parameters + network.autoencoder.parameter_count)
    encoders = 0.0 if work.encoders_away else element * float(network.encoder_parameters)
    device = cluster.hardware
    visit = device.kind == "gpu" and 2 * (weights + encoders) > device.memory
    return RankMemory(
        weights=weights,
        encoders=0.0 if visit else encoders,
        step=max(steps) + held,
        vae=max(vae_bytes(work, split, cluster), network_bytes(work, split)) + held,
        reserve=device.reserve,
        prompt=encoders if visit else 0.0,
    )


def alone_bytes(work: Workload, each: Pass, cluster: Cluster) -> float:
    """Of a rank that makes this pass alone: those of a poster that is this pass, from its reference on."""
    enlarged = tuple(one for one in work.enlarged if one.number == each.number)
    own = replace(
        work,
        native=(),
        extrapolated=(each,),
        enlarged=enlarged,
        by_network=tuple(one for one in work.by_network if one.number == each.number),
        grid=enlarged[-1].after if enlarged else work.grid,
    )
    return rank_memory(own, Split(), cluster).total


def network_bytes(work: Workload, split: Split) -> float:
    """Of a super-resolution network's features on one rank."""
    held = (one.held * one.width * one.rows(split.ranks) for one in work.by_network)
    return work.element * max(held, default=0.0)


def step_bytes(work: Workload, tokens: Pass, split: Split) -> float:
    """Of the transformer's activations on one rank, and the positions of the whole sequence."""
    net, element = work.network.transformer, work.element
    own = tokens.tokens / split.ranks * net.width
    attending = element * (ATTENTION_HELD + ULYSSES_HELD * (split.ulysses > 1) + RING_HELD * (split.ring > 1))
    attending += element * EVEN_HELD * (element == 2) + RING_MERGE_BYTES * (split.ring > 1)
    positions = 3 * 2 * 4.0 * tokens.tokens * net.head_dim
    return own * max(net.held[work.dtype], attending) + positions
