"""What a schema does not see in how machines of a gang talk, and in how a lost machine is noticed."""

from __future__ import annotations

from collections.abc import Iterator

from cluster_files import Document, command_line, environment, gpu_pods, load, pods, value_of
from log_checks import DUMPS

LOST_S = 30
"""After which pods of an unreachable node are given up; Kubernetes' own default is 300."""
LOSSES = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")

Complaints = Iterator[str]


def nccl_settings(document: Document) -> Complaints:
    """NCCL's settings come from nccl.yaml alone, but for the file of its dumps (log_checks.py)."""
    (settings,) = load("nccl.yaml")
    for pod in gpu_pods(document):
        box = pod.spec["containers"][0]
        taken = [source.get("configMapRef", {}).get("name") for source in box.get("envFrom", [])]
        if settings["metadata"]["name"] not in taken:
            yield f"{pod.where}: takes no settings from nccl.yaml"
        for name in environment(pod.spec):
            if name.startswith(("NCCL_", "TORCH_NCCL_", "TORCH_FR_")) and name != DUMPS:
                yield f"{pod.where}: {name} belongs into nccl.yaml"


def rdma(document: Document) -> Complaints:
    """A gang that lies on several machines has ports for RDMA, and may pin memory."""
    if document["kind"] != "JobSet":
        return
    for pod in gpu_pods(document):
        box = pod.spec["containers"][0]
        ports = {name: n for name, n in box["resources"]["limits"].items() if name.startswith("rdma/")}
        if (
            list(ports.values()) != [str(pod.gpus)]
            or not ports.items() <= box["resources"]["requests"].items()
        ):
            yield f"{pod.where}: {ports or 'no'} RDMA ports for {pod.gpus} GPUs"
        if "IPC_LOCK" not in box["securityContext"]["capabilities"].get("add", []):
            yield f"{pod.where}: IPC_LOCK is missing, and memory cannot be pinned"


def lost_nodes(document: Document) -> Complaints:
    """Pods of a lost machine are given up in half a minute."""
    for pod in gpu_pods(document):
        waits = {one.get("key"): one.get("tolerationSeconds") for one in pod.spec.get("tolerations", [])}
        yield from (
            f"{pod.where}: {key} is not given up after {LOST_S} s"
            for key in LOSSES
            if waits.get(key) != LOST_S
        )


def liveness(document: Document) -> Complaints:
    """A launcher or driver that hangs is seen by the file that it touches while its ranks move."""
    if document["kind"] not in ("Job", "JobSet"):
        return
    alive = value_of(command_line(document), "--alive")
    for pod in gpu_pods(document):
        box = pod.spec["containers"][0]
        if not alive or f"find {alive} " not in _probe(box, "livenessProbe"):
            yield f"{pod.where}: no probe looks at {alive or 'a file of --alive'}"
        if document["kind"] == "Job" and f"test -e {alive}" not in _probe(box, "startupProbe"):
            yield f"{pod.where}: no probe waits for the driver, which starts Ray first"


def _probe(box: Document, name: str) -> str:
    return " ".join(box.get(name, {}).get("exec", {}).get("command", []))


def own_machines(document: Document) -> Complaints:
    """A gang's pods lie in one rack, on a machine each."""
    if document["kind"] != "JobSet":
        return
    for pod in gpu_pods(document):
        marks = pod.template["metadata"]
        if "kueue.x-k8s.io/podset-required-topology" not in marks.get("annotations", {}):
            yield f"{pod.where}: may be placed in several racks"
        rules = pod.spec.get("affinity", {}).get("podAntiAffinity", {})
        apart = rules.get("requiredDuringSchedulingIgnoredDuringExecution", [])
        chosen = [one["labelSelector"]["matchLabels"].items() <= marks["labels"].items() for one in apart]
        if chosen != [True] or apart[0]["topologyKey"] != "kubernetes.io/hostname":
            yield f"{pod.where}: two pods may share a machine"


def no_gpus_unasked(document: Document) -> Complaints:
    """A pod without GPUs sees none; the image says NVIDIA_VISIBLE_DEVICES=all."""
    for pod in pods(document):
        seen = environment(pod.spec).get("NVIDIA_VISIBLE_DEVICES", {}).get("value")
        if not pod.gpus and seen != "void":
            yield f"{pod.where}: without GPUs, but NVIDIA_VISIBLE_DEVICES is {seen or 'what the image says'}"
        if pod.gpus and seen is not None:
            yield f"{pod.where}: NVIDIA_VISIBLE_DEVICES is the device plugin's to set"


def undisturbed(document: Document) -> Complaints:
    """No drain takes a machine out of a gang of several: a PodDisruptionBudget holds all of them."""
    if document["kind"] == "Job":
        return
    count = len(gpu_pods(document))
    if document["kind"] == "JobSet":
        labels = {"jobset.sigs.k8s.io/jobset-name": document["metadata"]["name"]}
        count = document["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"]
    else:
        labels = gpu_pods(document)[0].template["metadata"]["labels"]
        spec = document["spec"].get("rayClusterSpec", document["spec"])
        count = sum(group["replicas"] for group in spec["workerGroupSpecs"])
    budgets = [one["spec"] for one in load("disruption.yaml")]
    held = [
        one["minAvailable"] for one in budgets if one["selector"]["matchLabels"].items() <= labels.items()
    ]
    if held != [count]:
        yield f"disruption.yaml holds {held} of {count} machines"
