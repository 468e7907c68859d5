"""The page, its files and the API's description for people: static, from the package."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from imax_dist.jobs.manifest.table import field_kinds
from imax_dist.service.access import COOKIE
from imax_dist.service.reading import read_json
from imax_dist.service.refusals import Refused, not_found
from imax_dist.service.service import Here

router = APIRouter(include_in_schema=False)
KINDS = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript", "txt": "text/plain"}
OWN = ("page.css", "app.js", "queue.js", "form.js", "api.js", "docs.js", "docs.html")
VIEWER = ("page.css", "viewer.js", "openseadragon.min.js", "openseadragon.LICENSE.txt")
DAY_S = 86_400


def asset(package: str, name: str) -> Response:
    """A file of the package as it is."""
    content = files(package).joinpath(name).read_bytes()
    kind = KINDS[name.rpartition(".")[2]]
    return Response(content, media_type=kind, headers={"cache-control": "no-cache"})


@router.get("/")
async def page() -> Response:
    return asset("imax_dist.service.page", "index.html")


@router.get("/docs")
async def docs() -> Response:
    return asset("imax_dist.service.page", "docs.html")


@router.get("/page/{name}")
async def own_file(name: str) -> Response:
    if name not in OWN:
        raise not_found("this file")
    return asset("imax_dist.service.page", name)


@router.get("/viewer/{name}")
async def viewer_file(name: str) -> Response:
    if name not in VIEWER:
        raise not_found("this file")
    return asset("imax_dist.output.web.viewer", name)


@router.post("/session")
async def enter(request: HttpRequest, here: Here) -> Response:
    """A token becomes a cookie that scripts cannot read and other sites cannot send.

    Refused with 400 without one.
    """
    secret = (await read_json(request)).get("token")
    if not isinstance(secret, str):
        raise Refused(400, "token: text is needed", code="bad_request")
    client = await here.read(lambda: here.door.find(secret.strip()))
    answer = JSONResponse({"client": client.name, "role": client.role})
    secure = request.url.scheme == "https"
    answer.set_cookie(
        COOKIE, secret.strip(), max_age=30 * DAY_S, httponly=True, samesite="strict", secure=secure, path="/"
    )
    return answer


@router.delete("/session")
async def leave() -> Response:
    answer = JSONResponse({})
    answer.delete_cookie(COOKIE, path="/")
    return answer


@router.get("/session")
async def who(request: HttpRequest, here: Here) -> dict[str, Any]:
    """Who the page acts for, and what it may ask for."""
    secret, _ = here.door.secret_of(request)
    client = await here.client(secret)
    limits = here.submissions.limits
    return {
        "client": client.name,
        "role": client.role,
        "tokens": here.door.required,
        "models": list(limits.models),
        "editors": await here.read(here.submissions.editors),
        "loras": list(here.settings.loras),
        "megapixels": limits.megapixels,
        "upload_mib": here.settings.upload_mib,
        "strength": "strength" in field_kinds(),
    }
