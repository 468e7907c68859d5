"""What someone asks for: one poster. The same fields on the command line, in a manifest and in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imax_dist.config import fingerprint, named_configs, to_mapping
from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize
from imax_dist.named_file import FILE, MARK, NO_FILE, fields_naming_files
from imax_dist.output.image.settings import FinishSettings, read_outputs

LONGEST_PROMPT = 8_000
LARGEST_SEED = 2**63 - 1
MOST_STEPS = 1_000
LARGEST_AREA = 1_000_000_000


def _is_folder(model: str) -> bool:
    """A model's name that is looked for on this machine, not in configs/models or on the hub."""
    if model in named_configs("models"):
        return False
    return model.startswith((".", "/", "~")) or os.path.exists(model)


def _is_yaml(preset: str) -> bool:
    return preset.endswith((".yaml", ".yml"))


def _switches_name_files(method: Mapping[str, Any]) -> bool:
    return network_file(method) is not None


def network_file(method: Mapping[str, Any]) -> str | None:
    """The file of ``reference.network``, if a request's switches name one and not a network by its name."""
    reference = method.get("reference")
    named = reference.get("network") if isinstance(reference, Mapping) else None
    return named if isinstance(named, str) and named.endswith(".safetensors") else None


def _outputs_name_files(output: Mapping[str, Any]) -> bool:
    return any(fields_naming_files(FinishSettings, settings or {}) for settings in output.values())


@dataclass(frozen=True)
class Request:
    """One poster. What is None is filled in from the model's settings.

    ``size`` is ``WIDTHxHEIGHT`` in pixels; a ``paper`` (A2, 24x36in) with ``bleed`` at ``dpi`` fills it in.
    ``lora`` holds ``PATH[:WEIGHT]`` of LoRA files, merged in this order; ``lora_partial``
    merges what fits of a file whose other layers do not.
    ``method`` changes single switches of the preset, nested as in ``configs/presets``:
    ``{"rope": {"rule": "none"}}``. ``guide`` is a picture's path: it guides instead of the native pass.
    ``output`` names print files by ending: ``{"pdf": {"icc": "shop.icc"}}``.
    Which fields name files is marked where each is declared; a text field without a mark counts as one.
    Raises BadValue for what can never be rendered.
    """

    prompt: str = field(metadata=NO_FILE)
    size: str | None = field(default=None, metadata=NO_FILE)
    seed: int = 0
    model: str = field(default="embedded", metadata={MARK: _is_folder})
    preset: str = field(default="imax", metadata={MARK: _is_yaml})
    steps: int | None = None
    native_steps: int | None = None
    dtype: str | None = field(default=None, metadata=NO_FILE)
    lora: tuple[str, ...] = field(default=(), metadata=FILE)
    lora_partial: bool = False
    method: dict[str, Any] = field(default_factory=dict, metadata={MARK: _switches_name_files})
    guide: str | None = field(default=None, metadata=FILE)
    paper: str | None = field(default=None, metadata=NO_FILE)
    dpi: float | None = None
    bleed: str | None = field(default=None, metadata=NO_FILE)
    landscape: bool = False
    output: dict[str, Any] = field(default_factory=dict, metadata={MARK: _outputs_name_files})

    def __post_init__(self) -> None:
        if isinstance(self.lora, str):
            raise BadValue(f"lora {self.lora!r} must be a list of files; write lora=({self.lora!r},)")
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
