"""The Ray cluster a batch runs on: one of its own, or one that is there."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
from ray.exceptions import RayError

from imax_dist.errors import BadValue, ClusterUnavailable, Preempted
from imax_dist.jobs.guardian import guarded
from imax_dist.jobs.settings import PoolSettings
from imax_dist.wording import first_line

OBJECT_STORE_BYTES = 100 << 20
"""Only requests and events travel through Ray; pictures go to disk."""
CONNECT_S = 5.0


@contextmanager
def ray_cluster(address: str, settings: PoolSettings) -> Iterator[None]:
    """Connect to ``local`` (started here, ended with the block), ``auto`` or an address.

    Raises ClusterUnavailable if there is none.
    """
    with guarded() if address == "local" else nullcontext():
        _connect(address, settings)
        try:
            yield
        finally:
            ray.shutdown()


def _connect(address: str, settings: PoolSettings) -> None:
    if not address.strip():
        raise BadValue("--ray needs local, auto or an address like 10.0.0.1:6379")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **_own_size(settings), **quiet)
        else:
            _require_listener(address)
            ray.init(address=address, **quiet)
    except SystemExit as error:  # Ray's own answer to a SIGTERM while it starts
        raise Preempted("stopped before any poster was begun; the same command begins again") from error
    except (RayError, ConnectionError, ValueError, OSError, RuntimeError, OverflowError) as error:
        raise ClusterUnavailable(_why_not(address, error)) from error


def _require_listener(address: str) -> None:
    """Raise OSError at once if nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def draining_nodes() -> frozenset[str]:
    """Ids of the nodes that are about to go away. Ray has no public call for it."""
    try:
        from ray._private.state import state

        return frozenset(state.get_draining_nodes())
    except (ImportError, AttributeError, RayError):
        return frozenset()


def has_gpus() -> bool:
    """Whether any node of the cluster has a GPU."""
    return float(ray.cluster_resources().get("GPU", 0.0)) > 0


def this_process() -> dict[str, str]:
    """Node id and address of the process this is called in."""
    return {
        "node": str(ray.get_runtime_context().get_node_id()),
        "address": str(ray.util.get_node_ip_address()),
    }


def _own_size(settings: PoolSettings) -> dict[str, Any]:
    ranks = max(settings.gangs * settings.ranks, settings.most_ranks or 0)
    return {
        "num_cpus": ranks * settings.cpus_per_rank,
        "object_store_memory": OBJECT_STORE_BYTES,
    }


def _why_not(address: str, error: Exception) -> str:
    first = first_line(error)
    if address == "local":
        return f"Ray could not be started on this machine: {first}"
    hint = " (set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)" if "auth" in str(error).lower() else ""
    return f"no Ray cluster answers at {address!r}: {first}{hint}; --ray local starts one here"
