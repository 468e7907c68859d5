"""cluster/*.yaml taken apart: documents, pods wherever they are nested, and the commands in them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from imax_dist.config import load_named
from imax_dist.jobs.settings import PoolSettings
from imax_dist.settings_mapping import from_mapping

CLUSTER = Path(__file__).parents[2] / "cluster"
FILES = sorted(path.name for path in CLUSTER.glob("*.yaml") if path.name != "kustomization.yaml")
BESIDE = ("volumes.yaml", "nccl.yaml", "disruption.yaml", "serve.yaml")
"""What the workloads need, and start nothing; serve.yaml has tests of its own."""
WORKLOADS = [name for name in FILES if name not in BESIDE]
GPU = "nvidia.com/gpu"

Document = dict[str, Any]


class Pod(NamedTuple):
    """A pod template and where it was found."""

    where: str
    template: Document

    @property
    def spec(self) -> Document:
        spec: Document = self.template["spec"]
        return spec

    @property
    def gpus(self) -> int:
        """Of its first container."""
        return int(self.spec["containers"][0]["resources"]["limits"].get(GPU, 0))


def load(name: str) -> list[Document]:
    """All documents of one file."""
    return list(yaml.load_all((CLUSTER / name).read_text(encoding="utf-8"), yaml.CSafeLoader))


def workload(name: str) -> Document:
    """The one document of a workload's file."""
    (document,) = load(name)
    return document


def claims() -> set[str]:
    """Names of the volume claims in volumes.yaml."""
    return {document["metadata"]["name"] for document in load("volumes.yaml")}


def pods(document: Document) -> list[Pod]:
    """Every pod template, at any depth: a mapping whose ``spec`` has ``containers``."""
    return list(_pods(document, document.get("kind", "")))


def _pods(value: Any, where: str) -> Iterator[Pod]:
    if isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and "containers" in spec:
            yield Pod(where, value)
            return
        for key, inner in value.items():
            yield from _pods(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _pods(inner, f"{where}[{index}]")


def gpu_pods(document: Document) -> list[Pod]:
    """Those whose first container has GPUs."""
    return [pod for pod in pods(document) if pod.gpus]


def command_line(document: Document) -> list[str]:
    """What the workload starts, as words; none for a RayCluster, which starts nothing of ours."""
    if document["kind"] == "RayJob":
        return shlex.split(document["spec"]["entrypoint"])
    if document["kind"] == "RayCluster":
        return []
    container = pods(document)[0].spec["containers"][0]
    return [*container["command"], *container["args"]]


def own_words(document: Document) -> list[str]:
    """The part of the command line that our own parser reads."""
    words = command_line(document)
    name = "imax_dist" if "imax_dist" in words else "imax"
    return words[words.index(name) + 1 :]


def value_of(words: list[str], option: str) -> str | None:
    """``--option=value`` or ``--option value``."""
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if word == option:
            return after
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def ray_cluster_spec(document: Document) -> Document | None:
    """The Ray cluster of a RayCluster or RayJob."""
    spec: Document = document["spec"]
    return spec if document["kind"] == "RayCluster" else spec.get("rayClusterSpec")


def job_spec(document: Document) -> Document | None:
    """The batch/v1 JobSpec of a Job, or of the first job of a JobSet."""
    spec: Document = document["spec"]
    if document["kind"] == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    return spec if document["kind"] in ("Job", "JobSet") else None


def mounted(spec: Document, path: str) -> Document:
    """The volume that is mounted at ``path`` in the first container; empty if there is none."""
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0].get("volumeMounts", [])}
    return next((v for v in spec.get("volumes", []) if v["name"] == mounts.get(path)), {})


def environment(spec: Document) -> dict[str, Document]:
    """The variables of the first container by name."""
    return {variable["name"]: variable for variable in spec["containers"][0].get("env", [])}


def pool_settings(document: Document) -> PoolSettings:
    """The pool that the command asks for; the default one if it names none."""
    words = command_line(document)
    name = value_of(words, "--pool") or "default"
    changes = {key: int(value_of(words, f"--{key}") or 0) for key in ("gangs", "ranks")}
    given = {key: value for key, value in changes.items() if value}
    return from_mapping(PoolSettings, {**load_named("jobs", name), **given}, where=name)
