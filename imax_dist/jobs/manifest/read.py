"""A manifest: a poster a line (JSONL, prompts), a row (CSV) or a list entry (YAML); all mistakes at once.

Fields are those of a Request, and ``id``, ``priority``, ``count`` (that many posters, with seeds counted up
from ``seed``), ``vae`` and ``encoder`` (what goes with a model in one file) and single switches of the preset
by their dotted name (``rope.rule``).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.config import set_key, suggestion
from imax_dist.errors import BadConfig, BadManifest, BadValue, ImaxError
from imax_dist.jobs.job import Job
from imax_dist.jobs.make_job import make_job, method_of
from imax_dist.jobs.manifest.files import Entry, Mistake
from imax_dist.jobs.manifest.model import PART_FIELDS, LineModels, texts
from imax_dist.jobs.manifest.table import field_kinds
from imax_dist.jobs.manifest.text import read_lines
from imax_dist.jobs.settings import Limits
from imax_dist.named_file import fields_naming_files
from imax_dist.output.image.poster import SHEET_FIELDS, require_printable
from imax_dist.output.image.settings import read_outputs
from imax_dist.output.own_files import composed, folded
from imax_dist.pipeline.guide import size_if_here
from imax_dist.pipeline.named_files import NO_PARTS, Parts
from imax_dist.pipeline.request import LARGEST_SEED, Request
from imax_dist.pipeline.sizes import requested_size
from imax_dist.pipeline.switches import DECIDE_METHOD
from imax_dist.settings_mapping import from_mapping, to_mapping
from imax_dist.wording import plural

MOST_SHOWN = 20
MOST_MISTAKES = 10_000
"""Then reading stops: the file is something else."""
OWN_FIELDS = ("id", "priority", "count")
REQUEST_FIELDS = tuple(field.name for field in dataclasses.fields(Request))
LARGEST_PRIORITY = 1_000_000
LONGEST_SENTENCE = 1_000
EXACT = 2**53
"""Up to here every whole number is a float of its own."""
KEYS = json.JSONEncoder(sort_keys=True)
AS_WRITTEN = json.JSONEncoder(ensure_ascii=False, default=str)
"""Made once: ``json.dumps`` makes one for every line."""


class Manifest(NamedTuple):
    """The jobs that are in order, and what is wrong with the other lines."""

    jobs: list[Job]
    mistakes: list[Mistake]
    lines: Mapping[str, int]
    """The line of each job, by its id."""

    def require_sound(self, path: Path, *, most_shown: int = MOST_SHOWN) -> list[Job]:
        """The jobs. Raises BadManifest with the first mistakes, one a line, if there are any."""
        if not self.mistakes:
            return self.jobs
        count = len(self.mistakes)
        shown = [f"  line {line}: {text}" for line, text in self.mistakes[:most_shown]]
        more = f"  ... and {count - most_shown} more; imax batch --check lists them all"
        rest = [more] if count > most_shown else []
        head = f"{path} has {plural(count, 'mistake')}; nothing was started:"
        raise BadManifest("\n".join([head, *shown, *rest]))


def read_manifest(path: Path, limits: Limits, *, parts: Parts = NO_PARTS) -> Manifest:
    """Read the file by its ending (``manifest_text.READERS``); ``parts`` go with models in one file.

    Raises MissingInput if there is no file, BadManifest if it is too large or of another kind; mistakes
    inside it are collected in the result.
    """
    return read_entries(read_lines(path, most_mib=limits.manifest_mib), limits, parts=parts)


def read_entries(
    entries: Iterable[Entry | Mistake],
    limits: Limits,
    *,
    own_files: Collection[str] = (),
    methods: dict[str, str] | None = None,
    parts: Parts = NO_PARTS,
) -> Manifest:
    """Posters as somebody wrote them, checked; ``methods`` keeps what presets stand for between calls.

    ``own_files`` are guides and LoRA files that the caller has put in, allowed whatever ``limits`` say.
    """
    models = LineModels(limits, parts)
    reading = _Reading(limits, models, own_files, _methods={} if methods is None else methods)
    for item in entries:
        reading.take(item)
        if reading.full:
            break
    if not reading.jobs and not reading.mistakes:
        reading.mistakes.append(Mistake(1, "the manifest lists no posters"))
    return Manifest(reading.jobs, sorted(reading.mistakes), reading.lines)


@dataclass
class _Reading:
    """A manifest read so far."""

    limits: Limits
    models: LineModels
    own_files: Collection[str] = ()
    jobs: list[Job] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    full: bool = False
    """Enough is wrong, or asked for: the rest is not read."""
    lines: dict[str, int] = field(default_factory=dict)
    _folded: dict[str, int] = field(default_factory=dict)
    _methods: dict[str, str] = field(default_factory=dict)

    def take(self, item: Entry | Mistake) -> None:
        """One more line."""
        if isinstance(item, Mistake):
            self.mistakes.append(item)
        else:
            self._take_entry(item)
        if len(self.jobs) > self.limits.posters:
            self._end(item.line, f"more than {self.limits.posters} posters in one manifest")
        elif len(self.mistakes) >= MOST_MISTAKES:
            self._end(item.line, f"{MOST_MISTAKES} mistakes; what follows was not read")

    def _end(self, line: int, why: str) -> None:
        self.mistakes.append(Mistake(line, why))
        self.full = True

    def _take_entry(self, entry: Entry) -> None:
        try:
            _require_text(entry.fields)
            made = [_unclaimed(job, self.lines, self._folded) for job in self._made(entry)]
        except (ImaxError, ValueError) as error:  # ValueError: numbers of thousands of digits
            self.mistakes.append(Mistake(entry.line, str(error)[:LONGEST_SENTENCE]))
            return
        except OSError as error:
            reason = f"{str(error.filename)[:80]!r} cannot be read: {error.strerror}"
            self.mistakes.append(Mistake(entry.line, reason))
            return
        self.lines.update({job.id: entry.line for job in made})
        self._folded.update({folded(job.id): entry.line for job in made})
        self.jobs.extend(made)

    def _made(self, entry: Entry) -> Iterator[Job]:
        fields = {name: _plain(name, value) for name, value in entry.fields.items()}
        own = {name: fields.pop(name) for name in OWN_FIELDS if fields.get(name) is not None}
        count = _whole("count", own.get("count", 1), least=1, most=self.limits.count)
        priority = _whole("priority", own.get("priority", 0), least=-LARGEST_PRIORITY, most=LARGEST_PRIORITY)
        name = own.get("id")
        if name is not None and not isinstance(name, str | int):
            raise BadValue(f"id must be text, got {name!r}")
        name = None if name is None else composed(str(name))
        request = _request(self.models.take(fields), self.limits, self.own_files)
        self.models.check(request.model)
        method = self._method(request)
        for index in range(count):
            seeded = dataclasses.replace(request, seed=_seed(request.seed + index)) if index else request
            own_name = None if name is None else f"{name}-{index + 1}" if count > 1 else name
            position = len(self.jobs) + index
            yield make_job(seeded, name=own_name, priority=priority, position=position, method=method)

    def _method(self, request: Request) -> str:
        """What the preset stands for; the same for most lines."""
        made_of = [getattr(request, name) for name in DECIDE_METHOD]
        key = KEYS.encode(made_of)
        if key not in self._methods:
            self._methods[key] = method_of(request)
        return self._methods[key]


def shard(jobs: list[Job], text: str) -> list[Job]:
    """``INDEX/COUNT``: every COUNT-th job from INDEX (0 is the first). Raises BadValue."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise BadValue(f"shard {text!r} is not INDEX/COUNT with 0 <= INDEX < COUNT; write for example 0/4")
    return jobs[int(index) :: int(count)]


def _require_text(fields: dict[str, Any]) -> None:
    """Raise BadValue if something in ``fields`` cannot be written as UTF-8 (half of a surrogate pair)."""
    try:
        AS_WRITTEN.encode(fields).encode()
    except UnicodeEncodeError as error:
        raise BadValue("text contains an unpaired surrogate (half a character)") from error


def _request(fields: dict[str, Any], limits: Limits, own_files: Collection[str]) -> Request:
    method = {} if fields.get("method") is None else fields["method"]
    if not isinstance(method, dict):
        raise BadConfig(f"method must hold keys, got {method!r}")
    plain = {key: value for key, value in fields.items() if value is not None and key != "method"}
    for key in [key for key in plain if "." in key]:
        set_key(method, f"{key}={plain.pop(key)}")
    for key in plain:
        if key not in REQUEST_FIELDS:
            known = [*OWN_FIELDS, *PART_FIELDS, *REQUEST_FIELDS]
            raise BadConfig(f"unknown field {key[:80]!r}; {suggestion(key[:80], known)}")
    request = from_mapping(Request, {**plain, "method": method}, where="request")
    if not limits.files:
        _require_no_files(request, limits, own_files)
    _check_limits(request, limits)
    if request.output:
        require_printable(Path("poster.png"), to_mapping(request))
    return request


def _check_limits(request: Request, limits: Limits) -> None:
    if len(request.prompt) > limits.prompt:
        raise BadValue(f"the prompt has {len(request.prompt)} characters; this pool takes {limits.prompt}")
    size = requested_size(request, size_if_here(request) if request.size is None else None)
    if size is not None and size.megapixels > limits.megapixels:
        raise BadValue(f"size {size} is over this pool's {limits.megapixels:g} megapixels")
    for name in ("steps", "native_steps"):
        if (getattr(request, name) or 0) > limits.steps:
            raise BadValue(f"{name} {getattr(request, name)} is over this pool's {limits.steps}")
    if limits.models and request.model not in limits.models:
        raise BadValue(
            f"model {request.model[:80]!r} is not allowed here; allowed: {', '.join(limits.models)}"
        )
    _check_print_files(request, limits)


def _check_print_files(request: Request, limits: Limits) -> None:
    """Print files may be enlarged by ``scale``; their sheets have the same limit as the poster."""
    sheet = {name: getattr(request, name) for name in SHEET_FIELDS}
    for ending, settings in read_outputs(request.output, sheet).items():
        paper = settings.sheet()
        if paper is not None and paper.pixels.megapixels > limits.megapixels:
            raise BadValue(
                f"output: {ending} of {paper.pixels} px is over this pool's {limits.megapixels:g} megapixels"
            )


def _require_no_files(request: Request, limits: Limits, own_files: Collection[str]) -> None:
    """Raise BadValue if a field, or a print file's profile or enlarger, names a file of this machine.

    A model that ``limits`` lists is allowed, also as a folder.
    """
    for name in fields_naming_files(Request, vars(request)):
        if name == "model" and request.model in limits.models:
            continue
        given = request.lora if name == "lora" else (getattr(request, name),)
        if name in ("guide", "lora") and all(each in own_files for each in given):
            continue
        raise BadValue(f"{name} names a file of this machine, which this pool does not allow")


def _unclaimed(job: Job, lines: Mapping[str, int], taken: Mapping[str, int]) -> Job:
    """The job, if no line before has its id. Raises BadManifest."""
    if job.id in lines:
        raise BadManifest(
            f"id {job.id!r} is that of line {lines[job.id]}; give each poster its own id, or "
            "another seed if the same picture is not wanted twice"
        )
    if folded(job.id) in taken:
        raise BadManifest(
            f"id {job.id!r} differs from that of line {taken[folded(job.id)]} by case alone, and some "
            "file systems ignore case; give it another"
        )
    return job


def _plain(name: str, value: Any) -> Any:
    """``1.0`` is 1 where a whole number is wanted, and LoRAs may be one text, split by space."""
    if name == "lora" and isinstance(value, str):
        return [re.sub(r":(\d+),(\d+)$", r":\1.\2", each) for each in texts(value)]
    whole = isinstance(value, float) and field_kinds().get(name) is int
    return int(value) if whole and abs(value) <= EXACT and value.is_integer() else value


def _whole(name: str, value: Any, *, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue(f"{name} must be a whole number, got {value!r}")
    if not least <= value <= most:
        raise BadValue(f"{name} {value} is outside {least} to {most}")
    return value


def _seed(seed: int) -> int:
    if seed > LARGEST_SEED:
        raise BadValue(f"seed {seed} is over {LARGEST_SEED}; start lower")
    return seed
