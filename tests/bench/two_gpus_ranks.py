"""What each rank does in the sections of two_gpus.py: every function is called on all ranks."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import Tensor

from imax_dist.config import load_named, named_configs
from imax_dist.parallel.attention import attend
from imax_dist.parallel.collectives import all_gather_single
from imax_dist.parallel.engines.registry import ENGINES
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.kernels import KERNELS, leaving
from imax_dist.parallel.mesh import SequenceMesh, build_mesh
from imax_dist.parallel.point_to_point import post
from imax_dist.parallel.ring import rotate
from imax_dist.parallel.sequence import JointLayout, gather, shard
from imax_dist.parallel.topology import Topology
from imax_dist.parallel.ulysses import send_qkv
from tests.bench.flux_shape import FLUX_DEV, TINY, Step, make_model

TEXT, IMAGE = 7, 61
RUNS = 5
CALLS = 200
"""In a row: fewer than a GPU's queue holds, which would make the host wait."""


Degrees = tuple[int, int]
"""Ulysses and ring."""


def attention_errors(topology: Topology, meshes: list[Degrees]) -> dict[tuple[Degrees, str], float]:
    """Of every mesh with the text split, on every rank, and counted three times."""
    found = {}
    for degrees in meshes:
        mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
        for text in ("sharded", "replicated", "shared copies"):
            found[degrees, text] = attention_error(topology, mesh, text)
    return found


def attention_error(topology: Topology, mesh: SequenceMesh, text: str) -> float:
    """Largest difference of the image tokens from plain attention, float32."""
    weight = 3 if text == "shared copies" else 1
    layout = JointLayout.of(
        text_tokens=TEXT, image_tokens=IMAGE, ranks=mesh.size, text_replicated=text == "replicated"
    )
    generator = torch.Generator().manual_seed(5)
    qkv = [3 * torch.randn(1, TEXT + IMAGE, 8, 16, generator=generator) for _ in range(3)]
    parts = [x.to(topology.device).split([TEXT, IMAGE], dim=1) for x in qkv]
    own = []
    for words, image in parts:
        mine = words if layout.text_replicated else shard(words, layout.text, mesh, dim=1)
        own.append(torch.cat([mine, shard(image, layout.image, mesh, dim=1)], dim=1))
    output = TorchEngine(mesh)(*own, layout=layout, text_weight=weight)
    image = gather(output[:, layout.text[mesh.rank] :], layout.image, mesh, dim=1)
    whole = [torch.cat([words] * weight + [rows], dim=1) for words, rows in parts]
    expected = attend(torch.cat(parts[0], dim=1), whole[1], whole[2])[:, TEXT:]
    return float((image - expected).abs().max())


def bandwidths(topology: Topology, sizes: list[int]) -> dict[str, list[float]]:
    """Seconds of an exchange in which every rank sends so many bytes, by its kind."""
    world, rank = topology.world_size, topology.rank
    following, preceding = (rank + 1) % world, (rank - 1) % world
    found: dict[str, list[float]] = {"exchange of heads": [], "ring hop": [], "gathering": []}
    for size in sizes:
        sent = torch.zeros(size // world * world, dtype=torch.uint8, device=topology.device)
        received, gathered = torch.empty_like(sent), sent.new_empty(world * len(sent))

        def exchange(a: Tensor = sent, b: Tensor = received) -> None:
            dist.all_to_all_single(b, a)

        def hop(a: Tensor = sent, b: Tensor = received) -> None:
            post([(a, following)], [(b, preceding)], None).wait()

        def collect(a: Tensor = sent, b: Tensor = gathered) -> None:
            all_gather_single(b, a, None)

        for name, call in zip(found, (exchange, hop, collect), strict=True):
            found[name].append(best(call, topology))
    return found


def host_seconds_a_call(topology: Topology) -> dict[str, float]:
    """Seconds of the host in one exchange of heads and one hop: nothing waits for the device meanwhile."""
    world, rank = topology.world_size, topology.rank
    sent = torch.zeros(world * 64, device=topology.device)
    received = torch.empty_like(sent)

    def exchange() -> None:
        dist.all_to_all_single(received, sent, async_op=True).wait()

    def hop() -> None:
        post([(sent, (rank + 1) % world)], [(received, (rank - 1) % world)], None).wait()

    found = {}
    for name, call in (("exchange of heads", exchange), ("ring hop", hop)):
        seconds = []
        for _ in range(1 + RUNS):
            dist.barrier()
            wait(topology)
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            seconds.append((time.perf_counter() - started) / CALLS)
        found[name] = min(seconds[1:])
    wait(topology)
    return found


def overlap(topology: Topology, own: int, sms: int) -> dict[str, tuple[float, float, float]]:
    """Seconds of one block's attention, of a hop, and of both as the ring runs them, by kernel.

    ``sms``: the most multiprocessors for hops, see ``hop_sms`` of the parallel settings.
    """
    mesh = build_mesh(topology, ulysses=1, ring=topology.world_size, hop_sms=sms)
    kind = torch.bfloat16 if topology.device.type == "cuda" else torch.float32
    q, k, v = (torch.randn(1, own, 24, 128, device=topology.device, dtype=kind) for _ in range(3))
    sent = torch.stack([k, v])
    received = torch.empty_like(sent)
    following, preceding = ((topology.rank + step) % topology.world_size for step in (1, -1))
    found = {}
    for each in usable_kernels(topology, kind):
        kernel = leaving(each, sms)

        def computing(kernel: Any = kernel) -> None:
            attend(q, k, v, kernel=kernel)

        def hopping() -> None:
            post([(sent, following)], [(received, preceding)], mesh.ring_group).wait()

        def both(kernel: Any = kernel) -> None:
            blocks = rotate(k, v, [own] * mesh.ring, mesh)
            for _, key, value in blocks:
                attend(q, key, value, kernel=kernel)

        hops = mesh.ring - 1
        alone, hop = best(computing, topology), best(hopping, topology)
        together = (best(both, topology) - alone) / hops
        found[each.name] = (alone, hop, together)
    return found


def usable_kernels(topology: Topology, kind: torch.dtype) -> list[Any]:
    """Exact ones that are installed here."""
    here = [each for each in KERNELS.values() if each.device == topology.device.type and each.installed]
    return [each for each in here if kind in each.dtypes and each.exact]


@torch.no_grad()
def beside_mlp(topology: Topology, own: int, heads: int, head_dim: int) -> tuple[float, float, float]:
    """Seconds of the exchange of heads, of half a block's MLP, and of both as blocks run them."""
    mesh = build_mesh(topology, ulysses=topology.world_size, ring=1)
    kind = torch.bfloat16 if topology.device.type == "cuda" else torch.float32
    width, lengths = heads * head_dim, [own] * mesh.size
    q, k, v = (torch.randn(1, own, heads, head_dim, device=topology.device, dtype=kind) for _ in range(3))
    x = torch.randn(1, own, width, device=topology.device, dtype=kind)
    weight = torch.randn(4 * width, width, device=topology.device, dtype=kind)

    def mlp() -> None:
        F.gelu(F.linear(x, weight), approximate="tanh")

    def both() -> None:
        coming = send_qkv((q, k, v), lengths, mesh)
        mlp()
        coming.wait()

    exchange = best(lambda: send_qkv((q, k, v), lengths, mesh).wait(), topology)
    return exchange, best(mlp, topology), best(both, topology)


def in_pieces(topology: Topology, tokens: int, shape: tuple[int, int], degrees: Degrees) -> dict[int, float]:
    """Seconds of a block's global attention by the pieces in which its heads are exchanged; 0: none are.

    ``shape`` are heads and channels of one.
    """
    mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
    heads, head_dim = shape
    kind = torch.bfloat16 if topology.device.type == "cuda" else torch.float32
    layout = JointLayout.of(text_tokens=mesh.size, image_tokens=tokens, ranks=mesh.size)

    def noise(rows: int, own: int) -> list[Tensor]:
        return [torch.randn(1, rows, own, head_dim, device=topology.device, dtype=kind) for _ in range(3)]

    qkv, whole = noise(layout.joint[mesh.rank], heads), noise(sum(layout.joint), heads // mesh.size)
    found = {0: best(lambda: attend(*whole), topology)}
    for pieces in (1, 2, 3, 4):
        attention = partial(TorchEngine(mesh, pieces=pieces), *qkv, layout=layout)
        found[pieces] = best(attention, topology)
    return found


def communicators(topology: Topology, degrees: tuple[int, int]) -> tuple[int, int, float]:
    """Groups of a mesh, the GPU's memory they take, and the seconds until each was used."""
    on_gpu = topology.device.type == "cuda"
    dist.barrier()
    before = torch.cuda.mem_get_info(topology.device)[0] if on_gpu else 0
    known = len(dist.distributed_c10d._world.pg_map)
    started = time.perf_counter()
    mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
    layout = JointLayout.of(text_tokens=8, image_tokens=64, ranks=mesh.size)
    qkv = [torch.randn(1, layout.joint[mesh.rank], 8, 16, device=topology.device) for _ in range(3)]
    gather(TorchEngine(mesh)(*qkv, layout=layout), layout.joint, mesh, dim=1)
    wait(topology)
    taken = before - torch.cuda.mem_get_info(topology.device)[0] if on_gpu else 0
    return len(dist.distributed_c10d._world.pg_map) - known, taken, time.perf_counter() - started


def step_seconds(
    topology: Topology, size: str, meshes: list[Degrees], tiny: bool
) -> dict[tuple[Degrees, str], float]:
    """Best seconds of one step of FLUX.1's shape by the clock on the wall, by mesh and engine."""
    shape, kind = (TINY, torch.float32) if tiny else (FLUX_DEV, torch.bfloat16)
    step = Step.at(make_model(shape, topology.device, kind), size)
    found = {}
    for degrees in meshes:
        mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
        for name in engines(tiny) if topology.world_size > 1 else ["torch"]:
            found[degrees, name] = best(step.ours(ENGINES[name](mesh), mesh), topology, runs=2 if tiny else 5)
    return found


def engines(tiny: bool) -> list[str]:
    """Those that can be made here; xfuser needs a GPU, but for the shim of tests/parallel."""
    installed = importlib.util.find_spec("xfuser") is not None
    return [name for name in ENGINES if name != "xfuser" or (installed and not tiny)]


def hardware_file(seconds: dict[int, float], *, latency: float, call: float | None = None, tiny: bool) -> str:
    """A data sheet of this GPU (or the CPU's) with the link as measured, by MiB of a message; ``call``: what
    one of them costs the host."""
    device = "cpu" if tiny else torch.cuda.get_device_name(0)
    words = device.upper().replace("-", " ").split()
    name = next((name for name in named_configs("hardware") if name.upper() in words), "cpu")
    link = {
        "kind": "measured by tests.bench.two_gpus",
        "bandwidth": {
            size >> 20: f"{size / max(each - latency, 1e-9) / 1e9:.4g} GB/s" for size, each in seconds.items()
        },
        "latency": f"{1e6 * latency:.4g} us",
    }
    content = {**load_named("hardware", name), "link": link}
    if call is not None:
        content["call"] = f"{1e6 * call:.4g} us"
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text


def best(call: Callable[[], Any], topology: Topology, *, runs: int = RUNS) -> float:
    """Least seconds of a call that all ranks begin together, after one that warms up; the slowest rank's."""
    seconds = []
    for _ in range(1 + runs):
        dist.barrier() if topology.world_size > 1 else None
        wait(topology)
        started = time.perf_counter()
        call()
        wait(topology)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def wait(topology: Topology) -> None:
    """Until the device has done what it was given."""
    if topology.device.type == "cuda":
        torch.cuda.synchronize(topology.device)
