"""What clients ask for becomes jobs: checked as a manifest's lines are, within limits, quotas and memory."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from imax_dist.config import named_configs
from imax_dist.errors import BadValue, ImaxError
from imax_dist.jobs.job import Job
from imax_dist.jobs.manifest.files import Entry, Mistake
from imax_dist.jobs.manifest.read import read_entries
from imax_dist.jobs.settings import Limits
from imax_dist.jobs.state import Queued
from imax_dist.jobs.store import Lot, Submission
from imax_dist.pipeline.check import is_editor
from imax_dist.service.access import Client
from imax_dist.service.arrivals import Arrivals, Submitted
from imax_dist.service.estimates import Estimates
from imax_dist.service.refusals import Refused
from imax_dist.service.settings import ServiceSettings
from imax_dist.service.uploads import Uploads

KEY = r"[\x21-\x7e]{1,200}"
URL = r"[\x21-\x7e]{1,2000}"
MOST_LISTED = 20
OWN_FIELDS = ("webhook", "approval")
"""Of a job, besides those of a manifest's line."""
PLAIN_FIELDS = "prompt size seed model preset steps native_steps paper dpi bleed landscape priority"
READ_AT_ONCE = frozenset((*PLAIN_FIELDS.split(), *OWN_FIELDS))
"""Fields whose check looks at no file and takes less time than a change of threads."""
MOST_METHODS = 1000


@dataclass
class Submissions:
    """Checks requests, which ``arrivals`` writes into the store."""

    limits: Limits
    settings: ServiceSettings
    uploads: Uploads
    estimates: Estimates
    arrivals: Arrivals
    _methods: dict[str, str] = field(default_factory=dict)
    _editors: dict[str, bool] = field(default_factory=dict)

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
        made, lot = [], None if key is None else Lot(key, len(manifest.jobs))
        for number, job in enumerate(manifest.jobs):
            given = extra[manifest.lines[job.id]]
            name = None if lot is None else lot.key_of(number)
            state = Queued(approval=bool(given["approval"]))
            made.append(Submission(job, client.name, name, given["webhook"] or "", state, lot))
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

    async def submit(self, submissions: Sequence[Submission], client: Client) -> list[Submitted]:
        """What became of each, in order. Raises Refused (429) over the client's quota."""
        return await self.arrivals.submit(submissions, client)

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
                if fields.get(name) is not None:
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
                raise BadValue(f"lora {name[:80]!r} is not allowed here; known: {known}")
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
