"""cluster/*.yaml: against Kubernetes' schemas, our own rules and our own command line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import log_checks
import network_checks
import pod_checks
import pytest
import run_checks
from cluster_files import (
    CLUSTER,
    FILES,
    WORKLOADS,
    Document,
    command_line,
    gpu_pods,
    job_spec,
    load,
    own_words,
    pods,
    pool_settings,
    ray_cluster_spec,
    value_of,
    workload,
)
from custom_fields import KNOWN, unknown_fields
from mutations import MUTATIONS, QUEUE

from imax_dist.cli.main import build_parser
from imax_dist.config import named_configs
from imax_dist.errors import BadConfig
from imax_dist.jobs.batch import load_pool_settings

SCHEMA_VERSION = "1.35"
AUTOSCALED_S = 15 * 60
"""Until a node that an autoscaler starts takes pods."""
CHECKS: dict[str, Callable[[Document], pod_checks.Complaints]] = {
    name: check
    for module in (pod_checks, run_checks, network_checks, log_checks)
    for name, check in vars(module).items()
    if getattr(check, "__module__", "") == module.__name__ and not name.startswith("_") and callable(check)
}
CUSTOM = [name for name in WORKLOADS if workload(name)["kind"] in KNOWN]
COMMANDS = [name for name in WORKLOADS if workload(name)["kind"] != "RayCluster"]


def schema_error() -> type[Exception]:
    """What the validator raises."""
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    error: type[Exception] = validator.ValidationError
    return error


def plain_documents(document: Document) -> list[Document]:
    """The document itself, or the Jobs and Pods that a custom resource will make."""
    if document["kind"] not in KNOWN:
        return [document]
    name = {"name": document["metadata"]["name"]}
    made: list[Document] = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**pod.template.get("metadata", {}), **name},
            "spec": pod.spec,
        }
        for pod in pods(document)
    ]
    if document["kind"] == "JobSet":
        made.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": name, "spec": job_spec(document)})
    return made


def require_schemas(document: Document) -> None:
    """Raises the validator's error if Kubernetes would refuse the document or what is made of it."""
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for plain in plain_documents(document):
        validator.validate(plain, SCHEMA_VERSION, strict=True)


def test_the_folder_has_a_file_for_every_way_to_run() -> None:
    kinds = {(workload(name)["apiVersion"], workload(name)["kind"]) for name in WORKLOADS}
    assert kinds == {
        ("batch/v1", "Job"),
        ("jobset.x-k8s.io/v1alpha2", "JobSet"),
        ("ray.io/v1", "RayCluster"),
        ("ray.io/v1", "RayJob"),
    }
    assert {len(gpu_pods(workload(name))) for name in WORKLOADS} == {1}


@pytest.mark.parametrize("name", FILES)
def test_kubernetes_would_take_it(name: str) -> None:
    for document in load(name):
        require_schemas(document)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_schema_sees_a_misspelt_field_in_every_pod(name: str) -> None:
    error = schema_error()
    for index in range(len(pods(workload(name)))):
        document = copy.deepcopy(workload(name))
        pods(document)[index].spec["containers"][0]["volumeMounts"][0]["mountpath"] = "/dev/shm"
        with pytest.raises(error, match="mountpath"):
            require_schemas(document)


@pytest.mark.parametrize("name", CUSTOM)
def test_a_custom_resource_has_no_unknown_field(name: str) -> None:
    document = copy.deepcopy(workload(name))
    assert unknown_fields(document) == []
    document["spec"]["subDomain"] = "imax"
    assert unknown_fields(document) == ["spec.subDomain"]


@pytest.mark.parametrize(
    ("name", "path", "field"),
    [
        ("ray-cluster.yaml", ("workerGroupSpecs", 0), "groupname"),
        ("rayjob.yaml", ("rayClusterSpec", "headGroupSpec"), "rayStartparams"),
        ("jobset.yaml", ("failurePolicy", "rules", 0), "onJobFailureReason"),
    ],
)
def test_an_unknown_field_is_found_at_depth(name: str, path: tuple[Any, ...], field: str) -> None:
    document = copy.deepcopy(workload(name))
    inner = document["spec"]
    for key in path:
        inner = inner[key]
    inner[field] = "x"
    (found,) = unknown_fields(document)
    assert found.endswith(f".{field}")


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_the_rule(check: str, name: str) -> None:
    assert list(CHECKS[check](workload(name))) == []


def test_sizes_of_the_volume_claims_are_quantities() -> None:
    for document in load("volumes.yaml"):
        assert list(pod_checks.quantities(document)) == []


@pytest.mark.parametrize(
    ("check", "name", "change", "complaint"),
    [(m.check, m.name, m.change, m.complaint) for m in MUTATIONS],
    ids=[f"{m.check}-{position}" for position, m in enumerate(MUTATIONS)],
)
def test_breaking_the_rule_is_seen(
    check: str, name: str, change: Callable[[Document], object], complaint: str
) -> None:
    document = copy.deepcopy(workload(name))
    change(document)
    assert document != workload(name)
    assert any(complaint in found for found in CHECKS[check](document))


def test_every_rule_has_a_mutation() -> None:
    assert {mutation.check for mutation in MUTATIONS} == set(CHECKS)


@pytest.mark.parametrize("name", COMMANDS)
def test_its_command_parses_with_our_own_parser(name: str) -> None:
    options = build_parser().parse_args(
        [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in own_words(workload(name))]
    )
    if options.verb == "launch":
        options = build_parser().parse_args(options.command)
    assert options.verb == {"jobset.yaml": "generate"}.get(name, "batch")
    assert str(options.out).startswith("/data/out")
    if options.verb == "batch":
        assert options.manifest == Path("/data/manifest.jsonl")
        assert options.store == QUEUE
        assert options.ray == ("auto" if name == "rayjob.yaml" else "local")


def test_every_pod_of_the_jobset_launches_its_own_ranks_of_one_gang() -> None:
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in own_words(workload("jobset.yaml"))]
    options = build_parser().parse_args(words)
    assert (options.nodes, options.ranks, options.node_rank) == (2, 8, 1)
    assert build_parser().parse_args(options.command).verb == "generate"


def test_the_standing_cluster_and_that_of_the_ray_job_are_the_same() -> None:
    assert workload("rayjob.yaml")["spec"]["rayClusterSpec"] == workload("ray-cluster.yaml")["spec"]


@pytest.mark.parametrize("name", ["ray-cluster.yaml", "rayjob.yaml"])
def test_the_cluster_says_the_version_of_ray_that_the_image_installs(name: str) -> None:
    cluster = ray_cluster_spec(workload(name)) or {}
    pins = (CLUSTER.parent / "constraints.txt").read_text(encoding="utf-8").split()
    assert f"ray=={cluster['rayVersion']}" in pins


def test_its_gangs_wait_for_a_machine_that_an_autoscaler_starts() -> None:
    """Those of a Ray of their own do not: the pod that asked for the GPUs is on the machine that has them."""
    for name in ("indexed-job.yaml", "rayjob.yaml"):
        own_ray = value_of(command_line(workload(name)), "--ray") in (None, "local")
        assert own_ray == (name == "indexed-job.yaml")
        waits = pool_settings(workload(name)).deadlines.room(own_ray=own_ray)
        assert (waits < AUTOSCALED_S) == own_ray


def test_a_pool_waits_for_room_by_where_ray_runs_unless_its_file_says_otherwise() -> None:
    for name in named_configs("jobs"):
        found = load_pool_settings(name, {}).deadlines
        assert (found.room(own_ray=True), found.room(own_ray=False)) == (120.0, 1800.0), name
    asked = load_pool_settings("default", {"deadlines": {"place": 7}}).deadlines
    assert asked.room(own_ray=True) == asked.room(own_ray=False) == 7.0
    with pytest.raises(BadConfig, match=r"deadlines.place 0.0 must be above 0"):
        load_pool_settings("default", {"deadlines": {"place": 0}})
