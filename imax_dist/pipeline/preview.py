"""A small picture of a pass while it runs: a step's endpoint, its latents made colours by a linear map.

The map is fitted once a render on the VAE's own decode (least squares), so it needs no other network and
holds for any VAE. It gives the colours of four pixels for one of the latents. Rank 0 makes previews alone,
from latents that every rank has whole: they are the same on any number of ranks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.errors import BadValue, ImaxError
from imax_dist.events import Listener, Note, PreviewWritten
from imax_dist.method.flow import endpoint
from imax_dist.models.base import FlowModel
from imax_dist.output.image.pixels import to_eight_bit
from imax_dist.output.image.sheet import write_sheet
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.pixels import as_picture
from imax_dist.pipeline.state import PassState
from imax_dist.shapes import Latents, Pixels

LONGEST_SIDE = 1024
"""Pixels."""
PARTS = 2
"""Pixels of the map for one of the latents, a side."""
FITTED_SIDE = 32
"""Latent pixels of the picture that the map is fitted on."""


@dataclass(frozen=True)
class PreviewFile:
    """Where previews are written (``.jpg``), each over the one before, and after every how many steps."""

    path: Path
    every: int

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BadValue(f"a preview every {self.every} steps is not possible; give 1 or more")


@dataclass(frozen=True)
class ColourMap:
    """Latents to colours: (3 * PARTS ** 2, C) weights and a constant each."""

    weight: Tensor
    constant: Tensor

    def __call__(self, latents: Latents) -> Pixels:
        """(1, 3, PARTS h, PARTS w) in about [-1, 1], float32 on the device of the map."""
        x = latents.to(self.weight)
        colours = torch.einsum("oc,bchw->bohw", self.weight, x) + self.constant[:, None, None]
        return F.pixel_shuffle(colours, PARTS)


@torch.no_grad()
def fit_colours(model: FlowModel) -> ColourMap:
    """The map whose colours are nearest to what the VAE decodes, on a picture of patches and gradients."""
    side = FITTED_SIDE * model.spec.vae_factor
    latents = model.encode_image(_fitted_picture(side).to(model.device), noise=None)
    decoded = model.decode_image(latents).clamp(-1.0, 1.0).double().cpu()
    wanted = F.pixel_unshuffle(F.adaptive_avg_pool2d(decoded, PARTS * FITTED_SIDE), PARTS)
    known = latents.double().cpu().flatten(2)[0].T
    known = torch.cat([known, torch.ones(len(known), 1, dtype=known.dtype)], dim=1)
    solved = torch.linalg.lstsq(known, wanted.flatten(2)[0].T, driver="gelsd").solution.float()
    return ColourMap(solved[:-1].T.to(model.device), solved[-1].to(model.device))


@dataclass
class Previews:
    """The previews of one render, on rank 0."""

    file: PreviewFile
    model: FlowModel
    listen: Listener
    _colours: list[ColourMap] = field(default_factory=list)

    def look(self, plan: PassPlan, before: PassState, after: PassState) -> None:
        """Write one if the step between the two states is due for it; what cannot be written is told only."""
        if after.step % self.file.every != 0:
            return
        started = time.perf_counter()
        if not self._colours:
            self._colours.append(fit_colours(self.model))
        try:
            picture = shown_step(plan, before, after, self._colours[0])
            write_sheet(self.file.path, [to_eight_bit(picture)])
        except ImaxError as error:
            self.listen(Note(f"no preview: {error}"))
            return
        seconds = time.perf_counter() - started
        path = str(self.file.path)
        self.listen(PreviewWritten(path, plan.name, after.step, plan.steps, seconds))


@torch.no_grad()
def shown_step(plan: PassPlan, before: PassState, after: PassState, colours: ColourMap) -> Tensor:
    """(H, W, 3) in [0, 1] on the CPU: the endpoint of the step between the states, at most LONGEST_SIDE px.

    The step's velocity is what moved the latents.
    """
    sigma, lower = plan.sigmas[before.step], plan.sigmas[after.step]
    velocity = (after.latents - before.latents) / (lower - sigma)
    picture = colours(endpoint(before.latents, velocity, sigma)).nan_to_num()
    longest = max(plan.render_size.width, plan.render_size.height)
    scale = min(1.0, LONGEST_SIDE / longest)
    sides = (max(1, int(side * scale)) for side in (plan.render_size.height, plan.render_size.width))
    resized = F.interpolate(picture, size=tuple(sides), mode="bicubic", align_corners=False, antialias=True)
    return as_picture(resized).cpu()


def _fitted_picture(side: int) -> Pixels:
    """(1, 3, side, side) in [-1, 1]: random colours, from one latent pixel to a quarter of the picture."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.zeros(1, 3, side, side)
    for cells, mode in ((4, "bicubic"), (8, "nearest"), (FITTED_SIDE, "bicubic")):
        colours = torch.randn((1, 3, cells, cells), generator=generator) * 0.4
        picture += F.interpolate(colours, size=(side, side), mode=mode)
    return picture.clamp(-1.0, 1.0)
