"""Engines by name, and which one ``auto`` is.

Apart because every engine imports the package's contract, and this imports every engine.
"""

from __future__ import annotations

from collections.abc import Callable

from imax_dist.config import choice
from imax_dist.errors import BadConfig
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.engines.diffusers import DiffusersEngine, no_replicated_text
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.engines.window import WindowEngine
from imax_dist.parallel.engines.xfuser import XfuserEngine
from imax_dist.parallel.kernels import Quality

AUTO = "auto"
ENGINES: dict[str, Callable[..., AttentionEngine]] = {
    "torch": TorchEngine,
    "xfuser": XfuserEngine,
    "diffusers": DiffusersEngine,
}
DRAFTS: dict[str, Callable[..., AttentionEngine]] = {"window": WindowEngine}
"""Engines that are not exact."""


def choose_engine(
    wanted: str, *, text_replicated: bool, halves: bool = False, quality: Quality = "exact"
) -> str:
    """The engine's name; ``auto`` is torch, whose ring sends block by block and never holds all keys.

    xfuser's ring gathers all keys by default and was not measured on two GPUs; it has to be asked for
    (DECISIONS 65). ``halves``: the ranks form two meshes, one a prompt. Raises BadConfig for a name that is
    not known, for one that is not exact without ``quality: draft``, and for text or halves an engine cannot
    have.
    """
    if wanted == AUTO:
        return "torch"
    choice("parallel: engine", wanted, {AUTO: None, **ENGINES, **DRAFTS})
    if wanted in ("diffusers", *DRAFTS) and text_replicated:
        raise BadConfig(no_replicated_text(wanted))
    if wanted in DRAFTS and quality != "draft":
        raise BadConfig(f"parallel: engine {wanted} is not exact; ask for it with quality: draft")
    if wanted == "xfuser" and halves:
        raise BadConfig("parallel: engine xfuser shares one prompt among all ranks; set cfg: two_passes")
    return wanted
