"""``imax verify``: does a file still hold what its recipe says?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from imax_dist.errors import BadManifest

MATCH, NO_MATCH = 0, BadManifest.exit_code


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "verify",
        help="check a poster against its recipe",
        description="Compare the pixels of a file with the hash in its recipe, and a file in a batch's "
        "folder with the current request. Exit code 0 if all match, "
        f"{NO_MATCH} if one does not.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="png, tif, jpg or pdf made here")
    parser.add_argument(
        "--recipe", type=Path, metavar="FILE", help="compare with this recipe instead of the file's own"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per file on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """One line a file."""
    from imax_dist.output.done import stale_reason
    from imax_dist.output.image.verify import verify

    code = MATCH
    for path in options.files:
        verdict = verify(path, recipe_file=options.recipe)
        stale = "" if options.recipe else stale_reason(path)
        matches = verdict.matches and not stale
        if options.json:
            found = {"file": str(path), "matches": matches, "stated": verdict.stated}
            print(json.dumps({**found, "found": verdict.found, **({"stale": stale} if stale else {})}))
        elif verdict.matches and stale:
            print(f"{path}  matches its recipe, but is NOT the poster of its folder: {stale}")
        else:
            print(f"{path}  {'matches its recipe' if verdict.matches else 'does NOT match its recipe'}")
        code = code if matches else NO_MATCH
    return code
