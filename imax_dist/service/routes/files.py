"""Files of a job (ranges, ETag = SHA-256), pictures that clients send, tiles to look at a large poster."""

from __future__ import annotations

import os
import re
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, RedirectResponse, Response

from imax_dist.jobs.deliver import link
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.state import Done
from imax_dist.jobs.store import Row
from imax_dist.output.done import LOOKS as LOOKS_SENT
from imax_dist.output.done import POSTER_FILES
from imax_dist.output.own_files import is_file
from imax_dist.output.web.live import TILE, layers_of, look_folder
from imax_dist.service.job_view import BASE, LOOKS
from imax_dist.service.reading import MIB, bounded
from imax_dist.service.refusals import Refused, not_found
from imax_dist.service.service import Asking, Here, Service

router = APIRouter(tags=["files"])
SHOWN = (".png", ".jpg", ".jpeg", ".json")
"""What a browser shows in the page; the rest is downloaded."""
SENT = f"{POSTER_FILES}|{LOOKS_SENT}"
LINK_S = 300.0
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/v1/uploads", status_code=201, openapi_extra=UPLOAD)
async def upload(request: HttpRequest, here: Here, client: Asking) -> dict[str, Any]:
    """Send a picture (PNG, JPEG, TIFF, WebP ...) as the body; its id is what a job's ``guide`` takes."""
    written, digest = await here.uploads.write(bounded(request, here.settings.upload_mib * MIB))
    await here.read(lambda: here.uploads.keep(written, digest, client.name))
    return {"id": digest, "object": "upload"}


@router.get(BASE + "/{job_id}/files/{name}", response_class=FileResponse)
@router.head(BASE + "/{job_id}/files/{name}", include_in_schema=False)
async def file(job_id: str, name: str, request: HttpRequest, *, here: Here, client: Asking) -> Response:
    """A file of a finished poster (range requests; ETag is its SHA-256), or a look at an unfinished one.

    What was delivered to an object store and is no longer here is answered with a signed link to it (307), a
    preview whose poster was finished meanwhile with nothing (204).
    """
    row = await here.row(job_id, client)
    elsewhere = await here.read(lambda: signed_link(here.out, row, name))
    if elsewhere:
        return RedirectResponse(elsewhere, 307, headers={"cache-control": "no-store"})
    found, tag = await here.read(lambda: _find(here, row, name))
    if not found:
        return Response(status_code=204)
    headers = {"etag": f'"{tag}"', "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") in (f'"{tag}"', "*"):
        return Response(status_code=304, headers=headers)
    if isinstance(found, bytes):
        headers["content-disposition"] = f"inline; filename*=utf-8''{quote(f'{job_id}-{name}')}"
        return Response(found, headers=headers, media_type=guess_type(name)[0])
    kind = "inline" if found.suffix.lower() in SHOWN else "attachment"
    return FileResponse(found, headers=headers, filename=f"{job_id}-{name}", content_disposition_type=kind)


@router.get(BASE + "/{job_id}/layers")
async def layers(job_id: str, here: Here, client: Asking) -> dict[str, Any]:
    """The poster and its native picture as a deep-zoom viewer takes them; tiles are cut the first time.

    Refused with 409 before there is one.
    """
    row = await here.row(job_id, client)
    if row.state_name != "done":
        raise Refused(409, f"a job that is {row.state_name} has no poster to look at yet", code="wrong_state")
    base = f"{BASE}/{job_id}"
    places = {"files": f"{base}/files/", "tiles": f"{base}/tiles/"}
    async with here.drawing:
        return {"layers": await here.read(lambda: layers_of(here.out, job_id, **places))}


@router.get(BASE + "/{job_id}/tiles/{level}/{tile}", response_class=FileResponse, include_in_schema=False)
async def tile(job_id: str, level: int, tile: str, *, here: Here, client: Asking) -> FileResponse:
    """A tile of the pyramid."""
    row = await here.row(job_id, client)
    path = look_folder(here.out, row.id) / "tiles" / str(level) / tile
    if TILE.fullmatch(tile) is None or not await here.read(lambda: is_file(path)):
        raise not_found("this tile")
    return FileResponse(path, headers={"cache-control": "private, max-age=86400"})


def signed_link(out: Path, row: Row, name: str) -> str:
    """Where a delivered poster's file can be read for ``LINK_S``; empty for what is here or was not sent."""
    state = row.state
    if not isinstance(state, Done) or not state.delivered or not re.fullmatch(SENT, name):
        return ""
    here = is_file(JobFolder.of(out, row.id).path / name)
    return "" if here else link(state.delivered, name, seconds=LINK_S)


def _find(here: Service, row: Row, name: str) -> tuple[Path | bytes, str]:
    """A finished file, or a look's bytes, and its tag; nothing for a preview that is gone by now.

    Raises Refused (404) for a name that is none of the job's.
    """
    path = JobFolder.of(here.out, row.id).path / name
    facts = here.views.files(row).get(name)
    if facts is not None and is_file(path):
        return path, str(facts["sha256"])
    look = _read_look(path) if name in LOOKS else None
    if look is not None:
        return look
    if name == LOOKS[0]:
        return b"", ""
    raise not_found(f"file {name[:80]!r} of this job")


def _read_look(path: Path) -> tuple[bytes, str] | None:
    """All of it and its tag, from one open file: a rank may put the next one in its place at any moment."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
            status = os.fstat(file.fileno())
            return file.read(), f"{status.st_mtime_ns:x}-{status.st_size:x}"
    except OSError:
        return None
