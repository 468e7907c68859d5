"""Bodies of requests, never larger than allowed: JSON objects, JSON Lines, uploads."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

from starlette.requests import Request as HttpRequest

from imax_dist.jobs.manifest.files import json_object
from imax_dist.output.atomic import write_error
from imax_dist.service.refusals import Refused

LARGEST_JSON = 1 << 20
MIB = 1 << 20
SILENT_S = 30.0


async def read_json(request: HttpRequest, *, empty: bool = False) -> dict[str, Any]:
    """The body as one JSON object; with ``empty``, no body is an empty one. Raises Refused."""
    body = await read_body(request, LARGEST_JSON)
    if empty and not body.strip():
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            415, "the body must be JSON, with Content-Type: application/json", code="bad_content_type"
        )
    try:
        return json_object(_decoded(body, "utf-8"))
    except ValueError as error:
        raise Refused(400, f"the body is not usable: {error}", code="bad_json") from error


async def read_text(request: HttpRequest, most: int) -> str:
    """The body as text. Raises Refused."""
    return _decoded(await read_body(request, most), "utf-8-sig")


def _decoded(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8: byte {error.start}", code="bad_encoding") from error


async def read_body(request: HttpRequest, most: int) -> bytes:
    """The body in memory. Raises Refused (413) as soon as it is too large."""
    parts = [part async for part in bounded(request, most)]
    return b"".join(parts)


async def bounded(request: HttpRequest, most: int) -> AsyncGenerator[bytes, None]:
    """The body piece by piece; what is announced or sent beyond ``most`` bytes is refused (413).

    So is one that stops coming (408): it would keep its connection, and what was read of it, for ever.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most)
    read, parts = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENT_S):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            text = f"no more of the body arrived for {SILENT_S:g} s; send it again"
            raise Refused(408, text, code="too_slow", headers={"Connection": "close"}) from error
        read += len(part)
        if read > most:
            raise _too_large(most)
        yield part


async def save_body(parts: AsyncIterator[bytes], folder: Path) -> tuple[Path, str]:
    """The body in a new file of ``folder``, and its SHA-256. Raises CannotWrite; then nothing is left."""
    path, digest = folder / f".upload-{secrets.token_hex(8)}", hashlib.sha256()
    kept = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            async for part in parts:
                digest.update(part)
                file.write(part)
        kept = True
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if not kept:
            path.unlink(missing_ok=True)
    return path, digest.hexdigest()


def _too_large(most: int) -> Refused:
    size = f"{most / MIB:g} MiB" if most >= MIB else f"{most} bytes"
    return Refused(413, f"the body is larger than the {size} that are read", code="too_large")
