"""What ``imax generate`` prints of a poster it has written: where, how large, made of what, how fast."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.cli.progress import ProgressBars
from imax_dist.pipeline.memory import peak_memory

if TYPE_CHECKING:
    from imax_dist.pipeline.plan import PosterPlan
    from imax_dist.pipeline.render import Rendering


def print_result(
    options: argparse.Namespace,
    out: Path,
    rendering: Rendering,
    complete: dict[str, Any],
    *,
    recipe: dict[str, Any] | None,
    bars: ProgressBars,
) -> None:
    """Print what was made, in words or as JSON.

    ``complete`` is the recipe that was written, ``recipe`` the one that was asked for.
    """
    result = {
        "out": str(out),
        "size": str(rendering.plan.size),
        "native_size": str(rendering.plan.native_size),
        "pixels_sha256": complete["pixels_sha256"],
        "seconds": {**bars.seconds, "total": bars.total_seconds},
        "peak_memory_gib": peak_memory(),
        **_compare(recipe, complete),
    }
    if options.verbose:
        _print_sigmas(rendering.plan)
    if options.json:
        print(json.dumps(result))
    else:
        _print_words(rendering, result)


def _compare(recipe: dict[str, Any] | None, complete: dict[str, Any]) -> dict[str, Any]:
    """With --recipe: whether the bits are those of the recipe, and what around the render differs."""
    from imax_dist.pipeline.recipe import differences

    if recipe is None or "pixels_sha256" not in recipe:
        return {}
    return {
        "same_bits": recipe["pixels_sha256"] == complete["pixels_sha256"],
        "differences": differences(recipe, complete),
    }


def _print_words(rendering: Rendering, result: dict[str, Any]) -> None:
    plan, peaks = rendering.plan, result["peak_memory_gib"]
    memory = ", ".join(f"{amount:.1f} GiB {kind}" for kind, amount in peaks.items())
    print(
        f"{result['out']}  {plan.size} ({_made_of(plan)})  {result['seconds']['total']:.1f} s, peak {memory}"
    )
    if "same_bits" in result:
        print("same bits as the recipe" if result["same_bits"] else "NOT the bits of the recipe")
        for difference in result["differences"]:
            print(f"  {difference}")


def _made_of(plan: PosterPlan) -> str:
    """What the poster was made of, in a few words."""
    if plan.region is not None:
        return f"{plan.region} again"
    if plan.placement is not None and plan.request.starts_from_guide:
        canvas = plan.placement.canvas
        return f"{(plan.size.area / canvas.area) ** 0.5:.3g}x {Path(str(plan.request.guide)).name} {canvas}"
    return f"{plan.last.scale.linear:.3g}x native {plan.native_size}" if plan.extrapolates else "native"


def _print_sigmas(plan: PosterPlan) -> None:
    """On stderr, as all that is not the result; of the passes that were made."""
    if not plan.request.starts_from_guide and (plan.uses_native or not plan.extrapolates):
        print("native sigmas  " + " ".join(f"{s:.4f}" for s in plan.native.sigmas), file=sys.stderr)
    for one in plan.passes:
        name = "target" if one is plan.last else str(one.render_size)
        print(f"{name} sigmas  " + " ".join(f"{s:.4f}" for s in one.sigmas), file=sys.stderr)
        if plan.uses_native:
            kept = f"{one.steps} steps, keeps {one.kept_share:.0%} of the band of the picture before"
            print(f"{name} start   {one.sigmas[0]:.4f}, {kept}", file=sys.stderr)
