"""``imax list``, ``imax help`` and ``imax completion``: what there is, looked up without a GPU or a model."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from imax_dist.config import choice, load_yaml, named_configs

SHELLS = ("bash", "zsh", "tcsh")
LISTED = ("presets", "papers", "models", "hardware", "parallel", "jobs", "studies", "profiles", "defaults")


def add_parser(verbs: Any) -> None:
    """Declare the three commands."""
    listing = verbs.add_parser(
        "list",
        help="presets, papers, models, hardware ... by name",
        description="List the names that options take: presets, papers, models, hardware and others.",
    )
    listing.add_argument("kind", metavar="KIND", choices=LISTED, help="what to list: " + ", ".join(LISTED))
    listing.add_argument("--json", action="store_true", help="the list as JSON on stdout")
    listing.set_defaults(run=run_list)
    helping = verbs.add_parser(
        "help",
        help="the options of a command",
        description="Show the options of a command, as COMMAND --help does.",
    )
    helping.add_argument("about", nargs="?", metavar="COMMAND", help="the command (default: list them)")
    helping.set_defaults(run=run_help)
    completing = verbs.add_parser(
        "completion",
        help="a script that completes imax in your shell",
        description='Print a completion script. For bash: eval "$(imax completion bash)" in ~/.bashrc.',
    )
    completing.add_argument("shell", choices=SHELLS, metavar="SHELL", help="shell: " + ", ".join(SHELLS))
    completing.set_defaults(run=run_completion)


def run_list(options: argparse.Namespace) -> int:
    """Names and what each is, one a line."""
    made = {"papers": _papers, "profiles": _profiles, "defaults": _defaults}
    rows = made[options.kind]() if options.kind in made else _files(options.kind)
    if options.json:
        print(json.dumps([{"name": name, "about": about} for name, about in rows]))
        return 0
    width = max((len(name) for name, _ in rows), default=0)
    for name, about in rows:
        print(f"{name:<{width}}  {about}".rstrip())
    return 0


def run_help(options: argparse.Namespace) -> int:
    """Print the page. Raises BadConfig for a command that does not exist."""
    page = options.front_page
    shown = page if options.about is None else choice("command", options.about, page.verbs)
    print(shown.format_help(), end="")
    return 0


def run_completion(options: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    page = options.front_page
    for verb in page.verbs.values():
        verb.declared()
    print(shtab.complete(page, shell=options.shell))
    return 0


def _files(kind: str) -> list[tuple[str, str]]:
    """Each file of a folder of configs with its first comment, or its title."""
    return [(name, _about(path)) for name, path in named_configs(kind).items()]


def _about(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else str(load_yaml(path).get("title", ""))


def _papers() -> list[tuple[str, str]]:
    """Every paper with its size."""
    from imax_dist.output.image.paper import known_papers

    return [(p.name, f"{p.width_mm:g} x {p.height_mm:g} mm") for p in known_papers().values()]


def _profiles() -> list[tuple[str, str]]:
    """Every installed ICC profile that a print can be made for, with its file."""
    from imax_dist.output.image.system_profiles import installed_profiles

    return [(profile.name, f"{profile.space}, {path}") for path, profile in installed_profiles()]


def _defaults() -> list[tuple[str, str]]:
    """The user's own file, and what stands in it. Raises BadConfig for a key that none is."""
    from imax_dist.cli.user_defaults import UserDefaults, file_of_user, read_defaults

    path = file_of_user()
    keys = ", ".join(entry.name for entry in dataclasses.fields(UserDefaults))
    about = str(path) if path.is_file() else f"{path} (does not exist; its keys would be {keys})"
    return [("file", about), *((name, str(value)) for name, value in read_defaults().items())]
