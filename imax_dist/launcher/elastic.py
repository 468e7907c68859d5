"""Start the ranks of one poster with torch's elastic launcher, and keep what their exit codes say.

``torchrun`` is the same launcher, but exits with 1 whatever its ranks say, so that nobody above it can tell
a wrong request from a lost machine (DECISIONS 49).
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imax_dist.errors import BadValue, ClusterUnavailable, GangLost, ImaxError, Preempted
from imax_dist.launcher.watch import RankWatch
from imax_dist.wording import first_line

PERMANENT = (2, 64, 65, 66, 71, 77, 78)
TELLING = (*PERMANENT, 73, Preempted.exit_code, ClusterUnavailable.exit_code)
"""Exit codes of ranks, the one that says most first; everything else is a lost rank."""
LONGEST_JOIN_S = 600


@dataclass(frozen=True)
class Nodes:
    """Where the ranks of one poster live; the same on every node but ``index``.

    ``rendezvous`` is HOST:PORT on the node with index 0, as all others see it; None for one node.
    """

    ranks_per_node: int
    count: int = 1
    index: int = 0
    rendezvous: str | None = None
    address: str | None = None
    """This node as the others see it; None: looked up from its name."""
    join_timeout_s: int = LONGEST_JOIN_S

    def __post_init__(self) -> None:
        """Raise BadValue for nodes that cannot meet."""
        for name, value in (("ranks", self.ranks_per_node), ("nodes", self.count)):
            if value < 1:
                raise BadValue(f"--{name} must be at least 1, got {value}")
        if not 0 <= self.index < self.count:
            raise BadValue(f"--node-rank {self.index}: {self.count} nodes count from 0 to {self.count - 1}")
        if self.count > 1 and self.rendezvous is None:
            raise BadValue(
                f"{self.count} nodes need a rendezvous: give --rendezvous HOST:PORT of node 0 on each"
            )
        host, colon, port = (self.rendezvous or "localhost:1").rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise BadValue(f"--rendezvous {self.rendezvous!r} is not HOST:PORT, for example node0:29500")


@dataclass(frozen=True)
class Watched:
    """Ranks that are looked after: where the evidence of a hang goes, what is touched while they move, what
    appears before this machine is taken away, and whether their first steps compile the network's blocks."""

    evidence: Path
    alive: Path | None = None
    notice: Path | None = None
    compiled: bool = False


def run_ranks(command: list[str], nodes: Nodes, *, drain_s: int, watch: Watched | None = None) -> int:
    """Run ``python COMMAND`` once a rank of this node until all have ended; returns the exit code for all.

    SIGTERM and SIGINT are passed on; ranks get ``drain_s`` seconds to checkpoint, a second signal ends them
    at once, and the code is that of Preempted. With ``watch`` the command takes ``--beacons``,
    and ranks that hang are killed. Raises ClusterUnavailable if nodes do not find each other.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="imax-launch-") as logs, ExitStack() as watching:
            if watch is not None:
                beacons = Path(logs) / "beacons"
                beacons.mkdir()
                command = [*command, "--beacons", str(beacons)]
                watching.enter_context(RankWatch(beacons, **vars(watch)))
            elastic_launch(_launch_config(nodes, drain_s=drain_s, logs=logs), sys.executable)(*command)
    except ChildFailedError as error:
        return telling_code(failure.exitcode for failure in error.failures.values())
    except SignalException:
        return Preempted.exit_code
    except (DistError, RendezvousError) as error:
        raise ClusterUnavailable(
            f"node {nodes.index} of {nodes.count} did not find the others at {nodes.rendezvous} within "
            f"{nodes.join_timeout_s} s; is the same command running on every node? ({first_line(error)})"
        ) from error
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
    return 0


def telling_code(codes: Iterable[int]) -> int:
    """The one exit code for ranks that ended with ``codes``: a wrong request before a lost rank.

    A rank that died of a signal (negative, or above 128) or of a crash (1) counts as lost.
    """
    found = set(codes)
    return next((code for code in TELLING if code in found), GangLost.exit_code)


def worth_another_try(code: int) -> bool:
    """Whether the same ranks, started again, may succeed: a rank was lost, nobody asked to stop."""
    return code in (ImaxError.exit_code, GangLost.exit_code)


def _launch_config(nodes: Nodes, *, drain_s: int, logs: str) -> Any:
    """torch's settings; restarts are ours, for a permanent error must not be tried again."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    alone = nodes.rendezvous is None
    configs = {"timeout": nodes.join_timeout_s} | ({} if alone else {"rank": nodes.index})
    return LaunchConfig(
        min_nodes=nodes.count,
        max_nodes=nodes.count,
        nproc_per_node=nodes.ranks_per_node,
        run_id="imax",
        rdzv_backend="c10d" if alone else "static",
        rdzv_endpoint=nodes.rendezvous or "localhost:0",
        rdzv_configs=configs,
        local_addr="localhost" if alone else nodes.address,
        max_restarts=0,
        monitor_interval=0.2,
        logs_specs=DefaultLogsSpecs(log_dir=logs),
        shutdown_timeout=drain_s,
        signals_to_handle="SIGTERM,SIGINT",
    )
