"""What a schema does not see in a pod: one function a rule, from a workload to its complaints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cluster_files import (
    GPU,
    Document,
    claims,
    command_line,
    environment,
    gpu_pods,
    mounted,
    pods,
    pool_settings,
    ray_cluster_spec,
    value_of,
)

import imax_dist

QUEUE = "kueue.x-k8s.io/queue-name"
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"\d+(Ki|Mi|Gi|Ti)")
DRAIN_VARIABLES = ("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "RAY_JOB_STOP_WAIT_TIME_S")

Complaints = Iterator[str]


def queue_label(document: Document) -> Complaints:
    """Kueue admits it."""
    if not document["metadata"].get("labels", {}).get(QUEUE):
        yield f"no label {QUEUE}"


def names(document: Document) -> Complaints:
    """Names are DNS labels."""
    found = [document["metadata"]["name"]]
    found += [container["name"] for pod in pods(document) for container in pod.spec["containers"]]
    found += [group["groupName"] for group in (ray_cluster_spec(document) or {}).get("workerGroupSpecs", [])]
    yield from (f"{name!r} is no DNS label" for name in found if not DNS_LABEL.fullmatch(name))


def image_tag(document: Document) -> Complaints:
    """The image is that of this version of the project."""
    for pod in pods(document):
        for container in pod.spec["containers"]:
            if container["image"].rpartition("/")[2] != f"imax-dist:{imax_dist.__version__}":
                yield f"{pod.where}: image {container['image']} is not of version {imax_dist.__version__}"


def requests_equal_limits(document: Document) -> Complaints:
    """GPUs and memory: what is asked for is what may be used; no limit on CPUs."""
    for pod in pods(document):
        for container in pod.spec["containers"]:
            asked, allowed = (container["resources"][key] for key in ("requests", "limits"))
            if asked.get(GPU) != allowed.get(GPU) or not str(allowed.get(GPU, "0")).isdecimal():
                yield f"{pod.where}: {GPU} request {asked.get(GPU)} but limit {allowed.get(GPU)}"
            if asked.get("memory") != allowed.get("memory"):
                yield f"{pod.where}: memory request {asked.get('memory')} but limit {allowed.get('memory')}"
            if "cpu" in allowed:
                yield f"{pod.where}: a CPU limit slows every rank"


def quantities(document: Document) -> Complaints:
    """Memory and sizes have units that Kubernetes knows."""
    for key, value in _leaves(document):
        if key in ("memory", "sizeLimit", "storage") and not QUANTITY.fullmatch(str(value)):
            yield f"{key} {value} is no quantity"


def volumes(document: Document) -> Complaints:
    """What is mounted is declared, what is declared is mounted, and the claims exist."""
    for pod in pods(document):
        declared = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        used = {mount["name"] for box in pod.spec["containers"] for mount in box.get("volumeMounts", [])}
        yield from (f"{pod.where}: volume {name} is only half there" for name in used ^ set(declared))
        claimed = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in declared.values()
            if "persistentVolumeClaim" in volume
        }
        yield from (f"{pod.where}: claim {name} is not in volumes.yaml" for name in claimed - claims())


def shared_memory(document: Document) -> Complaints:
    """/dev/shm is memory of a stated size, and small enough for the pod's limit."""
    for pod in gpu_pods(document):
        box = pod.spec["containers"][0]
        volume = mounted(pod.spec, "/dev/shm").get("emptyDir", {})
        if volume.get("medium") != "Memory" or "sizeLimit" not in volume:
            yield f"{pod.where}: /dev/shm is not memory of a stated size"
        elif _gib(volume["sizeLimit"]) * 2 > _gib(box["resources"]["limits"]["memory"]):
            yield f"{pod.where}: /dev/shm takes more than half of the memory limit"


def model_cache(document: Document) -> Complaints:
    """HF_HOME lies on a volume claim."""
    for pod in gpu_pods(document):
        home = environment(pod.spec).get("HF_HOME", {}).get("value", "")
        folder = "/" + home.split("/")[1] if home.startswith("/") else ""
        if "persistentVolumeClaim" not in mounted(pod.spec, folder):
            yield f"{pod.where}: the model cache {home!r} is not on a volume claim"


def token(document: Document) -> Complaints:
    """The token comes from a secret."""
    for pod in gpu_pods(document):
        given = environment(pod.spec).get("HF_TOKEN", {})
        if "secretKeyRef" not in given.get("valueFrom", {}):
            yield f"{pod.where}: HF_TOKEN does not come from a secret"


def security(document: Document) -> Complaints:
    """No root, no privileges, no writing to the image, no account of the cluster."""
    for pod in pods(document):
        whole = pod.spec.get("securityContext", {})
        wanted: dict[str, Any] = {
            "runAsNonRoot": whole.get("runAsNonRoot") is True and whole.get("runAsUser", 0) > 0,
            "seccompProfile": whole.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "automountServiceAccountToken": pod.spec.get("automountServiceAccountToken") is False,
            "enableServiceLinks": pod.spec.get("enableServiceLinks") is False,
        }
        for container in pod.spec["containers"]:
            own = container.get("securityContext", {})
            wanted["allowPrivilegeEscalation"] = own.get("allowPrivilegeEscalation") is False
            wanted["readOnlyRootFilesystem"] = own.get("readOnlyRootFilesystem") is True
            kept = own.get("capabilities", {})
            wanted["capabilities"] = kept.get("drop") == ["ALL"] and kept.get("add", []) in ([], ["IPC_LOCK"])
        yield from (
            f"{pod.where}: {name} is not as it should be" for name, good in wanted.items() if not good
        )


def grace(document: Document) -> Complaints:
    """Pool's stop deadline < drain time < the pod's grace period."""
    stop = pool_settings(document).deadlines.stop
    for pod in pods(document):
        if not (pod.gpus or environment(pod.spec).keys() & set(DRAIN_VARIABLES)):
            continue  # the submitter, which only waits
        given = [environment(pod.spec).get(name, {}).get("value") for name in DRAIN_VARIABLES]
        given.append(value_of(command_line(document), "--drain"))
        drains = [float(value) for value in given if value is not None]
        if any(drain <= stop for drain in drains):
            yield f"{pod.where}: drain {min(drains):g} s is not above the stop deadline {stop:g} s"
        period = pod.spec.get("terminationGracePeriodSeconds", 30)
        if period <= max([stop, *drains]):
            yield f"{pod.where}: grace period {period} s is not above {max([stop, *drains]):g} s"


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner) if isinstance(inner, dict | list) else [(key, inner)]
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)


def _gib(quantity: str) -> float:
    units = {"Ki": 2.0**-20, "Mi": 2.0**-10, "Gi": 1.0, "Ti": 1024.0}
    return float(quantity[:-2]) * units[quantity[-2:]]
