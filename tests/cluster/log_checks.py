"""What a schema does not see in logs: they lie on a volume claim, in a folder of the pod's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from cluster_files import Document, Pod, environment, gpu_pods, mounted, pods, ray_cluster_spec

DUMPS = "TORCH_FR_DUMP_TEMP_FILE"
POD_NAME = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
SESSION = "/tmp/ray/session_latest/logs/."
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"

Complaints = Iterator[str]


def dumps(document: Document) -> Complaints:
    """NCCL's dumps: no pod writes over another's, and they are there when the pod is gone."""
    for pod in gpu_pods(document):
        variables = list(environment(pod.spec).values())
        prefix = environment(pod.spec).get(DUMPS, {"name": DUMPS, "value": ""})
        folder = PurePosixPath(prefix.get("value", "")).parent
        if folder.name != "$(POD_NAME)" or POD_NAME not in variables[: variables.index(prefix)]:
            yield f"{pod.where}: {DUMPS} is in no folder of the pod's own"
        yield from _lost(pod, str(folder), DUMPS)


def session_logs(document: Document) -> Complaints:
    """Ray's pods copy the logs of their session before they go, and still have time to drain."""
    if ray_cluster_spec(document) is None:
        return
    for pod in pods(document):
        variables = environment(pod.spec)
        if DRAIN not in variables:
            continue  # the submitter, which has no session
        hook = pod.spec["containers"][0].get("lifecycle", {}).get("preStop", {})
        command = " ".join(hook.get("exec", {}).get("command", []))
        copied = re.search(rf"timeout (\d+) cp -r {re.escape(SESSION)} (\S+)", command)
        if copied is None or POD_NAME not in variables.values():
            yield f"{pod.where}: Ray's logs go with the pod"
            continue
        if not copied[2].endswith("/$POD_NAME/ray") or f"mkdir -p {copied[2]} " not in command:
            yield f"{pod.where}: Ray's logs are in no folder of the pod's own"
        yield from _lost(pod, copied[2], "the copy of Ray's logs")
        if int(copied[1]) + int(variables[DRAIN]["value"]) >= pod.spec["terminationGracePeriodSeconds"]:
            yield f"{pod.where}: copying and draining take longer than the grace period"


def _lost(pod: Pod, folder: str, what: str) -> Complaints:
    root = "/" + folder.strip("/").partition("/")[0]
    if "persistentVolumeClaim" not in mounted(pod.spec, root):
        yield f"{pod.where}: {what} at {folder} is not on a volume claim"
