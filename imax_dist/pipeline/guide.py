"""Stage 2, if a picture was given: it takes the place of the native pass.

Rank 0 alone opens the file. What the request leaves to the picture (size, prompt, which way the paper lies)
is filled in before the plan is made, so that plan and recipe say it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imax_dist.errors import BadManifest, BadValue, ImaxError, Preempted
from imax_dist.events import Listener, Note, ignore, stage
from imax_dist.geometry import ImageSize
from imax_dist.output.image.guide import guide_hash, open_guide, read_guide
from imax_dist.output.image.profile import srgb
from imax_dist.output.image.prompt_text import find_prompt
from imax_dist.output.image.reader import Picture
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.pixels import as_pixels
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.pipeline.request import LONGEST_PROMPT, Request
from imax_dist.pipeline.run import never
from imax_dist.shapes import Pixels


def completed(
    request: Request, topology: Topology | None = None, listen: Listener = ignore
) -> tuple[Request, ImageSize | None]:
    """``request`` with what it leaves to its guide, and the guide's size, upright; None without one.

    An empty prompt becomes the one in the picture, and a paper lies as the picture does. With a ``topology``
    rank 0 reads the file for all. Raises what ``open_guide`` and ``find_prompt`` raise.
    """

    def read() -> tuple[int, int, str, str]:
        path = Path(str(request.guide))
        opened = open_guide(path, background=request.background)
        if request.region is not None:
            _require_bits(path, opened)
        size = opened.bands.size
        found = None if request.prompt else find_prompt(path)
        if found is not None and len(found.text) > LONGEST_PROMPT:
            raise BadManifest(
                f"{path}: the prompt in {found.origin} has {len(found.text)} characters, and at most "
                f"{LONGEST_PROMPT} are read; give --prompt"
            )
        return size.width, size.height, *(found or ("", ""))

    if request.guide is None:
        return request, None
    width, height, prompt, origin = read() if topology is None else from_first_rank(read, topology)
    size = ImageSize(width, height)
    if not request.prompt:
        words = (
            f"the prompt is {prompt!r}, from {origin}"
            if prompt
            else "it carries no prompt: the prompt is empty"
        )
        listen(Note(f"guide {request.guide}: {words}"))
    turned = _is_landscape(request, size)
    if turned:
        listen(
            Note(
                f"guide {request.guide}: the paper {request.paper} is in landscape orientation, "
                "as the picture is"
            )
        )
    laid: dict[str, Any] = {"landscape": True, "size": None} if turned else {}
    return dataclasses.replace(request, prompt=request.prompt or prompt, **laid), size


def _require_bits(path: Path, opened: Picture) -> None:
    """Raise BadValue for a poster whose values cannot be kept outside a region."""
    if opened.profile is not None and opened.profile.data != srgb().data:
        changed = f"its colours ({opened.profile.name}) would be converted to sRGB"
    elif opened.notes:
        changed = opened.notes[0]
    else:
        return
    raise BadValue(f"poster {path} cannot be kept bit for bit: {changed}; give the render, not a print of it")


def _is_landscape(request: Request, picture: ImageSize) -> bool:
    """Whether a paper that nobody said how to lay has to be turned to lie as the picture does."""
    if request.paper is None or request.landscape or "portrait" in request.paper.lower():
        return False
    sheet = ImageSize.parse(str(request.size))
    return picture.width > picture.height and sheet.width < sheet.height


def size_if_here(request: Request) -> ImageSize | None:
    """The guide's size where the file may be on another machine, or the request is only planned with."""
    try:
        return completed(request)[1]
    except ImaxError:
        return None


def with_guide(
    plan: PosterPlan, topology: Topology, listen: Listener = ignore, stop: Callable[[], bool] = never
) -> tuple[PosterPlan, Pixels | None]:
    """``plan`` with its guide's hash, and the guide (1, 3, H, W) in [-1, 1] as placed, on every rank.

    Rank 0 alone reads the file, and tells ``listen`` what was done to it. Raises what ``read_guide`` raises,
    and Preempted if ``stop``, read after every band, is True.
    """
    request, place = plan.request, plan.placement
    if request.guide is None or place is None:
        return plan, None
    path, background = Path(request.guide), request.background

    def notify(text: str) -> None:
        listen(Note(f"guide {path}: {text}"))

    def check() -> None:
        if stop():
            raise Preempted("stopped while the picture was read; run the same command again to resume")

    def read() -> tuple[str, Tensor]:
        if fitted := place.sentence(plan.size):
            notify(fitted)
        opened = open_guide(path, background=background)
        pixels = read_guide(opened, place, background=background, notify=notify, check=check)
        return guide_hash(pixels), torch.from_numpy(pixels)

    with stage(listen, "picture"):
        digest, picture = from_first_rank(read, topology)
    return dataclasses.replace(plan, guide=digest), as_pixels(picture)
