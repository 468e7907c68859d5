"""Everything that is measured on a GPU, in one script: FLUX.1-dev's shape with random weights, no network.

``python -m tests.bench.gpu`` is meant to take 8 minutes on an H100-class GPU and prints Markdown tables; what
the time did not allow or what failed is in them as such. ``--tiny`` runs every section on a CPU with a small
shape, which shows that the script works and measures nothing worth keeping.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist

from imax_dist.errors import ImaxError
from imax_dist.events import RenderEvent, StageDone, StepDone
from imax_dist.models.compiled import compile_blocks
from imax_dist.parallel.attention import attend
from imax_dist.parallel.choose_kernel import AttentionShape, KernelChoice, choose_kernel
from imax_dist.parallel.engines.registry import ENGINES
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.kernels import KERNELS, candidates, verify
from imax_dist.parallel.mesh import SequenceMesh, build_mesh
from imax_dist.parallel.sequence import JointLayout, gather, shard
from imax_dist.parallel.topology import Topology, pick_device
from imax_dist.pipeline.ranks import ParallelSettings, join_for
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request
from tests.bench import gpu_detail
from tests.bench.flux_shape import (
    FLUX_DEV,
    TINY,
    RandomFlux,
    Shape,
    Step,
    make_model,
    seconds,
    step_flops,
    use_bare,
    use_ours,
    wait,
)
from tests.bench.gpu_posters import posters_by_kernel
from tests.bench.odd_lengths import ODD_HEADING, odd_rows
from tests.ranks import forked

LIMIT_S = 8 * 60
STEP_HEADING = (
    "| size | grid | text copies | tokens | s a step | TFLOP/s | share of roofline | peak, GiB |\n"
    "|---|---|---|---|---|---|---|---|"
)
NOT_MEASURED = "not measured: the time was up"


@dataclass
class Bench:
    """One run of the script."""

    shape: Shape
    device: torch.device
    dtype: torch.dtype
    sizes: tuple[str, ...]
    deadline: float
    model: RandomFlux = field(init=False)
    rates: dict[str, float] = field(default_factory=dict)
    """Measured FLOP/s of a matrix product and of the attention kernel."""

    def __post_init__(self) -> None:
        self.model = make_model(self.shape, self.device, self.dtype)

    @property
    def topology(self) -> Topology:
        return Topology.alone(self.device)

    @cached_property
    def choice(self) -> KernelChoice:
        """The kernel a render would take here; measured once."""
        work = AttentionShape(self.shape.heads, self.shape.head_dim, self.dtype)
        return choose_kernel("auto", "exact", self.topology, work)

    @property
    def runs(self) -> int:
        return 3 if self.device.type == "cuda" else 1


def roofline(bench: Bench) -> Iterator[str]:
    """What this GPU reaches on the two operations a step is made of."""
    yield "| operation | ms | TFLOP/s |\n|---|---|---|"
    big = bench.device.type == "cuda"
    tokens, width = (16896, bench.shape.width) if big else (256, bench.shape.width)
    a = torch.randn(tokens, width, device=bench.device, dtype=bench.dtype)
    b = torch.randn(width, 4 * width, device=bench.device, dtype=bench.dtype)
    took = seconds(lambda: a @ b, runs=5)
    bench.rates["linear"] = 8.0 * tokens * width**2 / took
    product = f"{tokens} x {width} x {4 * width}"
    yield f"| matrix product {product} | {1e3 * took:.2f} | {bench.rates['linear'] / 1e12:.1f} |"
    heads = (1, bench.shape.heads, tokens, bench.shape.head_dim)
    q, k, v = (torch.randn(heads, device=bench.device, dtype=bench.dtype) for _ in range(3))
    for kernel in candidates(bench.device, bench.dtype, "draft"):
        try:
            verify(kernel, bench.device, bench.dtype, head_dim=bench.shape.head_dim)
            took = seconds(lambda run=kernel.run: run(q, k, v), runs=5)  # type: ignore[misc]
        except (ImaxError, RuntimeError, ImportError, TypeError, AssertionError) as error:
            yield f"| attention, {kernel.name} | refused | {str(error).splitlines()[0][:90]} |"
            continue
        rate = 4.0 * tokens**2 * bench.shape.width / took
        if kernel.exact:
            bench.rates["attention"] = max(rate, bench.rates.get("attention", 0.0))
        draft = "" if kernel.exact else " (draft)"
        yield f"| attention, {kernel.name}{draft}, {tokens} tokens | {1e3 * took:.2f} | {rate / 1e12:.1f} |"
    absent = [k.name for k in KERNELS.values() if k.device == bench.device.type and not k.installed]
    if absent:
        yield f"| not installed: {', '.join(absent)} | | |"


def steps(bench: Bench) -> Iterator[str]:
    """One step at every size, even and odd grid, grid and shared text copies."""
    choice = bench.choice
    yield f"{choice.sentence()}\n"
    yield STEP_HEADING
    for size in bench.sizes[:2]:
        for copies, odd in (("none", False), ("none", True), ("grid", False), ("shared", False)):
            yield step_row(bench, Step.at(bench.model, size, copies=copies, odd=odd), choice.kernel)


def large_steps(bench: Bench) -> Iterator[str]:
    """Steps of the larger sizes through a few blocks only, times as many as there are."""
    choice = bench.choice
    parts = bench.shape.blocks // 3
    few = make_model(replace(bench.shape, double=1, single=2), bench.device, bench.dtype)
    yield f"3 of {bench.shape.blocks} blocks were run: {parts} times their seconds; peaks hold both models\n"
    yield STEP_HEADING
    for size in bench.sizes[2:]:
        kinds = (("none", False), ("none", True), ("grid", False), ("shared", False))
        for copies, odd in kinds[: 1 if size == bench.sizes[-1] else None]:
            step = Step.at(few, size, copies=copies, odd=odd)
            yield step_row(bench, step, choice.kernel, parts=parts)


def step_row(bench: Bench, step: Step, kernel: Any, *, parts: int = 1) -> str:
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    mesh = SequenceMesh(ulysses=1, ring=1, rank=0)
    runs, warm_up = (1, 1) if parts > 1 else (bench.runs, 1)
    took = seconds(step.ours(ENGINES["torch"](mesh, kernel=kernel), mesh), runs=runs, warm_up=warm_up)
    took *= parts
    linear, attention = step_flops(bench.shape, sum(step.tokens))
    ideal = linear / bench.rates["linear"] + attention / bench.rates["attention"]
    odd = step.x.shape[2] != step.plan.grid.height
    copies = f"{step.plan.copies.literal} x {step.plan.copies.weight}"
    return (
        f"| {step.plan.render_size} | {'odd' if odd else 'even'} | {copies} | {sum(step.tokens)} "
        f"| {took:.3f} | "
        f"{(linear + attention) / took / 1e12:.1f} | {ideal / took:.2f} | {peak_of(bench)} |"
    )


def peak_of(bench: Bench) -> str:
    """GiB allocated at most since the last reset."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if bench.device.type == "cuda" else "-"


def against_bare(bench: Bench) -> Iterator[str]:
    """Ours against diffusers' own transformer, same weights and tokens; then compiled block by block."""
    yield "| size | bare, s | ours, s | ratio | compiled, s | eager / compiled |\n|---|---|---|---|---|---|"
    for size in bench.sizes[:2]:
        step = Step.at(bench.model, size)
        ours = step.ours()
        use_bare(bench.model)
        bare = seconds(step.bare(), runs=bench.runs)
        use_ours(bench.model)
        own = seconds(ours, runs=bench.runs)
        compiled = "not measured: CPU"
        gain = ""
        if bench.device.type == "cuda":
            compile_blocks(bench.model)
            took = seconds(ours, runs=bench.runs, warm_up=2)
            compiled, gain = f"{took:.3f}", f"{own / took:.2f}"
            uncompile(bench.model)
        yield f"| {size} | {bare:.3f} | {own:.3f} | {own / bare:.3f} | {compiled} | {gain} |"


def uncompile(model: RandomFlux) -> None:
    for module in model.transformer.modules():
        module._compiled_call_impl = None
    del model.wrap_engine


def engines_alone(bench: Bench) -> Iterator[str]:
    """Every engine on one rank, where all of them hand over to the kernel: what is left of their wrapping."""
    yield "| engine | s a step | against torch |\n|---|---|---|"
    step = Step.at(bench.model, bench.sizes[0])
    base = 0.0
    for name, make in ENGINES.items():
        mesh = SequenceMesh(ulysses=1, ring=1, rank=0)
        try:
            took = seconds(step.ours(make(mesh), mesh), runs=bench.runs)
        except (ImaxError, RuntimeError) as error:
            yield f"| {name} | refused: {str(error).splitlines()[0][:110]} | |"
            continue
        base = base or took
        yield f"| {name} | {took:.3f} | {took / base:.3f} |"


def profile_of_a_step(bench: Bench) -> Iterator[str]:
    """The second size, with the kernel that was chosen."""
    choice = bench.choice
    mesh = SequenceMesh(ulysses=1, ring=1, rank=0)
    for odd in (False, True):
        step = Step.at(bench.model, bench.sizes[1], odd=odd)
        grid = "odd" if odd else "even"
        yield f"one step at {bench.sizes[1]}, {grid} grid, attention kernel {choice.name}\n"
        call = step.ours(ENGINES["torch"](mesh, kernel=choice.kernel), mesh)
        yield from gpu_detail.profiled(call, bench.device)
        yield ""


def odd_lengths(bench: Bench) -> Iterator[str]:
    """Attention alone on odd grids over even ones, lengths as they are and in whole blocks."""
    yield ODD_HEADING
    yield from odd_rows(bench.topology, tiny=bench.device.type == "cpu")


def wide_head(bench: Bench) -> Iterator[str]:
    yield from gpu_detail.wide_head(bench.device, bench.dtype)


def shared_gpu(bench: Bench) -> Iterator[str]:
    """Two gloo ranks on the one device: do Ulysses and ring equal one rank there?"""
    yield "| mesh | largest difference to one rank |\n|---|---|"
    for ulysses, ring in ((2, 1), (1, 2)):
        store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
        context = forked()
        answers = context.SimpleQueue()
        arguments = [(rank, store.port, str(bench.device), (ulysses, ring), answers) for rank in range(2)]
        ranks = [context.Process(target=parity, args=each, daemon=True) for each in arguments]
        for rank in ranks:
            rank.start()
        over = time.monotonic() + 60
        while time.monotonic() < over and all(rank.is_alive() for rank in ranks):
            time.sleep(0.1)
        for rank in ranks:
            rank.join(timeout=2)
            rank.kill()
        codes = [rank.exitcode for rank in ranks]
        found = f"no answer, exit codes {codes}" if answers.empty() else answers.get()
        yield f"| ulysses {ulysses} x ring {ring} | {found} |"


def parity(rank: int, port: int, device: str, degrees: tuple[int, int], answers: Any) -> None:
    """One of two ranks: sharded attention against plain attention, float32."""
    topology = Topology(rank, 2, 0, torch.device(device))
    try:
        store = dist.TCPStore("127.0.0.1", port, None, is_master=False)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
        mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
        layout = JointLayout.of(text_tokens=7, image_tokens=61, ranks=2)
        generator = torch.Generator().manual_seed(5)
        qkv = [3 * torch.randn(1, 68, 4, 16, generator=generator).to(device) for _ in range(3)]
        parts = [x.split([7, 61], dim=1) for x in qkv]
        own = [torch.cat([shard(t, layout.text, mesh, dim=1), shard(i, layout.image, mesh, dim=1)], dim=1)
               for t, i in parts]  # fmt: skip
        output = TorchEngine(mesh)(*own, layout=layout)
        image = gather(output[:, layout.text[rank] :], layout.image, mesh, dim=1)
        found = f"{(image - attend(*qkv)[:, 7:]).abs().max().item():.1e}"
    except (RuntimeError, ValueError, NotImplementedError) as error:
        found = f"failed: {str(error).splitlines()[0][:90]}"
    if rank == 0:
        answers.put(found)


def vae(bench: Bench) -> Iterator[str]:
    """Decodes of the two largest sizes: as diffusers does it, and by rows."""
    yield gpu_detail.DECODE_HEADING
    for size in bench.sizes[-2:]:
        if time.monotonic() > bench.deadline - 30:
            yield f"| {size} | {NOT_MEASURED} | | | |"
            continue
        yield from gpu_detail.decodes(bench.model, int(size.split("x")[0]) // 8)


def whole_job(bench: Bench) -> Iterator[str]:
    """A poster from prompt to pixels, as `imax generate` makes it, stage by stage."""
    size = bench.sizes[-2]
    count = 30 if bench.device.type == "cuda" else 2
    stages: dict[str, float] = {}
    ends: list[float] = []

    def listen(event: RenderEvent) -> None:
        if isinstance(event, StepDone):
            wait()
            ends.append(time.perf_counter())
            print(f"{len(ends)}: {ends[-1] - started:.2f} s", file=sys.stderr, flush=True)
        if isinstance(event, StageDone):
            stages[event.stage] = event.seconds

    ranks = join_for(bench.model, ParallelSettings(), bench.topology)
    request = Request("a poster", size=size, steps=count, native_steps=count)
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    wait()
    started = time.perf_counter()
    render_with(bench.model, ranks, request, listen=listen)
    wait()
    yield f"{count} + {count} steps at {size}\n"
    yield "| stage | s |\n|---|---|"
    for stage, took in stages.items():
        yield f"| {stage} | {took:.2f} |"
    steps_ = [after - before for before, after in itertools.pairwise(ends[-count:])]
    yield f"| a step of the target size, even and odd grids | {min(steps_):.3f} to {max(steps_):.3f} |"
    yield f"| peak, GiB | {peak_of(bench)} |"
    yield f"| whole job | {time.perf_counter() - started:.2f} |"


def kernels_in_posters(bench: Bench) -> Iterator[str]:
    """The whole poster with each available kernel, at even and odd grid."""
    yield from posters_by_kernel(bench.model, bench.sizes[1])


SECTIONS: dict[str, Callable[[Bench], Iterator[str]]] = {
    "Roofline and kernels": roofline,
    "One step": steps,
    "Against a bare diffusers transformer": against_bare,
    "Kernels of a step": profile_of_a_step,
    "Odd lengths": odd_lengths,
    "A head of 512 channels": wide_head,
    "Engines on one rank": engines_alone,
    "Two ranks on one device": shared_gpu,
    "Steps of larger pictures": large_steps,
    "VAE decode": vae,
    "Whole job": whole_job,
    "Whole posters by kernel": kernels_in_posters,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Benchmarks of one GPU; prints Markdown tables.")
    parser.add_argument("--tiny", action="store_true", help="a small shape on the CPU: does the script work?")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="TITLE", help="these sections")
    parser.add_argument("--sizes", nargs="+", metavar="WxH", help="four or more, in place of 1024 to 8192 px")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny runs every section on the CPU with a small shape")
    deadline = time.monotonic() + options.limit
    print(heading(options.tiny), flush=True)
    shape, dtype = (TINY, torch.float32) if options.tiny else (FLUX_DEV, torch.bfloat16)
    big = tuple(f"{side}x{side}" for side in (1024, 2048, 4096, 8192))
    sizes = ("64x64", "96x96", "128x128", "160x160") if options.tiny else big
    sizes = tuple(options.sizes or sizes)
    bench = Bench(shape, pick_device("cpu" if options.tiny else "auto"), dtype, sizes, deadline)
    failures = 0
    titles = SECTIONS if options.only is None else dict.fromkeys([next(iter(SECTIONS)), *options.only])
    for title in titles:
        section = SECTIONS[title]
        began = time.monotonic()
        print(f"\n### {title}\n", flush=True)
        if time.monotonic() > deadline:
            print(NOT_MEASURED, flush=True)
            continue
        try:
            for line in section(bench):
                print(line, flush=True)
        except (ImaxError, RuntimeError) as error:
            failures += 1
            print(f"failed: {type(error).__name__}: {str(error).splitlines()[0][:160]}", flush=True)
        print(f"\n({time.monotonic() - began:.0f} s)", flush=True)
    return 1 if failures else 0


def heading(tiny: bool) -> str:
    """What was measured where."""
    name = "CPU, a small shape: not a measurement" if tiny else torch.cuda.get_device_name()
    nccl = "NCCL" if dist.is_nccl_available() else "no NCCL"
    today = time.strftime("%Y-%m-%d")
    return f"{today}; {name}; torch {torch.__version__}, {nccl}; {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
