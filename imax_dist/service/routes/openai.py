"""OpenAI's image API for its own clients: small posters at once, others by ``/v1/images/jobs``.

Fields of ours that theirs lack (``seed``, ``preset``, ``steps``, ...) go through ``extra_body``. What is not
understood is refused, never passed over.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from fastapi import APIRouter
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from imax_dist.config import named_configs
from imax_dist.errors import CannotWrite
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.state import Failed
from imax_dist.jobs.store import Row, Submission
from imax_dist.output.atomic import write_error
from imax_dist.pipeline.request import Request
from imax_dist.service.access import Client
from imax_dist.service.job_view import BASE
from imax_dist.service.reading import MIB, bounded, read_json
from imax_dist.service.refusals import AGAIN_S, Refused
from imax_dist.service.routes.events import HEADERS, STREAM, sse
from imax_dist.service.routes.jobs import Key
from imax_dist.service.routes.openai_fields import ImageCall, form_fields, read_image_call
from imax_dist.service.service import Asking, Here, Service
from imax_dist.service.submissions import check_key

router = APIRouter(tags=["OpenAI"])
OVER = ("done", "failed", "cancelled")
LOOK_S = 2.0
SHOULD_RETRY = "x-should-retry"
"""OpenAI's clients ask again after 409 and 5xx unless this says otherwise."""
ANSWERS: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompt"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "prompt": {"type": "string"},
                    },
                }
            }
        },
    }
}


@dataclass(frozen=True)
class Making:
    """Jobs that somebody waits for."""

    here: Service
    client: Client
    call: ImageCall
    rows: Sequence[Row]
    kind: str
    """Of its events: image_generation or image_edit."""


@router.get("/v1/models")
async def models(here: Here, client: Asking) -> dict[str, Any]:
    """The models that may be asked for."""
    del client
    names = here.submissions.limits.models or tuple(named_configs("models"))
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "imax"} for name in names]}


@router.post("/v1/images/generations", openapi_extra=ANSWERS)
async def generate(request: HttpRequest, here: Here, client: Asking, key: Key = None) -> Response:
    """A small poster in the answer, or as a stream with looks at it on the way."""
    name = check_key(key)
    call = read_image_call(await read_json(request))
    submissions = await here.submissions.read_one(call.fields, client, key=name)
    return await _answer(here, client, call, submissions, kind="image_generation")


@router.post("/v1/images/edits", openapi_extra=FORM)
async def edit(request: HttpRequest, here: Here, client: Asking, key: Key = None) -> Response:
    """The same after a picture of the client's own: an editor changes it, others take it as guide.

    Refused with 415 or 400 for a body that is not a usable form.
    """
    name, most = check_key(key), here.settings.upload_mib * MIB
    parser = MultiPartParser(request.headers, bounded(request, most + MIB), max_files=1, max_fields=40)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused(415, "the body must be a form: multipart/form-data", code="bad_content_type")
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise Refused(400, f"the form is not usable: {error}", code="bad_form") from error
    except OSError as error:  # a large picture is spooled to disk
        raise write_error(Path(gettempdir()) / "form", error) from error
    fields, picture = form_fields(form)
    written, digest = await here.uploads.write(_pieces(picture))
    upload = await here.read(lambda: here.uploads.keep(written, digest, client.name))
    await form.close()
    by_words = await here.read(lambda: here.submissions.edits(fields.get("model", Request.model)))
    call = read_image_call({"edit": by_words, **fields, "guide": upload})
    submissions = await here.submissions.read_one(call.fields, client, key=name)
    return await _answer(here, client, call, submissions, kind="image_edit")


async def _pieces(picture: UploadFile) -> AsyncIterator[bytes]:
    while part := await picture.read(MIB):
        yield part


async def _answer(
    here: Service, client: Client, call: ImageCall, submissions: Sequence[Submission], *, kind: str
) -> Response:
    _require_soon(here, submissions)
    made = await here.submissions.submit(submissions, client)
    here.wake_pool()
    making = Making(here, client, call, [each.row for each in made], kind)
    if call.stream:
        return StreamingResponse(_stream(making), media_type=STREAM, headers=HEADERS)
    with _ordered():
        done = [await _wait(making, row) for row in making.rows]
        data = [await here.read(lambda row=row: _datum(making, row)) for row in done]  # type: ignore[misc]
    answer = {
        "created": int(time.time()),
        "data": data,
        "output_format": call.output_format,
        "background": "opaque",
    }
    return JSONResponse(answer, headers={"x-imax-jobs": ",".join(row.id for row in making.rows)})


def _require_soon(here: Service, submissions: Sequence[Submission]) -> None:
    """Raises Refused (400) for what takes longer than a client may wait, or nobody knows how long."""
    jobs_instead = f"POST it to {BASE} and follow its events"
    planned = [here.submissions.estimates.guess(each.job.request) for each in submissions]
    known = [seconds for seconds in planned if seconds is not None]
    if len(known) < len(planned):
        raise Refused(400, f"how long this takes is not known here; {jobs_instead}", code="too_long")
    seconds = sum(known) / max(1, min(here.views.gangs(), len(submissions)))
    if seconds > here.settings.sync_seconds:
        most = f"more than the {here.settings.sync_seconds:g} s that a client may wait here"
        raise Refused(400, f"this takes about {seconds:.0f} s, {most}; {jobs_instead}", code="too_long")


@contextmanager
def _ordered() -> Iterator[None]:
    """What is refused from here on has jobs already: a client that asked again would order them once more."""
    try:
        yield
    except Refused as refused:
        refused.headers[SHOULD_RETRY] = "false"
        raise


async def _wait(making: Making, row: Row) -> Row:
    """The row of the finished job. Raises Refused if it failed or was cancelled."""
    with making.here.feed.following(row.id) as news:
        while row.state_name not in OVER:
            news.clear()
            row = await _looked_at(making, row)
            if row.state_name not in OVER:
                await _next(making, news)
    return _require_done(row)


async def _looked_at(making: Making, row: Row) -> Row:
    """As it is now, or was before the store went away: a client that is refused would order once more."""
    try:
        return await making.here.row(row.id, making.client)
    except CannotWrite:
        return row


async def _next(making: Making, news: asyncio.Event) -> None:
    """Until something is new. Raises Refused (503) once the service stops: jobs go on at its next start."""
    if making.here.health.draining:
        ids = ", ".join(row.id for row in making.rows)
        text = f"the service is stopping; job {ids} resumes when it is back: GET {BASE}/ID"
        raise Refused(503, text, code="stopping", headers={"Retry-After": str(AGAIN_S)})
    try:
        await asyncio.wait_for(news.wait(), LOOK_S)
    except TimeoutError:
        return


def _require_done(row: Row) -> Row:
    if row.state_name == "cancelled":
        raise Refused(409, f"job {row.id} was cancelled", code="cancelled")
    if isinstance(row.state, Failed):
        status = 500 if row.state.retryable or row.state.kind == "out_of_memory" else 400
        raise Refused(status, f"job {row.id} failed: {row.state.message}", code="failed")
    return row


def _datum(making: Making, row: Row) -> dict[str, Any]:
    if making.call.url:
        return {"url": f"{BASE}/{row.id}/files/{making.call.file}"}
    path = JobFolder.of(making.here.out, row.id).path / making.call.file
    try:
        return {"b64_json": base64.b64encode(path.read_bytes()).decode()}
    except OSError as error:
        raise Refused(404, f"the poster of job {row.id} no longer exists", code="gone") from error


async def _stream(making: Making) -> AsyncIterator[str]:
    """Looks, then the picture, of one job after the other; a failure is an event too."""
    try:
        for row in making.rows:
            async for event in _stream_one(making, row):
                yield event
    except Refused as refused:
        yield sse("error", {"type": "error", "error": {"message": refused.message, "code": refused.code}})


async def _stream_one(making: Making, row: Row) -> AsyncIterator[str]:
    """A fast poster is over before anybody looked: its native picture is shown all the same."""
    shown: list[int] = []
    with making.here.feed.following(row.id) as news:
        while True:
            news.clear()
            row = await _looked_at(making, row)
            over = row.state_name in OVER
            look = await making.here.read(lambda row=row: making.here.views.look(row))  # type: ignore[misc]
            if look is not None and len(shown) < making.call.partial_images and not (over and shown):
                with suppress(FileNotFoundError):  # a preview goes once its poster is there
                    stamp = look.stat().st_mtime_ns
                    if stamp not in shown:
                        event = await _partial(making, look, len(shown))
                        shown.append(stamp)
                        yield event
            if over:
                break
            await _next(making, news)
    done = _require_done(row)
    datum = await making.here.read(lambda: _datum(making, done))
    yield _event(making, "completed", datum["b64_json"], making.call.output_format)


async def _partial(making: Making, look: Path, index: int) -> str:
    picture = base64.b64encode(await making.here.read(look.read_bytes)).decode()
    kind = "jpeg" if look.suffix == ".jpg" else "png"
    return _event(making, "partial_image", picture, kind, partial_image_index=index)


def _event(making: Making, name: str, picture: str, output_format: str, **more: Any) -> str:
    kind = f"{making.kind}.{name}"
    event = {"type": kind, "b64_json": picture, "created_at": int(time.time()), "background": "opaque"}
    return sse(kind, {**event, "output_format": output_format, **more})
