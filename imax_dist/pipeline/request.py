"""What someone asks for: one poster. The same fields on the command line, in a manifest and in Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imax_dist.config import fingerprint, to_mapping
from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize
from imax_dist.output.image.settings import FinishSettings, read_outputs

LONGEST_PROMPT = 8_000
LARGEST_SEED = 2**63 - 1
MOST_STEPS = 1_000
LARGEST_AREA = 1_000_000_000


@dataclass(frozen=True)
class Request:
    """One poster. What is None is filled in from the model's settings.

    ``size`` is ``WIDTHxHEIGHT`` in pixels; a ``paper`` (A2, 24x36in) with ``bleed`` at ``dpi`` fills it in.
    ``lora`` holds ``PATH[:WEIGHT]`` of LoRA files, merged in this order; ``lora_partial``
    merges what fits of a file whose other layers do not.
    ``method`` changes single switches of the preset, nested as in ``configs/presets``:
    ``{"rope": {"rule": "none"}}``. ``guide`` is a picture's path: it guides instead of the native pass.
    ``output`` names print files by ending: ``{"pdf": {"icc": "shop.icc"}}``.
    Raises BadValue for what can never be rendered.
    """

    prompt: str
    size: str | None = None
    seed: int = 0
    model: str = "embedded"
    preset: str = "imax"
    steps: int | None = None
    native_steps: int | None = None
    dtype: str | None = None
    lora: tuple[str, ...] = ()
    lora_partial: bool = False
    method: dict[str, Any] = field(default_factory=dict)
    guide: str | None = None
    paper: str | None = None
    dpi: float | None = None
    bleed: str | None = None
    landscape: bool = False
    output: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise BadValue("the prompt is empty; say what the poster shows")
        if len(self.prompt) > LONGEST_PROMPT:
            raise BadValue(f"the prompt has {len(self.prompt)} characters; at most {LONGEST_PROMPT} are read")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise BadValue(f"seed {self.seed} is outside 0 to {LARGEST_SEED}")
        for name, steps in (("steps", self.steps), ("native_steps", self.native_steps)):
            if steps is not None and not 1 <= steps <= MOST_STEPS:
                raise BadValue(f"{name} {steps} is outside 1 to {MOST_STEPS}")
        self._fit_paper()
        if self.size is not None:
            size = ImageSize.parse(self.size)
            if size.area > LARGEST_AREA:
                raise BadValue(f"size {size} has {size.megapixels:.0f} megapixels; at most 1000 are rendered")

    def _fit_paper(self) -> None:
        """The paper's pixels become the size; both may be given only if they agree."""
        sheet = {name: getattr(self, name) for name in ("paper", "dpi", "bleed", "landscape")}
        settings = FinishSettings(**sheet).sheet()
        read_outputs(self.output, sheet)
        if settings is None:
            return
        pixels = str(settings.pixels)
        if self.size not in (None, pixels):
            raise BadValue(
                f"paper {self.paper} at {settings.dpi:g} dpi is {pixels} px, but size says {self.size}; "
                "give one of the two"
            )
        object.__setattr__(self, "size", pixels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical request; the default id of a job."""
        return fingerprint(to_mapping(self))
