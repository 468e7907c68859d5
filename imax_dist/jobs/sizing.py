"""Gangs and ranks of a batch that names none: the planner chooses by posters and cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.errors import ImaxError
from imax_dist.jobs.settings import PoolSettings
from imax_dist.pipeline.ranks import load_parallel
from imax_dist.pipeline.request import Request
from imax_dist.planner.choose import Choice, choose
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.describe import one_line
from imax_dist.planner.estimate import kinds_of
from imax_dist.planner.fill_auto import least_link
from imax_dist.planner.hardware import Hardware, hardware_of_gpu, load_hardware
from imax_dist.planner.more_ranks import smallest_fit
from imax_dist.planner.poster import first_without_room
from imax_dist.planner.unknown import UnknownCost
from imax_dist.planner.workload import Workload, with_settings, workloads

CPU_RANK_BYTES = 4.0 * 2**30
PREVIEW_EVERY = 2
MEASURED_FILE = "imax-hardware.yaml"
"""What imax doctor --measure writes; taken from the working folder where there is one."""


class Host(NamedTuple):
    """What one machine has; ``gpu`` is its kind as Ray or CUDA name it."""

    cores: int
    gpus: int
    gpu: str
    memory: float
    """Bytes of the host's memory that ranks may use, all together."""


def fill_defaults_from_plan(
    settings: PoolSettings, requests: Sequence[Request], hosts: Sequence[Host]
) -> tuple[PoolSettings, str]:
    """``settings`` with what was left open chosen, and a line that says so.

    Of gangs that somebody named, only how their ranks work is chosen. Nobody gets a gang on several nodes
    unasked: the network between nodes is what a plan knows least, and a gang that spans them is
    refused below half of what the hardware file says of it.

    Raises BadValue, with what would work, if a poster fits nowhere. Where the network or the
    GPU is not known to the planner, every device becomes a gang of its own, and the line says so.
    """
    wants_gpu = settings.device == "cuda" or (settings.device == "auto" and any(host.gpus for host in hosts))
    if not requests or not hosts or not (settings.open or _undecided(settings, wants_gpu=wants_gpu)):
        return settings, ""
    able = [host for host in hosts if host.gpus] if wants_gpu else list(hosts)
    counts = [host.gpus if wants_gpu else host.cores // settings.cpus_per_rank for host in able]
    per_node = max(1, min(counts, default=1))
    fixed = {name: getattr(settings, name) for name in ("gangs", "ranks") if name not in settings.open}
    try:
        hardware = _hardware(able, gpu=wants_gpu, settings=settings)
        cluster = Cluster(hardware, per_node, len(able) or 1)
        within = {"most": per_node} if "ranks" in settings.open else {}
        works = _works(requests, hardware, settings)
        choice = choose(works, cluster, **fixed, **within)
    except UnknownCost as error:
        if not settings.open:
            return settings, ""
        gangs = fixed.get("gangs") or min(len(requests), sum(counts) // fixed.get("ranks", 1)) or 1
        chosen = replace(settings, gangs=gangs, ranks=fixed.get("ranks", 1), open=())
        return chosen, f"not planned ({error}): {chosen.gangs} gangs x {chosen.ranks} ranks"
    except ImaxError:
        if settings.open:
            raise
        return settings, ""  # nodes may be on their way, and a job that is wrong fails alone
    working = _how_ranks_work(settings, choice, works)
    if not settings.open:
        return working, ""
    layout = choice.chosen.layout
    chosen = replace(
        working,
        gangs=layout.gangs,
        ranks=layout.split.ranks,
        ulysses=layout.split.ulysses if layout.split.ranks > 1 else None,
        placement="PACK" if layout.split.ranks > per_node else settings.placement,
        open=(),
    )
    return chosen, one_line(choice)


def _undecided(settings: PoolSettings, *, wants_gpu: bool) -> bool:
    """Whether a plan says more of gangs that somebody named: on GPUs of several ranks, or by the file."""
    parallel = load_parallel(settings.parallel)
    return (wants_gpu and settings.ranks > 1) or "auto" in (parallel.native, parallel.compile)


def _how_ranks_work(settings: PoolSettings, choice: Choice, works: Sequence[Workload]) -> PoolSettings:
    """Who makes the first passes, whether blocks are compiled, and the least link between nodes."""
    longest, cluster = choice.chosen.longest, choice.cluster
    full = [n for work in kinds_of(works) if (n := first_without_room(work, cluster)) is not None]
    ahead = 0 if settings.proofs_first else min([longest.passes_ahead, *full])
    spans = choice.chosen.layout.split.ranks > cluster.per_node
    return replace(
        settings,
        native="shared" if longest.native_by == "shared" else "rank0",
        compile="regional" if choice.compiled else "none",
        passes_ahead=ahead if settings.passes_ahead is None else settings.passes_ahead,
        least_link_gb_s=least_link(cluster.hardware) if spans else settings.least_link_gb_s,
    )


def open_pool(settings: PoolSettings, hosts: Sequence[Host]) -> PoolSettings:
    """``settings`` for a queue whose posters are not known yet: one rank a gang, as many as there is room.

    On a CPU a rank is given ``CPU_RANK_BYTES`` of its host's memory. There are previews: people look on.
    """
    settings = replace(settings, preview_every=settings.preview_every or PREVIEW_EVERY)
    ranks = 1 if "ranks" in settings.open else settings.ranks
    if "gangs" not in settings.open:
        return replace(settings, ranks=ranks, open=())
    gpus = sum(host.gpus for host in hosts)
    if settings.device == "cuda" or (settings.device == "auto" and gpus):
        devices = gpus
    else:
        devices = sum(_cpu_ranks(host, settings) for host in hosts)
    return replace(settings, ranks=ranks, gangs=max(1, devices // ranks, settings.least_gangs), open=())


def _cpu_ranks(host: Host, settings: PoolSettings) -> int:
    by_cores = host.cores // settings.cpus_per_rank
    return min(by_cores, int(host.memory // CPU_RANK_BYTES)) if host.memory else by_cores


def planned_seconds(request: Request, settings: PoolSettings, hosts: Sequence[Host]) -> float | None:
    """Seconds of one poster on a gang of the pool; None where the planner does not know network or device.

    Raises BadValue, with what would work, if it fits nowhere.
    """
    wants_gpu = settings.device == "cuda" or (settings.device == "auto" and any(host.gpus for host in hosts))
    able = [host for host in hosts if host.gpus] if wants_gpu else list(hosts)
    counts = [host.gpus if wants_gpu else host.cores // settings.cpus_per_rank for host in able]
    per_node = max(1, min(counts, default=1), settings.ranks if len(able) < 2 else 1)
    try:
        hardware = _hardware(able, gpu=wants_gpu, settings=settings)
        cluster = Cluster(hardware, per_node, len(able) or 1)
        choice = choose(_works([request], hardware, settings), cluster, gangs=1, ranks=settings.ranks)
    except UnknownCost:
        return None
    return choice.chosen.longest.total


def remedy(request: Request, ranks: int, settings: PoolSettings, hosts: Sequence[Host]) -> str:
    """What a pool should allow a poster that ran out of memory on ``ranks``; empty if no plan is known."""
    able = [host for host in hosts if host.gpus]
    if settings.device != "cpu" and able:
        with suppress(ImaxError):
            hardware = _hardware(able, gpu=True, settings=settings)
            room = smallest_fit(_works([request], hardware, settings), hardware, than=ranks)
            if room is not None:
                return f"set most_ranks: {room.ranks}; {room.sentence}"
    return ""


def _works(requests: Sequence[Request], hardware: Hardware, settings: PoolSettings) -> list[Workload]:
    """With the memory that the pool's parallel settings give the VAE."""
    parallel = load_parallel(settings.parallel)
    made = workloads(requests, device=hardware.kind)
    once = {work: with_settings(work, parallel, device=hardware.kind) for work in dict.fromkeys(made)}
    return [once[work] for work in made]


def this_host() -> Host:
    """The machine this runs on."""
    import torch

    gpus = torch.cuda.device_count()
    pinned = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if pinned else os.cpu_count() or 1
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Host(cores, gpus, torch.cuda.get_device_name(0) if gpus else "", memory)


def ray_hosts() -> list[Host]:
    """The living nodes of the Ray cluster this process is connected to."""
    import ray

    return [
        _host(node["Resources"]) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")
    ]


def _host(resources: dict[str, Any]) -> Host:
    kinds = [name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")]
    return Host(
        cores=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        gpu=kinds[0] if kinds else "",
        memory=float(resources.get("memory", 0.0)),
    )


def _hardware(hosts: Sequence[Host], *, gpu: bool, settings: PoolSettings) -> Hardware:
    """The pool's own file, a measured one that lies here, or the description of that kind of device."""
    measured = MEASURED_FILE if Path(MEASURED_FILE).is_file() else None
    if settings.hardware or measured:
        found = load_hardware(settings.hardware or str(measured))
        if found.kind == ("gpu" if gpu else "cpu"):
            return found if gpu else _with_memory(found, hosts)
    if not gpu:
        return _with_memory(load_hardware("cpu"), hosts)
    return hardware_of_gpu(hosts[0].gpu if hosts else "")


def _with_memory(hardware: Hardware, hosts: Sequence[Host]) -> Hardware:
    """With the least of the hosts' own memories."""
    known = [host.memory for host in hosts if host.memory]
    return replace(hardware, memory=min(known)) if known else hardware
