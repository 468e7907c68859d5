"""RESULTS.md opens with what a reader wants to know, taken from the study of the presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imax_dist.cli.main import main
from imax_dist.errors import BadValue
from imax_dist.study.experiments.results import QUESTIONS, one_weights, summary
from imax_dist.study.experiments.settings import load_study, study_names

PAGE = Path(__file__).parents[3] / "RESULTS.md"


def stats(mean: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def default(*names: str) -> dict[str, Any]:
    """What the study of the default found, with the variants ``names`` beside ours."""
    measured = {name: {"facts": stats(0.3), "layout": stats(25.0), "frechet": stats(3.0)} for name in names}
    ours = {"facts": stats(0.9), "layout": stats(30.0), "frechet": stats(0.5)}
    size = {"n": 6, "variants": {"ours": ours, **measured}, "preference": {"strength": {"ours": stats(0.6)}}}
    return {"baseline": "ours", "sizes": {"2x 256x256": {"n": 12, "variants": {}}, "4x 512x512": size}}


def test_the_page_opens_with_five_numbers_at_the_largest_scale() -> None:
    lines = summary(default("direct", "native, enlarged", "one jump")).splitlines()
    assert lines[0].startswith("| at 4x 512x512, n = 6 scenes")
    assert len(lines) == 2 + len(QUESTIONS) + 1 == 7
    assert "**0.90 [0.80, 1.00]** | 0.30 [0.20, 0.40] (sampled directly)" in lines[2]
    assert "**0.60 [0.50, 0.70]**" in lines[-1]


def test_a_variant_that_was_not_drawn_leaves_its_row_out() -> None:
    assert len(summary(default("one jump")).splitlines()) == 2 + 1 + 1


def test_the_page_in_the_repository_has_them() -> None:
    head = PAGE.read_text(encoding="utf-8").splitlines()[:10]
    assert [line for line in head if line.startswith("| at ")]
    assert all(any(question in line for line in head) for question, *_ in QUESTIONS)


@pytest.mark.parametrize("name", study_names())
def test_every_study_stands_on_the_page_with_the_finding_of_its_file(name: str) -> None:
    study = load_study(name)
    assert study.title in PAGE.read_text(encoding="utf-8")
    assert study.finding
    assert study.finding.strip() in PAGE.read_text(encoding="utf-8")


def test_studies_of_different_weights_are_not_laid_on_one_page() -> None:
    old, new = ({"model": "embedded", "weights": digit * 64} for digit in "ab")
    assert one_weights({"aspect": new, "filter": new}) == "b" * 12
    both = "embedded b{12}: aspect, rope; embedded a{12}: filter; run the older ones again"
    with pytest.raises(BadValue, match=both):
        one_weights({"aspect": new, "filter": old, "rope": new})


@pytest.mark.parametrize("page", [[], ["--page", "P.md"]])
def test_a_page_of_no_study_is_refused_and_nothing_is_written(
    page: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "all", "--gather", "--out", "nothere", *page]) == 66
    name = page[-1] if page else "RESULTS.md"
    said = capsys.readouterr().err
    assert f"nothere holds no results of a study, so there is nothing to write into {name}; run" in said
    assert list(tmp_path.iterdir()) == []


def test_some_studies_alone_leave_the_page_of_all_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("RESULTS.md").write_text("all of them")
    Path("out/aspect").mkdir(parents=True)
    Path("out/aspect/results.json").write_text(json.dumps({"model": "embedded", "weights": "a" * 64}))
    assert main(["study", "all", "--only", "aspect", "--gather", "--out", "out"]) == 0
    assert Path("RESULTS.md").read_text() == "all of them"
    said = capsys.readouterr().err
    assert "not run yet: alpha, below-start, cascade" in said
    assert "RESULTS.md stays as it is" in said
