"""What ``imax generate`` is to make: its requests, and whether their files can be written."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from imax_dist.cli.request_options import given_poster
from imax_dist.cli.seeds import outputs, seeds_of
from imax_dist.errors import BadValue, ImaxError
from imax_dist.settings_mapping import from_mapping, to_mapping

if TYPE_CHECKING:
    from imax_dist.pipeline.request import Request

NAMED = ("model", "lora", "guide")
"""Options that may stand beside --recipe: where its files are on this machine."""


LEFT_OPEN = ("dtype", "prompt", "landscape")
"""Fields that a render fills in where a request leaves them to the model or to a picture."""


class Poster(NamedTuple):
    """One poster to be made, and its file."""

    request: Request
    out: Path


def recipe_of(path: Path | None) -> dict[str, Any] | None:
    """The recipe of ``--recipe``: a JSON file, or the one in a file made here."""
    from imax_dist.output.image.provenance import read_recipe

    return None if path is None else read_recipe(path)


def requested(options: argparse.Namespace, recipe: dict[str, Any] | None = None) -> Request:
    """What the command line asks for. Raises BadValue or BadConfig for what can never be rendered."""
    from imax_dist.pipeline.request import Request

    given = given_poster(options)
    recipe = recipe or recipe_of(options.recipe)
    if recipe is not None:
        return _of_recipe(options, recipe, given)
    if not options.prompt and "guide" not in given:
        raise BadValue("no prompt was given; say what the poster shows, or give --recipe FILE")
    return from_mapping(Request, {"prompt": options.prompt or "", **given}, where="command line")


def _of_recipe(options: argparse.Namespace, recipe: dict[str, Any], given: dict[str, Any]) -> Request:
    """The recipe's request as it is, but for files that the command line names in place of its own."""
    from imax_dist.pipeline.recipe import request_of
    from imax_dist.pipeline.trust import require_harmless

    if options.prompt or not given.keys() <= set(NAMED):
        raise BadValue(
            "--recipe renders a recipe as it is; omit the prompt and its options (only --model, --lora and "
            "--guide may say where its files are)"
        )
    request, where = recipe.get("request"), str(options.recipe)
    if isinstance(request, dict):
        recipe = {**recipe, "request": {**request, **given}}
        if not options.trust_recipe:
            require_harmless(recipe, beside=options.recipe.parent, named=frozenset(given), where=where)
    return request_of(recipe, where=where)


def wanted(options: argparse.Namespace, recipe: dict[str, Any] | None = None) -> list[Poster]:
    """The posters that are asked for. Raises as ``requested`` does, BadValue for contradictory seeds."""
    request = requested(options, recipe)
    if recipe is not None and (options.count, options.seeds) != (None, None):
        raise BadValue("--recipe renders a recipe as it is; omit --count and --seeds")
    if options.seed is not None and options.seeds is not None:
        raise BadValue("--seeds names every seed; omit --seed")
    seeds = seeds_of(options.seeds, first=request.seed, count=options.count)
    files = outputs(options.out, seeds)
    return [Poster(replace(request, seed=seed), out) for seed, out in zip(seeds, files, strict=True)]


def check_output(out: Path, request: Request, *, overwrite: bool) -> None:
    """Raise BadValue, CannotWrite or NoPermission if ``request`` cannot become the file ``out``."""
    from imax_dist.output.atomic import require_writable
    from imax_dist.output.image.poster import require_printable

    require_printable(out, to_mapping(request))
    if out.is_dir():
        raise BadValue(f"--out {out} is a folder; give the name of a file")
    require_writable(out.parent)
    if out.exists() and not overwrite and not _is_of(out, request):
        raise BadValue(f"--out {out} holds another picture already; give another name, or --overwrite")


def _is_of(out: Path, request: Request) -> bool:
    """Whether the file is this request's poster from an earlier time."""
    from imax_dist.output.image.provenance import read_recipe

    try:
        before = read_recipe(out).get("request")
    except ImaxError:
        return False
    if not isinstance(before, dict):
        return False
    now: dict[str, Any] = to_mapping(request)
    resolved = {name: now[name] or before.get(name) for name in LEFT_OPEN}
    laid = {"size": before.get("size")} if before.get("landscape") != now["landscape"] else {}
    return before == {**now, **resolved, **laid}
