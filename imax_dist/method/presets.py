"""A complete recipe of the method: every switch a field, every field settable alone.

``configs/presets/*.yaml`` holds the named recipes: ``paper`` (the text), ``official`` (the authors'
code), ``imax`` (ours, the default), ``direct`` (no method at all) and those of other papers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ReferenceSettings:
    """Where the native image enters: Sec. 2.2 and the authors' code."""

    kind: Literal["constant", "per_step"] = "constant"
    """constant: the finished native image (I-Max). per_step: its endpoint at each step (HiFlow)."""
    upsample: Literal["pixels", "latents", "network"] = "pixels"
    """pixels: decode, bicubic, encode. latents: bicubic on the latents, cheaper and worse. network: decode,
    a super-resolution network, encode."""
    network: str = "auto"
    """Its .safetensors file or name; auto: realesrgan-x4plus, or pixels where that is not installed."""
    posterior: Literal["mean", "sample"] = "mean"
    """What the VAE's encoder returns: the mean, or a sample drawn from the request's seed."""
    acceleration: float = 0.0
    """HiFlow's acceleration term; 1 as published, 0 without."""


@dataclass(frozen=True)
class GuidanceSettings:
    """Projected flow, Eq. 7."""

    schedule: str = "cosine_shift"
    strength: float = 1.0
    """Multiplies the schedule's weights."""
    projection: str = "matched_blocks"
    cutoff: float = 1.0
    """Where the filter cuts, as a fraction of the reference's own Nyquist frequency."""


@dataclass(frozen=True)
class StartSettings:
    """Where the extrapolated pass starts: SDEdit, and HiFlow's initialisation."""

    sigma: float | tuple[float, ...] | None = None
    """Noise level of the enlarged reference it starts from; none: pure noise. A list: one a pass."""
    steps: int | None = None
    """Steps that run from there to 0 in each pass; none: those of the whole schedule that lie below."""
    strength: float | None = None
    """In place of sigma: how far each pass may leave the picture before it, the same at every scale and on
    every network (method/strength.py). 0: the way through the VAE only; 1: pure noise."""
    min_steps: int = 4
    """Fewest steps of a pass that starts by strength."""


@dataclass(frozen=True)
class RopeSettings:
    """Scaled positions, Sec. 2.3 item 1."""

    rule: str = "ntk"
    factor: float | None = None
    """k of b' = k b s; none: the model's own."""
    floor: bool = True
    """No frequency below plain position interpolation."""
    watershed: float = 0.3
    """Rule time_aware: the paper time t = 1 - sigma at which interpolation ends and NTK begins."""
    scale: Literal["axes", "linear", "joint"] = "axes"
    """axes: each axis its own; linear: s for both; joint: from the joint length (authors' code)."""


@dataclass(frozen=True)
class TimeShiftSettings:
    """Noise schedule, Sec. 2.3 item 2."""

    rule: Literal["scaled", "native"] = "scaled"
    """scaled: the model's factor times s. native: the native pass's shift at every size."""
    native: float | None = None
    """Shift of the native pass; none: the model's own."""
    extrapolated: float | None = None
    """Shift of the extrapolated pass; none: by the rule."""


@dataclass(frozen=True)
class TextSettings:
    """Text duplication, Sec. 2.3 item 4."""

    copies: str = "none"
    cell: Literal["guide", "square"] = "guide"
    """guide: cells of the native image's own shape; square: native side by native side."""


@dataclass(frozen=True)
class GuidanceScaleSettings:
    """Classifier-free or distilled guidance, per pass; none: the model's own."""

    rule: Literal["per_pass", "native"] = "per_pass"
    """native: the native pass's scale at every size."""
    native: float | None = None
    extrapolated: float | None = None


@dataclass(frozen=True)
class Method:
    """One complete recipe."""

    cascade: Literal["none", "doubling"] | tuple[float, ...] = "none"
    """Passes on the way to the target, by their scale against native: doubling, or a list of scales."""
    guidance: GuidanceSettings = field(default_factory=GuidanceSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    start: StartSettings = field(default_factory=StartSettings)
    skip_residual: bool = False
    """DemoFusion's guidance: the noised reference mixed in before each step."""
    rope: RopeSettings = field(default_factory=RopeSettings)
    time_shift: TimeShiftSettings = field(default_factory=TimeShiftSettings)
    attention: str = "one_text"
    """Proportional attention, Sec. 2.3 item 3: which length L counts; YaRN's temperature or SEGA's
    factor for each rotary component instead."""
    text: TextSettings = field(default_factory=TextSettings)
    patch_shift: Literal[True, False, "network", "step"] = True
    """The patch grid moves at every other step: around the network's forward pass (true, network), or around
    the whole step, low-pass and Euler step too, as the released code does (step)."""
    guidance_scale: GuidanceScaleSettings = field(default_factory=GuidanceScaleSettings)
    cache: str = "none"
    """Steps that skip the network (method/step_cache.py): none, light or strong."""
    vae: Literal["exact", "tiled"] = "exact"
    """exact: as the VAE computes the whole picture. tiled: blended tiles, whose tones may differ."""
