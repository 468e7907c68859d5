"""A job of a running service for the viewer: its layers, and its pyramid, cut when it is first looked at.

Apart because a page of a whole folder is written at once (page.py), and a service has one job to show.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from imax_dist.errors import MissingInput
from imax_dist.output.own_files import require_real_folder
from imax_dist.output.web.batch_folder import read_job
from imax_dist.output.web.page import VIEW, look_of, native_place

TILE = re.compile(r"\d{1,4}_\d{1,4}\.jpg")


def look_folder(out: Path, job_id: str) -> Path:
    """Where the thumbnail and the tiles of a job lie. Raises BadValue for a link."""
    return require_real_folder(out / VIEW / job_id)


def layers_of(out: Path, job_id: str, *, files: str, tiles: str) -> list[dict[str, Any]]:
    """The poster, and the native picture where it lies under it, with ``files`` and ``tiles`` as their URLs.

    Raises MissingInput before the poster is finished, BadManifest for a picture that cannot be read.
    """
    poster = read_job(out / job_id)
    if poster.picture is None:
        raise MissingInput(f"job {job_id} has no finished poster")
    look = look_of(out, poster)
    place = (
        {"url": tiles, "tiles": look["tiles"]} if "tiles" in look else {"url": files + poster.picture.name}
    )
    layers = [{"label": "poster", **place, "x": 0, "y": 0, "width": 1}]
    if poster.native is not None:
        url = files + poster.native.name
        layers.append({"label": "native (up-sampled)", "url": url, **native_place(poster)})
    return layers
