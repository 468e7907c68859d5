"""The VAE's part of a poster: whole on one rank if that fits, else by rows; its seconds and bytes."""

from __future__ import annotations

from math import sqrt

from imax_dist.geometry import ImageSize
from imax_dist.pipeline.picture_coder import CPU_GIB, GPU_SHARE, whole_limit
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.hardware import Hardware
from imax_dist.planner.rows import Picture, rows_bytes
from imax_dist.planner.split import Split
from imax_dist.planner.workload import MIB, Workload
from imax_dist.vae.codec import HELD_AT_ONCE
from imax_dist.vae.rows import BAND_BYTES
from imax_dist.vae.wide_heads import WIDEST_FLASH

WHOLE_MAPS = 2.0
"""Times that input and output of the largest convolution are alive: as they are, and laid out for it."""
WRITES = 3
"""Maps written for each channel in and out of a 3 x 3 convolution: normalised, activated, laid out for the
kernel; laid out, as they were, added."""
JOINED_TAPS = 4 / 9
"""By rows, a doubled map's convolution takes four taps of the source instead of nine (DECISIONS 30)."""
WIDE_HEAD_SHARE = 0.28
"""The VAE's one head of 512 channels has no flash kernel: a share of the usual rate, measured on an H100."""


def map_room(work: Workload, device: Hardware) -> float:
    """Bytes of a rank's own memory that the VAE's maps may take, as a render decides it."""
    if work.vae_gib is not None:
        return work.vae_gib * 2**30
    return GPU_SHARE * device.memory if device.kind == "gpu" else CPU_GIB * 2**30


def goes_whole(work: Workload, latents: float, split: Split, device: Hardware) -> bool:
    """The rule of pipeline/picture_coder: one rank, and three maps of the widest layer fit."""
    vae = work.network.autoencoder
    widest = max(vae.channels[:2])
    needed = HELD_AT_ONCE * vae.factor**2 * latents * widest * work.element
    return split.ranks == 1 and needed <= whole_limit(map_room(work, device), kind_of(device))


def vae_bytes(work: Workload, split: Split, cluster: Cluster) -> float:
    """Most bytes of a rank in the VAE: each half that a poster needs, at the poster's size."""
    halves = ("decoder", "encoder") if work.enlarged else ("decoder",)
    return max(half_bytes(work, half, split, cluster) for half in halves)


def half_bytes(work: Workload, half: str, split: Split, cluster: Cluster) -> float:
    """Of rank 0 in the encoder or the decoder."""
    vae, device = work.network.autoencoder, cluster.hardware
    host = device.kind == "cpu"
    if goes_whole(work, work.latents, split, device):
        pixels = 2 * 3 * 4.0 * vae.factor**2 * work.latents if host else 0.0
        return WHOLE_MAPS * work.element * vae.fullest(half, work.latents) + pixels
    picture = Picture(work.latents, columns(work), split.ranks, work.element, band_of(device))
    return rows_bytes(vae, half, picture, limit=map_room(work, device), pixels_here=host)


def band_of(device: Hardware) -> int:
    """Bytes of a map that a rank works on at a time."""
    return BAND_BYTES[kind_of(device)]


def kind_of(device: Hardware) -> str:
    """As torch calls it."""
    return "cuda" if device.kind == "gpu" else "cpu"


def columns(work: Workload) -> float:
    """Latent pixels in a row."""
    size = ImageSize.parse(work.size)
    return sqrt(work.latents * size.width / size.height)


def vae_time(work: Workload, half: str, latents: float, *, split: Split, cluster: Cluster) -> float:
    """Seconds of one half over an image whose rows the ranks of ``split`` share."""
    vae, device = work.network.autoencoder, cluster.hardware
    rates = device.rates_of(work.dtype)
    whole = goes_whole(work, latents, split, device)
    kernels = 0.0
    for layer in vae.layers(half):
        taps = JOINED_TAPS if layer.doubles and not whole else 1.0
        flops = taps * layer.flops * latents / split.ranks
        kernels += flops / rates.convolution.at(min(layer.inputs, layer.outputs))
        for channels in (layer.inputs, layer.outputs) if layer.kernel > 1 else (layer.outputs,):
            size = work.element * channels * layer.scale**2 * latents / split.ranks
            written = (WRITES if layer.kernel > 1 else 1) * size
            at = size if whole else min(size, band_of(device))
            kernels += 2 * written / device.memory_bandwidth.at(at / MIB)
    kernels += _attention_time(work, latents, device) / split.ranks
    return kernels + starting(device, vae.operations(half), kernels)


def _attention_time(work: Workload, latents: float, device: Hardware) -> float:
    vae = work.network.autoencoder
    width = vae.attention_width
    wide = WIDE_HEAD_SHARE if width > WIDEST_FLASH else 1.0
    rate = device.rates_of(work.dtype).attention.at(width or 1.0)
    return vae.attention_flops(latents) / (wide * rate)


def starting(device: Hardware, operations: int, kernels: float) -> float:
    """Seconds to start kernels; a GPU does so while others run, only what takes longer than they do shows."""
    seconds = operations * device.dispatch
    return seconds if device.kind == "cpu" else max(0.0, seconds - kernels)
