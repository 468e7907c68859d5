"""The pool's metrics by prometheus_client, under the names that Ray exports with the prefix ``ray_``.

Apart because a service answers ``/metrics`` itself: it is scraped where no agent of Ray runs.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from imax_dist.jobs.metrics import SECONDS, Kinds


class Tagged:
    """One of prometheus_client's metrics with Ray's way to give tags."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._of(tags).inc(value)

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._of(tags).set(value)

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._of(tags).observe(value)

    def _of(self, tags: dict[str, str] | None) -> Any:
        return self._metric.labels(**tags) if tags else self._metric


def prometheus(registry: CollectorRegistry) -> Kinds:
    """Metrics of ``registry``."""

    def counter(name: str, description: str, tags: tuple[str, ...] = (), /) -> Tagged:
        return Tagged(Counter(name, description, tags, registry=registry))

    def gauge(name: str, description: str, tags: tuple[str, ...] = (), /) -> Tagged:
        return Tagged(Gauge(name, description, tags, registry=registry))

    def histogram(name: str, description: str, tags: tuple[str, ...] = (), /) -> Tagged:
        return Tagged(Histogram(name, description, tags, registry=registry, buckets=SECONDS))

    return Kinds(counter, gauge, histogram)
