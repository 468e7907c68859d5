"""What someone asks for: one poster. The same fields on the command line, in a manifest and in Python."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from imax_dist.config import named_configs
from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize, Region
from imax_dist.named_file import FILE, MARK, NO_FILE, fields_naming_files
from imax_dist.output.image.settings import FinishSettings, Fit, parse_colour, read_outputs
from imax_dist.settings_mapping import fingerprint, require_types, to_mapping

LONGEST_PROMPT = 8_000
LARGEST_SEED = 2**63 - 1
MOST_STEPS = 1_000
LARGEST_AREA = 1_000_000_000
LARGEST_SCALE = 1_000.0
ModelKey: TypeAlias = tuple[object, ...]


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
    """The file of ``reference.network``, if a request's switches name one and not a network by its name.

    Whatever is no plain name counts as one: ``x.safetensors/`` is read as the file, too.
    """
    reference = method.get("reference")
    named = reference.get("network") if isinstance(reference, Mapping) else None
    return named if isinstance(named, str) and re.fullmatch(r"[\w-]*", named) is None else None


def _outputs_name_files(output: Mapping[str, Any]) -> bool:
    return any(fields_naming_files(FinishSettings, settings or {}) for settings in output.values())


@dataclass(frozen=True)
class Request:
    """One poster. What is None is filled in from the model's settings.

    ``size`` is ``WIDTHxHEIGHT`` in pixels; a ``paper`` (A2, 24x36in) with ``bleed`` at ``dpi`` fills it in.
    ``lora`` holds ``PATH[:WEIGHT]`` of LoRA files, merged in this order; ``lora_partial``
    merges what fits of a file whose other layers do not.
    ``method`` changes single switches of the preset, nested as in ``configs/presets``:
    ``{"rope": {"rule": "none"}}``. ``guide`` is a picture's path: it takes the native pass's place, at its
    own size. With one, ``size`` may be left to ``scale``, its sides relative to the picture's (2 if neither
    is given); ``fit`` says what happens to a picture of another shape (crop, pad, exact), ``background`` what
    transparent and padded parts show (#rrggbb, white); an empty ``prompt`` is the one in the picture, if any.
    ``region`` (X,Y,WIDTH,HEIGHT) renders this part of the picture again and keeps the rest.
    ``strength`` (0 to 1) is how far each pass may leave the picture before it, ``resemblance`` how firmly its
    layout is held; none: as the preset says.
    ``edit``: the prompt says what an editor (FLUX.1 Kontext) is to change in the guide; its native picture
    guides the later passes in the guide's place.
    ``output`` names print files by ending: ``{"pdf": {"icc": "shop.icc"}}``.
    Which fields name files is marked where each is declared; a text field without a mark counts as one.
    Raises BadConfig for a value of another type, BadValue for what can never be rendered.
    """

    prompt: str = field(default="", metadata=NO_FILE)
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
    scale: float | None = None
    fit: Fit = field(default="crop", metadata=NO_FILE)
    background: str | None = field(default=None, metadata=NO_FILE)
    region: str | None = field(default=None, metadata=NO_FILE)
    strength: float | None = None
    resemblance: float | None = None
    edit: bool = False
    paper: str | None = field(default=None, metadata=NO_FILE)
    dpi: float | None = None
    bleed: str | None = field(default=None, metadata=NO_FILE)
    landscape: bool = False
    output: dict[str, Any] = field(default_factory=dict, metadata={MARK: _outputs_name_files})

    def __post_init__(self) -> None:
        if isinstance(self.lora, str):
            shown = self.lora[:80]
            raise BadValue(f"lora {shown!r} must be a list of files; write lora=({shown!r},)")
        require_types(self)
        try:
            self.prompt.encode()
        except UnicodeEncodeError as error:
            raise BadValue("the prompt is not text: it is not valid UTF-8") from error
        if not self.prompt.strip() and self.guide is None:
            raise BadValue("the prompt is empty; say what the poster shows")
        if len(self.prompt) > LONGEST_PROMPT:
            raise BadValue(f"the prompt has {len(self.prompt)} characters; at most {LONGEST_PROMPT} are read")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise BadValue(f"seed {self.seed} is outside 0 to {LARGEST_SEED}")
        for name, steps in (("steps", self.steps), ("native_steps", self.native_steps)):
            if steps is not None and not 1 <= steps <= MOST_STEPS:
                raise BadValue(f"{name} {steps} is outside 1 to {MOST_STEPS}")
        for name, slider, meaning in (
            ("strength", self.strength, "0 leaves the picture as it is, 1 keeps least of it"),
            ("resemblance", self.resemblance, "0 leaves its layout free, 1 holds it"),
        ):
            if slider is not None and not 0.0 <= slider <= 1.0:
                raise BadValue(f"{name} {slider:g} is outside 0 to 1: {meaning}")
        self._fit_picture()
        self._fit_paper()
        if self.size is not None:
            size = ImageSize.parse(self.size)
            if size.area > LARGEST_AREA:
                raise BadValue(f"size {size} has {size.megapixels:.0f} megapixels; at most 1000 are rendered")

    def _fit_picture(self) -> None:
        """What only makes sense with a picture."""
        if self.background is not None:
            parse_colour(self.background)
        if self.region is not None:
            Region.parse(self.region)
            if self.guide is None:
                raise BadValue("a region needs a finished poster, and no guide was given; name the poster")
            if self.scale is not None or self.fit != "crop":
                raise BadValue("a region is rendered again at the poster's own size; omit scale and fit")
        if self.edit:
            self._fit_edit()
        if self.scale is None:
            return
        if self.guide is None:
            raise BadValue("scale is relative to a picture, and no guide was given; ask for a size in pixels")
        if self.size is not None or self.paper is not None:
            other = "size" if self.paper is None else "paper"
            raise BadValue(f"scale and {other} both say how large the poster is; give one of the two")
        if not 0.0 < self.scale <= LARGEST_SCALE:
            raise BadValue(f"scale {self.scale:g} must be above 0, and at most {LARGEST_SCALE:g}")

    def _fit_edit(self) -> None:
        """What an editor is told needs a picture and words."""
        if self.guide is None:
            raise BadValue("edit changes a picture, and no guide was given; name the picture")
        if not self.prompt.strip():
            raise BadValue("edit follows the prompt, which is empty; say what to change")
        if self.region is not None:
            raise BadValue("a region is rendered again from the poster around it; omit edit")

    def _fit_paper(self) -> None:
        """The paper's pixels become the size; both may be given only if they agree."""
        sheet = {name: getattr(self, name) for name in ("paper", "dpi", "bleed", "landscape")}
        if not self.output and all(value is None or value is False for value in sheet.values()):
            return
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
    def starts_from_guide(self) -> bool:
        """Whether a guide takes the native picture's place; an editor makes its own from it."""
        return self.guide is not None and not self.edit

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical request; the default id of a job."""
        return fingerprint(to_mapping(self))


def size_in_words(request: Mapping[str, Any]) -> str:
    """The size of a request in its stored form, or what it follows from: ``4x photo.jpg``, ``2x native``."""
    if request.get("size") is not None:
        return str(request["size"])
    if request.get("guide") is None:
        return "2x native"
    scale = 1.0 if request.get("region") else request.get("scale") or 2.0
    return f"{scale:g}x {os.path.basename(request['guide'])}"


def key_of(request: Request) -> ModelKey:
    """Requests with one key are rendered by one loaded model."""
    return request.model, request.dtype, request.lora, request.lora_partial


def base_of(key: ModelKey) -> ModelKey:
    """Keys with one base differ in LoRA files alone, which a loaded model exchanges."""
    return key[:2]
