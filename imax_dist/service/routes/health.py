"""``/healthz``, ``/readyz``, ``/metrics``: for probes and Prometheus."""

from __future__ import annotations

import time

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from imax_dist.service.access import require_operator
from imax_dist.service.service import Asking, Here

router = APIRouter(tags=["operation"])
POOL_SILENT_S = 60.0
"""A pool that has not looked at its gangs for so long has stopped; a turn takes milliseconds."""


@router.get("/healthz")
async def alive(here: Here) -> JSONResponse:
    """Whether the process does its work: 503 once the pool has stopped, or no step was made for too long.

    ``failing`` names chores that fail, which a restart would hardly mend, and would stop renders.
    """
    now = time.monotonic()
    silent = now - here.health.turned
    working = bool(here.feed.live)
    since_step = now - here.feed.last_step if working else 0.0
    stalled = here.health.failure or (
        f"the pool loop has not run for {silent:.0f} s"
        if here.health.ready and silent > POOL_SILENT_S
        else ""
    )
    if not stalled and since_step > here.stalled_s:
        stalled = f"posters are being rendered, but no event came from them for {since_step:.0f} s"
    facts = {"alive": not stalled, "why": stalled, "working": working, "since_step_s": round(since_step, 1)}
    return JSONResponse({**facts, "failing": here.health.failing}, 503 if stalled else 200)


@router.get("/readyz")
async def ready(here: Here) -> JSONResponse:
    """Whether requests should be sent here: 503 while it starts or drains, and without disk or store."""
    why = here.health.failure or ("it is stopping" if here.health.draining else "")
    if not why and not here.health.ready:
        why = "it is starting"
    if not why:
        try:
            why = await here.read(here.room.why_too_little)
            await here.read(here.queue.cancel_requested)
        except Exception as error:
            why = f"the store does not answer: {type(error).__name__}"
    return JSONResponse({"ready": not why, "why": why}, 503 if why else 200)


@router.get("/metrics")
async def metrics(request: HttpRequest, here: Here, client: Asking) -> Response:
    """Prometheus' text format."""
    require_operator(client, "reading metrics")
    here.before_scrape()
    registry: CollectorRegistry = request.app.state.registry
    text = await here.read(lambda: generate_latest(registry))  # asks the disk for its room, which may hang
    return Response(text, media_type=CONTENT_TYPE_LATEST)
