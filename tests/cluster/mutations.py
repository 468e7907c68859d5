"""For every rule at least one way to break it, and what must then be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cluster_files import Document, pods

JOB, JOBSET, CLUSTER, RAYJOB = "indexed-job.yaml", "jobset.yaml", "ray-cluster.yaml", "rayjob.yaml"

QUEUE = "postgresql://imax@imax-postgres/imax_batch"


class Mutation(NamedTuple):
    """Which rule, on which file, changed how, seen how."""

    check: str
    name: str
    change: Callable[[Document], object]
    complaint: str


def put(*path: Any) -> Callable[[Document], None]:
    """Set the value at a path of keys; the last word is the value."""

    def change(document: Any) -> None:
        *keys, last, value = path
        for key in keys:
            document = document[key]
        document[last] = value

    return change


def in_pod(*path: Any) -> Callable[[Document], None]:
    """Likewise, in the spec of the last pod."""
    return lambda document: put(*path)(pods(document)[-1].spec)


def in_box(*path: Any) -> Callable[[Document], None]:
    """Likewise, in the first container of the last pod."""
    return in_pod("containers", 0, *path)


def variable(name: str, value: Document) -> Callable[[Document], None]:
    """Another source of an environment variable."""

    def change(document: Document) -> None:
        env = pods(document)[-1].spec["containers"][0]["env"]
        env[:] = [given if given["name"] != name else {"name": name, **value} for given in env]

    return change


def word(old: str, new: str) -> Callable[[Document], None]:
    """Another word in the command."""

    def change(document: Document) -> None:
        if document["kind"] == "RayJob":
            document["spec"]["entrypoint"] = document["spec"]["entrypoint"].replace(old, new)
            return
        box = pods(document)[0].spec["containers"][0]
        for key in ("command", "args"):
            box[key] = [given.replace(old, new) for given in box[key]]

    return change


def copying(old: str, new: str) -> Callable[[Document], None]:
    """Another word in what Ray's workers do before they stop."""

    def change(document: Document) -> None:
        box = pods(document)[-1].spec["containers"][0]
        command = box["lifecycle"]["preStop"]["exec"]["command"]
        command[-1] = command[-1].replace(old, new)

    return change


RULES = ("spec", "podFailurePolicy", "rules")
GANG = ("spec", "replicatedJobs", 0)
GANG_RULES = (*GANG, "template", "spec", "podFailurePolicy", "rules")


def gang_rules(document: Document) -> Any:
    """The podFailurePolicy rules of a JobSet's only Job."""
    return document["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]


MUTATIONS = [
    Mutation("queue_label", RAYJOB, put("metadata", "labels", {}), "no label"),
    Mutation("names", JOB, put("metadata", "name", "IMAX"), "no DNS label"),
    Mutation("names", CLUSTER, put("spec", "workerGroupSpecs", 0, "groupName", "gpu_8"), "no DNS label"),
    Mutation("image_tag", CLUSTER, in_box("image", "registry.example.com/imax-dist:latest"), "version"),
    Mutation("image_tag", JOB, in_box("image", "registry.example.com/imax-dist"), "version"),
    Mutation(
        "requests_equal_limits", JOB, in_box("resources", "requests", "nvidia.com/gpu", "4"), "gpu request"
    ),
    Mutation(
        "requests_equal_limits", RAYJOB, in_box("resources", "limits", "memory", "1Gi"), "memory request"
    ),
    Mutation("requests_equal_limits", JOBSET, in_box("resources", "limits", "cpu", "32"), "CPU limit"),
    Mutation("quantities", JOB, in_box("resources", "limits", "memory", "256GB"), "no quantity"),
    Mutation("quantities", CLUSTER, in_pod("volumes", 0, "emptyDir", "sizeLimit", "32G"), "no quantity"),
    Mutation("volumes", JOBSET, in_box("volumeMounts", 0, "name", "shn"), "half there"),
    Mutation(
        "volumes", JOB, in_pod("volumes", 2, "persistentVolumeClaim", "claimName", "modles"), "volumes.yaml"
    ),
    Mutation("shared_memory", CLUSTER, in_pod("volumes", 0, "emptyDir", "medium", ""), "not memory"),
    Mutation("shared_memory", JOB, in_box("volumeMounts", 0, "mountPath", "/shm"), "not memory"),
    Mutation("shared_memory", JOB, in_pod("volumes", 0, "emptyDir", "sizeLimit", "200Gi"), "more than half"),
    Mutation("model_cache", JOBSET, variable("HF_HOME", {"value": "/tmp/hf"}), "volume claim"),
    Mutation("token", RAYJOB, variable("HF_TOKEN", {"value": "hf_secret"}), "secret"),
    Mutation("security", JOB, in_pod("securityContext", "runAsUser", 0), "runAsNonRoot"),
    Mutation("security", JOBSET, in_pod("securityContext", "runAsNonRoot", False), "runAsNonRoot"),
    Mutation("security", JOBSET, in_pod("securityContext", "seccompProfile", {}), "seccompProfile"),
    Mutation("security", CLUSTER, in_pod("automountServiceAccountToken", True), "ServiceAccountToken"),
    Mutation("security", CLUSTER, in_pod("enableServiceLinks", True), "enableServiceLinks"),
    Mutation("security", RAYJOB, in_box("securityContext", "capabilities", {}), "capabilities"),
    Mutation("security", JOB, in_box("securityContext", "readOnlyRootFilesystem", False), "readOnlyRoot"),
    Mutation("security", JOB, in_box("securityContext", "allowPrivilegeEscalation", True), "Escalation"),
    Mutation("grace", JOB, in_pod("terminationGracePeriodSeconds", 120), "grace period"),
    Mutation("grace", JOBSET, in_pod("terminationGracePeriodSeconds", 150), "grace period"),
    Mutation(
        "grace", CLUSTER, variable("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", {"value": "30"}), "stop deadline"
    ),
    Mutation("grace", JOBSET, word("--drain=150", "--drain=30"), "stop deadline"),
    Mutation("restart_policy", JOB, in_pod("restartPolicy", "OnFailure"), "not Never"),
    Mutation("bounded", RAYJOB, put("spec", "activeDeadlineSeconds", 0), "activeDeadlineSeconds"),
    Mutation("bounded", JOB, lambda d: d["spec"].pop("activeDeadlineSeconds"), "activeDeadlineSeconds"),
    Mutation("exit_codes", JOB, put(*RULES, 2, "onExitCodes", "values", [64, 65]), "FailIndex is for"),
    Mutation("exit_codes", JOB, put(*RULES, 1, "onExitCodes", "values", [143]), "Ignore is for"),
    Mutation("exit_codes", JOB, put(*RULES, 1, "onExitCodes", "containerName", "main"), "no container"),
    Mutation("exit_codes", JOB, lambda d: d["spec"]["podFailurePolicy"]["rules"].pop(0), "eviction"),
    Mutation("exit_codes", JOB, lambda d: d["spec"].pop("backoffLimitPerIndex"), "backoffLimitPerIndex"),
    Mutation("exit_codes", JOB, word("imax", "torchrun"), "hides"),
    Mutation("exit_codes", JOBSET, word("imax", "torchrun"), "hides"),
    Mutation("exit_codes", JOBSET, put(*GANG_RULES, 2, "onExitCodes", "values", [64]), "rule 2"),
    Mutation("exit_codes", JOBSET, lambda d: gang_rules(d).pop(0), "rule 1"),
    Mutation("exit_codes", JOBSET, lambda d: d["spec"]["failurePolicy"]["rules"].pop(1), "RestartJobSet"),
    Mutation("exit_codes", JOBSET, lambda d: d["spec"]["failurePolicy"]["rules"].pop(0), "eviction"),
    Mutation("shared_queue", JOB, put("spec", "completions", 16), "takes a machine for nothing"),
    Mutation("shared_queue", JOB, variable("PGPASSWORD", {"value": "secret"}), "does not come from"),
    Mutation("shared_queue", JOB, word("--quiet", "--shard=0/4"), "share no queue"),
    Mutation("shared_queue", RAYJOB, word(f"--store {QUEUE}", ""), "not in PostgreSQL"),
    Mutation("shared_queue", RAYJOB, word("imax@", "imax:secret@"), "without a password"),
    Mutation("gang_fits", JOB, word("--pool=eight-gpus", "--pool=default"), "1 ranks for 8 GPUs"),
    Mutation("gang_fits", RAYJOB, word("--gangs 4", "--gangs 5"), "20 ranks for 16 GPUs"),
    Mutation(
        "ray_gpus", CLUSTER, put("spec", "workerGroupSpecs", 0, "rayStartParams", "num-gpus", "4"), "num-gpus"
    ),
    Mutation("ray_gpus", CLUSTER, put("spec", "headGroupSpec", "rayStartParams", {}), "the head"),
    Mutation("ray_gpus", RAYJOB, lambda d: d["spec"]["rayClusterSpec"].pop("authOptions"), "authentication"),
    Mutation("rendezvous", JOBSET, put("metadata", "name", "sea"), "--rendezvous"),
    Mutation("rendezvous", JOBSET, put("spec", "network", "subdomain", "sea"), "--rendezvous"),
    Mutation("rendezvous", JOBSET, put(*GANG, "template", "spec", "completions", 4), "--nodes"),
    Mutation("rendezvous", JOBSET, put(*GANG, "template", "spec", "parallelism", 1), "start and fail"),
    Mutation("rendezvous", JOBSET, put(*GANG, "template", "spec", "backoffLimit", 3), "start and fail"),
    Mutation("rendezvous", JOBSET, word("--ranks=8", "--ranks=4"), "--ranks"),
    Mutation(
        "security", JOBSET, in_box("securityContext", "capabilities", "add", ["SYS_ADMIN"]), "capabilities"
    ),
    Mutation("nccl_settings", JOB, in_box("envFrom", []), "takes no settings"),
    Mutation("nccl_settings", CLUSTER, in_box("env", 0, {"name": "NCCL_DEBUG", "value": "INFO"}), "belongs"),
    Mutation("rdma", JOBSET, in_box("resources", "limits", "rdma/ib", "4"), "RDMA ports for 8"),
    Mutation("rdma", JOBSET, in_box("securityContext", "capabilities", {"drop": ["ALL"]}), "IPC_LOCK"),
    Mutation("lost_nodes", JOB, in_pod("tolerations", 1, "tolerationSeconds", 300), "not given up"),
    Mutation("lost_nodes", RAYJOB, in_pod("tolerations", []), "unreachable"),
    Mutation("liveness", JOBSET, word("--alive=/tmp/alive", "--alive=/tmp/other"), "no probe looks at"),
    Mutation("liveness", JOB, word("--alive=/tmp/alive", "--quiet"), "no probe looks at a file of --alive"),
    Mutation("liveness", JOB, in_box("livenessProbe", {}), "no probe looks at /tmp/alive"),
    Mutation("liveness", JOB, in_box("startupProbe", {}), "no probe waits for the driver"),
    Mutation("own_machines", JOBSET, in_pod("affinity", {}), "share a machine"),
    Mutation("own_machines", JOBSET, lambda d: pods(d)[0].template["metadata"].pop("annotations"), "racks"),
    Mutation(
        "no_gpus_unasked", CLUSTER, lambda d: pods(d)[0].spec["containers"][0]["env"].pop(0), "image says"
    ),
    Mutation(
        "no_gpus_unasked", JOB, in_box("env", 0, {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}), "plugin"
    ),
    Mutation("undisturbed", CLUSTER, put("spec", "workerGroupSpecs", 0, "replicas", 3), "of 3 machines"),
    Mutation("undisturbed", JOBSET, put("metadata", "name", "sea"), "of 2 machines"),
    Mutation("dumps", JOBSET, variable("TORCH_FR_DUMP_TEMP_FILE", {"value": "/data/nccl-"}), "pod's own"),
    Mutation("dumps", JOB, variable("POD_NAME", {"value": "imax"}), "pod's own"),
    Mutation(
        "dumps", JOB, variable("TORCH_FR_DUMP_TEMP_FILE", {"value": "/tmp/$(POD_NAME)/nccl-"}), "volume claim"
    ),
    Mutation("session_logs", CLUSTER, in_box("lifecycle", {}), "go with the pod"),
    Mutation("session_logs", RAYJOB, copying("timeout 20 ", "timeout 30 "), "longer than the grace period"),
    Mutation("session_logs", RAYJOB, copying("/data", "/tmp"), "volume claim"),
    Mutation("session_logs", CLUSTER, copying("/$POD_NAME", ""), "pod's own"),
]
