"""cluster/serve.yaml and the dashboard: rules of the pods, probes, queue, network; metrics that exist."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import log_checks
import network_checks
import pod_checks
import pytest
import yaml
from cluster_files import CLUSTER, Document, environment, load, mounted, pods
from prometheus_client import CollectorRegistry

from imax_dist.cli.main import build_parser
from imax_dist.config import load_named
from imax_dist.jobs.settings import PoolSettings
from imax_dist.service.routes import health
from imax_dist.service.settings import ServiceSettings
from imax_dist.settings_mapping import from_mapping

POD_RULES = (
    "names",
    "image_tag",
    "requests_equal_limits",
    "quantities",
    "volumes",
    "shared_memory",
    "security",
)
NETWORK_RULES = ("nccl_settings", "lost_nodes", "no_gpus_unasked")


def by_kind(kind: str) -> Document:
    (found,) = (document for document in load("serve.yaml") if document["kind"] == kind)
    return found


@pytest.fixture
def deployment() -> Document:
    return copy.deepcopy(by_kind("Deployment"))


def container(document: Document) -> dict[str, Any]:
    (pod,) = pods(document)
    box: dict[str, Any] = pod.spec["containers"][0]
    return box


def complaints(document: Document) -> list[str]:
    """What is wrong with the deployment, in words."""
    rules = [getattr(pod_checks, name) for name in POD_RULES]
    rules += [log_checks.dumps, *(getattr(network_checks, name) for name in NETWORK_RULES)]
    found = [text for rule in rules for text in rule(document)]
    box = container(document)
    options = build_parser().parse_args([*box["command"], *box["args"]][3:])
    pool: PoolSettings = from_mapping(PoolSettings, load_named("jobs", options.pool), where="pool")
    (pod,) = pods(document)
    routes = {route.path for route in health.router.routes}  # type: ignore[attr-defined]
    ports = {port["name"]: port["containerPort"] for port in box["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = box[probe]["httpGet"]
        if asked["path"] not in routes or ports.get(asked["port"]) != options.port:
            found.append(f"{probe} asks {asked} of a service at port {options.port}")
    if box["livenessProbe"]["httpGet"]["path"] != "/healthz":
        found.append("the liveness probe would restart a pod that only drains")
    if pod.spec["terminationGracePeriodSeconds"] <= pool.deadlines.stop:
        found.append("the grace period is not above the stop deadline")
    if not str(options.store).startswith("postgresql://") or ":" in options.store.partition("@")[0][13:]:
        found.append("the queue of several pods is in PostgreSQL, and its password in no argument")
    if "secretKeyRef" not in environment(pod.spec).get("PGPASSWORD", {}).get("valueFrom", {}):
        found.append("PGPASSWORD does not come from a secret")
    if environment(pod.spec).get("FORWARDED_ALLOW_IPS", {}).get("value") != "*":
        found.append("the ingress is not believed about TLS, and the cookie is not Secure")
    if "persistentVolumeClaim" not in mounted(pod.spec, "/" + str(options.out).split("/")[1]):
        found.append("the posters are not on a volume claim")
    if pool.gangs * pool.ranks > pod.gpus:
        found.append(f"{pool.gangs} gangs of {pool.ranks} on {pod.gpus} GPUs")
    return found


def test_the_deployment_keeps_the_rules(deployment: Document) -> None:
    assert complaints(deployment) == []


def set_probe(document: Document) -> None:
    container(document)["readinessProbe"]["httpGet"]["path"] = "/ready"


def restart_while_draining(document: Document) -> None:
    container(document)["livenessProbe"]["httpGet"]["path"] = "/readyz"


def short_grace(document: Document) -> None:
    pods(document)[0].spec["terminationGracePeriodSeconds"] = 30


def password_in_sight(document: Document) -> None:
    container(document)["args"][1] = "--store=postgresql://imax:secret@imax-postgres/imax"


def file_queue(document: Document) -> None:
    container(document)["args"][1] = "--store=/data/serve/batch.sqlite"


def plain_password(document: Document) -> None:
    container(document)["env"][0] = {"name": "PGPASSWORD", "value": "secret"}


def without_proxy(document: Document) -> None:
    box = container(document)
    box["env"] = [each for each in box["env"] if each["name"] != "FORWARDED_ALLOW_IPS"]


def as_root(document: Document) -> None:
    pods(document)[0].spec["securityContext"]["runAsNonRoot"] = False


def few_gpus(document: Document) -> None:
    resources = container(document)["resources"]
    for key in ("requests", "limits"):
        resources[key]["nvidia.com/gpu"] = "4"


def settings_of_its_own(document: Document) -> None:
    container(document)["envFrom"] = []


def dumps_of_all(document: Document) -> None:
    container(document)["env"][-1]["value"] = "/data/logs/nccl-rank-"


def patience_with_lost_nodes(document: Document) -> None:
    pods(document)[0].spec["tolerations"][2]["tolerationSeconds"] = 300


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_probe, "readinessProbe asks"),
        (restart_while_draining, "would restart a pod that only drains"),
        (short_grace, "grace period"),
        (password_in_sight, "its password in no argument"),
        (file_queue, "in PostgreSQL"),
        (plain_password, "PGPASSWORD does not come from a secret"),
        (without_proxy, "cookie is not Secure"),
        (as_root, "runAsNonRoot"),
        (few_gpus, "8 gangs of 1 on 4 GPUs"),
        (settings_of_its_own, "takes no settings from nccl.yaml"),
        (dumps_of_all, "in no folder of the pod's own"),
        (patience_with_lost_nodes, "unreachable is not given up"),
    ],
)
def test_breaking_a_rule_is_seen(deployment: Document, change: Callable[[Document], None], said: str) -> None:
    change(deployment)
    assert any(said in text for text in complaints(deployment)), complaints(deployment)


def test_service_budget_and_policy_are_of_the_same_pods(deployment: Document) -> None:
    labels = pods(deployment)[0].template["metadata"]["labels"]
    assert by_kind("Service")["spec"]["selector"].items() <= labels.items()
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert by_kind(kind)["spec"][key]["matchLabels"].items() <= labels.items()
    assert deployment["spec"]["replicas"] > by_kind("PodDisruptionBudget")["spec"]["maxUnavailable"]


def test_only_http_comes_in_and_neither_metadata_nor_private_addresses_are_called() -> None:
    policy = by_kind("NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert [[port["port"] for port in rule["ports"]] for rule in policy["ingress"]] == [[8000]]
    assert all("namespaceSelector" in each for rule in policy["ingress"] for each in rule["from"])
    blocks = [to["ipBlock"] for rule in policy["egress"] for to in rule["to"] if "ipBlock" in to]
    assert {"169.254.0.0/16", "10.0.0.0/8"} <= set(blocks[0]["except"])


def test_the_ingress_has_tls_and_streams() -> None:
    ingress = by_kind("Ingress")
    hosts = {rule["host"] for rule in ingress["spec"]["rules"]}
    assert hosts == {host for entry in ingress["spec"]["tls"] for host in entry["hosts"]}
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"


def test_prometheus_is_shown_how_to_bring_a_token(deployment: Document) -> None:
    text = (CLUSTER / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    monitor = yaml.safe_load(block)
    service = by_kind("Service")
    assert monitor["kind"] == "ServiceMonitor"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["path"] in {route.path for route in health.router.routes}  # type: ignore[attr-defined]
    credentials = endpoint["authorization"]["credentials"]
    assert f"create secret generic {credentials['name']} --from-literal={credentials['key']}=" in text
    (pod,) = pods(deployment)
    assert not any("scrape" in name for name in pod.template["metadata"].get("annotations", {}))


def test_its_settings_are_those_of_a_service() -> None:
    mapping = yaml.safe_load(by_kind("ConfigMap")["data"]["service.yaml"])
    settings: ServiceSettings = from_mapping(ServiceSettings, mapping, where="serve.yaml")
    assert settings.models


def test_every_metric_of_the_dashboard_is_one_that_the_pool_has() -> None:
    from imax_dist.jobs.metrics import PoolMetrics
    from imax_dist.service.metrics import prometheus

    registry = CollectorRegistry()
    PoolMetrics(None, kinds=prometheus(registry))  # type: ignore[arg-type]
    known = {metric.name for metric in registry.collect()}
    dashboard = json.loads((CLUSTER / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for text in expressions for name in re.findall(r"\(ray_\)\?(imax_\w+)", text)}
    assert {re.sub(r"_(total|bucket)$", "", name) for name in asked} == known
    own = {name for text in expressions for name in re.findall(r"(?<!\?)\b(imax_\w+)", text)} - asked
    assert own == {"imax_disk_free_bytes", "imax_chore_failures_total"}, "what a service alone has"
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(dashboard["panels"])
