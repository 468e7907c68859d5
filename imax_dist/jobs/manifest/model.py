"""The model of a manifest's line: a name, a folder, or files that lie apart (``vae``, ``encoder``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imax_dist.config import named_configs, suggestion
from imax_dist.errors import BadValue
from imax_dist.jobs.settings import Limits
from imax_dist.pipeline.named_files import NO_PARTS, Parts
from imax_dist.pipeline.request import Request

PART_FIELDS = ("vae", "encoder")
FILES = re.compile(r"[^\s:][^:]*?\.safetensors(?::\S+)?(?=\s|$)|\S+")
"""One file of several in a text, with a LoRA's weight if any."""


@dataclass
class LineModels:
    """Models of the lines read so far; each is looked for on the disk once."""

    limits: Limits
    default: Parts = NO_PARTS
    """Of lines that name no part of their own."""
    _whole: dict[tuple[str, Parts], str] = field(default_factory=dict)
    _checked: set[str] = field(default_factory=set)

    def take(self, fields: dict[str, Any]) -> dict[str, Any]:
        """``fields`` with parts and model as one model. Raises BadValue for parts that may not be named."""
        own = {name: fields[name] for name in PART_FIELDS if fields.get(name) is not None}
        rest = {name: value for name, value in fields.items() if name not in PART_FIELDS}
        for name in own:
            if not self.limits.files:
                raise BadValue(f"{name} names a file of this machine, which this pool does not allow")
        parts = _parts(own) if own else self.default
        if parts == NO_PARTS:
            return rest
        model = rest.get("model") or Request.model
        if not isinstance(model, str):
            return rest  # its type is refused with that of the other fields
        if (model, parts) not in self._whole:
            self._whole[model, parts] = parts.beside(model)
        return {**rest, "model": self._whole[model, parts]}

    def check(self, name: str) -> None:
        """Raise BadValue for a bare word that is neither a file of configs/models nor a folder.

        Paths and hub ids are left to the ranks.
        """
        if name in self._checked:
            return
        known = list(named_configs("models"))
        if name not in known and "/" not in name and not Path(name).exists():
            raise BadValue(
                f"model {name[:80]!r} is neither known nor a folder; {suggestion(name[:80], known)}"
            )
        self._checked.add(name)


def texts(value: Any) -> Any:
    """Files as a list; in one text they are split by space, but the name of a .safetensors may hold some."""
    return FILES.findall(value) if isinstance(value, str) else value


def _parts(own: dict[str, Any]) -> Parts:
    vae, encoders = own.get("vae"), texts(own.get("encoder", []))
    if vae is not None and not isinstance(vae, str):
        raise BadValue(f"vae must be the name of a file or folder, got {vae!r}")
    if not isinstance(encoders, list) or not all(isinstance(each, str) for each in encoders):
        raise BadValue(f"encoder must be a file, or a list of files and folders, got {encoders!r}")
    return Parts(vae, tuple(encoders))
