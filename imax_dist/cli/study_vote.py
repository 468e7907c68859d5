"""`imax study vote DIR`: pairwise preference over the pictures of a study that was made."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from imax_dist.cli.study_run import progress_bar
from imax_dist.errors import BadManifest, BadValue, MissingInput, Preempted

Parser = argparse.ArgumentParser


def vote_arguments(parser: Parser) -> None:
    """Options of the vote."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="what imax study NAME --out wrote")
    parser.add_argument("--judge", choices=("endpoint", "testbed"), default="endpoint", metavar="WHO",
                        help="endpoint (default; IMAX_VOTE_URL, _MODEL, _KEY) or testbed")  # fmt: skip
    parser.add_argument("--budget", type=int, default=200, help="questions at most, two a pair (default 200)")
    parser.add_argument(
        "--crops", type=int, default=3, help="crops of each picture besides the whole (default 3)"
    )
    parser.add_argument("--baseline-only", action="store_true", help="only pairs with the baseline")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="the study's pictures (default: cache beside DIR)"
    )


def run_vote(args: argparse.Namespace) -> int:
    """Vote, write vote.json, print the strengths. Raises Preempted if it stopped before the end.

    Raises BadValue for a budget or crops out of range.
    """
    from imax_dist.output.atomic import write_json

    found = _results(args.folder)
    if args.budget < 1 or not 0 <= args.crops <= 16:
        raise BadValue(
            f"budget {args.budget}, crops {args.crops}: ask for 1 or more questions, 0 to 16 crops"
        )
    result, stopped = _testbed(found) if args.judge == "testbed" else _endpoint(found, args)
    write_json(args.folder / "vote.json", result)
    print(json.dumps(result, indent=2, ensure_ascii=False))
    if stopped:
        raise Preempted(f"the vote stopped: {stopped}; {args.folder}/vote.json holds what there is, "
                        "run the same command again to resume")  # fmt: skip
    return 0


def _results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    if not path.is_file():
        raise MissingInput(f"{folder} has no results.json; run a study there first")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"]["kind"] != "pictures":
            raise BadValue(f"{folder} holds a study without pictures; there is nothing to vote on")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadManifest(f"{path} is not a study's results") from error
    return found


def _testbed(found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from imax_dist.study.experiments.judge import NAME, votes_of
    from imax_dist.study.experiments.run import preference

    by_size = votes_of(found)
    sizes = {size: preference(votes, found["baseline"], NAME) for size, votes in by_size.items()}
    return {"judge": NAME, "sizes": sizes}, ""


def _endpoint(found: dict[str, Any], args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from imax_dist.study.experiments.draw import ResultCache
    from imax_dist.study.experiments.endpoint import Endpoint
    from imax_dist.study.experiments.run import preference
    from imax_dist.study.experiments.vote import Ballot, pairs_of

    endpoint = Endpoint.from_environment(os.environ)
    cache = ResultCache(args.cache or args.folder.parent / "cache")
    ballot = Ballot(endpoint, cache, args.folder / "votes.jsonl", args.budget, args.crops)
    pairs = pairs_of(found, only_baseline=args.baseline_only)
    name = f"{endpoint.model} at {endpoint.url}"
    on_progress, close = progress_bar("vote", quiet=not sys.stderr.isatty())
    sizes, stopped = {}, ""
    for size in dict.fromkeys(pair.size for pair in pairs):
        votes, stopped = ballot.run([pair for pair in pairs if pair.size == size], on_progress=on_progress)
        if votes:
            sizes[size] = preference(votes, found["baseline"], name)
        if stopped:
            break
    close()
    return {"judge": name, "questions": ballot.questions, "complete": not stopped, "sizes": sizes}, stopped
