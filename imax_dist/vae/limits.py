"""How much memory a picture's maps may take, and whether it goes whole: the same answer on every rank.

It depends on the kind of device and its whole memory, not on what is free, so that the same machine always
decides alike; a plan, which has only the device's data, decides by the same functions.
"""

from __future__ import annotations

import torch

from imax_dist.vae.autoencoder import Autoencoder
from imax_dist.vae.store import Scratch, Tier

GIB = 1 << 30
CPU_GIB = 2.0
"""Memory for feature maps on a CPU, and on the host of a GPU, unless ``vae_memory_gib`` says otherwise."""
GPU_SHARE = 0.5
"""Of a GPU's whole memory."""
WHOLE_ON_GPU = 2 * GIB
"""Three maps of a picture that a GPU decodes whole: up to about 1180 px a side in half precision."""
HELD_AT_ONCE = 3
"""Maps of the widest layer that a plain forward holds at its peak, about."""


def tiers(kind: str, memory_gib: float | None, *, total: float) -> list[Tier]:
    """Where maps are kept on a device of this kind (cpu, cuda) with ``total`` bytes, best first."""
    if kind != "cuda":
        return [Tier(torch.device("cpu"), round((memory_gib or CPU_GIB) * GIB))]
    limit = round(memory_gib * GIB if memory_gib else GPU_SHARE * total)
    return [Tier(torch.device("cuda"), limit), Tier(torch.device("cpu"), round(CPU_GIB * GIB))]


def scratch_of(device: torch.device, memory_gib: float | None) -> Scratch:
    """Room for maps on ``device``: memory up to the limit, then temp files."""
    on_gpu = device.type == "cuda"
    total = torch.cuda.get_device_properties(device).total_memory if on_gpu else 0
    found = tiers(device.type, memory_gib, total=total)
    found[0].device = device
    return Scratch(found)


def whole_bytes(network: Autoencoder, area: float, element: int) -> float:
    """What a plain encode or decode of ``area`` pixels takes at its peak, about."""
    return HELD_AT_ONCE * area * network.widest * element


def fits_whole(network: Autoencoder, area: float, element: int, *, kind: str, limit: float) -> bool:
    """Whether one rank of this kind takes a picture whole, with ``limit`` bytes for maps."""
    return whole_bytes(network, area, element) <= whole_limit(limit, kind)


def whole_limit(limit: float, kind: str) -> float:
    """Bytes up to which a device of this kind takes a picture whole."""
    return min(limit, WHOLE_ON_GPU) if kind == "cuda" else limit
