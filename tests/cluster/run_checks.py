"""What a schema does not see in how a workload runs, fails and finds its ranks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cluster_files import (
    Document,
    command_line,
    environment,
    gpu_pods,
    job_spec,
    own_words,
    pods,
    pool_settings,
    ray_cluster_spec,
    value_of,
)
from sqlalchemy import make_url

from imax_dist import errors

USAGE_ERROR = 2
STORE = "imax-store"
NO_USE_AGAIN = {
    USAGE_ERROR,
    errors.BadValue.exit_code,
    errors.BadManifest.exit_code,
    errors.MissingInput.exit_code,
    errors.OutOfMemory.exit_code,
    errors.NoPermission.exit_code,
    errors.BadConfig.exit_code,
}

Complaints = Iterator[str]


def restart_policy(document: Document) -> Complaints:
    """Pods of a Job are never restarted in place: podFailurePolicy would not see their exit codes."""
    job = job_spec(document)
    if job is not None and job["template"]["spec"].get("restartPolicy") != "Never":
        yield "restartPolicy is not Never"


def bounded(document: Document) -> Complaints:
    """What restarts without counting ends at some time."""
    holder = job_spec(document) or document["spec"]
    if document["kind"] != "RayCluster" and not holder.get("activeDeadlineSeconds", 0) > 0:
        yield "no activeDeadlineSeconds"


def exit_codes(document: Document) -> Complaints:
    """Each of our exit codes does what errors.py means by it."""
    if "torchrun" in command_line(document):
        yield "torchrun hides the exit codes"
    if document["kind"] == "Job":
        yield from _index_codes(document)
    elif document["kind"] == "JobSet":
        yield from _gang_codes(document)


def _index_codes(document: Document) -> Complaints:
    """Indexed Job: one index fails or is tried again, the others go on."""
    spec = document["spec"]
    rules = {_rule_key(rule): rule for rule in spec["podFailurePolicy"]["rules"]}
    if "backoffLimitPerIndex" not in spec:
        yield "FailIndex needs backoffLimitPerIndex"
    if ("Ignore", "DisruptionTarget") not in rules:
        yield "an eviction counts as a failure"
    if set(_codes(rules, "FailIndex")) != NO_USE_AGAIN:
        yield f"FailIndex is for {_codes(rules, 'FailIndex')}, not {sorted(NO_USE_AGAIN)}"
    if _codes(rules, "Ignore") != [errors.Preempted.exit_code]:
        yield f"Ignore is for {_codes(rules, 'Ignore')}, not [{errors.Preempted.exit_code}]"
    boxes = {box["name"] for box in spec["template"]["spec"]["containers"]}
    asked = {rule["onExitCodes"]["containerName"] for rule in rules.values() if "onExitCodes" in rule}
    yield from (f"no container is called {name}" for name in asked - boxes)


def _gang_codes(document: Document) -> Complaints:
    """JobSet: the message of a failed Job names the rule of its podFailurePolicy that was met."""
    rules = (job_spec(document) or {})["podFailurePolicy"]["rules"]
    met = {index: _gang_action(document, index) for index in range(len(rules))}
    again, wrong = "RestartJobSetAndIgnoreMaxRestarts", "FailJobSet"
    for index, rule in enumerate(rules):
        codes = rule.get("onExitCodes", {}).get("values", [])
        wanted = wrong if set(codes) == NO_USE_AGAIN else again
        if codes not in ([], [errors.Preempted.exit_code], sorted(NO_USE_AGAIN)) or met[index] != wanted:
            yield f"podFailurePolicy rule {index} ({codes or 'eviction'}) leads to {met[index]}"
    if set(met.values()) != {again, wrong}:
        yield "the JobSet does not tell a wrong request from a stop"


def _gang_action(document: Document, index: int) -> str:
    """What the JobSet does when rule ``index`` of the Job's podFailurePolicy ended the Job."""
    message = (
        f"Container render for pod d/gang-0 failed with exit code 1, matching FailJob rule at index {index}"
    )
    for rule in document["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [".*"])
        if any(re.search(pattern, message) for pattern in patterns):
            return str(rule["action"])
    return "RestartJobSet"


def shared_queue(document: Document) -> Complaints:
    """A batch's queue is no file on a shared disk but in PostgreSQL, whose password comes from a secret."""
    if document["kind"] not in ("Job", "RayJob"):
        return
    words = own_words(document)
    url = make_url(value_of(words, "--store") or "sqlite://")
    if url.drivername != "postgresql" or url.password is not None:
        yield f"the queue is {url}, not in PostgreSQL by a URL without a password"
    if value_of(words, "--shard") is not None:
        yield "--shard is for hosts that share no queue"
    driver = next(pod for pod in pods(document) if document["kind"] == "Job" or "headGroup" in pod.where)
    password = environment(driver.spec).get("PGPASSWORD", {}).get("valueFrom", {}).get("secretKeyRef", {})
    if password.get("name") != STORE:
        yield f"{driver.where}: PGPASSWORD does not come from the secret {STORE}"
    if document["kind"] == "Job" and document["spec"]["parallelism"] != document["spec"]["completions"]:
        yield "an index that starts when the queue is empty takes a machine for nothing"


def gang_fits(document: Document) -> Complaints:
    """As many ranks as GPUs."""
    nodes = gpu_pods(document)
    if document["kind"] == "Job":
        ranks, gpus = _ranks(document), nodes[0].gpus
    elif document["kind"] == "RayJob":
        ranks, gpus = _ranks(document), nodes[0].gpus * _replicas(document)
    else:
        return
    if ranks != gpus:
        yield f"{ranks} ranks for {gpus} GPUs"


def ray_gpus(document: Document) -> Complaints:
    """Ray is told the GPUs that the pod has; nothing is placed on the head."""
    cluster = ray_cluster_spec(document)
    if cluster is None:
        return
    head = cluster["headGroupSpec"]["rayStartParams"]
    if (head.get("num-cpus"), head.get("num-gpus")) != ("0", "0"):
        yield "ranks may be placed on the head"
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "Ray's token authentication is off"
    for pod, group in zip(gpu_pods(document), cluster["workerGroupSpecs"], strict=True):
        if group["rayStartParams"].get("num-gpus") != str(pod.gpus):
            yield f"{pod.where}: num-gpus is not {pod.gpus}"


def rendezvous(document: Document) -> Complaints:
    """JobSet: all pods of one gang find each other, start together and fail together."""
    if document["kind"] != "JobSet":
        return
    words, job = command_line(document), job_spec(document) or {}
    gang = document["spec"]["replicatedJobs"][0]
    subdomain = document["spec"]["network"]["subdomain"]
    pods_of_gang = str(job["completions"])
    wanted = {
        "--nodes": pods_of_gang,
        "--ranks": str(gpu_pods(document)[0].gpus),
        "--node-rank": "$(JOB_COMPLETION_INDEX)",
        "--rendezvous": f"{document['metadata']['name']}-{gang['name']}-0-0.{subdomain}:29500",
        "--restarts": "0",
    }
    for option, value in wanted.items():
        if value_of(words, option) != value:
            yield f"{option} is {value_of(words, option)}, not {value}"
    if job["parallelism"] != job["completions"] or job["backoffLimit"] != 0 or gang["replicas"] != 1:
        yield "the pods of a gang do not start and fail together"


def _ranks(document: Document) -> int:
    pool = pool_settings(document)
    return pool.gangs * pool.ranks


def _replicas(document: Document) -> int:
    return sum(group["replicas"] for group in (ray_cluster_spec(document) or {})["workerGroupSpecs"])


def _rule_key(rule: Document) -> tuple[str, str]:
    conditions = [condition["type"] for condition in rule.get("onPodConditions", [])]
    return rule["action"], conditions[0] if conditions else "codes"


def _codes(rules: dict[tuple[str, str], Document], action: str) -> list[int]:
    values: list[int] = rules.get((action, "codes"), {}).get("onExitCodes", {}).get("values", [])
    return values
