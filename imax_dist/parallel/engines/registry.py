"""Engines by name, and which one ``auto`` is on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from imax_dist.config import choice
from imax_dist.errors import BadConfig
from imax_dist.parallel.broadcast import highest
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.engines.diffusers import NO_REPLICATED_TEXT, DiffusersEngine
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.engines.xfuser import XfuserEngine, import_xfuser
from imax_dist.parallel.topology import Topology

AUTO = "auto"
ENGINES: dict[str, Callable[..., AttentionEngine]] = {
    "torch": TorchEngine,
    "xfuser": XfuserEngine,
    "diffusers": DiffusersEngine,
}


class EngineChoice(NamedTuple):
    """An engine's name and, for ``auto``, why it is this one."""

    name: str
    reason: str | None = None


def choose_engine(
    wanted: str, topology: Topology, *, text_replicated: bool, halves: bool = False
) -> EngineChoice:
    """``auto``: xfuser among GPUs if it imports on every rank, else torch. Every rank must call this.

    ``halves``: the ranks form two meshes, one a prompt. Raises BadConfig for a name that is not known and
    for text or halves an engine cannot have.
    """
    if wanted == AUTO:
        return EngineChoice("torch") if halves else _automatic(topology)
    choice("parallel: engine", wanted, {AUTO: None, **ENGINES})
    if wanted == "diffusers" and text_replicated:
        raise BadConfig(NO_REPLICATED_TEXT)
    if wanted == "xfuser" and halves:
        raise BadConfig("parallel: engine xfuser shares one prompt among all ranks; set cfg: two_passes")
    return EngineChoice(wanted)


def _automatic(topology: Topology) -> EngineChoice:
    if topology.device.type != "cuda" or topology.world_size == 1:
        return EngineChoice("torch")
    reason = None
    try:
        import_xfuser()
    except BadConfig as error:
        reason = str(error)
    if highest(int(reason is not None), topology):
        return EngineChoice("torch", reason or "another rank has no xfuser")
    return EngineChoice("xfuser")
