"""The Ray cluster a batch runs on: one of its own, or one that is there."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]
from ray.exceptions import RayError
from ray.job_config import JobConfig

import imax_dist
from imax_dist.errors import BadValue, ClusterUnavailable, ImaxError, Preempted
from imax_dist.jobs.board import silent
from imax_dist.jobs.guardian import guarded
from imax_dist.jobs.settings import PoolSettings
from imax_dist.wording import first_line

OBJECT_STORE_BYTES = 100 << 20
"""Only requests and events travel through Ray; pictures go to disk."""
EQUAL = {"worker_niceness": 0}
"""Ray starts its workers at 15 above its own niceness: on a machine with other work ranks starve so long that
they do not join in time."""
CONNECT_S = 5.0
END_S = 10.0


class OwnPath(JobConfig):  # type: ignore[misc]
    """A job whose workers import from no folder of the driver's but the one this package lies in.

    Ray puts the current folder first, so that a ``statistics.py`` in it ends every worker.
    """

    def _serialize(self) -> Any:
        package = Path(imax_dist.__file__).parents[1]
        paths: list[str] = self._py_driver_sys_path  # type: ignore[has-type]
        self._py_driver_sys_path = [each for each in paths if Path(each) == package]
        return super()._serialize()


@contextmanager
def ray_cluster(
    address: str, settings: PoolSettings, *, note: Callable[[str], None] = silent
) -> Iterator[None]:
    """Connect to ``local`` (started here, ended with the block), ``auto`` or an address.

    A local Ray listens on the loopback interface, wants a token of whoever connects, and keeps its session in
    a private folder that goes with it. Raises ClusterUnavailable if there is none; what fails while it ends
    is a ``note``. Raises BadValue for no address.
    """
    if not address.strip():
        raise BadValue("--ray needs local, auto or an address like 10.0.0.1:6379")
    with guarded() if address == "local" else nullcontext() as folder:
        before = set(psutil.Process().children(recursive=True))
        try:
            _connect(address, settings, folder)
            yield
        finally:
            try:
                _shut_down(set(psutil.Process().children(recursive=True)) - before if folder else set())
            except Exception as error:
                note(f"Ray stopped with an error: {first_line(error)}")


def _connect(address: str, settings: PoolSettings, folder: Path | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if folder is not None:
            with _sheltered():
                place = str(folder / "r")  # Ray opens this one to everybody, but not the folder around it
                own = {**_own_size(settings), "_temp_dir": place, "_system_config": EQUAL}
                ray.init(address="local", include_dashboard=False, job_config=OwnPath(), **own, **quiet)
            _require_tokens()
        else:
            _require_listener(address)
            ray.init(address=address, job_config=OwnPath(), **quiet)
    except SystemExit as error:  # Ray's own answer to a SIGTERM while it starts
        text = "stopped before any poster was begun; run the same command again to resume"
        raise Preempted(text) from error
    except ImaxError:
        raise
    except Exception as error:  # a node that starts too slowly is a bare Exception
        raise ClusterUnavailable(_why_not(address, error)) from error


@contextmanager
def _sheltered() -> Iterator[None]:
    """Ray's servers, started in this block, listen on loopback and outlive a SIGTERM to the process group.

    Supervisors signal every process of a group, and the posters' checkpoints need the servers until the
    driver has ended them itself. A blocked signal is inherited by what is started; Ray blocks SIGINT alike.
    """
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # "use loopback IP as the local IP address", says Ray
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _require_tokens() -> None:
    """Raise BadValue where the environment has turned Ray's tokens off: any user could run code as us."""
    if get_authentication_mode() != AuthenticationMode.TOKEN:
        raise BadValue(
            "RAY_AUTH_MODE turns Ray's tokens off, and --ray local requires them: any user of this machine "
            "could run programs as you; unset it"
        )


def _shut_down(servers: set[psutil.Process]) -> None:
    """Leave Ray. Its own servers do not hear SIGTERM: once this driver has left, they are killed."""

    def end() -> None:
        while ray.is_initialized():
            time.sleep(0.02)
        for server in servers:
            with suppress(psutil.Error):
                server.kill()

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    ray.shutdown()
    thread.join(timeout=END_S)


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


def living_nodes(bundle: Mapping[str, float]) -> list[str]:
    """Ids of the living nodes that would, empty, hold a rank's ``bundle``; a head without CPUs would not."""

    def holds(node: Mapping[str, Any]) -> bool:
        return all(node["Resources"].get(name, 0.0) >= much for name, much in bundle.items())

    return [str(node["NodeID"]) for node in ray.nodes() if node["Alive"] and holds(node)]


def has_gpus() -> bool:
    """Whether any node of the cluster has a GPU."""
    return float(ray.cluster_resources().get("GPU", 0.0)) > 0


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
