"""A Ray that does not start ends with one sentence, whatever it raises."""

from __future__ import annotations

import pytest
import ray

from imax_dist.errors import BadValue, ClusterUnavailable
from imax_dist.jobs.cluster import ray_cluster
from imax_dist.jobs.settings import PoolSettings


@pytest.mark.parametrize("kind", [Exception, RuntimeError, OSError, ValueError])
def test_a_ray_that_does_not_start_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """A node that starts too slowly is a bare Exception in Ray."""

    def init(**options: object) -> None:
        raise kind("The current node timed out during startup.\nThis could happen because ...")

    monkeypatch.setattr(ray, "init", init)
    says = r"Ray could not be started on this machine: The current node timed out during startup\.$"
    with pytest.raises(ClusterUnavailable, match=says), ray_cluster("local", PoolSettings()):
        pytest.fail("there is no Ray")


def test_no_address_is_refused() -> None:
    with (
        pytest.raises(BadValue, match="--ray needs local, auto or an address"),
        ray_cluster(" ", PoolSettings()),
    ):
        pytest.fail("there is no Ray")
