"""``imax doctor``: what this machine can do and what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from typing import Any, NamedTuple

from imax_dist.errors import BadValue

REQUIRED = ("torch", "diffusers", "transformers", "ray", "safetensors", "numpy", "pillow", "pyyaml")
OPTIONAL = {
    "xfuser": "xDiT's attention engine (pip install 'imax-dist[gpu]')",
    "psycopg": "queues in PostgreSQL (pip install 'imax-dist[postgres]')",
    "obstore": "delivery to object stores (pip install 'imax-dist[deliver]')",
}
SMALL_SHM_GIB = 1.0


class Finding(NamedTuple):
    """One line of the report; ``ok`` None is information only."""

    name: str
    value: str
    ok: bool | None = None


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "doctor",
        help="what this machine can do, what is missing",
        description="Check versions, devices, memory, disk and a small render; exit 0 if nothing is missing.",
    )
    parser.add_argument("--json", action="store_true", help="findings as JSON on stdout")
    parser.add_argument(
        "--measure",
        nargs="?",
        const="imax-hardware.yaml",
        metavar="FILE",
        help="measure this machine for imax plan --hardware, write FILE",
    )
    parser.add_argument("--no-render", action="store_true", help="skip the small test render")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings; 0 if everything needed is there, 78 if not."""
    if options.measure is not None:
        return measure_machine(options.measure)
    findings = [*packages(), *machine(), *devices(), *attention()]
    if not options.no_render:
        findings.append(test_render())
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = {True: "ok", False: "MISSING", None: "--"}[finding.ok]
            print(f"{mark:>8}  {finding.name:<16} {finding.value}")
    return 78 if any(finding.ok is False for finding in findings) else 0


def measure_machine(file: str) -> int:
    """Write a hardware file with this machine's own rates; about 20 s.

    Raises BadValue unless the file ends in .yaml.
    """
    from pathlib import Path

    import torch
    import yaml

    from imax_dist.calibrate.measure import measure
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.output.atomic import write_bytes
    from imax_dist.parallel.topology import pick_device
    from imax_dist.planner.hardware import read_hardware

    if not file.endswith((".yaml", ".yml")):
        raise BadValue(f"--measure {file}: the file's name must end in .yaml")
    print("measuring; leave the machine alone for about 20 s", file=sys.stderr)
    torch.set_num_threads(1)
    quiet_libraries()
    found = measure(pick_device("auto"))
    read_hardware(found, where="measured")
    note = (
        "# This machine, measured by imax doctor --measure; a rank is one core with one thread, or one GPU.\n"
    )
    text = note + yaml.safe_dump(found, sort_keys=False)
    write_bytes(Path(file), text.encode())
    print(text + f"\nwritten to {file}; imax plan --gpus 4x{found['kind']} --hardware {file}")
    return 0


def packages() -> list[Finding]:
    """Versions of what is needed and of what makes things faster."""
    findings = [Finding("python", platform.python_version(), sys.version_info >= (3, 11))]
    for name in REQUIRED:
        version = _version(name)
        findings.append(Finding(name, version or "not installed", version is not None))
    for name, purpose in OPTIONAL.items():
        findings.append(Finding(name, _version(name) or f"not installed: {purpose}"))
    return findings


def machine() -> list[Finding]:
    """Cores, memory, shared memory and disk."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    pinned = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if pinned else os.cpu_count()
    findings = [
        Finding("cores", str(cores)),
        Finding("memory", f"{memory:.0f} GiB"),
        Finding("disk here", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free"),
        Finding("queue here", queue_here()),
    ]
    if os.path.isdir("/dev/shm"):
        size = shutil.disk_usage("/dev/shm").total / 2**30
        note = "" if size >= SMALL_SHM_GIB else " (small for Ray and NCCL: mount more in containers)"
        findings.append(Finding("/dev/shm", f"{size:.1f} GiB{note}"))
    return findings


def queue_here() -> str:
    """What a batch's queue would be in this folder, tried out."""
    import tempfile
    from contextlib import closing
    from pathlib import Path

    from imax_dist.errors import ImaxError
    from imax_dist.jobs.store.file_system import mount_of
    from imax_dist.jobs.store.sqlite import Sqlite

    mount = mount_of(Path())
    disk = "" if mount is None else f", {mount.kind}"
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".imax-doctor-", dir=".") as folder,
            closing(Sqlite(Path(folder).absolute() / "batch.sqlite")) as store,
        ):
            kept = "a write-ahead log" if store.shared_memory else "a rollback journal, for one driver"
    except (ImaxError, OSError) as error:
        return str(error)
    return f"SQLite with {kept}{disk}"


def devices() -> list[Finding]:
    """What torch computes on and how ranks would talk."""
    import torch
    import torch.distributed as dist

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    backend = "nccl" if gpus and dist.is_nccl_available() else "gloo"
    return [
        Finding("GPUs", ", ".join(gpus) if gpus else "none: posters are rendered on the CPU"),
        Finding("ranks talk over", backend, dist.is_available()),
        Finding("torch threads", str(torch.get_num_threads())),
    ]


def attention() -> list[Finding]:
    """Engines that share a poster among ranks, and the kernels one device attends with."""
    import torch

    from imax_dist.errors import BadConfig
    from imax_dist.parallel.engines.xfuser import import_xfuser
    from imax_dist.parallel.kernels import KERNELS
    from imax_dist.parallel.topology import pick_device

    engines = ["torch", "diffusers"]
    reason = ""
    try:
        import_xfuser()
        engines.insert(1, "xfuser")
    except BadConfig as error:
        reason = f"; no xfuser: {str(error).removeprefix('parallel: engine xfuser ')}"
    kind = pick_device("auto").type
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    found = [k for k in KERNELS.values() if k.device == kind and dtype in k.dtypes]
    names = [k.name + ("" if k.exact else " (draft)") for k in found if k.installed]
    absent = [f"{k.name} (package {k.module})" for k in found if not k.installed]
    return [
        Finding("engines", ", ".join(engines) + reason),
        Finding("kernels", ", ".join(names) + (f"; not installed: {', '.join(absent)}" if absent else "")),
    ]


def test_render() -> Finding:
    """A 128 px picture in two steps with the embedded model: the whole path but the file."""
    import time

    from imax_dist.errors import ImaxError
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.parallel.topology import Topology, pick_device
    from imax_dist.pipeline.renderer import render
    from imax_dist.pipeline.request import Request

    quiet_libraries()
    started = time.perf_counter()
    topology = Topology.alone(pick_device("auto"))
    try:
        render(Request("a red sun", size="128x128", steps=2), topology=topology)
    except (ImaxError, RuntimeError, OSError) as error:
        return Finding("test render", f"failed: {error}", False)
    return Finding("test render", f"embedded model, 128x128, {time.perf_counter() - started:.1f} s", True)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
