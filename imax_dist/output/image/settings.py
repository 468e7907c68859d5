"""What a print file is to be: one value for each choice, the same on the command line and in a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imax_dist.config import suggestion
from imax_dist.errors import BadValue
from imax_dist.named_file import FILE, MARK, NO_FILE
from imax_dist.output.image.paper import Sheet, check_dpi, make_sheet
from imax_dist.settings_mapping import from_mapping

Intent = Literal["relative", "perceptual", "saturation", "absolute"]
Fit = Literal["crop", "pad", "exact"]
"""What happens to a picture of another shape than the poster: its longer side is cut evenly, its shorter side
gets the background's colour, or it is refused."""

LONGEST_ORDER = 100
PLAIN_DPI = 200.0
"""Tagged when neither paper nor dpi was named."""


def _is_enlarger(scale: str) -> bool:
    return scale not in ("none", "lanczos")


@dataclass(frozen=True)
class FinishSettings:
    """One print file. ``None`` means: as the recipe's request says, else the usual.

    ``icc`` and ``output_intent`` name ICC files or installed profiles; ``scale`` is none, lanczos or a
    super-resolution model (.safetensors). Raises BadValue for numbers that cannot be.
    """

    paper: str | None = field(default=None, metadata=NO_FILE)
    dpi: float | None = None
    bleed: str | None = field(default=None, metadata=NO_FILE)
    landscape: bool = False
    bits: int | None = None
    icc: str | None = field(default=None, metadata=FILE)
    intent: Intent = field(default="relative", metadata=NO_FILE)
    black_point_compensation: bool = True
    output_intent: str | None = field(default=None, metadata=FILE)
    scale: str = field(default="none", metadata={MARK: _is_enlarger})
    cut: bool = False
    """Allow more than a fiftieth of a side to be cut away where picture and sheet differ in shape."""
    mirror_bleed: bool = False
    """The picture is the trimmed sheet; the bleed is its edge, mirrored."""
    panels: str | None = field(default=None, metadata=NO_FILE)
    """COLUMNSxROWS files in place of one."""
    overlap: str = field(default="10mm", metadata=NO_FILE)
    """Of neighbouring panels."""
    order: str | None = field(default=None, metadata=NO_FILE)
    """The shop's number of the job, written into the file."""
    crop_marks: bool = False
    quality: int = 95
    lossless: bool = False

    def __post_init__(self) -> None:
        if self.dpi is not None:
            check_dpi(self.dpi)
        if self.bits not in (None, 8, 16):
            raise BadValue(f"bits {self.bits}: print files have 8 or 16 bits a channel")
        if not 1 <= self.quality <= 100:
            raise BadValue(f"quality {self.quality} is outside 1 to 100; prints want 90 or more")
        if self.order is not None and not (0 < len(self.order) <= LONGEST_ORDER and self.order.isprintable()):
            raise BadValue(f"order {self.order[:80]!r} must be a line of up to {LONGEST_ORDER} characters")
        if self.mirror_bleed and self.bleed is None:
            raise BadValue("a mirrored bleed needs its width, for example --bleed 3mm")
        if self.paper is not None:
            make_sheet(self.paper, dpi=self.dpi, bleed=self.bleed, landscape=self.landscape)
        elif self.bleed is not None or self.landscape:
            raise BadValue("bleed and landscape belong to a paper; name one, for example --paper A2")

    def sheet(self) -> Sheet | None:
        """The sheet, at the usual dpi where none was named; None without a paper."""
        if self.paper is None:
            return None
        return make_sheet(self.paper, dpi=self.dpi, bleed=self.bleed, landscape=self.landscape)


FILE_KINDS = {
    "tif": "tiff", "tiff": "tiff", "png": "png", "jpg": "jpeg", "jpeg": "jpeg", "pdf": "pdf",
}  # fmt: skip
"""File ending -> kind of file."""


def kind_of(path: Path) -> str:
    """The kind of print file a name asks for. Raises BadValue for an unknown ending."""
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FILE_KINDS:
        raise BadValue(f"{path.name}: posters are written as {', '.join(FILE_KINDS)}; give it such an ending")
    return FILE_KINDS[ending]


def read_outputs(output: Mapping[str, Any], sheet: Mapping[str, Any]) -> dict[str, FinishSettings]:
    """``{"pdf": {"icc": "x.icc"}, "tif": {}}`` as settings by file ending.

    ``sheet`` (paper, dpi, bleed, landscape of the request) is where each starts from. Raises BadValue or
    BadConfig, naming the ending and the key.
    """
    settings = {}
    for ending, own in output.items():
        if ending not in FILE_KINDS:
            known = suggestion(ending, list(FILE_KINDS))
            raise BadValue(f"output: {ending[:80]!r} is not a kind of print file; {known}")
        if own is not None and not isinstance(own, Mapping):
            raise BadValue(f"output: {ending}: must hold keys, like {{bits: 16}}, or nothing")
        given = {name: value for name, value in sheet.items() if value not in (None, False)}
        settings[ending] = from_mapping(FinishSettings, {**given, **(own or {})}, where=f"output: {ending}")
        if settings[ending].panels is not None:
            raise BadValue(f"output: {ending}: panels are cut from the finished poster: imax finish --panels")
    return settings


def parse_colour(text: str) -> tuple[int, int, int]:
    """``#ff8800`` as red, green and blue. Raises BadValue for anything else."""
    match = re.fullmatch(r"#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", text.strip().lower())
    if match is None:
        raise BadValue(f"colour {text[:80]!r} is not written as #rrggbb, for example #ffffff for white")
    red, green, blue = (int(part, 16) for part in match.groups())
    return red, green, blue
