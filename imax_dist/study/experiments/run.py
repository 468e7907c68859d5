"""Run a study: draw and measure its cells, compare the variants, gather all in one mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from imax_dist.errors import BadValue
from imax_dist.models.load import describe_model
from imax_dist.settings_mapping import to_mapping
from imax_dist.study.experiments.bradley_terry import Vote, strengths, win_rate
from imax_dist.study.experiments.cell import Cell, cells_of
from imax_dist.study.experiments.cost import planned_seconds
from imax_dist.study.experiments.draw import ResultCache, true_features
from imax_dist.study.experiments.judge import NAME, votes_of
from imax_dist.study.experiments.measures import measurable, of_testbed
from imax_dist.study.experiments.settings import Study
from imax_dist.study.experiments.statistics import Result, compare, compare_sets, verdict
from imax_dist.study.experiments.velocity_loss import TIMES
from imax_dist.study.experiments.workers import Drawing, OnProgress, draw_all
from imax_dist.study.metrics.interval import Interval, bootstrap
from imax_dist.version import __version__

Records = list[tuple[Cell, str, dict[str, Any]]]
FEWEST_FOR_FRECHET = 3
"""Scenes of 16 patches: fewer have no more patches than features."""


@dataclass(frozen=True)
class Conditions:
    """How a study is run; none of it is part of the study itself."""

    model: str = "embedded"
    processes: int = 1
    device: str = "auto"
    first: int = 0


def run_study(
    name: str, study: Study, cache: ResultCache, conditions: Conditions, *, on_progress: OnProgress
) -> dict[str, Any]:
    """Everything a study found, as JSON values; see RESULTS.md for what is made of it.

    Raises BadValue for a study that only makes sense on scenes with a model that does not draw them.
    """
    spec = describe_model(conditions.model)
    testbed = of_testbed(conditions.model)
    names, refused = measurable(testbed=testbed, guide=study.guide)
    if not testbed and (study.guide == "truth" or study.kind == "velocity_loss"):
        raise BadValue(
            f"study {name} compares with true scenes, which {conditions.model} was not trained to draw; "
            "use the embedded model, or a study without a true guide"
        )
    cells = cells_of(study, conditions.model, spec, first=conditions.first)
    wanted = [f"t={time}" for time in TIMES] if study.kind == "velocity_loss" else names
    drawing = Drawing(cache, tuple(wanted), testbed, conditions.device)
    keys = draw_all(cells, drawing, processes=conditions.processes, on_progress=on_progress)
    records = [(cell, key, cache.read(key)) for cell, key in zip(cells, keys, strict=True)]
    shown = {
        "study": name, "title": study.title, "paper": study.paper, "model": conditions.model,
        "weights": spec.weights, "version": __version__, "baseline": study.baseline,
        "settings": to_mapping(study), "refused": refused,
    }  # fmt: skip
    groups = grouped(records)
    sizes = {label: _size(study, group, names, cache) for label, group in groups.items()}
    if study.kind == "velocity_loss":
        _ratios(sizes)
    found = {**shown, "sizes": sizes, "cells": [_cell_record(*record) for record in records]}
    for label, votes in votes_of(found).items() if study.vote else ():
        sizes[label]["preference"] = preference(votes, study.baseline, NAME)
    return found


def grouped(records: Records) -> dict[str, Records]:
    """The records by ``2x 256x256``."""
    groups: dict[str, Records] = {}
    for record in records:
        groups.setdefault(f"{record[0].scale:g}x {record[0].size}", []).append(record)
    return groups


def _cell_record(cell: Cell, key: str, record: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in record["values"].items() if name != "frechet"}
    facts = {"scene": cell.number, "variant": cell.name, "size": str(cell.size), "scale": cell.scale}
    return {**facts, "key": key, "seconds": record["seconds"], "values": values}


def _size(study: Study, group: Records, names: list[str], cache: ResultCache) -> dict[str, Any]:
    """Means, differences, verdicts and votes of one size."""
    variants = list(study.variants)
    of = {name: [record for record in group if record[0].name == name] for name in variants}
    count = len(of[study.baseline])
    found: dict[str, dict[str, Any]] = {name: {} for name in variants}
    measures = [n for n in group[0][2]["values"] if n != "frechet"]
    for measure in [*measures, "seconds"]:
        values = {n: [_value(record, measure) for _, _, record in of[n]] for n in variants}
        for name, result in compare(values, study.baseline).items():
            found[name][measure] = result.to_json() | {"verdict": _verdict(measure, result)}
    for name in variants if "planned" in study.shown else ():
        seconds = planned_seconds(study.parsed_variants[name], group[0][0].scale)
        if seconds is not None:
            found[name]["planned"] = Result(Interval(seconds, seconds, seconds, count), None).to_json()
            found[name]["planned"]["verdict"] = "even"
    if "frechet" in names and "frechet" in group[0][2]["values"] and count >= FEWEST_FOR_FRECHET:
        features = {n: np.array([record["values"]["frechet"] for _, _, record in of[n]]) for n in variants}
        truth = np.array([true_features(cache, cell) for cell, _, _ in of[study.baseline]])
        for name, result in compare_sets(features, truth, study.baseline).items():
            found[name]["frechet"] = result.to_json() | {"verdict": _verdict("frechet", result)}
    return {"n": count, "variants": found}


def _verdict(measure: str, result: Any) -> str:
    return "even" if measure.startswith("t=") else verdict(measure, result.difference)


def _value(record: Mapping[str, Any], measure: str) -> float:
    return float(record["seconds"] if measure == "seconds" else record["values"][measure])


def preference(votes: list[Vote], baseline: str, judge_name: str) -> dict[str, Any]:
    """Strengths, and each variant's win rate against the baseline, with intervals."""
    table = strengths(votes)
    against = {}
    for name in table:
        direct = [vote for vote in votes if {vote.one, vote.other} == {name, baseline}]
        if name != baseline and direct:
            against[name] = to_mapping(bootstrap(win_rate(direct, name)))
    return {
        "judge": judge_name,
        "votes": len(votes),
        "strength": to_mapping(table),
        "win rate against the baseline": against,
    }


def _ratios(sizes: dict[str, Any]) -> None:
    """Add to every loss its ratio to the native one at the same time."""
    native = next((size for label, size in sizes.items() if label.startswith("1x ")), None)
    if native is None:
        return
    for size in sizes.values():
        for name, measures in size["variants"].items():
            for time, facts in measures.items():
                if time.startswith("t="):
                    facts["ratio"] = facts["mean"] / native["variants"][name][time]["mean"]
