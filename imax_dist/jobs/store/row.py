"""A job as a store has it: its state, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from imax_dist.jobs.job import Job, request_of
from imax_dist.jobs.state import (
    Done,
    Failed,
    Queued,
    Running,
    State,
    attempts_of,
    from_record,
    name_of,
    to_record,
)
from imax_dist.pipeline.request import Request
from imax_dist.wording import duration, file_size


@dataclass(frozen=True)
class Row:
    """A job, its state, and how far it is."""

    id: str
    request_text: str
    """The request's JSON."""
    state: State
    changed: float
    """Seconds since the epoch when it came into this state."""
    priority: int = 0
    position: int = 0
    fingerprint: str = ""
    stage: str = ""
    step: int = 0
    steps: int = 0
    cancelling: bool = False
    """Somebody has cancelled it, and it is still running."""
    number: int = 0
    """Of its submission: later ones have larger numbers."""
    created: float = 0.0
    owner: str = ""
    key: str | None = None
    """The client's own name of the submission."""
    webhook: str = ""
    """Where its end is to be told."""
    approval: bool | None = None
    """Whether it was submitted to show its proof first; None where that was not kept."""
    driver: int | None = None
    """Which has it, while it is running."""
    revision: int = 0

    @cached_property
    def job(self) -> Job:
        """The request and its name. Raises BadConfig for one of a later program."""
        return Job(
            self.id, _request(self.request_text, self.id), self.priority, self.position, self.fingerprint
        )

    @property
    def request(self) -> dict[str, Any]:
        """The request as plain JSON values."""
        found: dict[str, Any] = json.loads(self.request_text)
        return found

    @property
    def state_name(self) -> str:
        return name_of(self.state)

    @property
    def failed(self) -> bool:
        return isinstance(self.state, Failed)

    @property
    def attempts(self) -> int:
        return attempts_of(self.state)

    def note(self) -> str:
        """What there is to say about the state, for people."""
        if isinstance(self.state, Failed):
            return self.state.message
        if isinstance(self.state, Done):
            return f"{duration(self.state.seconds)}, {file_size(self.state.bytes)}"
        if isinstance(self.state, Running):
            place = f"{self.state.gang}: {self.stage} {self.step}/{self.steps}"
            return f"{place}; stops after this step" if self.cancelling else place
        return self.state.after if isinstance(self.state, Queued) else ""

    def as_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {
            "id": self.id,
            "state": self.state_name,
            "attempts": self.attempts,
            "request": self.request,
            "cancelling": self.cancelling,
            "detail": to_record(self.state),
            "changed": self.changed,
            "progress": {"stage": self.stage, "step": self.step, "steps": self.steps},
        }


def row_of(found: Mapping[Any, Any]) -> Row:
    """A row of the table ``jobs``; an older table may lack the later columns."""
    key, approval = found.get("key"), found.get("approval")
    return Row(
        id=str(found["id"]),
        request_text=str(found["request"]),
        state=state_of(str(found["state"]), str(found["detail"])),
        changed=float(found["changed"]),
        priority=int(found["priority"]),
        position=int(found["position"]),
        fingerprint=str(found["fingerprint"]),
        stage=str(found["stage"]),
        step=int(found["step"]),
        steps=int(found["steps"]),
        cancelling=bool(found["cancel"]),
        number=int(found.get("number", 0)),
        created=float(found.get("created", found["changed"])),
        owner=str(found.get("owner", "")),
        key=None if key is None else str(key),
        webhook=str(found.get("webhook", "")),
        approval=None if approval is None else bool(approval),
        driver=found.get("driver"),
        revision=int(found.get("revision", 0)),
    )


@lru_cache(maxsize=1024)
def _request(text: str, job_id: str) -> Request:
    """Clients ask for the same job again and again."""
    return request_of(json.loads(text), where=f"job {job_id}")


@lru_cache(maxsize=1024)
def state_of(name: str, detail: str) -> State:
    """A state as it was written; most of a long queue are alike. Version 1 spoke of fruitless attempts."""
    return from_record(name, json.loads(detail.replace('"fruitless"', '"attempts_without_progress"')))
