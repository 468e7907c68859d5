"""RESULTS.md: every study that was run, with its finding, table, plot and sheet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imax_dist.errors import BadValue, MissingInput
from imax_dist.output.atomic import write_bytes
from imax_dist.pipeline.request import Request
from imax_dist.study.experiments.draw import ResultCache
from imax_dist.study.experiments.figure import png_of
from imax_dist.study.experiments.measures import ALL
from imax_dist.study.experiments.plots import draw
from imax_dist.study.experiments.report import vote_line
from imax_dist.study.experiments.settings import load_study, study_names
from imax_dist.study.experiments.sheets import write_sheets
from imax_dist.study.experiments.table import interval, legend, table

DEFAULT_PRESET = Request.preset
QUESTIONS = (
    ("share of the caption's facts in the poster", "facts", "direct", "sampled directly"),
    ("the same", "facts", "native, enlarged", "the native picture, enlarged"),
    ("layout kept from the native picture, dB", "layout", "one jump", "in one jump from noise"),
    ("distance to true renders in the finest octave", "frechet", "native, enlarged", "enlarged, no model"),
)
"""What a reader asks first: the question, its measure, the variant to compare with and its name in words."""
HEAD = """# Results

{summary}
Made by `make results` (`imax study all --out out/results`) with the embedded model, {weights}. Nothing here
says anything about real FLUX weights: `imax study NAME --model black-forest-labs/FLUX.1-dev --out DIR` runs
the studies on them (the measures that need true scenes are then refused by name), and their cell reads
**not measured here**.

Every variant of a study draws the same held-out scenes from the same noise. Numbers are means with 95 %
bootstrap intervals over n scenes; n stands in each table. ▲ better, ▼ worse than the variant in bold: the
95 % interval of the paired difference excludes 0; none below 4 scenes. Among so many some are chance.
The judge of the votes below is the testbed's own: it votes by the true measures and is not a vision-language
model. `imax study vote DIR` asks one through any OpenAI-compatible endpoint.

{legend}

The patch Frechet distance looks at the finest octave through the embedded model's encoder: an enlargement,
noise and sharpening are far, other true scenes are near. It does not know whether detail is in the right
place: under a true guide read `edges` and `placed`. `seconds` are CPU seconds of one thread on a shared
machine.
"""


def missing_studies(folder: Path) -> list[str]:
    """The studies that ship and have no results in ``folder``."""
    return [name for name in study_names() if _found(folder / name) is None]


def write_results(folder: Path, page: Path, pictures: Path, cache: ResultCache) -> None:
    """Write ``page`` from the studies run in ``folder``, its pictures beside ``pictures``.

    Raises, before anything is written, MissingInput if none was run there, BadValue for studies of different
    weights or models.
    """
    held = {name: _found(folder / name) for name in study_names()}
    done = {name: found for name, found in held.items() if found is not None}
    if not done:
        raise MissingInput(
            f"{folder} holds no results of a study, so there is nothing to write into {page}; run "
            f"`imax study all --out {folder}`, or name the folder that has them"
        )
    weights = one_weights(done)
    first = summary(done["default"]) if "default" in done else ""
    head = HEAD.format(summary=first, weights=f"weights {weights}", legend=legend(list(ALL)))
    parts = [head, *(_section(name, found, page, pictures, cache=cache) for name, found in done.items())]
    write_bytes(page, "\n".join(parts).encode())


def one_weights(done: Mapping[str, Mapping[str, Any]]) -> str:
    """The first 12 digits of the weights that all studies were drawn with. Raises BadValue for several."""
    of: dict[str, list[str]] = {}
    for name, found in done.items():
        of.setdefault(f"{found['model']} {found['weights'][:12]}", []).append(name)
    if len(of) > 1:
        groups = "; ".join(f"{weights}: {', '.join(names)}" for weights, names in of.items())
        raise BadValue(
            f"one page shows one model, but these studies are of {len(of)}: {groups}; "
            "run the older ones again"
        )
    return next(iter(of)).split()[-1]


def summary(found: Mapping[str, Any]) -> str:
    """The five numbers a reader wants, from the study of the default at its largest scale, as Markdown."""
    label = list(found["sizes"])[-1]
    size = found["sizes"][label]
    ours = DEFAULT_PRESET if DEFAULT_PRESET in size["variants"] else found["baseline"]
    rows = [
        f"| at {label}, n = {size['n']} scenes, 95 % intervals | `{ours}` | compared with |",
        "|---|---|---|",
    ]
    for question, measure, other, words in QUESTIONS:
        values, against = (size["variants"].get(name, {}).get(measure) for name in (ours, other))
        if values and against:
            rows.append(f"| {question} | **{interval(values)}** | {interval(against)} ({words}) |")
    votes = size.get("preference")
    if votes:
        won = interval(votes["strength"][ours])
        rows.append(f"| chance to win the testbed's vote | **{won}** | 0.50 is an average variant |")
    return "\n".join(rows) + "\n"


def _found(folder: Path) -> Mapping[str, Any] | None:
    path = folder / "results.json"
    if not path.is_file():
        return None
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _section(name: str, found: Mapping[str, Any], page: Path, pictures: Path, *, cache: ResultCache) -> str:
    write_bytes(pictures / f"{name}.png", png_of(draw(found), dpi=90))
    shown = [pictures / f"{name}.png"]
    study = load_study(name)
    if study.sheet is not None:
        shown += write_sheets(pictures / name, found, cache, study.sheet, widest=study.sheet.widest)
    images = "\n\n".join(f"![{name}]({os.path.relpath(path, page.parent)})" for path in shown)
    numbers = f"{table(found)}\n{vote_line(found)}\n{images}\n"
    paper = f" ({found['paper']})" if found["paper"] else ""
    return f"## {found['title']}{paper}\n\n{study.finding.strip()}\n\n{numbers}"
