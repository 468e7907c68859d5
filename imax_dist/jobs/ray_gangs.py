"""Building gangs on Ray: room is found, then ranks start, are numbered by node and join."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from imax_dist.errors import ClusterUnavailable, ImaxError
from imax_dist.jobs.cluster import has_gpus, living_nodes
from imax_dist.jobs.gang import RayGang, destroy_ranks
from imax_dist.jobs.outcomes import cause_of
from imax_dist.jobs.places import Nodes, in_node_order, placement_options
from imax_dist.jobs.rank import Rank
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.watch import GangWatch, first_reports
from imax_dist.pipeline.ranks import ParallelSettings, load_parallel
from imax_dist.wording import plural

THREADS = 4
"""Of a rank's process: one works, one answers polls, one takes orders, one is spare."""


@dataclass(frozen=True)
class RayGangs:
    """Builds gangs as the pool's settings say."""

    settings: PoolSettings
    rank_class: type[Rank] = Rank
    own_ray: bool = False
    """Started for this batch, and nobody starts machines for it."""
    nodes: Nodes = field(default_factory=Nodes, compare=False)

    def __call__(self, name: str, ranks: int) -> RayGang:
        """A gang of ``ranks`` that have joined. Raises ClusterUnavailable, or what ranks say that can never
        work together; then nothing is left of it.
        """
        _require_ray(name)
        limits = self.settings.deadlines
        group = self._place(name, ranks)
        actors: list[Any] = []
        try:
            actors += [self._actor(group, rank, ranks) for rank in range(ranks)]
            parallel = pool_parallel(self.settings)
            facts = _join(actors, parallel, time.monotonic() + limits.join)
        except (RayError, GetTimeoutError) as error:
            destroy_ranks(actors, group)
            raise _refusal(name, error) from error
        except BaseException:
            destroy_ranks(actors, group)
            raise
        watch = GangWatch(actors, first_reports(facts), limits, compiled=parallel.compiles)
        return RayGang(name, actors, group, facts=facts, deadlines=limits, watch=watch, nodes=self.nodes)

    @property
    def room(self) -> float:
        """Seconds that a gang may wait for room."""
        return self.settings.deadlines.room(own_ray=self.own_ray)

    def _place(self, name: str, ranks: int) -> PlacementGroup:
        """Room for a gang, for a while away from nodes that lost gangs, never where a node leaves.

        Raises ClusterUnavailable.
        """
        bundle = self._bundle()
        avoided: list[str] = []
        for avoided, seconds in self.nodes.attempts(living_nodes(bundle), self.room):
            options = placement_options(avoided, ranks)
            group = placement_group([bundle] * ranks, strategy=self.settings.placement, **options)
            try:
                if group.wait(seconds):
                    return group
            except RayError as error:
                destroy_ranks([], group)
                raise _refusal(name, error) from error
            except BaseException:
                destroy_ranks([], group)
                raise
            destroy_ranks([], group)
            _require_ray(name)
        raise ClusterUnavailable(self._no_room(name, ranks, avoided))

    def _no_room(self, name: str, ranks: int, avoided: list[str]) -> str:
        without = (
            f" without {plural(len(avoided), 'node')} that lost gangs or are shutting down" if avoided else ""
        )
        return (
            f"{name}: no room for {ranks} ranks of {self._bundle()} ({self.settings.placement}{without}) "
            f"after {self.room:g} s; the cluster has {_resources()}"
        )

    def _bundle(self) -> dict[str, float]:
        wants_gpu = self.settings.device == "cuda" or (self.settings.device == "auto" and has_gpus())
        return {"CPU": float(self.settings.cpus_per_rank), **({"GPU": 1.0} if wants_gpu else {})}

    def _actor(self, group: PlacementGroup, rank: int, ranks: int) -> Any:
        bundle = self._bundle()
        options = {
            "num_cpus": bundle["CPU"],
            "num_gpus": bundle.get("GPU", 0.0),
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": THREADS,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        }
        device = "cuda" if "GPU" in bundle else "cpu"
        actor = ray.remote(self.rank_class).options(**options)
        given = {"threads": self.settings.threads, "notice": self.settings.notice}
        return actor.remote(rank, ranks, device=device, **given)


def pool_parallel(settings: PoolSettings) -> ParallelSettings:
    """The pool's parallel settings, with its Ulysses degree where they name none of their own.

    Raises BadConfig or MissingInput.
    """
    found = load_parallel(settings.parallel)
    if settings.native is not None and found.native == "auto":
        found = replace(found, native=settings.native)
    if settings.compile is not None and found.compile == "auto":
        found = replace(found, compile=settings.compile)
    if settings.least_link_gb_s is not None and found.least_link_gb_s is None:
        found = replace(found, least_link_gb_s=settings.least_link_gb_s)
    if settings.ulysses is not None and found.ulysses is None and found.ring is None:
        return replace(found, ulysses=settings.ulysses)
    return found


def _join(actors: list[Any], parallel: ParallelSettings, deadline: float) -> list[dict[str, Any]]:
    """Number the actors by node (``actors`` is put in that order), and let them meet."""
    found = ray.get([actor.place.remote() for actor in actors], timeout=_left(deadline))
    order = in_node_order([place["node"] for place in found])
    places, actors[:] = [found[k] for k in order], [actors[k] for k in order]
    numbered = [actor.take_rank.remote(rank) for rank, actor in enumerate(actors)]
    ray.get(numbered, timeout=_left(deadline))
    host = places[0]["address"]
    port = ray.get(actors[0].open_store.remote(host), timeout=_left(deadline))
    joined = ray.get([a.join.remote(host, port, parallel) for a in actors], timeout=_left(deadline))
    return [{**place, **facts} for place, facts in zip(places, joined, strict=True)]


def _refusal(name: str, error: Exception) -> ImaxError:
    """What ranks say that will never work together, as they say it; anything else may do on another try."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, ImaxError) and not cause.retryable:
        return type(cause)(f"{name}: {cause}")
    return ClusterUnavailable(f"{name}: its ranks did not start: {cause_of(error)}")


def _require_ray(name: str) -> None:
    """Raise ClusterUnavailable if the batch has ended while this gang was being built in the background."""
    if not ray.is_initialized():
        raise ClusterUnavailable(f"{name}: Ray has ended")


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _resources() -> str:
    total = ray.cluster_resources()
    return ", ".join(f"{name} {total[name]:g}" for name in ("CPU", "GPU") if name in total) or "nothing"
