"""The fields of custom resources that these files use, by hand: a misspelt one would be dropped silently."""

from __future__ import annotations

from typing import Any

from cluster_files import Document

CLUSTER: dict[str, Any] = {
    "rayVersion": {},
    "authOptions": {"mode": {}},
    "headGroupSpec": {"rayStartParams": {}, "template": {}},
    "workerGroupSpecs": {
        "groupName": {}, "replicas": {}, "minReplicas": {}, "maxReplicas": {}, "numOfHosts": {},
        "rayStartParams": {}, "template": {},
    },
}  # fmt: skip
KNOWN: dict[str, dict[str, Any]] = {
    "RayCluster": CLUSTER,
    "RayJob": {
        "entrypoint": {}, "entrypointNumCpus": {}, "submissionMode": {},
        "submitterConfig": {"backoffLimit": {}}, "backoffLimit": {},
        "activeDeadlineSeconds": {}, "shutdownAfterJobFinishes": {},
        "ttlSecondsAfterFinished": {}, "submitterPodTemplate": {}, "rayClusterSpec": CLUSTER,
    },
    "JobSet": {
        "network": {"enableDNSHostnames": {}, "subdomain": {}, "publishNotReadyAddresses": {}},
        "failurePolicy": {
            "maxRestarts": {},
            "rules": {
                "name": {}, "action": {}, "onJobFailureReasons": {}, "onJobFailureMessagePatterns": {},
            },
        },
        "replicatedJobs": {"name": {}, "replicas": {}, "template": {}},
    },
}  # fmt: skip
"""An empty mapping: not looked into (pod and job templates are checked against Kubernetes' own schema)."""


def unknown_fields(document: Document) -> list[str]:
    """Dotted paths of fields under ``spec`` that are not in the list."""
    return list(_unknown(document["spec"], KNOWN[document["kind"]], "spec"))


def _unknown(value: Any, known: dict[str, Any], where: str) -> list[str]:
    if isinstance(value, list):
        return [path for inner in value for path in _unknown(inner, known, where)]
    if not isinstance(value, dict) or not known:
        return []
    found = [f"{where}.{key}" for key in value if key not in known]
    return found + [
        p for key in value if key in known for p in _unknown(value[key], known[key], f"{where}.{key}")
    ]
