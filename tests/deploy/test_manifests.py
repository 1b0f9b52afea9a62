"""What a schema cannot say: that the parts of the manifests fit one another, and the program they run."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from dynein.api.health import Health, health_routes
from dynein.errors import InvalidSettings
from dynein.observability.telemetry import Telemetry
from dynein.settings import ROLES, Settings, load_settings
from k8s.monitoring.dashboard import dashboard
from k8s.monitoring.made import ALERTS
from tests.deploy.rendering import (
    BOOTSTRAP,
    EVERYTHING,
    K8S,
    ROOT,
    WORKLOADS,
    Manifest,
    container,
    environment,
    named,
    of_kind,
    parse,
    pods,
    render,
)

SECRETS = {"DYNEIN_TOKEN_SECRETS": "a-secret-of-sixteen-bytes-or-more"}
CLOSING_MARGIN_S = 5
"""Beyond the drain, for what a process does before and after it."""
DASHBOARD = "dynein-dashboard"
PLACEHOLDERS = ("eu-central-1", "111122223333", "registry.example.com", "0.1.0")
"""What the reader has to edit."""

everywhere = pytest.mark.parametrize("directory", EVERYTHING)
workloads = pytest.mark.parametrize("directory", WORKLOADS)


def deployments(directory: str) -> list[Manifest]:
    return of_kind(render(directory), "Deployment")


def roles(pod: Manifest) -> set[str]:
    """The roles that a pod's arguments ask for."""
    command, *options = container(pod)["args"]
    assert command == "serve"
    given = {option.removeprefix("--role=") for option in options}
    assert given <= set(ROLES), options
    return given or set(ROLES)


def settings_of_the_fleet(directory: str | Path) -> list[Manifest]:
    """The ConfigMaps whose keys are settings; the dashboard's is another."""
    return [config for config in of_kind(render(directory), "ConfigMap") if config["metadata"]["name"] != DASHBOARD]


def selected(selector: dict[str, str], directory: str) -> set[str]:
    """Whose pods carry these labels."""
    return {name for name, pod in pods(render(directory)) if selector.items() <= pod["metadata"]["labels"].items()}


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """What ``dynein`` makes of a pod's environment."""

    def read(directory: str, pod: Manifest, **more: str) -> Settings:
        with monkeypatch.context() as patch:
            for name, value in {**environment(render(directory), pod, SECRETS), **more}.items():
                patch.setenv(name, value)
            return load_settings()

    return read


# --- what the pods are given ------------------------------------------------------------------------------------------


@everywhere
def test_the_settings_are_known_and_fit_one_another(directory: str, settings_of: Callable[..., Settings]) -> None:
    known = {f"DYNEIN_{field.upper()}" for field in Settings.model_fields}
    for config in settings_of_the_fleet(directory):
        assert set(config["data"]) <= known
    for _, pod in pods(render(directory)):
        settings = settings_of(directory, pod)
        assert settings.region == "eu-central-1"
        assert settings.host == "0.0.0.0"
        assert settings.log_format == "json"


@workloads
def test_every_role_has_the_same_token_secrets(directory: str) -> None:
    """Each signs, or verifies, what is on the inbound and the dead-letter queue."""
    assert set.union(*(roles(pod) for _, pod in pods(render(directory)))) == set(ROLES)
    for name, pod in pods(render(directory)):
        assert environment(render(directory), pod, SECRETS)["DYNEIN_TOKEN_SECRETS"] == str(*SECRETS.values()), name


def test_bootstrap_signs_nothing_and_has_no_secrets() -> None:
    [(_, job)] = pods(render(BOOTSTRAP))
    assert "DYNEIN_TOKEN_SECRETS" not in environment(render(BOOTSTRAP), job, SECRETS)


def test_bootstrap_prepares_what_the_service_uses() -> None:
    [(_, job)] = pods(render(BOOTSTRAP))
    assert container(job)["args"] == ["bootstrap"]
    assert job["spec"]["serviceAccountName"] == "dynein-operator"
    prepared = of_kind(render(BOOTSTRAP), "ConfigMap")
    for directory in WORKLOADS:
        # The whole object: they share its name, and must not undo each other.
        assert settings_of_the_fleet(directory) == prepared
        image = {container(pod)["image"] for _, pod in pods(render(directory))}
        assert image == {container(job)["image"]}


@everywhere
def test_service_links_are_off_because_they_would_stop_every_process(
    directory: str, settings_of: Callable[..., Settings]
) -> None:
    for _, pod in pods(render(directory)):
        assert pod["spec"]["enableServiceLinks"] is False
        with pytest.raises(InvalidSettings, match="DYNEIN_SERVICE_HOST"):
            settings_of(directory, pod, DYNEIN_SERVICE_HOST="10.0.0.1", DYNEIN_PORT="tcp://10.0.0.1:80")


@everywhere
def test_images_are_pinned(directory: str) -> None:
    for _, pod in pods(render(directory)):
        assert re.fullmatch(r"registry\.example\.com/dynein:\d+\.\d+\.\d+", container(pod)["image"])


@everywhere
def test_each_role_of_the_account_is_named_once(directory: str) -> None:
    accounts = of_kind(render(directory), "ServiceAccount")
    expected = {"dynein-operator"} if directory == BOOTSTRAP else {"dynein"}
    assert {account["metadata"]["name"] for account in accounts} == expected
    for account in accounts:
        name = account["metadata"]["name"]
        arn = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        assert arn == f"arn:aws:iam::111122223333:role/{name}"
        assert account["automountServiceAccountToken"] is False
    assert {pod["spec"]["serviceAccountName"] for _, pod in pods(render(directory))} == expected


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_there_is_one_file_to_edit(text: str) -> None:
    site = K8S / "site" / "kustomization.yaml"
    assert text in site.read_text()
    assert [path for path in K8S.rglob("*.yaml") if text in path.read_text() and path != site] == []


# --- probes, and the end ----------------------------------------------------------------------------------------------


@workloads
def test_a_pod_has_time_to_drain(directory: str, settings_of: Callable[..., Settings]) -> None:
    for _, pod in pods(render(directory)):
        settings = settings_of(directory, pod)
        assert pod["spec"]["terminationGracePeriodSeconds"] >= settings.drain_s + CLOSING_MARGIN_S
        assert settings.linger_s == 5


@workloads
def test_probes_ask_for_what_is_served_where_it_is_served(directory: str, settings_of: Callable[..., Settings]) -> None:
    async def health() -> Health:
        return Health([], [])

    served = {route.path for route in health_routes(health, Telemetry())}
    for _, pod in pods(render(directory)):
        settings = settings_of(directory, pod)
        only = container(pod)
        ports = {port["name"]: port["containerPort"] for port in only["ports"]}
        assert ports == {"ops": settings.ops_port} | ({"http": settings.port} if "api" in roles(pod) else {})
        probes = {name: only[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
        for probe in probes.values():
            assert probe["httpGet"]["path"] in served
            assert probe["httpGet"]["port"] == "ops"
        assert probes["startup"]["httpGet"]["path"] == probes["liveness"]["httpGet"]["path"] == "/healthz"
        assert probes["readiness"]["httpGet"]["path"] == "/readyz"
        assert probes["readiness"]["timeoutSeconds"] > settings.call_timeout_s


@workloads
def test_an_update_takes_nothing_away_and_lets_shards_settle(
    directory: str, settings_of: Callable[..., Settings]
) -> None:
    for deployment in deployments(directory):
        rolling = deployment["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
        settings = settings_of(directory, deployment["spec"]["template"])
        assert deployment["spec"]["minReadySeconds"] >= max(settings.lease_ttl_s, settings.member_ttl_s)
        assert "replicas" not in deployment["spec"], "the autoscaler's"


# --- security ---------------------------------------------------------------------------------------------------------


@everywhere
def test_pods_meet_the_restricted_standard_and_more(directory: str) -> None:
    for _, pod in pods(render(directory)):
        spec, only = pod["spec"], container(pod)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # IRSA's token is readable by its group.
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(spec) == set()
        assert {"cpu", "memory"} <= set(only["resources"]["requests"])
        assert set(only["resources"]["limits"]) == {"memory"}, "a CPU limit would make jobs late"


@workloads
def test_the_network_is_as_open_as_it_needs_to_be(directory: str) -> None:
    assert {policy["metadata"]["name"] for policy in of_kind(render(directory), "NetworkPolicy")} == {
        "dynein",
        "dynein-api",
    }
    spec = named(render(directory), "NetworkPolicy", "dynein")["spec"]
    assert selected(spec["podSelector"]["matchLabels"], directory) == {name for name, _ in pods(render(directory))}
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    scraping = {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "ports": [{"port": 8081, "protocol": "TCP"}],
    }
    assert spec["ingress"] == ([scraping] if of_kind(render(directory), "ServiceMonitor") else [])
    assert all(rule["to"] for rule in spec["egress"]), "not to everywhere"
    ports = {(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]}
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 80)}
    for rule in spec["egress"]:
        blocks = [ipaddress.ip_network(peer["ipBlock"]["cidr"]) for peer in rule.get("to", []) if "ipBlock" in peer]
        excepted = [
            ipaddress.ip_network(text) for peer in rule["to"] for text in peer.get("ipBlock", {}).get("except", [])
        ]
        for metadata in map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254")):
            reached = any(metadata in block for block in blocks) and not any(metadata in block for block in excepted)
            assert not reached, "the node's role is not theirs"
        if {port["port"] for port in rule["ports"]} != {443}:
            assert all(block.num_addresses == 1 for block in blocks)
        if {port["port"] for port in rule["ports"]} == {80}:
            assert [str(block) for block in blocks] == ["169.254.170.23/32", "fd00:ec2::23/128"]


@workloads
def test_only_labelled_clients_reach_the_api_and_nobody_else_does(directory: str) -> None:
    spec = named(render(directory), "NetworkPolicy", "dynein-api")["spec"]
    takers = {name for name, pod in pods(render(directory)) if "api" in roles(pod)}
    assert selected(spec["podSelector"]["matchLabels"], directory) == takers
    assert spec["policyTypes"] == ["Ingress"], "what pods reach is in the other"
    [rule] = spec["ingress"]
    clients = {"matchLabels": {"dynein-client": "true"}}
    assert rule["from"] == [{"podSelector": clients}, {"namespaceSelector": clients}]
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]


# --- who finds whom ---------------------------------------------------------------------------------------------------


@everywhere
def test_everything_is_in_one_namespace(directory: str) -> None:
    assert {manifest["metadata"].get("namespace") for manifest in render(directory)} == {"dynein"}


@workloads
def test_the_service_leads_to_the_api_and_nowhere_else(directory: str) -> None:
    service = named(render(directory), "Service", "dynein")
    takers = {name for name, pod in pods(render(directory)) if "api" in roles(pod)}
    assert selected(service["spec"]["selector"], directory) == takers
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]


def test_the_service_needs_no_change_when_roles_are_split() -> None:
    """Old and new pods serve side by side meanwhile, and no request finds nobody."""
    whole, split = (named(render(directory), "Service", "dynein")["spec"] for directory in WORKLOADS[:2])
    assert whole == split


@workloads
def test_each_deployment_has_its_own_pods_one_scaler_and_one_budget(directory: str) -> None:
    manifests = render(directory)
    names = {deployment["metadata"]["name"] for deployment in deployments(directory)}
    for deployment in deployments(directory):
        name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
        assert selected(deployment["spec"]["selector"]["matchLabels"], directory) == {name}
        for spread in template["spec"]["topologySpreadConstraints"]:
            assert selected(spread["labelSelector"]["matchLabels"], directory) == {name}
        topologies = [spread["topologyKey"] for spread in template["spec"]["topologySpreadConstraints"]]
        assert topologies == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    scalers = of_kind(manifests, "HorizontalPodAutoscaler") + of_kind(manifests, "ScaledObject")
    assert sorted(scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers) == sorted(names)
    budgets = [budget["spec"]["selector"]["matchLabels"] for budget in of_kind(manifests, "PodDisruptionBudget")]
    assert sorted(name for budget in budgets for name in selected(budget, directory)) == sorted(names)


def test_split_roles_are_named_after_their_role() -> None:
    assert {name: roles(pod) for name, pod in pods(render("overlays/split-roles"))} == {
        f"dynein-{role}": {role} for role in ROLES
    }


def test_keda_looks_at_the_queue_of_the_settings() -> None:
    manifests = render("overlays/keda")
    scaled = named(manifests, "ScaledObject", "dynein-ingester")
    [config] = settings_of_the_fleet("overlays/keda")
    queue, cpu = scaled["spec"]["triggers"]
    assert queue["metadata"]["queueURL"] == config["data"]["DYNEIN_INBOUND_QUEUE"]
    assert queue["metadata"]["awsRegion"] == config["data"]["DYNEIN_REGION"]
    assert cpu["type"] == "cpu"
    named(manifests, "TriggerAuthentication", queue["authenticationRef"]["name"])
    assert scaled["spec"]["minReplicaCount"] > 0, "some process has to notice the first message"


def test_keda_looks_at_the_forecast_of_this_deployment() -> None:
    manifests = render("overlays/keda")
    scaled = named(manifests, "ScaledObject", "dynein-dispatcher")
    forecast, cpu = scaled["spec"]["triggers"]
    assert cpu["type"] == "cpu"
    assert "dynein_forecast_jobs" in forecast["metadata"]["query"]
    assert f'namespace="{scaled["metadata"]["namespace"]}"' in forecast["metadata"]["query"]
    assert forecast["metadata"]["ignoreNullValues"] == "false", "no forecast is not no load"
    # The same Prometheus that scrapes: its namespace is let in.
    assert ".monitoring:" in forecast["metadata"]["serverAddress"]
    check_monitoring(manifests)
    assert scaled["spec"]["minReplicaCount"] > 0


def test_rules_and_dashboard_come_with_the_scraping() -> None:
    manifests = render("overlays/monitoring")
    assert named(manifests, "PrometheusRule", "dynein")["spec"] == parse(ALERTS)
    config = named(manifests, "ConfigMap", DASHBOARD)
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["dynein.json"]) == dashboard()
    [monitor] = of_kind(manifests, "ServiceMonitor")
    [metrics] = [one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == "dynein-metrics"]
    # The rules look for this job.
    job = metrics["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    assert f'up{{job="{job}"}}' in ALERTS.read_text()


def check_monitoring(manifests: list[Manifest]) -> None:
    [monitor] = of_kind(manifests, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    [metrics] = [
        service for service in of_kind(manifests, "Service") if wanted <= service["metadata"]["labels"].items()
    ]
    assert [port["name"] for port in metrics["spec"]["ports"]] == [monitor["spec"]["endpoints"][0]["port"]]
    assert metrics["spec"]["publishNotReadyAddresses"] is True
    for _, pod in pods(manifests):
        assert metrics["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        [port] = [port for port in container(pod)["ports"] if port["name"] == metrics["spec"]["ports"][0]["targetPort"]]
        assert metrics["spec"]["ports"][0]["port"] == port["containerPort"]
        assert set(monitor["spec"]["podTargetLabels"]) <= set(pod["metadata"]["labels"])
    [rule] = named(manifests, "NetworkPolicy", "dynein")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [port["containerPort"]]


def test_every_pod_is_scraped() -> None:
    check_monitoring(render("overlays/monitoring"))


# --- the page that says how -------------------------------------------------------------------------------------------


def page() -> str:
    return (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()


def test_the_overlay_that_the_page_shows_works(tmp_path: Path) -> None:
    [overlay] = re.findall(
        r"^```yaml\n(# deploy/dynein/kustomization\.yaml\n.*?)^```", page(), re.DOTALL | re.MULTILINE
    )
    shutil.copytree(K8S, tmp_path / "k8s")
    directory = tmp_path / "deploy" / "dynein"
    directory.mkdir(parents=True)
    (directory / "kustomization.yaml").write_text(overlay)
    manifests = render(directory)
    check_monitoring(manifests)
    assert len(list(pods(manifests))) == len(ROLES)
    [config] = settings_of_the_fleet(directory)
    assert config["data"]["DYNEIN_INGEST_RATE_PER_S"] == "2000"
    assert config["data"]["DYNEIN_REGION"] == "eu-central-1", "merged, not replaced"
    for _, pod in pods(manifests):
        assert container(pod)["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]


def test_the_patch_on_the_page_narrows_what_pods_may_reach(tmp_path: Path) -> None:
    [patches] = re.findall(r"^  ```yaml\n(  patches:\n.*?)^  ```", page(), re.DOTALL | re.MULTILINE)
    shutil.copytree(K8S, tmp_path / "k8s")
    directory = tmp_path / "deploy"
    directory.mkdir()
    overlay = f"kind: Kustomization\nresources: [../k8s/base]\n{textwrap.dedent(patches)}"
    (directory / "kustomization.yaml").write_text(overlay)
    policies = [
        named(render(where), "NetworkPolicy", "dynein")["spec"]["egress"]
        for where in (tmp_path / "k8s/base", directory)
    ]
    before, after = ({rule["ports"][0]["port"]: rule["to"] for rule in egress} for egress in policies)
    assert {port for port in before if before[port] != after[port]} == {443}
    assert after[443] == [{"ipBlock": {"cidr": "10.0.0.0/16"}}]


def test_what_the_page_names_exists() -> None:
    text = page()
    for directory in re.findall(r"kubectl apply -k (\S+)", text):
        assert (ROOT / directory / "kustomization.yaml").is_file(), directory
    assert set(re.findall(r"kubectl apply -k k8s/(\S+)", text)) >= {"base", BOOTSTRAP}
    for variable in set(re.findall(r"DYNEIN_[A-Z_]+\b", text)):
        assert variable.removeprefix("DYNEIN_").lower() in {*Settings.model_fields, "service_host"}, variable
    [secret] = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for _, pod in pods(render("base"))
        for variable in container(pod)["env"]
        if "valueFrom" in variable
    }
    assert f"create secret generic {secret}" in text
    assert "--from-literal=DYNEIN_TOKEN_SECRETS=" in text
    assert parse(K8S / "site" / "kustomization.yaml")["namespace"] == "dynein"
