"""What clients ask for becomes jobs: checked as a manifest's lines are, within limits, quotas and memory."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from imax_dist.config import named_configs
from imax_dist.errors import BadValue, CannotWrite, ImaxError
from imax_dist.jobs.job import Job
from imax_dist.jobs.manifest import read_entries
from imax_dist.jobs.manifest_files import Entry, Mistake
from imax_dist.jobs.settings import Limits
from imax_dist.jobs.state import Queued
from imax_dist.jobs.store import Queue, Row, Submission
from imax_dist.pipeline.check import is_editor
from imax_dist.service.access import Client
from imax_dist.service.estimates import Estimates
from imax_dist.service.refusals import Refused
from imax_dist.service.settings import ServiceSettings
from imax_dist.service.uploads import Uploads

KEY = r"[\x21-\x7e]{1,200}"
URL = r"[\x21-\x7e]{1,2000}"
MOST_LISTED = 20
WAITING = ("queued", "running", "proofed")
OWN_FIELDS = ("webhook", "approval")
"""Of a job, besides those of a manifest's line."""
PLAIN_FIELDS = "prompt size seed model preset steps native_steps paper dpi bleed landscape priority"
READ_AT_ONCE = frozenset((*PLAIN_FIELDS.split(), *OWN_FIELDS))
"""Fields whose check looks at no file and takes less time than a change of threads."""
MOST_METHODS = 1000


class Made(NamedTuple):
    """What became of a submission."""

    row: Row
    new: bool
    ahead: int | None
    """Queued jobs that are taken before it, where it is new and that is known."""


@dataclass(frozen=True)
class Arrival:
    """What one request asks for, until it is written."""

    submissions: Sequence[Submission]
    client: Client
    answer: asyncio.Future[list[Made]]


@dataclass
class Submissions:
    """Checks requests and writes them into the store; all that arrive at one time in one transaction."""

    queue: Queue
    limits: Limits
    settings: ServiceSettings
    uploads: Uploads
    estimates: Estimates
    gangs: Callable[[], int]
    writer: ThreadPoolExecutor
    _methods: dict[str, str] = field(default_factory=dict)
    _editors: dict[str, bool] = field(default_factory=dict)
    _arrived: list[Arrival] = field(default_factory=list)
    _writing: bool = False

    def read(
        self, lines: Iterable[Entry | Mistake], client: Client, *, key: str | None = None
    ) -> list[Submission]:
        """Jobs of one client. Raises Refused with the mistakes, and BadValue for what fits nowhere.

        ``key`` names the submission; of several jobs each has its number behind it.
        """
        made = self._read(lines, client, key)
        self._plan(made)
        return made

    async def read_one(
        self, fields: dict[str, Any], client: Client, *, key: str | None = None
    ) -> list[Submission]:
        """As ``read`` of one line, which is beside the loop only where a file is looked at or a plan made."""
        lines, loop = [Entry(1, fields)], asyncio.get_running_loop()
        if not fields.keys() <= READ_AT_ONCE:
            return await loop.run_in_executor(None, lambda: self.read(lines, client, key=key))
        made = self._read(lines, client, key)
        if not all(self.estimates.knows(each.job.request) for each in made):
            await loop.run_in_executor(None, self._plan, made)
        return made

    def _plan(self, made: Sequence[Submission]) -> None:
        """Raises BadValue for what fits nowhere."""
        for request in {self._kind(each.job): each.job.request for each in made}.values():
            self.estimates.seconds(request)

    def _read(self, lines: Iterable[Entry | Mistake], client: Client, key: str | None) -> list[Submission]:
        entries = list(lines)
        own = [self._own(entry, client) if isinstance(entry, Entry) else entry for entry in entries]
        plain = [each if isinstance(each, Mistake) else each[0] for each in own]
        files = [file for each in own if not isinstance(each, Mistake) for file in each[1]["files"]]
        if len(self._methods) > MOST_METHODS:  # a client may send as many as there are numbers
            self._methods = {}
        manifest = read_entries(plain, self.limits, own_files=files, methods=self._methods)
        if manifest.mistakes:
            text = _sentence_of(manifest.mistakes, len(entries)).replace(f"{self.uploads.folder}/", "upload ")
            raise Refused(400, text, code="bad_request")
        extra = {each[0].line: each[1] for each in own if not isinstance(each, Mistake)}
        made = []
        for number, job in enumerate(manifest.jobs):
            given = extra[manifest.lines[job.id]]
            name = key if key is None or len(manifest.jobs) == 1 else f"{key}/{number}"
            state = Queued(approval=bool(given["approval"]))
            made.append(Submission(job, client.name, name, given["webhook"] or "", state))
        return made

    def edits(self, model: object) -> bool:
        """Whether a model that may be asked for changes a picture by words; False for one not known here."""
        if model not in (self.limits.models or named_configs("models")):
            return False
        name = str(model)
        if name not in self._editors:
            try:
                self._editors[name] = is_editor(name)
            except ImaxError:  # the ranks may have a model that this host has not
                return False
        return self._editors[name]

    def editors(self) -> list[str]:
        """Those of the models that the service lists; a second the first time."""
        return [name for name in self.limits.models if self.edits(name)]

    async def submit(self, submissions: Sequence[Submission], client: Client) -> list[Made]:
        """What became of each, in order. Raises Refused (429) over the client's quota."""
        arrival = Arrival(submissions, client, asyncio.get_running_loop().create_future())
        self._arrived.append(arrival)
        if not self._writing:
            self._writing = True
            try:
                while self._arrived:
                    await self._answer_arrived()
            finally:
                self._writing = False
        return await arrival.answer

    async def _answer_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self.writer, self._write, arrived)
        except Exception as error:
            answers = [error] * len(arrived)
        for arrival, found in zip(arrived, answers, strict=True):
            if arrival.answer.cancelled():
                continue
            if isinstance(found, Exception):
                arrival.answer.set_exception(found)
            else:
                arrival.answer.set_result(found)

    def _write(self, arrived: Sequence[Arrival]) -> list[list[Made] | Exception]:
        """One transaction for all; where that fails, one each, so that each hears its own fault."""
        refused = self._over_quota(arrived)
        taken = [each for each in arrived if id(each) not in refused]
        answers: dict[int, list[Made] | Exception] = {**refused}
        try:
            made = iter(self._submit([one for each in taken for one in each.submissions]))
            answers |= {id(each): [next(made) for _ in each.submissions] for each in taken}
        except Exception as error:
            answers |= {id(each): error if len(taken) == 1 else self._write_one(each) for each in taken}
        return [answers[id(each)] for each in arrived]

    def _write_one(self, arrival: Arrival) -> list[Made] | Exception:
        try:
            return self._submit(arrival.submissions)
        except Exception as error:
            return error

    def _submit(self, submissions: Sequence[Submission]) -> list[Made]:
        rows = self.queue.submit_all(submissions)
        before = self._before([row for row, new in rows if new])
        places = [before[row.priority] + row.position if new and before else None for row, new in rows]
        return [Made(row, new, ahead) for (row, new), ahead in zip(rows, places, strict=True)]

    def _before(self, new: Sequence[Row]) -> dict[int, int]:
        """By priority, what makes a new row's position its place: they stand one behind the other.

        Empty where the store is away by now: the rows are written.
        """
        before: dict[int, int] = {}
        with suppress(CannotWrite):
            for row in new:
                if row.priority not in before:
                    before[row.priority] = self.queue.ahead(row) - row.position
            return before
        return {}

    def _over_quota(self, arrived: Sequence[Arrival]) -> dict[int, Refused]:
        """Who asks for more than may wait, those before in this writing counted as well."""
        waiting = self.queue.counts_of(sorted({each.client.name for each in arrived}), WAITING)
        refused = {}
        for each in arrived:
            name, most = each.client.name, each.client.limit("waiting", self.settings)
            more = len(each.submissions)
            if waiting[name] + more <= most or self._all_known(each.submissions):
                waiting[name] += more
            else:
                refused[id(each)] = self._queue_full(waiting[name], more, most)
        return refused

    def _queue_full(self, waiting: int, more: int, most: int) -> Refused:
        typical = self.estimates.typical() or 60.0
        wait = max(1, math.ceil(typical * (waiting + more - most) / max(1, self.gangs())))
        text = f"{waiting} of your jobs wait or run, and {most} may; ask again in about {wait} s"
        return Refused(429, text, code="queue_full", headers={"Retry-After": str(wait)})

    def _all_known(self, submissions: Sequence[Submission]) -> bool:
        """Whether nothing new is asked for: a client asks again after an answer that was lost."""
        return all(each.key and self.queue.by_key(each.owner, each.key) is not None for each in submissions)

    def _own(self, entry: Entry, client: Client) -> tuple[Entry, dict[str, Any]] | Mistake:
        """What a manifest's line cannot have, taken out of it and checked."""
        fields = dict(entry.fields)
        try:
            if fields.get("id") is not None:
                raise BadValue("id: the service names jobs; give an Idempotency-Key to find yours again")
            if fields.get("priority") and not client.operates:
                raise BadValue("priority may be set by tokens with the role operate")
            given: dict[str, Any] = {name: fields.pop(name, None) for name in OWN_FIELDS}
            if not isinstance(given["approval"], bool | None):
                raise BadValue(f"approval must be true or false, got {given['approval']!r}")
            self._check_webhook(given["webhook"])
            given["files"] = []
            for name, known in (("guide", self._guide), ("lora", self._loras)):
                if fields.get(name):
                    fields[name] = known(fields[name])
                    given["files"] += fields[name] if name == "lora" else [fields[name]]
        except BadValue as error:
            return Mistake(entry.line, str(error))
        return Entry(entry.line, {**fields, "id": secrets.token_hex(10)}), given

    def _guide(self, upload: object) -> str:
        return str(self.uploads.path(upload))

    def _loras(self, names: object) -> list[str]:
        """``NAME[:WEIGHT]`` of the allow-list as the files they stand for."""
        listed = [names] if isinstance(names, str) else names
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise BadValue("lora must be a list of names, each with :WEIGHT behind it if not 1")
        found = []
        for each in listed:
            name, colon, weight = each.partition(":")
            if name not in self.settings.loras:
                known = ", ".join(self.settings.loras) or "none"
                raise BadValue(f"lora {name[:80]!r} may not be used here; known: {known}")
            found.append(f"{self.settings.loras[name]}{colon}{weight}")
        return found

    def _check_webhook(self, url: object) -> None:
        if url is None:
            return
        try:
            parts = urlsplit(url) if isinstance(url, str) and re.fullmatch(URL, url) else None
        except ValueError:
            parts = None
        if parts is None or parts.scheme not in ("http", "https") or parts.username or not parts.hostname:
            raise BadValue("webhook must be an http or https URL in ASCII, without user and password")
        if parts.netloc not in self.settings.webhook_hosts:
            raise BadValue(f"webhook: {parts.netloc[:80]} is not among the hosts that this service may call")

    def _kind(self, job: Job) -> tuple[object, ...]:
        each = job.request
        size = each.size, each.scale, each.guide, each.region
        return each.model, size, each.preset, repr(each.method), each.steps, each.native_steps


def check_key(key: str | None) -> str | None:
    """An Idempotency-Key as it was sent. Raises Refused for one that cannot be kept."""
    if key is not None and re.fullmatch(KEY, key) is None:
        raise Refused(400, "Idempotency-Key must have 1 to 200 characters without spaces", code="bad_key")
    return key


def _sentence_of(mistakes: Sequence[Mistake], lines: int) -> str:
    if lines == 1:
        return mistakes[0].text
    shown = [f"line {line}: {text}" for line, text in mistakes[:MOST_LISTED]]
    more = [f"... and {len(mistakes) - MOST_LISTED} more"] * (len(mistakes) > MOST_LISTED)
    return "\n".join(["nothing was queued:", *shown, *more])
