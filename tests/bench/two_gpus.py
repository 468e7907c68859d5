"""The first hour on two to eight GPUs in one command: `python -m tests.bench.two_gpus`.

What one GPU cannot tell: whether the collectives are right on NCCL and whole posters with them, how fast
links are by message size, whether a hop hides behind attention, what communicators hold, how ranks end that
are stopped or run out of memory, how a step scales, which engine is faster. Prints Markdown tables for
BENCHMARKS.md and writes a hardware file for `imax plan --hardware`. `--tiny` runs every section on gloo,
where numbers mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from imax_dist.parallel.topology import Topology, process_group
from tests.bench import two_gpus_contexts as gpu_contexts
from tests.bench import two_gpus_ranks as on_ranks
from tests.bench import two_gpus_renders as whole_renders
from tests.bench.hangs import KINDS, SKIPPED, seconds_until_seen
from tests.bench.odd_lengths import ODD_HEADING, odd_rows
from tests.bench.two_gpus_ending import seconds_until_the_others_end
from tests.ranks import forked

SECTION_S = 300.0
SIZES = ("2048x2048", "4096x4096")


@dataclass(frozen=True)
class Setting:
    """Where the sections run."""

    ranks: int
    tiny: bool

    @property
    def device(self) -> str:
        return "cpu" if self.tiny else "cuda"

    @property
    def degrees(self) -> list[tuple[int, int]]:
        """Every Ulysses x ring of the ranks."""
        return [(u, self.ranks // u) for u in range(self.ranks, 0, -1) if self.ranks % u == 0]


def run(setting: Setting, function: Callable[..., Any], *args: Any) -> list[Any]:
    """``function(topology, *args)`` on every rank; the results by rank. Kills all at the section's limit."""
    context = forked()
    store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    answers = context.Queue()
    fixed = (setting.ranks, setting.device, store.port, answers, function, args)
    ranks = [context.Process(target=_rank, args=(rank, *fixed), daemon=True) for rank in range(setting.ranks)]
    for process in ranks:
        process.start()
    found: dict[int, Any] = {}
    try:
        for _ in ranks:
            rank, value = answers.get(timeout=SECTION_S)
            if isinstance(value, str) and value.startswith("failed: "):
                raise RuntimeError(f"rank {rank} {value}")
            found[rank] = value
    finally:
        for process in ranks:
            process.join(timeout=5)
            process.kill()
    return [found[rank] for rank in range(setting.ranks)]


def _rank(
    rank: int, ranks: int, device: str, port: int, answers: Any, function: Callable[..., Any], args: Any
) -> None:
    torch.set_num_threads(1)
    place = torch.device(device, rank) if device == "cuda" else torch.device(device)
    topology = Topology(rank, ranks, rank, place)
    try:
        store = dist.TCPStore("127.0.0.1", port, None, is_master=False, timeout=timedelta(seconds=60))
        with process_group(topology, store=store, timeout_s=SECTION_S):
            answers.put((rank, function(topology, *args)))
            dist.barrier()
    except Exception:
        answers.put((rank, f"failed: {traceback.format_exc().strip().splitlines()[-1]}"))


def parity(setting: Setting) -> Iterator[str]:
    """Attention of every mesh against plain attention."""
    yield "| mesh | text | largest difference (float32) |"
    yield "|---|---|---|"
    found = run(setting, on_ranks.attention_errors, setting.degrees)
    for degrees, text in found[0]:
        worst = max(own[degrees, text] for own in found)
        yield f"| u{degrees[0]} r{degrees[1]} | {text} | {worst:.1e} |"


def renders(setting: Setting) -> Iterator[str]:
    """Whole posters by all ranks against the same by one."""
    with tempfile.TemporaryDirectory() as folder:
        whole_renders.make_models(Path(folder))
        cases = whole_renders.TINY if setting.tiny else tuple(whole_renders.CASES)
        yield from whole_renders.table(run(setting, whole_renders.differences, folder, cases))


def bandwidths(setting: Setting) -> Iterator[str]:
    """What a rank sends a second in each kind of exchange, by message size."""
    sizes = [1 << 16, 1 << 20] if setting.tiny else [1 << 16, 1 << 20, 8 << 20, 64 << 20, 256 << 20]
    found = run(setting, on_ranks.bandwidths, sizes)[0]
    yield f"| bytes | {' | '.join(found)} |"
    yield "|---" * (1 + len(found)) + "|"
    for index, size in enumerate(sizes):
        cells = [
            f"{size / seconds[index] / 1e9:.2f} GB/s, {1e6 * seconds[index]:.0f} us"
            for seconds in found.values()
        ]
        yield f"| {size} | {' | '.join(cells)} |"


def host_cost(setting: Setting) -> Iterator[str]:
    """What the planner calls ``call``: gloo's calls end with their messages, NCCL's at once."""
    yield "| call | us of the host |"
    yield "|---|---|"
    found = run(setting, on_ranks.host_seconds_a_call)
    for name in found[0]:
        yield f"| {name} | {1e6 * max(own[name] for own in found):.1f} |"


def overlap(setting: Setting) -> Iterator[str]:
    """Whether a ring hop travels while attention is computed, by its own multiprocessors."""
    tokens = [(256, 0)] if setting.tiny else [(own, sms) for own in (2304, 8448, 33024) for sms in (0, 4, 16)]
    yield "| tokens a rank | hop_sms | kernel | attention ms | hop ms | both ms | of the hop hidden |"
    yield "|---|---|---|---|---|---|---|"
    for own, sms in tokens:
        for name, (alone, hop, both) in run(setting, on_ranks.overlap, own, sms)[0].items():
            hidden = max(0.0, min(1.0, (alone + hop - both) / hop))
            yield (
                f"| {own} | {sms} | {name} | {1e3 * alone:.2f} | {1e3 * hop:.2f} | {1e3 * both:.2f} | "
                f"{100 * hidden:.0f} % |"
            )


def beside_mlp(setting: Setting) -> Iterator[str]:
    """Whether queries, keys and values travel while a block's MLP is computed (DECISIONS 98)."""
    heads, head_dim, tokens = (4, 16, [64]) if setting.tiny else (24, 128, [576, 2112, 8256, 33024])
    yield "| tokens a rank | exchange ms | MLP ms | both ms | of the exchange hidden |"
    yield "|---|---|---|---|---|"
    for own in tokens:
        own -= own % setting.ranks
        exchange, mlp, both = run(setting, on_ranks.beside_mlp, own, heads, head_dim)[0]
        hidden = max(0.0, min(1.0, (exchange + mlp - both) / exchange))
        times = " | ".join(f"{1e3 * each:.2f}" for each in (exchange, mlp, both))
        yield f"| {own} | {times} | {100 * hidden:.0f} % |"


def in_pieces(setting: Setting) -> Iterator[str]:
    """Whether pieces of the heads hide each other's exchange, and from how many tokens (DECISIONS 111)."""
    shape, tokens = ((8, 16), [64]) if setting.tiny else ((24, 128), [16384, 32768, 65536, 262144])
    yield "| mesh | tokens | attention alone, ms | in 1 piece | 2 | 3 | 4 |"
    yield "|---|---|---|---|---|---|---|"
    for degrees in [(u, r) for u, r in setting.degrees if u > 1 and r <= 2]:
        for count in tokens:
            found = run(setting, on_ranks.in_pieces, count, shape, degrees)[0]
            cells = " | ".join(f"{1e3 * seconds:.2f}" for seconds in found.values())
            yield f"| u{degrees[0]} r{degrees[1]} | {count} | {cells} |"


def odd_lengths(setting: Setting) -> Iterator[str]:
    """What the odd grid of patch shift costs, and what whole blocks save of it (DECISIONS 115)."""
    yield ODD_HEADING
    (rows,) = run(Setting(1, setting.tiny), partial(odd_rows, tiny=setting.tiny))
    yield from rows


def communicators(setting: Setting) -> Iterator[str]:
    """Memory of the GPU that each group takes once it is used."""
    yield "| mesh | groups | MiB of the GPU | seconds to first use |"
    yield "|---|---|---|---|"
    for degrees in setting.degrees[:1] if setting.tiny else setting.degrees:
        groups, taken, seconds = run(setting, on_ranks.communicators, degrees)[0]
        yield f"| u{degrees[0]} r{degrees[1]} | {groups} | {taken / 2**20:.0f} | {seconds:.1f} |"


def contexts(setting: Setting) -> Iterator[str]:
    """Whether a rank holds memory on a GPU that is not its own."""
    if setting.tiny:
        yield "needs GPUs"
        return
    with tempfile.TemporaryDirectory() as folder:
        whole_renders.make_models(Path(folder))
        yield from gpu_contexts.table(run(setting, gpu_contexts.held_after_a_render, folder))


def hangs(setting: Setting) -> Iterator[str]:
    """Ranks that are stopped, skip a hop or never end, in a step of seven seconds."""
    yield "| kind | seconds until it is seen | said |"
    yield "|---|---|---|"
    for kind in ["stopped", SKIPPED] if setting.tiny else list(KINDS):
        seconds, said = seconds_until_seen(kind, 1.0 if setting.tiny else 7.0, device=setting.device)
        yield f"| {kind} | {'not called a hang' if seconds is None else f'{seconds:.1f}'} | {said} |"


def endings(setting: Setting) -> Iterator[str]:
    """A rank that runs out of memory, or is killed, while the other one waits in a collective."""
    yield "| rank 1 | seconds until all have ended | exit code |"
    yield "|---|---|---|"
    for how in ("out of memory",) if setting.tiny else ("out of memory", "killed"):
        seconds, code = seconds_until_the_others_end(how, device=setting.device)
        yield f"| {how} | {seconds:.1f} | {code} |"


def scaling(setting: Setting) -> Iterator[str]:
    """One step of FLUX.1's shape on one rank and on all."""
    yield "| size | ranks | mesh | engine | s a step | efficiency |"
    yield "|---|---|---|---|---|---|"
    alone = Setting(1, setting.tiny)
    for size in ("128x128",) if setting.tiny else SIZES:
        (single,) = run(alone, on_ranks.step_seconds, size, [(1, 1)], setting.tiny)
        one = single[(1, 1), "torch"]
        yield f"| {size} | 1 | alone | torch | {one:.3f} | 100 % |"
        found = run(setting, on_ranks.step_seconds, size, setting.degrees, setting.tiny)
        for degrees, engine in found[0]:
            taken = max(own[degrees, engine] for own in found)
            share = 100 * one / taken / setting.ranks
            mesh = f"u{degrees[0]} r{degrees[1]}"
            yield f"| {size} | {setting.ranks} | {mesh} | {engine} | {taken:.3f} | {share:.0f} % |"


SECTIONS: dict[str, Callable[[Setting], Iterator[str]]] = {
    "Parity": parity,
    "Renders": renders,
    "Bandwidth by size": bandwidths,
    "Host cost of a call": host_cost,
    "Overlap of a hop with attention": overlap,
    "Overlap of the exchange with an MLP": beside_mlp,
    "Pieces of heads": in_pieces,
    "Odd lengths": odd_lengths,
    "Communicators": communicators,
    "Contexts on GPU 0": contexts,
    "Hangs": hangs,
    "Endings": endings,
    "Strong scaling and engines": scaling,
}


def write_hardware(setting: Setting, path: Path) -> None:
    """The description of this kind of device, its links as measured; on GPUs what a call costs the host."""
    sizes = [1 << 12, 1 << 20] if setting.tiny else [1 << 12, 1 << 20, 8 << 20, 64 << 20, 256 << 20]
    latency, *seconds = run(setting, on_ranks.bandwidths, sizes)[0]["exchange of heads"]
    by_size = dict(zip(sizes[1:], seconds, strict=True))
    call = None
    if not setting.tiny:
        call = max(seconds for own in run(setting, on_ranks.host_seconds_a_call) for seconds in own.values())
    path.write_text(on_ranks.hardware_file(by_size, latency=latency, call=call, tiny=setting.tiny))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The first hour on two to eight GPUs.")
    parser.add_argument("--ranks", type=int, help="default: every GPU, at most 8")
    parser.add_argument("--tiny", action="store_true", help="every section on gloo, small: no measurement")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--hardware", type=Path, default=Path("imax-hardware.yaml"), metavar="FILE")
    options = parser.parse_args(arguments)
    ranks = options.ranks or (2 if options.tiny else min(8, torch.cuda.device_count()))
    if not options.tiny and ranks < 2:
        print("two_gpus: two GPUs are needed; --tiny runs every section on gloo", file=sys.stderr)
        return 2
    setting = Setting(ranks, options.tiny)
    kind = "gloo, small: not a measurement" if options.tiny else torch.cuda.get_device_name(0)
    print(f"## {ranks} ranks on {kind}, torch {torch.__version__}", flush=True)
    failed = False
    for name in options.only:
        print(f"\n### {name}\n", flush=True)
        started = time.perf_counter()
        try:
            for line in SECTIONS[name](setting):
                print(line, flush=True)
        except Exception as error:
            failed = True
            print(f"failed: {str(error).splitlines()[0]}", flush=True)
        print(f"\n{time.perf_counter() - started:.0f} s", flush=True)
    write_hardware(setting, options.hardware)
    print(f"\nimax plan --hardware {options.hardware}: links as measured here")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
