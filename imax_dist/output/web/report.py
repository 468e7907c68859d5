"""One page about a batch: what was rendered, what failed and why, time and rank-hours, steps and retries."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from imax_dist.events import CASCADE
from imax_dist.events.log import read_log
from imax_dist.output.own_files import write_page_file
from imax_dist.output.web.batch_folder import Poster, read_folder
from imax_dist.output.web.plot import bars, histogram
from imax_dist.wording import duration, plural, stage_name

MARK = b"(ranks x time)"
"""What every report of this program holds."""
BEGIN = ("load", "join", "picture", "prompt", "native", "endpoint")
STAGES = (*BEGIN, *CASCADE, "extrapolated", "decode", "write")


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
    """The template filled; Jinja escapes every text but our own style and drawings."""
    environment = Environment(
        loader=PackageLoader("imax_dist.output.web", "viewer"), autoescape=True, undefined=StrictUndefined
    )
    style = environment.loader.get_source(environment, "report.css")[0]  # type: ignore[union-attr]
    return environment.get_template("report.html").render(
        title=title,
        style=style,
        facts=_facts(summary),
        failed=[
            (p.id, p.message or "no reason was recorded", len(p.attempts)) for p in posters if _failed(p)
        ],
        tried=list(_tried(posters)),
        plots=list(_plots(posters)),
        posters=[_row(poster) for poster in posters],
        unit=summary.unit,
    )


def _facts(summary: Summary) -> dict[str, str]:
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary.states.items()))
    return {
        states: plural(sum(summary.states.values()), "poster"),
        "megapixels finished": f"{summary.megapixels:.4g}",
        "from first event to last": duration(summary.wall_seconds),
        f"{summary.unit} (ranks x time)": f"{summary.rank_hours:.3g}",
        f"{summary.unit} in failed attempts": f"{summary.lost_rank_hours:.3g}",
        "retries": str(summary.retries),
    }


def _failed(poster: Poster) -> bool:
    return poster.state == "failed"


def _tried(posters: Sequence[Poster]) -> Iterator[tuple[str, str, str]]:
    """Attempts that failed and were not the last."""
    for poster in posters:
        for attempt in poster.attempts[:-1] if _failed(poster) else poster.attempts:
            if attempt.failure:
                yield poster.id, attempt.failure, duration(attempt.seconds)


def _plots(posters: Sequence[Poster]) -> Iterator[tuple[str, str]]:
    """Headings and drawings."""
    for stage in ("extrapolated", "native"):
        samples = [seconds for poster in posters for seconds in poster.step_seconds.get(stage, [])]
        if samples:
            yield f"Step times, {stage_name(stage)}", histogram(samples, unit="s")
    spent = {name: sum(poster.stage_seconds.get(name, 0.0) for poster in posters) for name in STAGES}
    stages = {stage_name(name): seconds for name, seconds in spent.items() if seconds}
    if stages:
        yield "Where the time went", bars(stages, unit="s")
    retries = Counter(len(poster.attempts) - 1 for poster in posters if poster.attempts)
    if retries:
        counted = {plural(n, "retry", "retries"): float(many) for n, many in sorted(retries.items())}
        yield "Retries", bars(counted, unit="posters")


def _row(poster: Poster) -> tuple[str, ...]:
    return (
        poster.id,
        poster.state,
        str(poster.request.get("prompt", ""))[:300],
        poster.size,
        str(poster.request.get("seed", 0)),
        "" if poster.seconds is None else duration(poster.seconds),
        f"{poster.rank_seconds / 3600:.3g}" if poster.attempts else "",
    )
