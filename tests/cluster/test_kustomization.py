"""cluster/kustomization.yaml: what it lists is there, and it changes the image that the manifests name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from cluster_files import BESIDE, CLUSTER, Document, claims, load, pods

import imax_dist

FIELDS = {"apiVersion", "kind", "namespace", "resources", "images"}
"""That the file uses, of those that Kustomize knows; a misspelt one would be refused."""


@pytest.fixture(scope="module")
def base() -> Document:
    (document,) = load("kustomization.yaml")
    return document


@pytest.fixture(scope="module")
def resources(base: Document) -> list[Document]:
    return [document for name in base["resources"] for document in load(name)]


def test_it_lists_what_a_service_needs_and_nothing_twice(base: Document, resources: list[Document]) -> None:
    assert (base["apiVersion"], base["kind"]) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    assert set(base) == FIELDS
    assert sorted(base["resources"]) == sorted(BESIDE)
    assert all((CLUSTER / name).is_file() for name in base["resources"])
    names = [(document["kind"], document["metadata"]["name"]) for document in resources]
    assert len(names) == len(set(names)), "Kustomize refuses a name that comes twice"


def test_its_namespace_is_the_only_one(base: Document, resources: list[Document]) -> None:
    assert base["namespace"]
    assert not [document for document in resources if "namespace" in document["metadata"]]


def test_the_image_is_the_one_of_every_container_and_of_this_version(
    base: Document, resources: list[Document]
) -> None:
    (image,) = base["images"]
    named = {
        box["image"] for document in resources for pod in pods(document) for box in pod.spec["containers"]
    }
    assert {name.rpartition(":")[0] for name in named} == {image["name"]}
    assert str(image["newTag"]) == imax_dist.__version__
    text = (CLUSTER / "kustomization.yaml").read_text(encoding="utf-8")
    assert isinstance(yaml.safe_load(text)["images"][0]["newTag"], str), "a number is no tag"


def test_what_the_pods_take_is_among_the_resources(resources: list[Document]) -> None:
    made = {(document["kind"], document["metadata"]["name"]) for document in resources}
    for document in resources:
        for pod in pods(document):
            assert {("PersistentVolumeClaim", name) for name in claims()} <= made
            assert {("ConfigMap", name) for name in config_maps(pod.spec)} <= made


def config_maps(spec: Any) -> Iterator[str]:
    """Names of the config maps that a pod mounts or has its environment from."""
    for volume in spec["volumes"]:
        if "configMap" in volume:
            yield volume["configMap"]["name"]
    for source in spec["containers"][0].get("envFrom", []):
        yield source["configMapRef"]["name"]
