"""``--grid`` of generate and batch: proofs or posters of every combination, and one sheet to choose from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from imax_dist.cli.batch_progress import rendered
from imax_dist.errors import BadValue
from imax_dist.output.own_files import CONTACT_SHEET

if TYPE_CHECKING:
    from imax_dist.jobs.batch import Batch
    from imax_dist.jobs.manifest.grid import Axis, Cell

MOST_COLUMNS = 8
NOT_WITH_GRID = ("recipe", "count", "seeds", "json")


def grid_batch(batch: Batch, texts: Sequence[str]) -> tuple[Batch, list[Cell], int]:
    """``batch`` with every job once for each combination, its cells, and how many make a row of the sheet.

    Proofs are small renders where native pictures would not tell the cells apart. Raises BadValue without a
    manifest.
    """
    from imax_dist.jobs.manifest.grid import grid_cells, read_grid, shows_in_native

    if batch.jobs is None:
        raise BadValue("--grid multiplies the posters of a manifest; name the manifest")
    axes = read_grid(texts)
    cells = grid_cells(batch.jobs, axes)
    settings = replace(batch.settings, proof="native" if shows_in_native(axes) else "small")
    return replace(batch, jobs=[cell.job for cell in cells], settings=settings), cells, _columns(axes)


def run_grid(options: argparse.Namespace, batch: Batch) -> int:
    """Render the grid of ``options``, write its sheet, and say how to go on; 76 if a poster failed."""
    batch, cells, columns = grid_batch(batch, options.grid)
    rows = rendered(batch, quiet=options.quiet)
    sheet = write_sheet(batch.out, cells, columns=columns)
    from imax_dist.cli.status import print_end

    code = print_end(rows, as_json=getattr(options, "json", False))
    if not getattr(options, "json", False):
        print(sheet)
        if batch.proofs_only:
            print(f"choose: imax approve {batch.out} ID ...; then: imax batch --out {batch.out}")
    return code


def write_sheet(out: Path, cells: Sequence[Cell], *, columns: int) -> Path:
    """The sheet in the batch's folder: each cell's poster, or its proof, or a grey field."""
    from imax_dist.jobs.job import JobFolder
    from imax_dist.output.image.contact_sheet import Shown, write_contact_sheet

    shown = []
    for job, label in cells:
        folder = JobFolder.of(out, job.id)
        picture = folder.poster if folder.finished(job.fingerprint) else folder.proof
        shown.append(Shown(picture if picture.is_file() else None, label))
    write_contact_sheet(out / CONTACT_SHEET, shown, columns=columns)
    return out / CONTACT_SHEET


def generate_grid(options: argparse.Namespace) -> int:
    """``--grid`` of generate and upscale: a folder named as the poster would be, filled by a batch here.

    Raises BadValue for options that a batch of proofs does not take.
    """
    from imax_dist.cli.poster_request import requested
    from imax_dist.jobs.batch import Batch, load_pool_settings
    from imax_dist.jobs.make_job import make_job

    for name in NOT_WITH_GRID:
        if getattr(options, name) not in (None, False):
            raise BadValue(f"--grid makes a batch of proofs; omit --{name}")
    changes = {"device": options.device, "parallel": options.parallel, "preview_every": options.preview}
    given = {name: value for name, value in changes.items() if value is not None}
    request = requested(options)
    if request.guide is not None:  # the batch may be taken up again from another folder
        request = replace(request, guide=str(Path(request.guide).absolute()))
    job = make_job(request)
    settings = load_pool_settings("local", given)
    batch = Batch(options.out.with_suffix(""), settings, [job], proofs_only=True)
    return run_grid(options, batch)


def _columns(axes: Sequence[Axis]) -> int:
    """The last axis across; a long one alone in rows of MOST_COLUMNS."""
    return min(len(axes[-1].values), MOST_COLUMNS)
