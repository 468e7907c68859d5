"""Sizes as people say them: a sheet of paper with its bleed and its pixels per inch.

Trim is the sheet after cutting, bleed the picture beyond each edge that the knife takes away; the
picture covers both. Names live in ``configs/papers``; any ``24x36in`` or ``50x70cm`` works too.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

from imax_dist.config import load_named, named_configs
from imax_dist.errors import BadConfig, BadValue
from imax_dist.geometry import ImageSize

MM_PER = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "pt": 25.4 / 72, "ft": 304.8}
MM_PER |= dict.fromkeys(("in", "inch", '"'), 25.4)
MM_PER_INCH = 25.4
DEFAULT_DPI = 200.0
LARGEST_SIDE_MM = 20_000.0
LARGEST_BLEED_MM = 100.0
LARGEST_DPI = 2_400.0

NUMBER = r"(\d+(?:[.,]\d+)?|[.,]\d+)"
"""With a point or, as in most of Europe, a comma."""
TURNED = re.compile(r"[\s_-]+(landscape|portrait)$")
UNIT = r'(mm|cm|m|inch|in|pt|ft|")'


@dataclass(frozen=True)
class Paper:
    """A sheet after cutting, in millimetres."""

    name: str
    width_mm: float
    height_mm: float

    def landscape(self) -> Paper:
        """The same sheet, lying."""
        short, long = sorted((self.width_mm, self.height_mm))
        return Paper(self.name, long, short)

    def portrait(self) -> Paper:
        """The same sheet, upright."""
        short, long = sorted((self.width_mm, self.height_mm))
        return Paper(self.name, short, long)


@dataclass(frozen=True)
class Sheet:
    """What is printed: a paper, the bleed on each of its edges, and pixels per inch."""

    paper: Paper
    dpi: float = DEFAULT_DPI
    bleed_mm: float = 0.0

    def __post_init__(self) -> None:
        check_dpi(self.dpi)
        if not 0 <= self.bleed_mm <= LARGEST_BLEED_MM:
            raise BadValue(
                f"bleed {self.bleed_mm:g} mm is outside 0 to {LARGEST_BLEED_MM:g} mm; printers ask for 3 mm"
            )

    @property
    def width_mm(self) -> float:
        """Trim and both bleeds."""
        return self.paper.width_mm + 2 * self.bleed_mm

    @property
    def height_mm(self) -> float:
        return self.paper.height_mm + 2 * self.bleed_mm

    @property
    def pixels(self) -> ImageSize:
        """The picture's size: trim and bleed at ``dpi``, each side to the nearest pixel."""
        return ImageSize(
            width=_nearest(self.width_mm * self.dpi / MM_PER_INCH),
            height=_nearest(self.height_mm * self.dpi / MM_PER_INCH),
        )


def make_sheet(
    paper: str, *, dpi: float | None = None, bleed: str | None = None, landscape: bool = False
) -> Sheet:
    """A sheet from the words of the command line. Raises BadValue for any that cannot be."""
    found = parse_paper(paper)
    return Sheet(
        paper=found.landscape() if landscape else found,
        dpi=DEFAULT_DPI if dpi is None else dpi,
        bleed_mm=0.0 if bleed is None else parse_length(bleed),
    )


def known_papers() -> dict[str, Paper]:
    """Every sheet of ``configs/papers``, by its name in lower case.

    Raises BadConfig for a file that is not a unit and sizes.
    """
    papers: dict[str, Paper] = {}
    for file, path in named_configs("papers").items():
        content = load_named("papers", file)
        unit, sizes = content.get("unit"), content.get("sizes")
        if unit not in MM_PER or not isinstance(sizes, dict):
            raise BadConfig(f"{path}: needs `unit` ({', '.join(MM_PER)}) and `sizes`")
        for name, sides in sizes.items():
            if not isinstance(sides, list) or len(sides) != 2:
                raise BadConfig(f"{path}: {name} must be [width, height]")
            width, height = (float(side) * MM_PER[unit] for side in sides)
            papers[str(name).lower()] = Paper(str(name), width, height)
    return papers


def parse_paper(text: str) -> Paper:
    """``A2``, ``DIN A2``, ``A4 landscape``, ``arch d``, ``24x36in``, ``50,5 x 70 cm``, ``8.5"x11"``.

    Raises BadValue for anything else.
    """
    turned = TURNED.search(text.strip().lower())
    if turned is not None:
        paper = parse_paper(text.strip()[: turned.start()])
        return paper.landscape() if turned[1] == "landscape" else paper.portrait()
    wanted = re.sub(r"[\s_]+", "-", text.strip().lower())
    wanted = re.sub(r"^din-?(?=2?[ab]\d)", "", wanted)
    papers = known_papers()
    squeezed = {name.replace("-", ""): paper for name, paper in papers.items()}
    named = papers.get(wanted) or squeezed.get(wanted.replace("-", ""))
    if named is not None:
        return named
    match = re.fullmatch(rf"\s*{NUMBER}\s*{UNIT}?\s*[x×*]\s*{NUMBER}\s*{UNIT}\s*", text.lower())
    if match is None:
        close = difflib.get_close_matches(wanted[:80], papers, n=3, cutoff=0.3) or [
            "a2",
            "arch-d",
            "one-sheet",
        ]
        names = ", ".join(papers[name].name for name in close)
        raise BadValue(
            f"paper {text[:80]!r} is neither a known sheet (near it: {names}; all are in configs/papers) "
            "nor WIDTHxHEIGHT with a unit, like 24x36in or 50x70cm"
        )
    width = _number(match[1]) * MM_PER[match[2] or match[4]]
    height = _number(match[3]) * MM_PER[match[4]]
    if not (1 <= width <= LARGEST_SIDE_MM and 1 <= height <= LARGEST_SIDE_MM):
        raise BadValue(f"paper {text[:80]!r}: a side must be between 1 mm and {LARGEST_SIDE_MM / 1000:g} m")
    return Paper(text.strip(), width, height)


def parse_length(text: str) -> float:
    """``3mm``, ``0.125in``, ``0.3 cm`` as millimetres. Raises BadValue without number or unit."""
    match = re.fullmatch(rf"\s*{NUMBER}\s*{UNIT}\s*", text.lower())
    if match is None:
        if re.fullmatch(r"\s*0+(\.0*)?\s*", text):
            return 0.0
        raise BadValue(f"length {text[:80]!r} is not a number with a unit; write for example 3mm or 0.125in")
    return _number(match[1]) * MM_PER[match[2]]


def check_dpi(dpi: float) -> None:
    """Raises BadValue unless ``dpi`` is a number of pixels an inch can have."""
    if not (math.isfinite(dpi) and 1 <= dpi <= LARGEST_DPI):
        raise BadValue(
            f"dpi {dpi:g} is outside 1 to {LARGEST_DPI:g}; posters are printed at 150 to 300 pixels per inch"
        )


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _nearest(length: float) -> int:
    return math.floor(length + 0.5)
