"""One picture of a study: a scene, a variant, a size. The same scene has the same noise in all variants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize
from imax_dist.models.spec import ModelSpec
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.request import Request
from imax_dist.settings_mapping import fingerprint
from imax_dist.study.experiments.settings import Guide, Kind, Study, Variant
from imax_dist.study.scenes import Scene, caption, sample_scene
from imax_dist.study.train.crops import HELD_OUT

PICTURE_VERSION = 1
"""Part of every cell's key; raise it when the method's numerics change."""


@dataclass(frozen=True)
class Cell:
    """What to draw. ``number`` counts held-out scenes and is the seed of the noise."""

    number: int
    name: str
    variant: Variant
    model: str
    size: ImageSize
    native: ImageSize
    scale: float
    guide: Guide
    kind: Kind = "pictures"

    @property
    def scene(self) -> Scene:
        return sample_scene(HELD_OUT + self.number)

    def request(self) -> Request:
        """The target-size picture as a request."""
        return Request(
            prompt=caption(self.scene),
            size=str(self.size),
            seed=self.number,
            model=self.variant.model or self.model,
            preset=self.variant.preset,
            steps=self.variant.steps,
            native_steps=self.variant.native_steps,
            method=self.variant.method(),
        )

    def native_request(self) -> Request:
        """The native picture alone. Of the method, only what acts on the native pass is kept, so that
        variants share it."""
        method, preset = self.variant.method(), self.variant.preset
        kept: dict[str, Any] = {k: method[k] for k in ("time_shift", "guidance_scale") if k in method}
        preset = preset if preset == "official" else "one_jump"
        request = replace(self.request(), size=str(self.native), method=kept, preset=preset)
        return replace(request, steps=None)

    def key(self, spec: ModelSpec) -> str:
        """Same key, same picture: SHA-256 of the plan with weights, and what the plan does not know."""
        if self.kind == "velocity_loss":
            return fingerprint([plan_key(self.request(), spec), self.kind, PICTURE_VERSION])
        if self.variant.enlarge:
            return fingerprint([self.native_key(spec), self.variant.enlarge, str(self.size), self.guide])
        scene = self.number if self.guide == "truth" else None
        return fingerprint([plan_key(self.request(), spec), self.guide, scene, PICTURE_VERSION])

    def native_key(self, spec: ModelSpec) -> str:
        """The key of the native picture."""
        if self.guide == "truth":
            return fingerprint(["truth", self.number, str(self.native)])
        return fingerprint([plan_key(self.native_request(), spec), PICTURE_VERSION])


def plan_key(request: Request, spec: ModelSpec) -> str:
    """SHA-256 of the plan a request leads to: equal for requests that say the same in other words."""
    return make_plan(replace(request, dtype="study"), spec).fingerprint


def cells_of(study: Study, model: str, spec: ModelSpec, *, first: int = 0) -> list[Cell]:
    """All cells, scene by scene, so that a study that is stopped has whole scenes."""
    variants = study.parsed_variants
    found = []
    for scale, count in study.counts.items():
        for aspect in study.aspects:
            native = native_for(aspect, spec)
            size = ImageSize(round(native.width * scale), round(native.height * scale))
            for number in range(first, first + count):
                found += [
                    Cell(number, name, variant, model, size, native, scale, study.guide, study.kind)
                    for name, variant in variants.items()
                ]
    return sorted(found, key=lambda cell: (cell.scale, cell.number))


def native_for(aspect: str, spec: ModelSpec) -> ImageSize:
    """The native size of an aspect ratio ``W:H``, in whole tokens. Raises BadValue for another form."""
    width, _, height = aspect.partition(":")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise BadValue(f"aspect {aspect!r} is not W:H; write for example 3:2")
    ratio = (int(width) / int(height)) ** 0.5
    side = spec.native_tokens
    columns, rows = max(1, round(side * ratio)), max(1, round(side / ratio))
    return ImageSize(columns * spec.token_pixels, rows * spec.token_pixels)
