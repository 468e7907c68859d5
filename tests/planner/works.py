"""Workloads and clusters the planner's tests share."""

from __future__ import annotations

from functools import cache

from imax_dist.models.blueprint import find_blueprint
from imax_dist.pipeline.request import Request
from imax_dist.planner.cluster import Cluster, parse_cluster
from imax_dist.planner.hardware import load_hardware, read_hardware
from imax_dist.planner.workload import Workload, workload_of

MEASURED = {
    "name": "bench",
    "kind": "gpu",
    "memory": "80 GB",
    "memory_bandwidth": "2 TB/s",
    "rates": {
        "bfloat16": {"linear": "400 TFLOP/s", "attention": "300 TFLOP/s", "convolution": "200 TFLOP/s"}
    },
    "dispatch": "5 us",
    "reserve": "1 GiB",
    "link": {"kind": "NVLink", "bandwidth": "300 GB/s", "latency": "10 us"},
    "network": {"kind": "Ethernet", "bandwidth": "100 Gbit/s", "latency": "50 us"},
    "source": "made up for a test",
}


@cache
def flux(size: str = "4096x4096", *, preset: str = "one_jump", model: str = "flux-dev") -> Workload:
    """A poster of FLUX.1-dev from the architecture table, as a GPU would make it."""
    request = Request("a poster", size=size, preset=preset, model=model)
    return workload_of(request, find_blueprint(model), device="gpu")


def cluster(text: str = "8xH100") -> Cluster:
    """A cluster of a data sheet."""
    return parse_cluster(text)


def bench(nodes: int = 1, per_node: int = 8) -> Cluster:
    """A cluster whose numbers are round."""
    return Cluster(read_hardware(MEASURED, where="bench"), per_node, nodes)


__all__ = ["MEASURED", "bench", "cluster", "flux", "load_hardware"]
