"""What lies in a folder of posters, read from its files alone: a batch's job folders, or loose posters.

``<out>/<id>/{request.json, events.jsonl, poster.*, proof.png, poster.recipe.json, DONE}``; a loose poster is
a ``<name>.recipe.json`` with its picture beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from imax_dist.errors import MissingInput
from imax_dist.events import GangReady, InJob, JobFailed, JobQueued, JobStarted, StageDone, StepDone
from imax_dist.events.batch import JobEvent
from imax_dist.events.log import NAMES, Event, Logged, read_log
from imax_dist.output.done import belongs, read_done
from imax_dist.output.image.provenance import environment_in
from imax_dist.output.image.settings import FILE_KINDS
from imax_dist.output.own_files import is_file, is_name

LARGEST_JSON = 16 << 20
LARGEST_NUMBER = 1e15
SHOWN = ("png", "tif", "tiff", "jpg", "jpeg")


@dataclass(frozen=True)
class Attempt:
    """One try of a gang: seconds and the ranks it held, and why it ended if not well."""

    seconds: float
    ranks: int
    failure: str = ""


@dataclass(frozen=True)
class Poster:
    """One poster of a folder. Paths are absolute; ``picture`` is None until there is one."""

    id: str
    state: str
    request: Mapping[str, Any]
    recipe: Mapping[str, Any] | None = None
    recipe_file: Path | None = None
    picture: Path | None = None
    native: Path | None = None
    files: tuple[Path, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    step_seconds: Mapping[str, list[float]] = field(default_factory=dict)
    """Seconds of every step, by stage, over all attempts."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    """Of the attempt that made the poster."""
    finished: str = ""
    message: str = ""

    @property
    def size(self) -> str:
        plan = section(self.recipe, "plan")
        return str(plan.get("size") or self.request.get("size") or "")

    @property
    def on_gpu(self) -> bool:
        """Whether the recipe names a GPU; False for a CPU, or where no recipe is."""
        device = str(environment_in(self.recipe).get("device", "cpu"))
        return not device.startswith("cpu")

    @property
    def rank_seconds(self) -> float:
        """Seconds times ranks of all attempts: what the poster cost."""
        return sum(attempt.seconds * attempt.ranks for attempt in self.attempts)


def section(values: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    """A part of a file that anyone may have written; empty if it is none."""
    found = (values or {}).get(key)
    return found if isinstance(found, dict) else {}


def number(value: object) -> float | None:
    """A finite number of such a file; None for anything else."""
    plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER
    return float(value) if plain else None  # type: ignore[arg-type]


def read_folder(out: Path) -> list[Poster]:
    """The posters of ``out`` in the order of their names. Raises MissingInput if there is none."""
    if not out.is_dir():
        raise MissingInput(f"{out} is not a folder of posters")
    ranks = dict(_gang_sizes(out / "events.jsonl"))
    jobs = [read_job(folder, ranks) for folder in _job_folders(out) if not _foreign(folder)]
    loose = [_loose(path) for path in sorted(out.glob("*.recipe.json")) if is_file(path)]
    if not jobs and not loose:
        raise MissingInput(
            f"{out} holds no posters: neither job folders of `imax batch` nor *.recipe.json files"
        )
    return [*jobs, *loose]


def foreign_folders(out: Path) -> list[str]:
    """A sentence for each folder that looks like a job's and is not read: a link, or a name no job has."""
    return [text for folder in _job_folders(out) if (text := _foreign(folder))]


def _job_folders(out: Path) -> list[Path]:
    return [path.parent for path in sorted(out.glob("*/request.json"))]


def _foreign(folder: Path) -> str:
    if folder.is_symlink():
        return f"{folder} is a link; links are not followed"
    return "" if is_name(folder.name) else f"{folder} has a name that no poster of a batch can have"


def read_job(folder: Path, ranks: Mapping[str, int] | None = None) -> Poster:
    """One job's folder; ``ranks`` of the batch's gangs by their names, where they are known."""
    record = _read_json(folder / "request.json")
    request = record.get("request", record)
    events = [_outside(logged) for logged in read_log(folder / "events.jsonl", job=folder.name)]
    done, recipe = read_done(folder), _read_json(folder / "poster.recipe.json") or None
    if done.get("fingerprint") != record.get("fingerprint"):
        done, recipe = {}, None  # of an earlier request; it is removed when the new poster is there
    own = [logged for logged in events if isinstance(logged.event, get_args(JobEvent))]
    last = own[-1] if own else None
    attempts = tuple(_attempts(events, ranks or {}))
    return Poster(
        id=folder.name,
        state="done" if done else _state(last),
        request=request if isinstance(request, dict) else {},
        recipe=recipe,
        recipe_file=folder / "poster.recipe.json" if recipe else None,
        picture=_picture(folder, "poster") if recipe else None,
        native=next((path for path in (folder / "native.png", folder / "proof.png") if is_file(path)), None),
        files=tuple(path for path in _files(folder, "poster") if belongs(path, done)),
        attempts=attempts,
        step_seconds=_steps(events),
        stage_seconds=_stages(events),
        seconds=number(done.get("seconds")),
        finished=last.ts if done and last else "",
        message=_message(last, done=bool(done), recipe=recipe is not None),
    )


def _message(last: Logged | None, *, done: bool, recipe: bool) -> str:
    """What a card says beside its picture, or in its place."""
    if done:
        return "" if recipe else "its recipe is missing or cannot be read"
    return "" if last is None else _why(last.event)


def _loose(recipe_file: Path) -> Poster:
    name = recipe_file.name.removesuffix(".recipe.json")
    recipe = _read_json(recipe_file)
    picture = _picture(recipe_file.parent, name)
    native = recipe_file.with_name(f"{name}.native.png")
    request = recipe.get("request", {})
    return Poster(
        id=name,
        state="done" if picture else "missing",
        request=request if isinstance(request, dict) else {},
        recipe=recipe,
        recipe_file=recipe_file,
        picture=picture,
        native=native if is_file(native) else None,
        files=_files(recipe_file.parent, name),
    )


def _outside(logged: Logged) -> Logged:
    """In a job's own log every event is of that job."""
    return Logged(logged.ts, logged.event.event) if isinstance(logged.event, InJob) else logged


def _state(last: Logged | None) -> str:
    name = "job.queued" if last is None else NAMES[type(last.event)]
    return "running" if name == "job.started" else name.removeprefix("job.")


def _why(event: Event) -> str:
    """Why an attempt ended, where it did not end well."""
    if isinstance(event, JobFailed):
        return event.message
    return event.after if isinstance(event, JobQueued) else ""


def _picture(folder: Path, stem: str) -> Path | None:
    candidates = (folder / f"{stem}.{ending}" for ending in SHOWN)
    return next((path for path in candidates if is_file(path)), None)


def _files(folder: Path, stem: str) -> tuple[Path, ...]:
    names = [f"{stem}{middle}.{ending}" for ending in FILE_KINDS for middle in ("", "-print")]
    return tuple(folder / name for name in names if is_file(folder / name))


def _attempts(events: list[Logged], ranks: Mapping[str, int]) -> Iterator[Attempt]:
    begun: Logged | None = None
    gang = ""
    for logged in events:
        if isinstance(logged.event, JobStarted):
            begun, gang = logged, logged.event.gang
        elif isinstance(logged.event, get_args(JobEvent)) and begun is not None:
            seconds = max(logged.moment - begun.moment, 0.0)
            yield Attempt(seconds, ranks.get(gang, 1), _why(logged.event))
            begun = None


def _steps(events: list[Logged]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _, event in events:
        if isinstance(event, StepDone):
            found.setdefault(event.stage, []).append(event.seconds)
    return found


def _stages(events: list[Logged]) -> dict[str, float]:
    found: dict[str, float] = {}
    for _, event in events:
        if isinstance(event, StageDone):
            found[event.stage] = found.get(event.stage, 0.0) + event.seconds
    return found


def _gang_sizes(path: Path) -> Iterator[tuple[str, int]]:
    for _, event in read_log(path):
        if isinstance(event, GangReady):
            yield event.gang, event.ranks


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty if the file is missing or damaged."""
    try:
        if not is_file(path) or path.stat().st_size > LARGEST_JSON:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
