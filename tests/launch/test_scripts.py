"""Every script of launch/: what it would start, read by the parsers concerned; two are started for real."""

from __future__ import annotations

import os
import subprocess
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from imax_dist.cli.main import build_parser

LAUNCH = Path(__file__).parents[2] / "launch"
PROMPT = "a red sun over the sea"
GENERATE = [PROMPT, "--size", "128x128", "--steps", "1", "--out", "my sea.png"]
BATCH = ["my night.jsonl", "--out", "night", "--pool", "eight-gpus"]
ARGUMENTS = {
    "local": GENERATE,
    "torchrun": GENERATE,
    "torchrun_nodes": GENERATE,
    "slurm": GENERATE,
    "ray": BATCH,
    "ray_job_submit": BATCH,
}
ENVIRONMENTS = {
    "torchrun": {"RANKS": "3"},
    "torchrun_nodes": {"NODES": "2", "NODE_RANK": "1", "RENDEZVOUS": "node0:29500"},
    "slurm": {"SLURM_JOB_NODELIST": "node[0-1]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "77"},
    "ray_job_submit": {"RAY_ADDRESS": "http://head:8265"},
}
EVERY_SCRIPT = pytest.mark.parametrize("name", ARGUMENTS)
RECORDER = '#!/usr/bin/env bash\nprintf \'%s\\0\' "${0##*/}" "$@"\n'
HOSTNAMES = "#!/usr/bin/env bash\nprintf 'node0\\nnode1\\n'\n"


def command_line(name: str, folder: Path, changes: dict[str, str] | None = None) -> list[str]:
    """What the script executes at its end: recorders stand where the programs would."""
    for program in ("imax", "srun", "ray", "scontrol"):
        (folder / program).write_text(HOSTNAMES if program == "scontrol" else RECORDER)
        (folder / program).chmod(0o755)
    environment = {**ENVIRONMENTS.get(name, {}), **(changes or {})}
    done = subprocess.run(
        ["bash", str(LAUNCH / f"{name}.sh"), *ARGUMENTS[name]],
        env={"PATH": f"{folder}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


def own_part(words: list[str]) -> Namespace:
    """The part of a command line that our own parser reads."""
    start = words.index("imax_dist") + 1 if "imax_dist" in words else words.index("imax") + 1
    return build_parser().parse_args(words[start:])


def launched(name: str, folder: Path) -> tuple[Namespace, Namespace]:
    """What `imax launch` reads of a command line, and what it would start as each rank."""
    options = own_part(command_line(name, folder))
    return options, build_parser().parse_args(options.command)


def test_every_script_of_the_folder_is_tested() -> None:
    assert {path.stem for path in LAUNCH.iterdir()} == set(ARGUMENTS)


@EVERY_SCRIPT
def test_a_script_is_clean_bash_with_a_header_that_says_how_to_call_it(name: str) -> None:
    script = LAUNCH / f"{name}.sh"
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=10)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert all(line.startswith("# ") for line in lines[1:4])
    assert f"launch/{name}.sh" in lines[2]
    assert "set -euo pipefail" in lines
    assert os.access(script, os.X_OK)


def values(options: Namespace) -> dict[str, object]:
    """All but the parsers themselves, which are other objects in each tree of parsers."""
    return {name: value for name, value in vars(options).items() if not isinstance(value, ArgumentParser)}


@EVERY_SCRIPT
def test_its_command_line_reaches_our_parser_word_for_word(name: str, tmp_path: Path) -> None:
    options = own_part(command_line(name, tmp_path))
    if options.verb == "launch":
        options = build_parser().parse_args(options.command)
    expected = build_parser().parse_args([options.verb, *ARGUMENTS[name]])
    if options.verb == "batch":
        expected.ray = "auto"
    assert values(options) == values(expected)


@pytest.mark.parametrize(
    ("name", "nodes", "index", "ranks", "endpoint"),
    [
        ("torchrun", 1, None, 3, None),
        ("torchrun_nodes", 2, 1, 8, "node0:29500"),
        ("slurm", 2, None, 8, "node0:29500"),
    ],
)
def test_the_launcher_reads_nodes_and_ranks(
    name: str, nodes: int, index: int | None, ranks: int, endpoint: str | None, tmp_path: Path
) -> None:
    options, _ = launched(name, tmp_path)
    assert (options.nodes, options.node_rank) == (nodes, index)
    assert (options.ranks, options.rendezvous) == (ranks, endpoint)


def test_ray_understands_the_options_of_a_submission(tmp_path: Path) -> None:
    from ray.dashboard.modules.job.cli import submit

    words = command_line("ray_job_submit", tmp_path)
    assert words[:3] == ["ray", "job", "submit"]
    context = submit.make_context("submit", words[3:])
    assert context.params["address"] == "http://head:8265"
    assert context.params["entrypoint"][:4] == ("python", "-m", "imax_dist", "batch")


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("torchrun_nodes", "NODES"),
        ("torchrun_nodes", "NODE_RANK"),
        ("torchrun_nodes", "RENDEZVOUS"),
        ("ray_job_submit", "RAY_ADDRESS"),
    ],
)
def test_a_missing_variable_is_named_and_nothing_starts(name: str, variable: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=variable):
        command_line(name, tmp_path, {variable: ""})
