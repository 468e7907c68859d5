"""``/v1/images/jobs``: submit, look, cancel, retry, approve. ``/v1/batches``: many lines at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from pydantic import TypeAdapter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from imax_dist.config import suggestion
from imax_dist.jobs.manifest.files import read_jsonl
from imax_dist.pipeline.request import Request
from imax_dist.service.job_view import BASE
from imax_dist.service.reading import MIB, read_json, read_text
from imax_dist.service.refusals import Refused
from imax_dist.service.service import Asking, Here
from imax_dist.service.submissions import check_key

router = APIRouter(tags=["jobs"])
StateName = Literal["queued", "running", "proofed", "done", "failed", "cancelled"]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Your own name for this submission: the same key and request again is the same job.",
    ),
]
EXTRA = {
    "webhook": {"type": "string", "format": "uri", "description": "Called when the job has ended; signed."},
    "approval": {"type": "boolean", "description": "Make the proof, and the poster once it is approved."},
    "priority": {"type": "integer", "description": "Larger goes first; for tokens with the role operate."},
}
MOST_ROWS = 200
LISTED_BY = {"state", "after", "limit"}


def request_schema() -> dict[str, Any]:
    """The fields of a job, from the Request itself; ``guide`` is an upload's id here, ``lora`` names."""
    schema = TypeAdapter(Request).json_schema()
    properties = {**schema["properties"], **EXTRA}
    return {"type": "object", "properties": properties, "additionalProperties": False}


BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": request_schema()}}}}
LINES = {
    "requestBody": {
        "required": True,
        "content": {"application/x-ndjson": {"schema": {"type": "string", "description": "One job a line"}}},
    }
}


@router.post(BASE, status_code=202, openapi_extra=BODY)
async def submit(request: HttpRequest, here: Here, client: Asking, key: Key = None) -> JSONResponse:
    """Queue one poster; 202 with its id, planned seconds and place in the queue (200 if the key is known).

    Refused with 400 for a ``count``, which POST /v1/batches takes.
    """
    fields = await read_json(request)
    if fields.get("count") not in (None, 1):
        raise Refused(400, "count: one job at a time here; POST /v1/batches takes many", code="bad_request")
    name = check_key(key)
    submissions = await here.submissions.read_one(fields, client, key=name)
    ((row, new, ahead),) = await here.submissions.submit(submissions, client)
    here.wake_pool()
    seen = here.views.view(row, ahead=ahead, new=True) if new else await here.read(lambda: here.view(row))
    return JSONResponse(seen, 202 if new else 200, {"Location": f"{BASE}/{row.id}"})


@router.post("/v1/batches", status_code=202, openapi_extra=LINES)
async def submit_lines(request: HttpRequest, here: Here, client: Asking, key: Key = None) -> JSONResponse:
    """Queue a manifest of JSON Lines: all of it, or nothing and every mistake with its line."""
    text = await read_text(request, here.submissions.limits.manifest_mib * MIB)
    name = check_key(key)
    submissions = await here.read(lambda: here.submissions.read(read_jsonl(text), client, key=name))
    made = await here.submissions.submit(submissions, client)
    here.wake_pool()
    ids = [each.row.id for each in made]
    seconds = [here.submissions.estimates.guess(each.job.request) or 0.0 for each in submissions]
    planned = round(sum(seconds) / max(1, here.views.gangs()), 1)
    answer = {
        "object": "batch",
        "jobs": ids,
        "new": sum(each.new for each in made),
        "planned_seconds": planned,
    }
    return JSONResponse(answer, 202)


@router.get(BASE)
async def list_jobs(
    request: HttpRequest,
    here: Here,
    client: Asking,
    *,
    state: Annotated[list[StateName] | None, Query(description="Only these states")] = None,
    after: Annotated[int | None, Query(description="The cursor of the page before", ge=0, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 50,
) -> JSONResponse:
    """Jobs, the newest first; ``next`` is the cursor of the next page. Refused with 400: unknown filters."""
    for name in request.query_params.keys() - LISTED_BY:
        raise Refused(
            400, f"unknown {name[:80]!r}; {suggestion(name, sorted(LISTED_BY))}", code="bad_request"
        )
    owner = None if client.operates else client.name

    def look() -> dict[str, Any]:
        page = here.queue.page(states=tuple(state or ()), owner=owner, after=after, limit=limit)
        return {"object": "list", "data": [here.view(row) for row in page.rows], "next": page.next}

    return JSONResponse(await here.read(look))


@router.get("/v1/queue")
async def queue(here: Here, client: Asking) -> dict[str, Any]:
    """How many jobs are in which state, and how many gangs make posters."""
    owner = None if client.operates else client.name
    counts = await here.read(lambda: here.queue.counts(owner=owner))
    return {"object": "queue", "states": counts, "gangs": here.views.gangs(), "client": client.name}


@router.get(BASE + "/{job_id}")
async def look_at(job_id: str, here: Here, client: Asking) -> JSONResponse:
    """One job: state, progress, files."""
    return JSONResponse(await here.seen(job_id, client))


@router.delete(BASE + "/{job_id}")
async def cancel(job_id: str, here: Here, client: Asking) -> dict[str, Any]:
    """Cancel it, also while it is being made: it stops after its step, and a retry resumes there."""
    return await here.changed(job_id, client, here.queue.cancel, "cancelled")


@router.post(BASE + "/{job_id}/retry")
async def retry(job_id: str, here: Here, client: Asking) -> dict[str, Any]:
    """Queue a failed or cancelled job again, within the token's quota."""
    arrivals = here.submissions.arrivals
    return await here.changed(job_id, client, lambda ids: arrivals.retry(ids, client), "retried")


@router.post(BASE + "/{job_id}/approve")
async def approve(job_id: str, here: Here, client: Asking) -> dict[str, Any]:
    """Make the poster of a proof."""
    return await here.changed(job_id, client, here.queue.approve, "approved")
