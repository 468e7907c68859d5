"""What is wrong with an HTTP request, as a status and one sentence in the shape OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from imax_dist.errors import (
    BadConfig,
    BadManifest,
    BadValue,
    CannotWrite,
    ClusterUnavailable,
    FolderBusy,
    FolderGone,
    ImaxError,
    MissingInput,
    NoPermission,
)
from imax_dist.jobs.store import KeyConflict

AGAIN_S = 10
"""When a client should ask again while the store or the cluster is away."""
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Refused(Exception):
    """A request that is answered with ``status`` and a sentence."""

    def __init__(
        self, status: int, message: str, *, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


STATUS: tuple[tuple[type[ImaxError], int], ...] = (
    (KeyConflict, 409),
    (BadValue, 400),
    (BadConfig, 400),
    (BadManifest, 400),
    (MissingInput, 400),
    (FolderBusy, 503),
    (FolderGone, 503),
    (CannotWrite, 503),
    (NoPermission, 503),
    (ClusterUnavailable, 503),
)
"""The first class that fits; what is not listed is an error of ours."""


def as_refused(error: ImaxError) -> Refused:
    """An error of ours as HTTP; the sentence of a failure on this side may name paths, and is kept back."""
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    if status < 500:
        return Refused(status, str(error), code=_snake(type(error).__name__))
    if status == 503:
        text = "the queue cannot be written at the moment; nothing was lost, try again later"
        return Refused(status, text, code="unavailable", headers={"Retry-After": str(AGAIN_S)})
    return Refused(status, "an internal error; the operator's log says more", code="internal")


def answer(refused: Refused) -> JSONResponse:
    """``{"error": {"message", "type", "code", "param"}}``."""
    kind = TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
    error: dict[str, Any] = {
        "message": refused.message,
        "type": kind,
        "code": refused.code or None,
        "param": None,
    }
    return JSONResponse({"error": error}, status_code=refused.status, headers=refused.headers)


def not_found(what: str) -> Refused:
    return Refused(404, f"{what} does not exist here, or is another token's", code="not_found")


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
