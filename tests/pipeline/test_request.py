"""A request in Python is held to the types of its fields, as one in a manifest is."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from imax_dist.config import load_named
from imax_dist.errors import ImaxError
from imax_dist.pipeline.request import Request

TEXT, NUMBER, FLAG, KEYS = (
    ("must be text", 5),
    ("must be a", "x"),
    ("must be true or false", "x"),
    ("must be keys and values", "x"),
)
WRONG: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(("prompt", "size", "model", "preset", "dtype", "guide", "paper", "bleed"), TEXT),
    **dict.fromkeys(("seed", "steps", "native_steps", "dpi"), NUMBER),
    **dict.fromkeys(("lora_partial", "landscape"), FLAG),
    **dict.fromkeys(("method", "output"), KEYS),
    "lora": ("lora must be text", [5]),
}


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(Request)])
def test_a_value_of_another_type_is_one_sentence(name: str) -> None:
    said, value = WRONG.get(name, ("must be|is not", object()))
    with pytest.raises(ImaxError, match=said) as raised:
        Request(**{"prompt": "a red sun", name: value})
    assert str(raised.value).startswith(name)
    with pytest.raises(ImaxError):
        Request(**{"prompt": "a red sun", name: object()})


def test_lists_and_whole_numbers_are_taken_as_in_a_manifest() -> None:
    request = Request("a red sun", lora=["a.safetensors"], dpi=150)  # type: ignore[arg-type]
    assert request.lora == ("a.safetensors",)
    assert (request.dpi, type(request.dpi)) == (150.0, float)
    with pytest.raises(ImaxError, match="dpi must be a finite number"):
        Request("a red sun", dpi=float("nan"))


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(Request)])
def test_no_sentence_repeats_a_very_long_value(name: str) -> None:
    """Recipes and manifests come from strangers, and a sentence ends in a log or on a page."""
    said = []
    digits = "9" * 50_000
    for value in (
        "x" * 50_000,
        digits,
        f"{digits}x{digits}",
        f"{digits},0,64,64",
        f"{digits}mm",
        ["x" * 50_000],
        {"x" * 50_000: 1},
    ):
        try:
            load_named("presets", Request(**{"prompt": "a red sun", name: value}).preset)
        except ImaxError as error:
            said.append(str(error))
    assert said
    assert max(map(len, said)) < 1000
