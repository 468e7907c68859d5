"""Caption facts recovered from pictures, field by field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imax_dist.study.metrics.interval import Interval, bootstrap
from imax_dist.study.scenes import Scene, parse
from imax_dist.study.scenes.parse import FACTS, matches

Pixels = npt.NDArray[np.uint8]


def facts_recovered(pictures: Sequence[Pixels], scenes: Sequence[Scene]) -> dict[str, Interval]:
    """Share of pictures whose parse agrees with the scene, for each of FACTS, their ``mean`` and
    ``all`` of them at once. Pictures are (height, width, 3) bytes."""
    right = [matches(parse(picture), scene.facts()) for picture, scene in zip(pictures, scenes, strict=True)]
    shares = {name: [float(row[name]) for row in right] for name in FACTS}
    shares["mean"] = [float(np.mean(list(row.values()))) for row in right]
    shares["all"] = [float(all(row.values())) for row in right]
    return {name: bootstrap(values) for name, values in shares.items()}
