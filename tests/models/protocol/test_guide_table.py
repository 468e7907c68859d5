"""The guide's table of networks says what their settings, facts and adapters say."""

from __future__ import annotations

from pathlib import Path

import pytest
from guidance_of import UNPADDED, WITHOUT_LORA

from imax_dist.config import load_named
from imax_dist.models.base import FlowModel
from imax_dist.models.guidance import classifier_free
from imax_dist.models.load import describe_model
from imax_dist.models.registry import ARCHITECTURES
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.tiny import EDITORS, TINY
from imax_dist.models.weights import pipeline_class
from imax_dist.settings_mapping import from_mapping

GUIDE = (Path(__file__).parents[3] / "GUIDE.md").read_text(encoding="utf-8")
ROWS = {line.split("`")[1]: line for line in GUIDE.splitlines() if line.startswith("| `") and " px |" in line}
OWN_NAMES = ("HunyuanImagePipeline",)
"""diffusers has no LoRA loader for them, and their network takes one in diffusers' own names."""
KEPT = {"qwen-image", "qwen-image-edit", "qwen-image-edit-2511", "lumina-image-2"}
"""Their guided velocity keeps the norm of the unguided one."""


def of_rope(spec: ModelSpec, settings: ModelSettings) -> str:
    return f"k = {settings.rope_factor:g}" if spec.positions == "rotary" else "no: absolute positions"


def of_attention(spec: ModelSpec) -> str:
    if spec.text_attention == "cross":
        return "of the image alone"
    return "picture counted" if spec.context == "tokens" else "yes"


def of_copies(spec: ModelSpec) -> str:
    if spec.text_attention == "cross":
        return "no: cross-attention"
    return "yes" if spec.positions == "rotary" else "`shared` only"


def of_guidance(name: str, spec: ModelSpec, settings: ModelSettings, kind: type[FlowModel]) -> str:
    if spec.guidance != "classifier_free":
        return "an input" if spec.guidance == "distilled" else "trained in"
    unguided = settings.guidance_scale.native == 1.0
    own = "none, or two prompts" if unguided else "two prompts"
    plain = kind.combine is classifier_free
    assert plain == (name not in {*KEPT, "lumina-next"})
    own += "" if plain else ", norm kept" if name in KEPT else ", 3 channels"
    return f"{own}, with a momentum" if spec.momentum else own


def of_ways(name: str, spec: ModelSpec) -> str:
    if spec.guidance != "classifier_free":
        return "-"
    return "two_passes, split" if name in UNPADDED else "two_passes, batched, split"


@pytest.mark.parametrize("name", [*TINY, *EDITORS])
def test_the_row_of_a_network_is_what_the_code_says(folders: dict[str, Path], name: str) -> None:
    folder = folders[name]
    spec, pipeline = describe_model(str(folder)), pipeline_class(folder)
    settings = from_mapping(ModelSettings, load_named("models", name), where=name)
    kind = ARCHITECTURES[pipeline].model
    lora = "no loader" if name in WITHOUT_LORA else "own names" if pipeline in OWN_NAMES else "yes"
    assert settings.about is not None
    cells = (
        f"{settings.native_side} px",
        f"{settings.native_shift:g}, {settings.shift_factor:g}",
        of_rope(spec, settings),
        of_attention(spec),
        of_copies(spec),
        of_guidance(name, spec, settings, kind),
        of_ways(name, spec),
        lora,
        settings.about.licence,
    )
    row = [cell.strip() for cell in ROWS[name].strip("|").split("|")]
    assert tuple(row[1:]) == cells


def test_no_row_is_of_a_network_that_is_not_tested() -> None:
    assert set(ROWS) == {*TINY, *EDITORS}
