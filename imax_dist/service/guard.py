"""Around every request: who may call from where, headers for browsers, one log line, no traceback."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imax_dist.service.log import traceback_of
from imax_dist.service.refusals import Refused, answer

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SAFE = ("GET", "HEAD", "OPTIONS")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
Log = Callable[[dict[str, Any]], None]


class Guard:
    """ASGI middleware; while ``only_loopback``, where no token is asked for, only localhost is answered."""

    def __init__(
        self, app: ASGIApp, *, log: Log, only_loopback: Callable[[], bool], origins: tuple[str, ...]
    ) -> None:
        self._app = app
        self._log = log
        self._only_loopback = only_loopback
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), [0]
        request_id = secrets.token_hex(6)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers["x-request-id"] = request_id
            await send(message)

        try:
            refused = self._refused(scope)
            if refused is not None:
                await answer(refused)(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:  # nobody waits for an answer
            return
        except Exception as error:
            told = {"error": f"{type(error).__name__}: {error}", "traceback": traceback_of(error)}
            self._log({"event": "http.error", "request": request_id, **told})
            if status[0]:
                raise  # too late for an answer: the connection is closed
            await answer(Refused(500, f"an internal error, request {request_id}", code="internal"))(
                scope, receive, send_with_headers
            )
        finally:
            self._log(self._line(scope, status[0], time.perf_counter() - began))

    def _line(self, scope: Scope, status: int, seconds: float) -> dict[str, Any]:
        """Method, path and outcome; neither query, headers nor body, which may hold secrets."""
        state = scope.get("state", {})
        line = {"event": "http", "request": state.get("request_id"), "method": scope["method"]}
        line |= {"path": scope["path"][:200], "status": status, "ms": round(1000 * seconds, 1)}
        return {**line, "client": state["client"]} if "client" in state else line

    def _refused(self, scope: Scope) -> Refused | None:
        """Other sites' pages may not act in a visitor's name, nor reach a loopback service by a false one."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name not in LOOPBACK and self._only_loopback():
            return Refused(
                403, f"this service answers to localhost only, not to {host[:80]!r}", code="bad_host"
            )
        origin = headers.get("origin")
        if scope["method"] in SAFE or origin is None or origin in self._origins:
            return None
        if urlsplit(origin).netloc != host:
            return Refused(403, f"pages of {origin[:80]} may not call this service", code="bad_origin")
        return None
