"""Rules, runbooks and dashboard agree with one another, with the code, and with what is made from them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from dynein.observability.events.event import CATALOGUE
from dynein.observability.events.reference import reference_markdown
from dynein.observability.telemetry import Telemetry
from k8s.monitoring import causes, jobs
from k8s.monitoring.made import ALERTS, COMPONENT, MADE
from tests.deploy.rendering import ROOT, parse
from tests.monitoring.expected import NOT_SHOWN, TARGET_LABELS, Asked, alerts, all_asked, known, panels
from tests.monitoring.prometheus import promtool

RUNBOOKS = ROOT / "docs" / "runbooks"
RULE_TESTS = ALERTS.with_name("alerts_test.yaml")
URL = "https://github.com/dynein/dynein/blob/main/docs/runbooks/"
SECTIONS = ["## What it means", "## First look", "## Likely causes", "## It is over when"]
PROMETHEUS_OWN = {"alertname", "alertstate"}
RECORDED = r"\bdynein:[a-z_:0-9]+"
asked = list(all_asked())


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_what_is_made_is_up_to_date(path: Path) -> None:
    assert path.read_text() == MADE[path](), "run `make reference`"


# --- queries and the code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", asked, ids=lambda query: query.where)
def test_a_query_asks_for_what_exists(query: Asked) -> None:
    have = known()
    recorded = set(re.findall(RECORDED, query.expr))
    assert recorded <= {one.where for one in asked if one.where.startswith("dynein:")}
    assert query.metrics <= have.keys()
    labels = set.union(TARGET_LABELS, PROMETHEUS_OWN, *(have[name] for name in query.metrics))
    for other in asked:
        if other.where in recorded:
            labels |= other.labels
    assert query.labels <= labels


def test_every_metric_is_used_or_is_said_not_to_be() -> None:
    used = {name for query in asked for name in query.metrics}
    assert known().keys() - used == NOT_SHOWN


# --- rules and runbooks -----------------------------------------------------------------------------------------------


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_rules_do_what_their_tests_say() -> None:
    done = promtool("test", "rules", RULE_TESTS)
    assert done.returncode == 0, done.stderr + done.stdout


def test_a_rule_that_does_otherwise_would_be_found(tmp_path: Path) -> None:
    (tmp_path / RULE_TESTS.name).write_text(RULE_TESTS.read_text())
    (tmp_path / ALERTS.name).write_text(
        ALERTS.read_text().replace("dynein_shards_unowned) > 0", "dynein_shards_unowned) > 9")
    )
    assert promtool("test", "rules", tmp_path / RULE_TESTS.name).returncode != 0


def test_every_alert_is_seen_firing_and_quiet() -> None:
    firing, quiet = set(), set()
    for test in parse(RULE_TESTS)["tests"]:
        for expected in test["alert_rule_test"]:
            if not expected["exp_alerts"]:
                quiet.add(expected["alertname"])
            for alert in expected["exp_alerts"]:
                firing.add((expected["alertname"], alert["exp_labels"]["severity"]))
    assert firing == {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()}
    assert quiet == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_says_all_that_whoever_is_woken_needs(rule: dict[str, object]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"{URL}{rule['alert']}.md"
    assert str(rule["alert"]).startswith("Dynein")
    has_number = "$value" in annotations["description"] + annotations["summary"]
    # Of a process that is down there is nothing more to say than that it is.
    assert has_number or rule["alert"] in {"DyneinTargetDown", "DyneinDown"}


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in alerts()}
    index = (RUNBOOKS / "README.md").read_text()
    for page in pages:
        assert f"({page}.md)" in index


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("Dynein*.md")), ids=lambda path: path.stem)
def test_a_runbook_leads_to_panels_that_exist(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    titles = {panel["title"] for panel in panels()}
    named = set(re.findall(r"“([^”]+)”", text))
    assert named, "which panel to look at"
    assert named <= titles
    for other in re.findall(r"\((\w+\.md)\)", text):
        assert (RUNBOOKS / other).is_file(), other


def test_runbooks_name_log_events_that_exist() -> None:
    assert reference_markdown(), "with which all events are there"
    for path in RUNBOOKS.glob("Dynein*.md"):
        [line] = re.findall(r"^Logs: (.*)$", path.read_text(), re.MULTILINE)
        assert set(re.findall(r"`([^`]+)`", line)) <= CATALOGUE.keys(), path.stem


# --- dashboard --------------------------------------------------------------------------------------------------------


def test_the_dashboard_is_whole() -> None:
    made = json.loads((COMPONENT / "dashboard.json").read_text())
    assert made["uid"] == "dynein"
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    assert len({panel["title"] for panel in made["panels"]}) == len(made["panels"])
    defined = {variable["name"] for variable in made["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(made["panels"]))) - {"__rate_interval"}
    assert used == defined >= {"datasource", "instance", "queue"}
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
    # “·” in a panel's text names another panel.
    titles = {panel["title"] for panel in made["panels"]}
    for panel in panels():
        assert set(re.findall(r"“([^”]+)”", panel["description"])) <= titles


def test_the_how_to_names_panels_that_exist() -> None:
    text = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    in_grafana = {"Dashboards", "New", "Import"}
    assert set(re.findall(r"\*([A-Z][^*]+)\*(?!\*)", text.replace("**", ""))) - in_grafana <= {
        panel["title"] for panel in panels()
    }


def test_it_says_what_the_alerts_say() -> None:
    rules = ALERTS.read_text()
    assert float(jobs.SLO_S) in Telemetry().lateness._upper_bounds
    assert rules.count(f'le="{jobs.SLO_S}"') == 7 + 1, "seven windows, and the comment"
    assert set(re.findall(r"late_jobs:\S+ > \S+ \* (\S+)", rules)) == {str(jobs.LATE_SHARE_MAX)}


def test_it_asks_the_prices_of_the_benchmarks() -> None:
    prices = tomllib.loads((ROOT / "benchmarks" / "prices.toml").read_text())
    assert {name: prices[name]["usd_a_million"] / 1e6 for name in prices if "unit" in name or "sqs" in name} == {
        "sqs_standard_request": pytest.approx(causes.USD_SQS_REQUEST),
        "dynamodb_write_unit": pytest.approx(causes.USD_WRITE_UNIT),
        "dynamodb_read_unit": pytest.approx(causes.USD_READ_UNIT),
    }


def test_the_prometheus_rule_holds_the_rules() -> None:
    rule = yaml.safe_load((COMPONENT / "prometheus-rule.yaml").read_text())
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == parse(ALERTS)
