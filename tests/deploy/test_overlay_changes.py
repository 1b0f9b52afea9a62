"""What `docs/how-to/change-overlays.md` says to delete is what the next overlay leaves behind, and nothing it has."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.deploy.rendering import ROOT, WORKLOADS, of_kind, render

PAGE = Path(ROOT / "docs" / "how-to" / "change-overlays.md").read_text()
KINDS = {
    "deployment": "Deployment",
    "hpa": "HorizontalPodAutoscaler",
    "pdb": "PodDisruptionBudget",
    "scaledobject": "ScaledObject",
    "triggerauthentication": "TriggerAuthentication",
    "servicemonitor": "ServiceMonitor",
    "prometheusrule": "PrometheusRule",
    "service": "Service",
    "configmap": "ConfigMap",
}
PATHS = {Path(directory).name: directory for directory in WORKLOADS}
CHANGES = list(itertools.permutations(PATHS, 2))
Objects = set[tuple[str, str]]


def deleted_by(name: str) -> Objects:
    """What the commands under a bold name of the page delete."""
    found = re.search(rf"^\*\*{name}\*\*.*?^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    objects: Objects = set()
    for line in found[1].splitlines():
        kinds, *names = line.removeprefix("$ kubectl -n dynein delete --ignore-not-found ").split()
        objects |= {(KINDS[kind], each) for kind in kinds.split(",") for each in names}
    return objects


def rows() -> dict[tuple[str, str], tuple[list[str], list[str]]]:
    """By from and to: what to delete before, and what after."""
    table = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| (.*?)\| (.*?)\|$", PAGE, re.MULTILINE)
    return {
        (old, new): ([name for name in before.strip().split(", ") if name], [n for n in after.strip().split(", ") if n])
        for old, new, before, after in table
    }


def objects_of(overlay: str) -> Objects:
    return {(manifest["kind"], manifest["metadata"]["name"]) for manifest in render(PATHS[overlay])}


def test_every_change_has_a_row() -> None:
    assert set(rows()) == set(CHANGES)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0]} to {change[1]}")
def test_what_is_left_behind_is_deleted_and_what_is_needed_is_not(change: tuple[str, str]) -> None:
    old, new = change
    before, after = rows()[change]
    deleted: Objects = set().union(*(deleted_by(name) for name in [*before, *after]))
    assert objects_of(old) - objects_of(new) <= deleted, "something stays"
    assert not deleted & objects_of(new), "something that is in use goes"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0]} to {change[1]}")
def test_no_deployment_has_two_autoscalers_at_any_time(change: tuple[str, str]) -> None:
    """KEDA makes one for each ScaledObject, and refuses a ScaledObject beside one."""
    old, new = change
    before, _ = rows()[change]
    gone: Objects = set().union(*(deleted_by(name) for name in before))
    scaled: list[str] = []
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        objects = {
            manifest["metadata"]["name"]: manifest["spec"]["scaleTargetRef"]["name"]
            for overlay in (old, new)
            for manifest in of_kind(render(PATHS[overlay]), kind)
            if overlay == new or (kind, manifest["metadata"]["name"]) not in gone
        }
        scaled += objects.values()
    assert len(scaled) == len(set(scaled)), "right after the apply, before what is deleted afterwards"


def test_an_overlay_has_no_two_autoscalers_of_one_deployment() -> None:
    for directory in WORKLOADS:
        manifests = render(directory)
        scaled = [
            manifest["spec"]["scaleTargetRef"]["name"]
            for kind in ("HorizontalPodAutoscaler", "ScaledObject")
            for manifest in of_kind(manifests, kind)
        ]
        assert len(scaled) == len(set(scaled))
