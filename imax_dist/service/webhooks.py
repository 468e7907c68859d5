"""Jobs' ends told to hosts the operator has allowed: signed, retried, kept in the store until taken.

A body is ``{"event": ..., "job": ...}``. ``imax-signature`` is ``t=SECONDS,v1=HEX``, where HEX is HMAC-SHA256
of ``SECONDS.BODY`` under the secret in ``<out>/_service/webhook-secret``; ``imax-delivery`` is the same in
every try of one call, so that a receiver can pass over one that it has already taken.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imax_dist.errors import CannotWrite, ImaxError
from imax_dist.jobs.store import Delivery, Webhooks
from imax_dist.output.atomic import write_error
from imax_dist.service.service import Service
from imax_dist.service.uploads import FOLDER

TIMEOUT_S = 10.0
MOST_TRIES = 12
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 3600.0
AT_ONCE = 10
WRITTEN_S = 5.0
Send = Callable[[str, bytes, dict[str, str]], int]


def webhook_secret(out: Path) -> bytes:
    """The operator's secret, made the first time; receivers are given it by hand.

    Of servers that start together on one folder the first makes it, and all read it. Raises CannotWrite.
    """
    path = out / FOLDER / "webhook-secret"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), open(path, "xb", opener=_for_the_owner) as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
        return _whole_line(path)
    except OSError as error:
        raise write_error(path, error) from error


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _whole_line(path: Path) -> bytes:
    """Another server may have made the file a moment ago, and not written it yet."""
    deadline = time.monotonic() + WRITTEN_S
    while not (found := path.read_bytes()).strip():
        if time.monotonic() > deadline:
            raise CannotWrite(f"{path} is empty; remove it, and the next start makes a new secret")
        time.sleep(0.05)
    return found.strip()


def signature(secret: bytes, moment: int, body: bytes) -> str:
    """``t=...,v1=...`` of a call."""
    signed = hmac.new(secret, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={signed}"


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of the answer; follows no redirect and reads no body. Raises OSError, HTTPException."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=TIMEOUT_S)
    try:
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection.request("POST", path, body=body, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


@dataclass(frozen=True)
class Caller:
    """Makes the calls that are due."""

    service: Service
    webhooks: Webhooks
    secret: bytes
    log: Callable[[dict[str, Any]], None]
    send: Send = post

    async def call_due(self) -> None:
        """Once. Raises what went wrong with one of the calls when all of them have been made."""
        if await self._any():
            due = await self.service.write(lambda: self.webhooks.take(AT_ONCE))
            made = await asyncio.gather(*(self.call(each) for each in due), return_exceptions=True)
            for error in made:
                if error is not None:
                    raise error

    async def _any(self) -> bool:
        """Looked at first, since taking is a write."""
        return await self.service.read(self.webhooks.waiting) > 0

    async def call(self, delivery: Delivery) -> None:
        """Make one call and keep what came of it. An error of ours is raised after that."""
        ours: Exception | None = None
        try:
            problem = await self._try(delivery)
        except (ImaxError, OSError):  # the store is away: it is due again in a while
            raise
        except Exception as error:
            ours, problem = error, f"not sent: {type(error).__name__}"
        again = None if delivery.attempts + 1 >= MOST_TRIES else wait_after(delivery.attempts + 1)
        if not problem:
            await self.service.write(lambda: self.webhooks.made(delivery.number))
        else:
            await self.service.write(lambda: self.webhooks.failed(delivery.number, problem, again_in_s=again))
        call = {
            "job": delivery.job,
            "attempt": delivery.attempts + 1,
            "host": urlsplit(delivery.url).netloc,
        }
        self.log({"event": "webhook", **call, "problem": problem})
        if ours is not None:
            raise ours

    async def _try(self, delivery: Delivery) -> str:
        """Why the other side did not take it; empty if it did."""
        if urlsplit(delivery.url).netloc not in self.service.settings.webhook_hosts:
            return "its host is not allowed any more"
        row = await self.service.read(lambda: self.service.queue.find(delivery.job))
        job = None if row is None else await self.service.read(lambda: self.service.view(row))
        body = json.dumps({"event": json.loads(delivery.body), "job": job}).encode()
        moment = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "imax-serve",
            "imax-delivery": str(delivery.number),
            "imax-signature": signature(self.secret, moment, body),
        }
        try:
            status = await self.service.read(lambda: self.send(delivery.url, body, headers))
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: no address at all
            return f"{type(error).__name__}: {error}"[:200]
        return "" if 200 <= status < 300 else f"answered {status}"


def wait_after(tries: int) -> float:
    """Seconds until the next try: doubled each time."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (tries - 1))
