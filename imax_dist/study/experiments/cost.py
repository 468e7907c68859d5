"""What a variant costs where it matters: the planner's seconds for FLUX.1-dev on one H100.

CPU seconds of a small model say little of a large one, whose attention and autoencoder take other shares.
"""

from __future__ import annotations

import functools

from imax_dist.models.blueprint import Blueprint, find_blueprint
from imax_dist.pipeline.request import Request
from imax_dist.planner.cluster import parse_cluster
from imax_dist.planner.poster import poster_time
from imax_dist.planner.split import Split
from imax_dist.planner.workload import workload_of
from imax_dist.study.experiments.settings import Variant

MODEL, CLUSTER, NATIVE_SIDE = "flux-dev", "1xH100", 1024


@functools.cache
def _blueprint() -> Blueprint:
    return find_blueprint(MODEL)


def planned_seconds(variant: Variant, scale: float) -> float | None:
    """Predicted seconds of one poster at ``scale`` times 1024 px, the native pass included.

    An enlargement costs its native picture; what is made from the truth is no way to make one: None.
    """
    if variant.is_true:
        return None
    side = NATIVE_SIDE if variant.enlarge else round(scale * NATIVE_SIDE)
    request = Request(
        prompt="a poster",
        size=f"{side}x{side}",
        model=MODEL,
        preset=variant.preset,
        steps=variant.steps,
        native_steps=variant.native_steps,
        method=variant.method(),
    )
    work = workload_of(request, _blueprint(), device="gpu")
    return poster_time(work, Split(), parse_cluster(CLUSTER)).total
