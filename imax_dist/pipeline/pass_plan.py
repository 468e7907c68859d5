"""One pass of a poster, decided: sizes, noise levels, what guides it and how firmly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from imax_dist.geometry import AxisScale, ImageSize, LatentGrid, Region
from imax_dist.method.guidance import SCHEDULES, GuidanceWeights, Step
from imax_dist.method.patch_shift import is_shifted
from imax_dist.method.presets import Method
from imax_dist.method.projection import PROJECTIONS, Projection, with_detail_left
from imax_dist.method.step_cache import STEP_CACHES
from imax_dist.method.strength import LEAST_ENLARGEMENT, kept_share
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.spec import Context, ModelSpec
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.scales import latent_grid

Shift = Literal["none", "network", "step"]
"""Nothing; the forward pass alone; or low-pass, guidance and Euler step, too."""


@dataclass(frozen=True)
class PassPlan:
    """One sampling run, decided. Sizes are pixels, grids latent pixels, sigmas run from its start to 0."""

    request: Request
    spec: ModelSpec
    method: Method
    number: int
    """0: the native pass; the others are guided by the one before them, if by any."""
    name: str
    """Its stage: native, ``cascade 1`` ..., extrapolated."""
    size: ImageSize
    """What its picture is cropped to: the poster's, or all of ``render_size``."""
    render_size: ImageSize
    native_size: ImageSize
    sigmas: tuple[float, ...]
    guidance_scale: float
    copies: TextCopies
    reference_size: ImageSize | None = None
    """Of the picture before, which guides it."""
    reference_sigmas: tuple[float, ...] = ()
    """The sigmas the reference has latents for: 0, the image's, or those of the steps it was made in."""
    region: Region | None = None
    """What of the reference the pass renders again, in pixels of what it renders; None: all of it."""
    keeps_endpoints: bool = False
    """Whether the next pass wants the endpoint of each step."""

    @property
    def is_native(self) -> bool:
        return self.number == 0

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def context(self) -> Context:
        """How the network is shown the picture given, if it is one that edits."""
        return "none" if self.request.guide is None else self.spec.context

    @property
    def constant_reference(self) -> bool:
        """Whether the finished picture of the pass before guides every step."""
        return self.reference_sigmas == (0.0,)

    @property
    def grid(self) -> LatentGrid:
        return latent_grid(self.render_size, self.spec)

    @property
    def scale(self) -> AxisScale:
        """Against native: positions, text copies and the time shift answer to what was trained."""
        return AxisScale.between(self.grid, latent_grid(self.native_size, self.spec))

    @property
    def enlargement(self) -> AxisScale:
        """Against the picture before: what guides the pass holds nothing finer."""
        before, size = self.reference_size or self.native_size, self.render_size
        return AxisScale(size.height / before.height, size.width / before.width)

    @property
    def kept_share(self) -> float:
        """The share of the picture before, of its own band, in the start; the rest is noise."""
        return kept_share(self.sigmas[0], self.enlargement.linear)

    @cached_property
    def project(self) -> Projection:
        """P for this pass: the reference holds nothing above its own Nyquist frequency.

        Scales in a list of one's own are taken at their word, also where P keeps everything (DECISIONS 99).
        """
        guidance, scale = self.method.guidance, self.enlargement
        if self.method.start.strength is not None:
            scale = AxisScale(max(scale.height, LEAST_ENLARGEMENT), max(scale.width, LEAST_ENLARGEMENT))
        cut = scale.divided(guidance.cutoff)
        if guidance.projection == "matched_blocks" and isinstance(self.method.cascade, str):
            cut = with_detail_left(cut)
        return PROJECTIONS[guidance.projection](cut)

    def weights(self, step: Step) -> GuidanceWeights:
        """How hard ``step`` is pulled to the reference."""
        guidance = self.method.guidance
        return SCHEDULES[guidance.schedule](step).times(guidance.strength)

    @cached_property
    def skipped(self) -> frozenset[int]:
        """Indices of the steps at which the network's forward pass is skipped."""
        return frozenset() if self.is_native else STEP_CACHES[self.method.cache](self.steps)

    def shift_at(self, index: int) -> Shift:
        """What of a step runs on the shifted patch grid; patches of one latent have none."""
        shift = self.method.patch_shift
        if shift is False or self.is_native or self.spec.patch == 1 or not is_shifted(index):
            return "none"
        return "step" if shift == "step" else "network"
