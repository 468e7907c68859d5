"""``.../events``: a job as it goes on, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from imax_dist.errors import CannotWrite
from imax_dist.service.access import Client
from imax_dist.service.job_view import BASE
from imax_dist.service.refusals import AGAIN_S, Refused
from imax_dist.service.service import Asking, Here, Service

router = APIRouter(tags=["jobs"])
LOOK_S = 2.0
"""At the latest; another server's driver tells nobody here."""
ALIVE_EVERY = 7
"""Looks without news until a comment keeps the connection open."""
AT_MOST_EVERY_S = 0.2
STREAM = "text/event-stream"
OVER = ("done", "failed", "cancelled")
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@router.get(BASE + "/{job_id}/events", response_class=StreamingResponse)
async def events(job_id: str, here: Here, client: Asking) -> StreamingResponse:
    """``state`` (the whole job: first, last, changed), ``progress``, ``preview``, until it is over.

    Refused with 429 for one stream too many.
    """
    view = await here.seen(job_id, client)
    most = client.limit("streams", here.settings)
    if here.streams[client.name] >= most:
        text = f"you have {most} open event streams, the most allowed; close some, or try again"
        raise Refused(429, text, code="too_many_streams", headers={"Retry-After": str(AGAIN_S)})
    return StreamingResponse(_follow(here, job_id, client, view), media_type=STREAM, headers=HEADERS)


async def _follow(here: Service, job_id: str, client: Client, view: dict[str, Any]) -> AsyncIterator[str]:
    sent: dict[str, Any] = {}
    quiet = 0
    with _counted(here, client), here.feed.following(job_id) as news:
        while True:
            news.clear()
            view = await _seen(here, job_id, client) or view
            parts = _parts(view)
            order = ("progress", "preview", "state") if sent else ("state", "progress", "preview")
            fresh = [(name, parts[name]) for name in order if parts[name] and sent.get(name) != parts[name]]
            for name, part in fresh:
                sent[name] = part
                yield sse(name, view if name == "state" else part)
            if view["state"] in OVER or here.health.draining:
                return
            quiet = 0 if fresh else quiet + 1
            if quiet and quiet % ALIVE_EVERY == 0:
                yield ": alive\n\n"
            try:
                await asyncio.wait_for(news.wait(), LOOK_S)
                await asyncio.sleep(AT_MOST_EVERY_S)
            except TimeoutError:
                continue


@contextmanager
def _counted(here: Service, client: Client) -> Iterator[None]:
    here.streams[client.name] += 1
    try:
        yield
    finally:
        here.streams[client.name] -= 1


async def _seen(here: Service, job_id: str, client: Client) -> dict[str, Any] | None:
    """None where the store is away, which the next look may find back."""
    try:
        return await here.seen(job_id, client)
    except CannotWrite:
        return None


def _parts(view: dict[str, Any]) -> dict[str, Any]:
    """What is told by itself when it changes."""
    place = {name: view[name] for name in ("state", "cancelling", "place", "attempts")}
    preview = {"url": view["preview"]} if view["preview"] else None
    return {"state": place, "progress": view["progress"], "preview": preview}


def sse(name: str, data: Any) -> str:
    """One event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
