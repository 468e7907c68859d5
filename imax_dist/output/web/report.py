"""One page about a batch: what was rendered, what failed and why, time and rank-hours, steps and retries."""

from __future__ import annotations

import html
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from imax_dist.events import CASCADE
from imax_dist.events.log import read_log
from imax_dist.output.own_files import write_page_file
from imax_dist.output.web.batch_folder import Poster, read_folder
from imax_dist.output.web.plot import bars, histogram
from imax_dist.wording import duration, plural, stage_name

MARK = b"(ranks x time)"
"""What every report of this program holds."""
STAGES = ("load", "prompt", "native", "endpoint", *CASCADE, "extrapolated", "decode", "write")


@dataclass(frozen=True)
class Summary:
    """A batch in numbers. Seconds; ``rank_hours`` counts every attempt, also those that failed.

    ``unit`` is what a rank-hour is called: GPU-hours where the ranks had GPUs.
    """

    states: dict[str, int]
    megapixels: float
    wall_seconds: float
    rank_hours: float
    retries: int
    lost_rank_hours: float
    step_median: dict[str, float]
    unit: str = "rank-hours"


def summarise(posters: Sequence[Poster], *, wall_seconds: float) -> Summary:
    """Add up what the posters' files say."""
    steps: dict[str, list[float]] = {}
    for poster in posters:
        for stage, seconds in poster.step_seconds.items():
            steps.setdefault(stage, []).extend(seconds)
    lost = sum(a.seconds * a.ranks for poster in posters for a in poster.attempts if a.failure)
    return Summary(
        states=dict(Counter(poster.state for poster in posters)),
        megapixels=sum(_megapixels(poster.size) for poster in posters if poster.state == "done"),
        wall_seconds=wall_seconds,
        rank_hours=sum(poster.rank_seconds for poster in posters) / 3600,
        retries=sum(max(len(poster.attempts) - 1, 0) for poster in posters),
        lost_rank_hours=lost / 3600,
        step_median={stage: statistics.median(seconds) for stage, seconds in steps.items()},
        unit="GPU-hours" if any(poster.on_gpu for poster in posters) else "rank-hours",
    )


def write_report(out: Path, target: Path) -> Summary:
    """Write the page for the folder ``out``. Raises MissingInput, CannotWrite or NoPermission."""
    posters = read_folder(out)
    summary = summarise(posters, wall_seconds=_wall(out / "events.jsonl"))
    page = _page(out.resolve().name, posters, summary).encode("utf-8", "replace")
    write_page_file(target, page, mark=MARK)
    return summary


def _wall(path: Path) -> float:
    """Seconds from a batch's first event to its last; runs after a pause count with it."""
    moments = [logged.ts for logged in read_log(path)]
    try:
        times = [datetime.fromisoformat(str(moment)).timestamp() for moment in moments if moment]
    except ValueError:
        return 0.0
    return max(times) - min(times) if times else 0.0


def _megapixels(size: str) -> float:
    width, _, height = size.partition("x")
    usable = all(side.isdecimal() and len(side) < 7 for side in (width, height))
    return int(width) * int(height) / 1e6 if usable else 0.0


def _page(title: str, posters: Sequence[Poster], summary: Summary) -> str:
    style = files("imax_dist.output.web").joinpath("viewer", "report.css").read_text(encoding="utf-8")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_safe(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body>',
        f"<h1>{_safe(title)}</h1>",
        _numbers(summary),
        _failures(posters),
        *_plots(posters),
        _table(posters, summary.unit),
        "</body></html>",
    ]
    return "\n".join(parts)


def _numbers(summary: Summary) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary.states.items()))
    facts = {
        states: str(sum(summary.states.values())) + " posters",
        "megapixels finished": f"{summary.megapixels:.4g}",
        "from first event to last": duration(summary.wall_seconds),
        f"{summary.unit} (ranks x time)": f"{summary.rank_hours:.3g}",
        f"{summary.unit} in failed attempts": f"{summary.lost_rank_hours:.3g}",
        "retries": str(summary.retries),
    }
    boxes = (
        f'<div><b>{_safe(value)}</b><span class="soft">{_safe(name)}</span></div>'
        for name, value in facts.items()
    )
    return f'<div class="numbers">{"".join(boxes)}</div>'


def _failures(posters: Sequence[Poster]) -> str:
    rows = [
        [
            _safe(p.id),
            f'<span class="wrong">{_safe(p.message or "no reason was recorded")}</span>',
            str(len(p.attempts)),
        ]
        for p in posters
        if p.state == "failed"
    ]
    tried = [
        [_safe(p.id), _safe(attempt.failure), duration(attempt.seconds)]
        for p in posters
        for attempt in (p.attempts[:-1] if p.state == "failed" else p.attempts)
        if attempt.failure
    ]
    parts = ["<h2>What failed, and why</h2>"]
    parts.append(_rows(("Poster", "Reason", "Attempts"), rows) if rows else "<p>Nothing failed.</p>")
    if tried:
        parts += ["<h2>What was tried again</h2>", _rows(("Poster", "Why the attempt ended", "After"), tried)]
    return "\n".join(parts)


def _plots(posters: Sequence[Poster]) -> list[str]:
    parts = []
    for stage in ("extrapolated", "native"):
        samples = [seconds for poster in posters for seconds in poster.step_seconds.get(stage, [])]
        if samples:
            parts += [f"<h2>Step times, {stage_name(stage)}</h2>", histogram(samples, unit="s")]
    spent = {name: sum(poster.stage_seconds.get(name, 0.0) for poster in posters) for name in STAGES}
    stages = {stage_name(name): seconds for name, seconds in spent.items() if seconds}
    if stages:
        parts += ["<h2>Where the time went</h2>", bars(stages, unit="s")]
    retries = Counter(len(poster.attempts) - 1 for poster in posters if poster.attempts)
    if retries:
        counted = {
            plural(count, "retry", "retries"): float(number) for count, number in sorted(retries.items())
        }
        parts += ["<h2>Retries</h2>", bars(counted, unit="posters")]
    return parts


def _table(posters: Sequence[Poster], unit: str) -> str:
    rows = [
        [
            _safe(p.id),
            _safe(p.state),
            f"{_safe(str(p.request.get('prompt', ''))[:300])}",
            _safe(p.size),
            _safe(str(p.request.get("seed", 0))),
            "" if p.seconds is None else duration(p.seconds),
            f"{p.rank_seconds / 3600:.3g}" if p.attempts else "",
        ]
        for p in posters
    ]
    heads = ("Poster", "State", "Prompt", "Size", "Seed", "Time", unit)
    return "<h2>All posters</h2>\n" + _rows(heads, rows)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = {"Time": "number", "Seed": "number", "Prompt": "long", "Reason": "long"}
    kinds |= dict.fromkeys(("GPU-hours", "rank-hours"), "number")
    classes = [kinds.get(head, "") for head in heads]
    top = "".join(f'<th class="{kind}">{head}</th>' for head, kind in zip(heads, classes, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{k}">{cell}</td>' for cell, k in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _safe(text: Any) -> str:
    return html.escape(str(text))
