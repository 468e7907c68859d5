"""Sizes as people say them become the pixels a printer needs."""

from __future__ import annotations

import pytest

from imax_dist.errors import BadValue
from imax_dist.output.image.paper import Paper, known_papers, make_sheet, parse_length, parse_paper
from imax_dist.pipeline.request import Request


@pytest.mark.parametrize(
    ("paper", "dpi", "pixels", "render"),
    [
        ("A3", 150, "1789x2516", "1792x2528"),
        ("A2", 200, "3354x4724", "3360x4736"),
        ("a1", 300, "7087x10004", "7088x10016"),
        ("B1", 300, "8421x11882", "8432x11888"),
        ("24x36in", 150, "3635x5435", "3648x5440"),
        ("arch d", 150, "3635x5435", "3648x5440"),
        ("ARCH-E", 150, "5435x7235", "5440x7248"),
        ("one sheet", 200, "5447x8047", "5456x8048"),
        ("50x70cm", 200, "3984x5559", "3984x5568"),
    ],
)
def test_trim_bleed_and_dpi_give_the_pixels_of_the_trade(
    paper: str, dpi: float, pixels: str, render: str
) -> None:
    """The sizes of print-shop tables, 3 mm of bleed on each edge; the render is the next multiple of 16."""
    sheet = make_sheet(paper, dpi=dpi, bleed="3mm")
    assert str(sheet.pixels) == pixels
    assert str(sheet.pixels.padded(16)) == render


@pytest.mark.parametrize(
    "text",
    [
        "24x36in",
        "24 x 36 in",
        "24inx36in",
        '24"x36"',
        "2x3ft",
        "609,6 x 914,4 mm",
        "609.6x914.4mm",
        "60.96 × 91.44 cm",
    ],
)
def test_a_size_may_be_written_in_many_ways(text: str) -> None:
    paper = parse_paper(text)
    assert (paper.width_mm, paper.height_mm) == pytest.approx((609.6, 914.4))


@pytest.mark.parametrize(
    ("text", "mm"), [("3mm", 3), ("0.125in", 3.175), (".5 cm", 5), ("9pt", 3.175), ("3,5 mm", 3.5), ("0", 0)]
)
def test_a_length_has_a_unit(text: str, mm: float) -> None:
    assert parse_length(text) == pytest.approx(mm)


@pytest.mark.parametrize(
    ("text", "name", "sides"),
    [
        ("DIN-A4", "A4", (210, 297)),
        ("din a4", "A4", (210, 297)),
        ("DIN A4 landscape", "A4", (297, 210)),
        ("A4_landscape", "A4", (297, 210)),
        ("B2 portrait", "B2", (500, 707)),
        ("quad portrait", "quad", (762, 1016)),
        ("70x50cm portrait", "70x50cm", (500, 700)),
        ("50,5x70cm", "50,5x70cm", (505, 700)),
    ],
)
def test_papers_as_offices_write_them(text: str, name: str, sides: tuple[float, float]) -> None:
    paper = parse_paper(text)
    assert (paper.name, paper.width_mm, paper.height_mm) == (name, *(pytest.approx(s) for s in sides))


@pytest.mark.parametrize("text", ["DIN", "landscape", "DIN letter", "1,2,3x4cm"])
def test_what_only_looks_like_one_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="is neither a known sheet"):
        parse_paper(text)


def test_landscape_turns_the_sheet_and_only_once() -> None:
    lying = make_sheet("A4", dpi=100, landscape=True)
    assert str(lying.pixels) == "1169x827"
    assert make_sheet("quad", landscape=True).paper == Paper("quad", 1016.0, 762.0)


def test_every_paper_on_file_is_found_by_its_own_name() -> None:
    papers = known_papers()
    assert {"a0", "b2", "letter", "ansi-e", "arch-e1", "one-sheet", "frame-50x70"} <= set(papers)
    assert all(parse_paper(paper.name) == paper for paper in papers.values())


def test_the_iso_sheets_halve() -> None:
    for series in "AB":
        for number in range(6):
            larger, smaller = parse_paper(f"{series}{number}"), parse_paper(f"{series}{number + 1}")
            assert smaller.height_mm == larger.width_mm
            assert abs(smaller.width_mm - larger.height_mm / 2) <= 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"paper": "A11"}, r"paper 'A11' is neither a known sheet \(near it: A1"),
        ({"paper": "24x36"}, "nor WIDTHxHEIGHT with a unit"),
        ({"paper": "0x3in"}, "a side must be between 1 mm and 20 m"),
        ({"paper": "30x30m"}, "a side must be between 1 mm and 20 m"),
        ({"paper": "A4", "dpi": 0}, "dpi 0 is outside 1 to 2400"),
        ({"paper": "A4", "dpi": -150}, "dpi -150 is outside"),
        ({"paper": "A4", "dpi": float("nan")}, "dpi nan is outside"),
        ({"paper": "A4", "bleed": "3"}, "length '3' is not a number with a unit"),
        ({"paper": "A4", "bleed": "three"}, "write for example 3mm or 0.125in"),
        ({"paper": "A4", "bleed": "20cm"}, "bleed 200 mm is outside 0 to 100 mm"),
        ({"paper": "10x10m", "dpi": 300}, "a side must be between 16 and 65536 px"),
    ],
)
def test_what_cannot_be_printed_is_reported(words: dict[str, object], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        assert make_sheet(**words).pixels  # type: ignore[arg-type]


def test_a_request_for_a_paper_has_its_pixels() -> None:
    request = Request(prompt="sea", paper="A2", dpi=200, bleed="3mm")
    assert request.size == "3354x4724"
    assert Request(prompt="sea", paper="A2", dpi=200, bleed="3mm", size="3354x4724") == request


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"paper": "A2", "size": "100x100"}, "paper A2 at 200 dpi is 3307x4677 px, but size says 100x100"),
        ({"bleed": "3mm"}, "bleed and landscape belong to a paper"),
        ({"landscape": True}, "bleed and landscape belong to a paper"),
        ({"dpi": 0}, "dpi 0 is outside"),
        ({"output": {"docx": {}}}, "output: 'docx' is not a kind of print file"),
        ({"output": {"pdf": 3}}, "output: pdf: must hold keys"),
        ({"output": {"tif": {"bits": 12}}}, "bits 12: print files have 8 or 16"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        Request(prompt="sea", **fields)  # type: ignore[arg-type]
