"""What training and measuring commands of `imax study` share: numbers checked before anything is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from imax_dist.errors import BadValue

if TYPE_CHECKING:
    from imax_dist.study.train.budget import Budget

TOKEN = 16
"""Pixels of a token along each side: 8 a latent pixel, 2 of those a patch."""


def parse_size(text: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` as (height, width). Raises BadValue if it is not of that form."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise BadValue(f"size {text!r} is not WIDTHxHEIGHT; write for example 512x512")
    return int(height), int(width)


def model_size(text: str) -> tuple[int, int]:
    """``parse_size`` for what the model draws. Raises BadValue for a side that is not in whole tokens."""
    height, width = parse_size(text)
    nearest = [max(TOKEN, TOKEN * round(side / TOKEN)) for side in (width, height)]
    if nearest != [width, height]:
        raise BadValue(
            f"size {text}: both sides must be multiples of {TOKEN} px, a token's; the nearest such size is "
            f"{nearest[0]}x{nearest[1]}"
        )
    return height, width


def parse_share(text: str) -> tuple[tuple[int, int], float]:
    """``WIDTHxHEIGHT=WEIGHT``. Raises BadValue if it is not of that form or the weight is not above 0."""
    size, _, weight = text.partition("=")
    try:
        value = float(weight)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise BadValue(f"share {text!r} is not WIDTHxHEIGHT=WEIGHT; write for example 512x512=0.16")
    return model_size(size), value


def require_counts(args: argparse.Namespace, *names: str) -> None:
    """Raise BadValue for an option of ``names`` that was given and is below 1."""
    for name in names:
        count = getattr(args, name)
        if count is not None and count < 1:
            raise BadValue(f"--{name.replace('_', '-')} {count} must be at least 1")


def require_run(args: argparse.Namespace) -> None:
    """Check a training run's options, and start the libraries. Raises BadValue for a run of no length or no
    samples, CannotWrite for an ``--out`` that is a file."""
    from imax_dist.output.atomic import require_folder

    require_counts(args, "steps", "batch")
    if args.minutes is not None and not 0 < args.minutes < float("inf"):
        raise BadValue(f"--minutes {args.minutes:g} must be above 0")
    require_folder(args.out)
    start_libraries(args.threads)


def budget_of(args: argparse.Namespace) -> Budget:
    """How long a run lasts from now on, by ``--steps`` or ``--minutes``."""
    from imax_dist.study.train.budget import Budget

    return Budget(steps=args.steps, seconds=60 * (args.minutes or 0.0))


def require_seeds(first: int, count: int) -> None:
    """Raise BadValue for scenes to train on that are held out, or no seed."""
    from imax_dist.study.train.crops import HELD_OUT

    if first < 0 or first + count > HELD_OUT:
        raise BadValue(
            f"--first {first} and --n {count}: scenes to train on have seeds 0 to {HELD_OUT - 1}, since no "
            "run may see those from there on; choose both within"
        )


def start_libraries(threads: int) -> None:
    """Keep the libraries quiet and give torch its threads. Raises BadValue for less than one."""
    if threads < 1:
        raise BadValue(f"--threads {threads} must be at least 1")
    import torch

    from imax_dist.models.libraries import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(threads)


def print_last_line(journal: Path) -> int:
    """Print the last line of a loss curve, if it has any."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    print("".join(lines[-1:]))
    return 0
