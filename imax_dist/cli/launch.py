"""``imax launch generate ...``: one poster on many ranks, like torchrun, but the exit code arrives."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imax_dist
from imax_dist.errors import BadValue

if TYPE_CHECKING:
    from imax_dist.launcher.elastic import Nodes

EXAMPLE = """example: the same on each of two machines, with --node-rank 0 and 1
  imax launch --ranks 8 --nodes 2 --rendezvous node0:29500 --node-rank 0 \\
    generate "a red sun" --out sea.png"""
PAUSE_S = 3.0
"""Before ranks start again: every node has to notice first."""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "launch",
        help="render one poster on many GPUs or machines",
        usage="imax launch [options] generate PROMPT [options of generate]",
        description="Start `imax generate` once per GPU, on one machine or several, and keep its exit code.",
        epilog=EXAMPLE,
    )
    parser.add_argument("--ranks", type=int, help="ranks on this machine (default: one per GPU, else 1)")
    parser.add_argument("--nodes", type=int, default=1, help="machines that render together (default 1)")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="address of node 0, as the others see it")
    parser.add_argument(
        "--node-rank", type=int, default=None, help="this machine's number, from 0 (default: $SLURM_NODEID)"
    )
    parser.add_argument("--address", help="this machine, as the others see it (default: its name)")
    parser.add_argument(
        "--join-timeout",
        type=int,
        default=600,
        metavar="S",
        help="wait for the others (default 600)",
    )
    parser.add_argument("--restarts", type=int, default=3, help="restarts after a lost rank (default 3)")
    parser.add_argument(
        "--drain", type=int, default=150, metavar="S", help="seconds from SIGTERM to SIGKILL (default 150)"
    )
    parser.add_argument(
        "--alive", type=Path, metavar="FILE", help="touched while ranks make progress, for probes"
    )
    about = "stop with a checkpoint (75) when it appears: a spot machine's notice"
    parser.add_argument("--notice", type=Path, metavar="FILE", help=about)
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="generate ...", help="the command of each rank"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Start the ranks; a lost one makes this program start again, with one restart less."""
    from imax_dist.launcher.elastic import Watched, run_ranks, worth_another_try

    evidence, compiled = _check(options)
    nodes = _nodes(options)
    watch = Watched(evidence, alive=options.alive, notice=options.notice, compiled=compiled)
    code = run_ranks([*this_package(), *options.command], nodes, drain_s=options.drain, watch=watch)
    if not worth_another_try(code) or options.restarts < 1:
        return code
    left = options.restarts - 1
    print(f"imax launch: a rank was lost; all start again, {left} more times", file=sys.stderr, flush=True)
    time.sleep(PAUSE_S)
    _start_over(options, restarts=left)
    return code


def _start_over(options: argparse.Namespace, *, restarts: int) -> None:
    """Become a fresh launcher with the same process id: no socket or store of the lost ranks is left."""
    given = {
        "ranks": options.ranks,
        "nodes": options.nodes,
        "rendezvous": options.rendezvous,
        "node-rank": options.node_rank,
        "address": options.address,
        "join-timeout": options.join_timeout,
        "restarts": restarts,
        "drain": options.drain,
        "alive": options.alive,
        "notice": options.notice,
    }
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    words += ["--debug"] if "debug" in options else []
    os.execv(sys.executable, [sys.executable, *this_package(), "launch", *words, *options.command])


def this_package() -> list[str]:
    """Python's words to run this package in a folder whose files may have names of the standard library.

    The current folder stays out of the import path (``-P``), unless the package itself lies in it.
    """
    inside = Path(imax_dist.__file__).parents[1].samefile(Path.cwd())
    return ["-m", "imax_dist"] if inside else ["-P", "-m", "imax_dist"]


def _check(options: argparse.Namespace) -> tuple[Path, bool]:
    """Refuse once, before any rank starts, what every rank would refuse.

    Returns where the evidence of a hang goes, beside the first poster, and whether blocks are compiled.
    """
    from imax_dist.cli import generate, redo, upscale
    from imax_dist.cli.parser import VerbParser
    from imax_dist.cli.poster_request import wanted
    from imax_dist.cli.request_options import parallel_settings

    verbs: dict[str, Any] = {"generate": generate, "upscale": upscale, "redo": redo}
    name = options.command[0] if options.command else ""
    if name not in verbs:
        instead = f", not {name!r}" if name else ""
        raise BadValue(
            f"ranks run `generate`, `upscale` or `redo`{instead}; a batch starts its own ranks: imax batch"
        )
    if options.restarts < 0 or options.drain < 1 or options.join_timeout < 1:
        raise BadValue("--restarts must be at least 0, --drain and --join-timeout at least 1")
    parser = VerbParser(prog=f"imax {name}")
    verbs[name].add_arguments(parser)
    given = parser.parse_all(options.command[1:])
    verbs[name].prepare(given)
    return wanted(given)[0].out.with_suffix(".hang"), parallel_settings(given).compile != "none"


def _nodes(options: argparse.Namespace) -> Nodes:
    from imax_dist.launcher.elastic import Nodes

    index = options.node_rank
    if index is None:
        index = int(os.environ.get("SLURM_NODEID", "0")) if options.nodes > 1 else 0
    return Nodes(
        ranks_per_node=_default_ranks() if options.ranks is None else options.ranks,
        count=options.nodes,
        index=index,
        rendezvous=options.rendezvous if options.nodes > 1 else None,
        address=options.address,
        join_timeout_s=options.join_timeout,
    )


def _default_ranks() -> int:
    import torch

    return max(1, torch.cuda.device_count())
