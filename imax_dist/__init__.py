"""I-Max on many GPUs: ``from imax_dist import Request, render``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imax_dist.version import __version__

if TYPE_CHECKING:
    from imax_dist.pipeline.render import Rendering
    from imax_dist.pipeline.renderer import Renderer, render
    from imax_dist.pipeline.request import Request

__all__ = ["Renderer", "Rendering", "Request", "__version__", "render"]


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name == "Rendering":
        from imax_dist.pipeline import render as module
    elif name in {"Renderer", "render"}:
        from imax_dist.pipeline import renderer as module  # type: ignore[no-redef]
    elif name == "Request":
        from imax_dist.pipeline import request as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module 'imax_dist' has no attribute {name!r}")
    return getattr(module, name)
