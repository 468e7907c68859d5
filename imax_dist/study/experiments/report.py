"""Write what a study found: results.json, table.md, plot.png, plot.svg and a sheet of pictures a size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imax_dist.output.atomic import write_bytes, write_json
from imax_dist.study.experiments.draw import ResultCache
from imax_dist.study.experiments.plots import write_plots
from imax_dist.study.experiments.settings import Sheet
from imax_dist.study.experiments.sheets import write_sheets
from imax_dist.study.experiments.table import legend, shown_measures, table

Found = Mapping[str, Any]


def write_report(folder: Path, found: Found, cache: ResultCache) -> None:
    """Everything of one study into its folder."""
    write_json(folder / "results.json", dict(found))
    write_bytes(folder / "table.md", _page(found).encode())
    write_plots(folder, found)
    if found["settings"]["kind"] == "pictures":
        write_sheets(folder, found, cache, Sheet())


def _page(found: Found) -> str:
    settings = found["settings"]
    paper = f" ({found['paper']})" if found["paper"] else ""
    trial = f"**{settings['trial'].capitalize()}.** " if settings["trial"] else ""
    head = f"# {found['title']}{paper}\n\n{trial}Model: {found['model']}. "
    how = (
        "Means with 95 % bootstrap intervals over scenes; every variant has the same scenes and noise. "
        f"▲ better, ▼ worse than **{found['baseline']}**: the interval of the paired difference excludes 0."
    )
    refused = ""
    if found["refused"]:
        refused = f"\n\nNot measured, since the model does not draw scenes: {', '.join(found['refused'])}."
    measures = legend(shown_measures(found))
    return f"{head}{how}{refused}\n\n{table(found)}\n{measures}\n{vote_line(found)}"


def vote_line(found: Found) -> str:
    """Who judged, if anyone did."""
    votes = [size["preference"] for size in found["sizes"].values() if "preference" in size]
    if not votes:
        return ""
    judge = votes[0]["judge"]
    return f"- **preferred**: chance to win a vote against an average other variant; judge: {judge}\n"
