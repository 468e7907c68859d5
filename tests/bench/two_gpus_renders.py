"""Whole renders of a tiny model by all ranks against the same poster by one, for two_gpus.py.

Attention that is right in every mesh is not yet a poster: this goes through every collective of a render, on
NCCL as on gloo. In float64, so that what is left is rounding and not precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imax_dist.errors import Preempted
from imax_dist.events import RenderEvent, StepDone
from imax_dist.models.tiny import make_tiny
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.render import Rendering
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request
from tests.tiny_flux import make_tiny_flux

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
ALLOWED = 1e-8
"""Between two orders of the same sums in float64, with weights as peaked as these."""
ALLOWED_PIXEL = 1e-5
"""Pictures are handed out in float32."""
FLUX, GUIDED = "flux", "guided"
"""Folders of the model with 4 heads and of one that takes classifier-free guidance."""
STOPPED_AFTER = 2
"""Steps of the last pass, fewer than that case has."""


@dataclass(frozen=True)
class Case:
    """A request's fields and how its ranks share the work."""

    fields: dict[str, Any]
    parallel: dict[str, Any] = field(default_factory=dict)
    model: str = FLUX
    stopped: bool = False
    """In the middle of a pass, then resumed from its checkpoint."""

    def request(self, models: Path) -> Request:
        fields = {"native_steps": 3, "steps": 4, **self.fields}
        return Request(PROMPT, model=str(models / self.model), dtype="float64", **fields)


SCALES = {"guidance_scale": {"native": 2.0, "extrapolated": 3.0}}
CASCADE = {"cascade": [2.0], "start": {"sigma": 0.8}}
CASES = {
    "by way of twice native": Case({"size": "160x144", "method": CASCADE}),
    "text copies in a grid": Case({"size": "144x112", "method": {"text": {"copies": "grid"}}}),
    "native pass shared": Case({"size": "144x112"}, {"native": "shared"}),
    "guidance split": Case({"size": "144x112", "method": SCALES}, {"cfg": "split"}, model=GUIDED),
    "VAE by rows, maps in files": Case({"size": "192x160"}, {"vae_memory_gib": 0.001}),
    "stopped and resumed": Case({"size": "144x112", "steps": 8}, stopped=True),
}
"""Sizes whose tokens no number of ranks divides; the VAE goes by rows in all of them."""


TINY = ("by way of twice native", "guidance split", "stopped and resumed")
"""What the suite runs of them: each is a case of tests/pipeline already."""


def make_models(folder: Path) -> None:
    """What the cases render with."""
    make_tiny_flux(folder / FLUX)
    make_tiny("flux-schnell", folder / GUIDED)


def cases_for(ranks: int) -> dict[str, Case]:
    """Those that so many ranks can share: guidance is split between halves of them."""
    return {name: case for name, case in CASES.items() if ranks % 2 == 0 or "cfg" not in case.parallel}


def differences(topology: Topology, folder: str, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The largest of every case, on every rank: of the latents, and of the picture, which rank 0 has."""
    return {
        name: _difference(topology, case, Path(folder, name), request=case.request(Path(folder)))
        for name, case in cases_for(topology.world_size).items()
        if name in names
    }


def _difference(topology: Topology, case: Case, saved: Path, *, request: Request) -> tuple[float, float]:
    settings = ParallelSettings(**case.parallel)
    if case.stopped:
        _stop(topology, request, settings, saved)
        checkpoints = CheckpointFolder(saved, resume="must")
        found = render(request, topology=topology, parallel=settings, checkpoints=checkpoints)
    else:
        found = render(request, topology=topology, parallel=settings)
    by_one: list[Rendering] = []

    def alone() -> Any:
        by_one.append(render(request, topology=Topology.alone(topology.device)))
        return by_one[0].latents

    expected = from_first_rank(alone, topology)
    latents = float((found.latents - expected).abs().max())
    if found.pixels is None or by_one[0].pixels is None:
        return latents, 0.0
    return latents, float((found.pixels - by_one[0].pixels).abs().max())


def _stop(topology: Topology, request: Request, settings: ParallelSettings, saved: Path) -> None:
    """Render until the middle of the last pass, and leave a checkpoint there."""
    seen: list[StepDone] = []

    def listen(event: RenderEvent) -> None:
        if isinstance(event, StepDone) and event.stage == "extrapolated":
            seen.append(event)

    try:
        render(
            request,
            topology=topology,
            parallel=settings,
            checkpoints=CheckpointFolder(saved),
            listen=listen,
            stop=lambda: len(seen) >= STOPPED_AFTER,
        )
    except Preempted:
        return
    raise RuntimeError("a render that was asked to stop went on to its end")


def table(by_rank: list[dict[str, tuple[float, float]]]) -> Iterator[str]:
    """The worst rank's differences. Raises RuntimeError after the last row if one is no rounding."""
    yield "| render | largest difference of the latents (float64) | of the picture (float32) |"
    yield "|---|---|---|"
    wrong = []
    for name in by_rank[0]:
        latents, picture = (max(own[name][kind] for own in by_rank) for kind in (0, 1))
        yield f"| {name} | {latents:.1e} | {picture:.1e} |"
        if not (latents <= ALLOWED and picture <= ALLOWED_PIXEL):
            wrong.append(name)
    if wrong:
        raise RuntimeError(f"not the poster of one rank: {', '.join(wrong)}")
