"""A cluster in words: ``8xH100`` is one node of eight, ``2x8xA100`` two nodes of eight."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from imax_dist.errors import BadValue
from imax_dist.planner.hardware import Hardware, Link, load_hardware

MOST_DEVICES = 100_000


@dataclass(frozen=True)
class Cluster:
    """``nodes`` hosts with ``per_node`` devices each."""

    hardware: Hardware
    per_node: int
    nodes: int = 1

    @property
    def devices(self) -> int:
        return self.per_node * self.nodes

    def link(self, ranks: int) -> Link:
        """The slowest link among ``ranks`` neighbours: within a node, or between nodes."""
        return self.hardware.link if ranks <= self.per_node else self.hardware.network

    def memory_a_rank(self, ranks_on_node: int) -> float:
        """Bytes: a GPU's own memory; on a CPU the host's, shared by its ranks."""
        if self.hardware.kind == "gpu":
            return self.hardware.memory
        return self.hardware.memory / max(1, ranks_on_node)

    def __str__(self) -> str:
        name = self.hardware.name
        per_node = f"{self.per_node} x {name}"
        return per_node if self.nodes == 1 else f"{self.nodes} x {per_node}"


def parse_cluster(text: str, hardware: Hardware | None = None) -> Cluster:
    """Read ``[NODESx]COUNTxNAME``; ``hardware`` stands in for the name's file. Raises BadValue.

    More devices than a node of that kind holds (its file's ``per_node``) must be written as nodes.
    """
    match = re.fullmatch(r"\s*(?:(\d+)\s*[xX×]\s*)?(?:(\d+)\s*[xX×]\s*)?([A-Za-z][\w./-]*)\s*", text)
    if match is None:
        raise BadValue(
            f"cluster {text!r} is not [NODESx]COUNTxNAME; write for example 1xH200, 8xH100 or 2x8xA100"
        )
    first, second, name = match.groups()
    nodes, per_node = (int(first), int(second)) if second else (1, int(first or 1))
    found = hardware or load_hardware(name)
    if min(nodes, per_node) < 1 or nodes * per_node > MOST_DEVICES:
        raise BadValue(f"cluster {text!r}: counts must be at least 1 and make at most {MOST_DEVICES} devices")
    if found.kind == "gpu" and per_node > found.per_node:
        whole = math.ceil(per_node / found.per_node)
        raise BadValue(
            f"cluster {text!r}: a node holds {found.per_node} {found.name}; "
            f"write {whole}x{found.per_node}x{found.name}, or change per_node in a file for --hardware"
        )
    return Cluster(found, per_node, nodes)
