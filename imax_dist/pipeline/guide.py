"""Stage 2, if a picture was given: it takes the place of the native pass."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from imax_dist.events import Listener, Note, ignore
from imax_dist.output.image.guide import guide_hash, read_guide
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.pixels import as_pixels
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.shapes import Pixels


def with_guide(
    plan: PosterPlan, topology: Topology, listen: Listener = ignore
) -> tuple[PosterPlan, Pixels | None]:
    """``plan`` with its guide's hash, and the guide (1, 3, H, W) in [-1, 1] at native size, on every rank.

    Rank 0 alone reads the file, and tells ``listen`` what was done to it. Raises what ``read_guide`` raises.
    """
    path = plan.request.guide
    if path is None:
        return plan, None

    def read() -> Tensor:
        found = read_guide(Path(path), plan.native_size, plan.size, tell=lambda text: listen(Note(text)))
        return torch.from_numpy(found)

    picture = from_first_rank(read, topology)
    plan = dataclasses.replace(plan, guide=guide_hash(picture.cpu().numpy()))
    return plan, as_pixels(picture)
