"""The application: routes, refusals as JSON, the guard around all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, Gauge
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from imax_dist.errors import ImaxError
from imax_dist.service.chores import Chore, Watch
from imax_dist.service.guard import Guard, Log
from imax_dist.service.refusals import Refused, answer, as_refused
from imax_dist.service.routes import events, files, health, jobs, openai, pages
from imax_dist.service.service import Service
from imax_dist.version import __version__

ABOUT = """Posters beyond a model's native size as jobs: submit, follow, approve, download.

Send a token in the header Authorization: Bearer TOKEN. Errors are {"error": {"message", "type", "code"}}."""
OF_STATUS = {
    404: "there is nothing at this address; /docs lists what there is",
    405: "this address does not accept this method; /docs lists those it accepts",
}
READERS = 32
"""Threads for looks into store and disk, webhooks and pictures."""


def make_app(
    service: Service, registry: CollectorRegistry, *, log: Log, chores: Sequence[Chore] = ()
) -> FastAPI:
    """The application; ``chores`` are done beside it until it ends."""
    watch = Watch.over(service.health.failing, registry, log)
    disk = Gauge("imax_disk_free_bytes", "Room where posters and queue are written.", registry=registry)
    disk.set_function(service.room.free)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(READERS, thread_name_prefix="imax-reader"))
        service.feed.attach(loop)
        tasks = [asyncio.create_task(watch.keep_doing(chore)) for chore in chores]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPI(
        title="imax serve",
        version=__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service, app.state.registry = service, registry
    for part in (jobs, events, files, openai, health, pages):
        app.router.routes.extend(part.router.routes)  # include_router looks for changes in every request
    _answer_errors(app, log)
    if service.settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.cors),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "idempotency-key"],
            expose_headers=["location", "retry-after", "x-imax-jobs"],
        )
    is_open = partial(_is_open, service)
    app.add_middleware(Guard, log=log, only_loopback=is_open, origins=service.settings.cors)
    return app


def _is_open(service: Service) -> bool:
    return not service.door.required


def _answer_errors(app: FastAPI, log: Log) -> None:
    """Every refusal as one sentence in JSON."""

    async def refused(_: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return answer(error)

    async def ours(_: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, ImaxError)
        refusal = as_refused(error)
        if refusal.status >= 500:
            log({"event": "http.error", "error": f"{type(error).__name__}: {error}"})
        return answer(refusal)

    async def invalid(_: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(Refused(400, f"{where}: {first['msg']}", code="bad_request"))

    async def plain(_: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = OF_STATUS.get(error.status_code, error.detail)
        return answer(Refused(error.status_code, text, headers=error.headers))

    for kind, handler in ((Refused, refused), (ImaxError, ours), (RequestValidationError, invalid)):
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(HTTPException, plain)
