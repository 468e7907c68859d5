"""What is kept how long: posters, checkpoints, events of jobs that are over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imax_dist.errors import CannotWrite, ImaxError
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.settings import Keep, seconds_of
from imax_dist.jobs.store import Row, Store
from imax_dist.output import done
from imax_dist.output.own_files import remove_files
from imax_dist.pipeline.checkpoint import CheckpointFolder

OVER = ("done", "failed", "cancelled")
AT_ONCE = 100
FOLDER = "|".join(
    (
        *(done.POSTER_FILES, done.LOOKS, done.UNFINISHED, done.FILE, done.DELIVERED),
        *(r"request\.json", r"events\.jsonl", r"preview\.\w+"),
    )
)
"""All that this program writes into a job's folder, but for checkpoints."""


class Pruned(NamedTuple):
    """How much went."""

    jobs: int
    checkpoints: int
    events: int
    problems: list[str]


class Cleared(NamedTuple):
    """Whose files went."""

    gone: list[Row]
    """Jobs that can be forgotten."""
    checkpoints: int
    problems: list[str]


def prune(store: Store, out: Path, keep: Keep) -> Pruned:
    """Remove what is older than it is to be kept: ``clear`` the files, ``forget`` the rows."""
    cleared = clear(store, out, keep)
    jobs = sum(store.forget(rows) for rows in chunks(cleared.gone))
    return Pruned(jobs, cleared.checkpoints, forget_events(store, keep), cleared.problems)


def clear(store: Store, out: Path, keep: Keep) -> Cleared:
    """Remove files that are older than they are to be kept, one by one, and only those of this program.

    A job can be forgotten when its folder is empty of them; one that cannot be removed is a problem, not an
    end. Writes nothing into the store.
    """
    problems: list[str] = []

    def tried(act: Callable[[Path, Row], bool], rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if _still(store, row) and _try(problems, act, out, row)]

    def older(text: str, states: Sequence[str]) -> list[Row]:
        age = seconds_of(text, where="keep")
        return [] if age is None else store.over_since(age, states=states)

    checkpoints = tried(_remove_checkpoints, older(keep.checkpoints, ("failed", "cancelled")))
    gone = tried(_remove_folder, older(keep.posters, OVER))
    return Cleared(gone, len(checkpoints), problems)


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """As many as are forgotten in one transaction, for which others wait."""
    return (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))


def forget_events(store: Store, keep: Keep) -> int:
    """Take events out that are older than they are to be kept; how many."""
    age = seconds_of(keep.events, where="keep")
    return 0 if age is None else store.forget_events(age)


def _still(store: Store, row: Row) -> bool:
    """Whether it is as it was found: nobody has tried it again since, and no other service has it swept."""
    now = store.find(row.id)
    return now is not None and now.changed == row.changed


def _try(problems: list[str], act: Callable[[Path, Row], bool], out: Path, row: Row) -> bool:
    try:
        return act(out, row)
    except ImaxError as error:
        problems.append(f"{row.id}: {error}")
        return False


def _remove_checkpoints(out: Path, row: Row) -> bool:
    folder = CheckpointFolder(JobFolder.of(out, row.id).checkpoints)
    there = folder.folder.is_dir()
    folder.remove()
    return there


def _remove_folder(out: Path, row: Row) -> bool:
    folder = JobFolder.of(out, row.id)
    CheckpointFolder(folder.checkpoints).remove()
    remove_files(folder.path, FOLDER)
    if folder.path.is_dir() and any(folder.path.iterdir()):
        raise CannotWrite(f"{folder.path} holds files of other programs; it is kept")
    return True
