"""Fig. 9: how wrong the predicted velocity of a true picture is, by time and resolution."""

from __future__ import annotations

from dataclasses import replace

import torch

from imax_dist.method.guidance import Step
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.noise import draw_noise
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.sampler import Sampler, sequence_alone
from imax_dist.study.experiments.cell import Cell
from imax_dist.study.scenes import render
from imax_dist.study.train.crops import to_unit

TIMES = (0.05, 0.15, 0.25, 0.35, 0.5, 0.65, 0.75, 0.85, 0.95)
"""The paper's time: 0 noise, 1 image."""


@torch.no_grad()
def velocity_losses(model: FlowModel, cell: Cell) -> dict[str, float]:
    """Mean squared error of the velocity at each time, on the true render noised with the scene's noise.

    Positions, attention and text of the cell's variant; no guidance of any kind. At native size the
    variant's positions are the trained ones.
    """
    request = replace(cell.request(), dtype=str(model.dtype).removeprefix("torch."))
    if cell.scale == 1:
        request = replace(request, preset="direct", method={})
    plan = replace(make_plan(request, model.spec).last, guidance_scale=1.0)
    conditioning = model.encode_prompt(request.prompt, negative=False)
    sampler = Sampler.of(plan, model, conditioning, sequence_alone(plan))
    pixels = to_unit(render(cell.scene, cell.size.height, cell.size.width)[None])
    clean = model.encode_image(pixels.to(model.device, model.dtype), noise=None).float()
    noise = draw_noise(request.seed, "velocity loss", grid=plan.grid, model=model).float()
    found = {}
    for time in TIMES:
        step = Step(sigma=1 - time, index=0, steps=1)
        predicted = sampler.shifted(torch.lerp(clean, noise, step.sigma), step).velocity
        found[f"t={time}"] = float((predicted - (noise - clean)).square().mean())
    return found
