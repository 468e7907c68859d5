"""What is known of a model: its settings file, and the facts of its network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from imax_dist.errors import BadConfig
from imax_dist.models.momentum_guidance import MomentumGuidance


@dataclass(frozen=True)
class PassSteps:
    """Denoising steps of the two passes."""

    native: int
    extrapolated: int


@dataclass(frozen=True)
class PassScales:
    """Guidance scale of the two passes; 1 is no guidance."""

    native: float
    extrapolated: float


@dataclass(frozen=True)
class DeviceTypes:
    """The weights' dtype by kind of device."""

    cpu: str = "float32"
    cuda: str = "bfloat16"


@dataclass(frozen=True)
class About:
    """For people: parameters in billions (of transformer and VAE, of the text encoders), licence, gated."""

    parameters: float
    text_parameters: float
    licence: str
    gated: bool = False


@dataclass(frozen=True)
class ModelSettings:
    """``configs/models/*.yaml``: where a model is and how the method is set for it."""

    source: str
    native_side: int
    """Side in pixels of the square image the model was trained at."""
    steps: PassSteps
    guidance_scale: PassScales
    text_tokens: int
    """Most tokens of a prompt; FLUX.1 pads to it, and without a text mask that changes the image."""
    rope_factor: float = 2.5
    """k of b' = k b s, Sec. 2.3."""
    native_shift: float = 3.0
    """Time shift of the native pass."""
    shift_factor: float = 1.5
    """Time shift of the extrapolated pass over s, Sec. 2.3."""
    dtype: DeviceTypes = DeviceTypes()
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    quantize: str | None = None
    """The transformer's weights: a name of ``models/quantised.py``, or a .gguf file; none: as they are."""
    vae_factor: int | None = None
    """Image pixels per latent pixel; where a file says it, a model with another is refused."""
    patch: int | None = None
    """Latent pixels per token, along each axis; likewise."""
    about: About | None = None

    def __post_init__(self) -> None:
        """Raise BadConfig for numbers no model can have."""
        least_one = {
            "native_side": self.native_side,
            "steps.native": self.steps.native,
            "steps.extrapolated": self.steps.extrapolated,
            "text_tokens": self.text_tokens,
        }
        above_zero = {name: getattr(self, name) for name in ("rope_factor", "native_shift", "shift_factor")}
        for name, value in least_one.items():
            if value < 1:
                raise BadConfig(f"settings of model {self.source}: {name} must be at least 1, got {value}")
        for name, value in above_zero.items():
            if not value > 0.0:
                raise BadConfig(f"settings of model {self.source}: {name} must be above 0, got {value}")


@dataclass(frozen=True)
class Lora:
    """A LoRA file and how much of it: 0 nothing, 1 as trained."""

    source: str
    file: Path
    weight: float
    sha256: str


Context: TypeAlias = Literal["none", "tokens", "channels"]
"""How an editor is shown a picture: as tokens beside the image's own (FLUX.1 Kontext, Qwen-Image-Edit), or as
more channels of these, masked (FLUX.1 Fill)."""
Axis: TypeAlias = Literal["fixed", "row", "column"]
"""What a position axis counts: rows or columns of the image, or something that does not grow with it."""


@dataclass(frozen=True)
class ModelSpec:
    """The facts of a loaded network. How one model computes is in its FlowModel instead."""

    name: str
    settings: ModelSettings
    weights: str
    """SHA-256 over the weight files' names, sizes and contents: the recipe's proof of the model."""
    heads: int
    head_dim: int
    rope_axes: tuple[int, ...]
    """Channels of each position axis; they add up to head_dim."""
    rope_theta: float
    """Base b of the trained frequencies."""
    latent_channels: int
    vae_factor: int
    """Image pixels per latent pixel."""
    patch: int
    """Latent pixels per token, along each axis."""
    guidance: Literal["distilled", "classifier_free", "none"]
    """distilled: the scale is an input of the network; classifier_free: a second, empty prompt; none: trained
    into a network of few steps, so that no scale applies."""
    loras: tuple[Lora, ...] = ()
    """Merged into the weights in this order; ``weights`` counts them too."""
    kv_heads: int | None = None
    """Heads of keys and values (grouped-query attention); None: as many as ``heads``."""
    axes: tuple[Axis, ...] = ("fixed", "row", "column")
    """What each of ``rope_axes`` counts; scaled positions change rows and columns only."""
    positions: Literal["rotary", "absolute"] = "rotary"
    """absolute: learned and added, so that no RoPE rule applies; all tokens have one and the same table."""
    largest_side: int | None = None
    """Tokens along a side that absolute positions reach; None: any number."""
    text_attention: Literal["joint", "cross"] = "joint"
    """joint: text tokens are part of the sequence and may be copied; cross: the image attends to them."""
    context: Context = "none"
    needs_picture: bool = False
    """Whether it makes nothing from a prompt alone."""
    momentum: tuple[MomentumGuidance, ...] = ()
    """How its pipeline guides with a momentum: any prompt, and one with letters to paint; none: without."""

    @property
    def token_pixels(self) -> int:
        """Image pixels per token, along each axis; sizes are multiples of it."""
        return self.vae_factor * self.patch

    @property
    def native_tokens(self) -> int:
        """Tokens along a side of a square native image."""
        return self.settings.native_side // self.token_pixels
