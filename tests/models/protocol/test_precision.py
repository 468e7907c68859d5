"""Every adapter in bfloat16, which GPUs run: a whole render beyond native size, and near its float32."""

from __future__ import annotations

from pathlib import Path

import pytest
from editors import EDITORS, shown
from guidance_of import scales

from imax_dist.models.tiny import TINY
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request


@pytest.mark.parametrize("name", [*TINY, *EDITORS])
def test_bfloat16_renders_what_float32_renders_but_for_its_rounding(
    folders: dict[str, Path], name: str, tmp_path: Path
) -> None:
    """One step of each pass, as peaked random networks magnify rounding; unrelated latents differ by 1.4.

    Guidance 2 is 2000 in the embedding's units, which bfloat16 holds exactly; FLUX.1's 3.5 it does not. Fill
    would take four steps from noise, so it starts halfway.
    """
    halfway = {"strength": 0.5} if name == "flux-fill" else {}
    precise, rough = (
        render(
            Request(
                "a red sun",
                size="128x112",
                model=str(folders[name]),
                dtype=dtype,
                steps=1,
                native_steps=1,
                method=scales(name, native=2.0, extrapolated=2.0),
                **shown(name, tmp_path, "128x112"),
                **halfway,
            )
        ).latents.double()
        for dtype in ("float32", "bfloat16")
    )
    error = (precise - rough).square().mean().sqrt() / precise.square().mean().sqrt()
    assert error < 0.15
