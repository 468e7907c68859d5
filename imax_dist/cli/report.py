"""``imax report``: a summary of a batch."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from imax_dist.errors import CannotWrite, MissingInput
from imax_dist.wording import duration

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PRINT_TIMEOUT_S = 120


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "report",
        help="summarise a batch",
        description="Write one page about a batch: what was rendered, what failed and why, time, rank-hours, "
        "step times and retries.",
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="folder of `imax batch`")
    parser.add_argument("--to", type=Path, metavar="FILE", help="html or pdf (default: DIR/report.html)")
    parser.add_argument("--json", action="store_true", help="the numbers as JSON on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the report and say the numbers."""
    from imax_dist.output.web.report import write_report

    target = options.to or options.out / "report.html"
    if target.suffix.lower() == ".pdf":
        browser = find_browser()
        with tempfile.TemporaryDirectory(prefix="imax-report-") as folder:
            page = Path(folder) / "report.html"
            summary = write_report(options.out, page)
            print_page(browser, page, target)
    else:
        summary = write_report(options.out, target)
    if options.json:
        print(json.dumps({"report": str(target), **dataclasses.asdict(summary)}))
        return 0
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary.states.items()))
    print(f"{target}  {states}; {duration(summary.wall_seconds)}, {summary.rank_hours:.3g} {summary.unit}")
    return 0


def find_browser() -> str:
    """A Chromium that can print. Raises MissingInput if there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise MissingInput(
            "a PDF report is printed by Chromium, and none was found; install it, or print the html yourself"
        )
    return found


def print_page(browser: str, page: Path, target: Path) -> None:
    """Print ``page`` to the PDF ``target``, whole or not at all. Raises CannotWrite."""
    from imax_dist.output.atomic import write_file

    def write(temporary: Path) -> None:
        profile = page.parent / "profile"
        command = [browser, "--headless", "--disable-gpu", "--no-sandbox", "--no-pdf-header-footer"]
        command += [f"--user-data-dir={profile}", f"--print-to-pdf={temporary.resolve()}", page.as_uri()]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=PRINT_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise CannotWrite(f"{target} could not be printed by {browser}: {error}") from error
        if temporary.stat().st_size == 0:
            raise CannotWrite(f"{target} could not be printed: {browser} wrote nothing")

    write_file(target, write)
