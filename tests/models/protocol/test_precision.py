"""Every adapter in bfloat16, which GPUs run: a whole render beyond native size, and near its float32."""

from __future__ import annotations

from pathlib import Path

import pytest

from imax_dist.models.tiny import TINY
from imax_dist.pipeline.render import render
from imax_dist.pipeline.request import Request


@pytest.mark.parametrize("name", list(TINY))
def test_bfloat16_renders_what_float32_renders_but_for_its_rounding(
    folders: dict[str, Path], name: str
) -> None:
    """One step of each pass, as peaked random networks magnify rounding.

    Unrelated latents differ by 1.4; FLUX.1-dev's guidance, 1000 times the scale in bfloat16, costs .25.
    """
    precise, rough = (
        render(
            Request(
                "a red sun", size="128x112", model=str(folders[name]), dtype=dtype, steps=1, native_steps=1
            )
        ).latents.double()
        for dtype in ("float32", "bfloat16")
    )
    error = (precise - rough).square().mean().sqrt() / precise.square().mean().sqrt()
    assert error < 0.4
