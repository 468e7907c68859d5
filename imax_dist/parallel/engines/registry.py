"""Engines by name, and which one ``auto`` is.

Apart because every engine imports the package's contract, and this imports every engine.
"""

from __future__ import annotations

from collections.abc import Callable

from imax_dist.config import choice
from imax_dist.errors import BadConfig
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.engines.diffusers import NO_REPLICATED_TEXT, DiffusersEngine
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.engines.xfuser import XfuserEngine

AUTO = "auto"
ENGINES: dict[str, Callable[..., AttentionEngine]] = {
    "torch": TorchEngine,
    "xfuser": XfuserEngine,
    "diffusers": DiffusersEngine,
}


def choose_engine(wanted: str, *, text_replicated: bool, halves: bool = False) -> str:
    """The engine's name; ``auto`` is torch, whose ring sends block by block and never holds all keys.

    xfuser's ring gathers all keys by default and was not measured on two GPUs; it has to be asked for
    (DECISIONS 65). ``halves``: the ranks form two meshes, one a prompt. Raises BadConfig for a name that is
    not known and for text or halves an engine cannot have.
    """
    if wanted == AUTO:
        return "torch"
    choice("parallel: engine", wanted, {AUTO: None, **ENGINES})
    if wanted == "diffusers" and text_replicated:
        raise BadConfig(NO_REPLICATED_TEXT)
    if wanted == "xfuser" and halves:
        raise BadConfig("parallel: engine xfuser shares one prompt among all ranks; set cfg: two_passes")
    return wanted
