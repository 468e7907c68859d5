"""What a recipe of somebody else's would read on this machine or fetch from the hub, if it were rendered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imax_dist.config import named_configs
from imax_dist.errors import NoPermission
from imax_dist.models.lora.merge import parse_lora
from imax_dist.named_file import fields_naming_files
from imax_dist.output.image.settings import FinishSettings
from imax_dist.pipeline.request import Request, network_file
from imax_dist.settings_mapping import from_mapping

LONGEST_SHOWN = 120
MOST_SHOWN = 8


def require_harmless(recipe: Mapping[str, Any], *, beside: Path, named: frozenset[str], where: str) -> None:
    """Raise NoPermission if a ``recipe`` names files, folders or hub ids that it may not.

    It may name shipped models and files in the folder ``beside`` it; the fields in ``named`` are the user's
    own words. Nothing is opened to find out. Raises BadConfig or BadValue for what is not a request.
    """
    names = [*_foreign(from_mapping(Request, recipe["request"], where=where), named)]
    plan = recipe.get("plan")
    made_with = plan.get("method") if isinstance(plan, dict) else None
    if isinstance(made_with, dict):
        names += _foreign(from_mapping(Request, {"prompt": "-", "method": made_with}, where=where), named)
    found = [text for text in names if not _is_inside(text.partition(" ")[2], beside)]
    if not found:
        return
    shown = [text[:LONGEST_SHOWN] for text in found[:MOST_SHOWN]]
    shown += [f"{len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
    raise NoPermission(
        f"{where} names {', '.join(shown)}: a recipe may come from anybody, so nothing is read or downloaded "
        "for it but files beside it; if you trust it, add --trust-recipe, or give your own --model, --lora "
        "and --guide"
    )


def _foreign(request: Request, named: frozenset[str]) -> Iterator[str]:
    """``field name`` of each file, folder and hub id; a file to be merged without its weight."""
    given = {name: value for name, value in vars(request).items() if name not in named}
    if given.pop("model", "embedded") not in (*named_configs("models"), "embedded"):
        yield f"model {request.model}"
    for settings in given.pop("output", {}).values():
        for name in fields_naming_files(FinishSettings, settings or {}):
            yield from (f"{name} {text}" for text in _texts(settings[name]))
    for name in fields_naming_files(Request, given):
        if name == "method":
            yield f"method {network_file(request.method)}"
            continue
        for text in _texts(given[name]):
            yield f"{name} {parse_lora(text)[0] if name == 'lora' else text}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping | list | tuple):
            yield from _texts(item)


def _is_inside(name: str, folder: Path) -> bool:
    """Whether a file or folder of this name is there, in ``folder`` and behind no link that leads out."""
    try:
        path = Path(name).resolve()
        return path.is_relative_to(folder.resolve()) and path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, links in a circle
        return False
