"""Words and numbers in sentences."""

from __future__ import annotations

import pytest

from imax_dist.wording import duration, file_size, first_line, plural, stage_name


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  \n two "), "two"),
        (ValueError(""), "ValueError"),
        ("just text\nmore", "just text"),
        (RuntimeError("x" * 1000), "x" * 296 + " ..."),
    ],
)
def test_of_a_long_error_the_first_line_that_says_something(error: Exception | str, line: str) -> None:
    assert first_line(error) == line
    assert len(first_line(error)) <= 300


def test_an_error_without_words_has_a_stand_in() -> None:
    assert first_line("", otherwise="its shapes differ") == "its shapes differ"
    assert first_line(KeyError(), otherwise="nothing") == "nothing"


def test_one_poster_two_posters_no_retries() -> None:
    assert [plural(n, "poster") for n in (0, 1, 2)] == ["0 posters", "1 poster", "2 posters"]
    assert [plural(n, "retry", "retries") for n in (0, 1, 2)] == ["0 retries", "1 retry", "2 retries"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.12 s"), (4.0, "4 s"), (9.44, "9.4 s"), (9.5, "9.5 s"), (9.96, "10 s"), (43.0, "43 s"),
        (119.0, "119 s"),         (200.0, "3.3 min"), (4000.0, "67 min"), (22000.0, "6.1 h"), (0.0, "0 s"),
    ],
)  # fmt: skip
def test_durations_have_as_many_digits_as_people_read(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1 byte"), (512, "512 bytes"), (14_691, "14.7 kB"), (3_200_000, "3.2 MB"), (250e6, "250 MB"),
        (1.5e9, "1.5 GB"),
    ],
)  # fmt: skip
def test_sizes_of_files(count: float, text: str) -> None:
    assert file_size(count) == text


@pytest.mark.parametrize(
    ("stage", "name"),
    [("extrapolated", "target-size pass"), ("cascade 2", "cascade pass 2"), ("decode", "decode")],
)
def test_a_stage_has_one_name_for_people(stage: str, name: str) -> None:
    assert stage_name(stage) == name
