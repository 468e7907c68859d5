"""METHOD.md's table of presets says what their files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imax_dist.method.presets import Method
from imax_dist.pipeline.switches import load_preset
from imax_dist.settings_mapping import from_mapping

PAGE = Path(__file__).parents[1] / "METHOD.md"
COLUMNS = ("paper", "official", "one_jump", "direct")


def cells(row: str) -> dict[str, str]:
    """The table's row ``row``, by preset."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| | `paper` | `official` | `one_jump` | `direct` |")
    (line,) = [line for line in lines[start : start + 20] if line.startswith(f"| {row} |")]
    return dict(zip(COLUMNS, [cell.strip() for cell in line.split("|")[2:-1]], strict=True))


def said(method: Method) -> dict[str, Any]:
    """Each row's cell as the preset has it, without what stands in brackets."""
    guided = method.guidance.schedule != "off"
    reference, shift, scale, text = method.reference, method.time_shift, method.guidance_scale, method.text
    native = "model" if shift.native is None else f"{shift.native:g}"
    scaled = "as native" if shift.rule == "native" else "model's factor times s"
    placed = "network" if method.patch_shift is True else str(method.patch_shift or "no")
    return {
        "guidance schedule": method.guidance.schedule,
        "projection P": method.guidance.projection if guided else "-",
        "reference": f"{reference.kind}, {reference.upsample}, {reference.posterior}" if guided else "-",
        "RoPE rule": method.rope.rule,
        "RoPE floor": "yes" if method.rope.floor else "no",
        "RoPE scale": method.rope.scale if method.rope.rule != "none" else "-",
        "time shift, native": native,
        "time shift, extrapolated": scaled if shift.extrapolated is None else f"{shift.extrapolated:g}",
        "attention factor": method.attention,
        "text copies": "none" if text.copies == "none" else f"{text.copies}, {text.cell} cells",
        "patch shift": placed,
        "guidance scale": "model" if scale.rule == "per_pass" else "model, the native one at every size",
        "VAE": method.vae,
    }


@pytest.mark.parametrize("preset", COLUMNS)
def test_the_table_of_presets_says_what_their_files_say(preset: str) -> None:
    method = from_mapping(Method, load_preset(preset), where=preset)
    for row, cell in said(method).items():
        assert cells(row)[preset].split(" (")[0] == cell, row
