"""Every manifest, as rendered, against the schemas of Kubernetes and of the operators' custom resources."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.deploy.crd_schemas import SCHEMAS
from tests.deploy.rendering import EVERYTHING, Manifest, named, of_kind, render, validator

OLDEST = "1.29"
"""The oldest Kubernetes that the documentation promises."""


def validate(manifest: Manifest, kubernetes: str) -> None:
    """Raises when ``manifest`` has a field that is wrong, missing or unknown."""
    custom = SCHEMAS.get((manifest["apiVersion"], manifest["kind"]))
    if custom is not None:
        jsonschema.Draft202012Validator(custom).validate(manifest)
    else:
        validator().validate(manifest, kubernetes, strict=True)


@pytest.mark.parametrize("directory", EVERYTHING)
@pytest.mark.parametrize("kubernetes", [OLDEST, "newest"])
def test_every_manifest_is_valid(directory: str, kubernetes: str) -> None:
    manifests = render(directory)
    assert len(manifests) >= 3
    for manifest in manifests:
        validate(manifest, validator().latest_version() if kubernetes == "newest" else OLDEST)


def misspell(path: str) -> Callable[[Manifest], None]:
    """Gives a field the name it nearly has."""

    def change(manifest: Manifest) -> None:
        *above, last = path.split("/")
        inner: Any = manifest
        for step in above:
            inner = inner[int(step) if step.isdigit() else step]
        inner[last + "s"] = inner.pop(last)

    return change


@pytest.mark.parametrize(
    ("directory", "kind", "name", "path"),
    [
        ("base", "Deployment", "dynein", "spec/minReadySeconds"),
        ("base", "Deployment", "dynein", "spec/template/spec/containers/0/readinessProbe/httpGet/path"),
        ("base", "NetworkPolicy", "dynein", "spec/podSelector"),
        ("base", "HorizontalPodAutoscaler", "dynein", "spec/maxReplicas"),
        ("overlays/bootstrap", "Job", "dynein-bootstrap", "spec/backoffLimit"),
        ("overlays/keda", "ScaledObject", "dynein-ingester", "spec/minReplicaCount"),
        ("overlays/keda", "ScaledObject", "dynein-ingester", "spec/triggers/0/metadata/queueLength"),
        ("overlays/keda", "ScaledObject", "dynein-dispatcher", "spec/triggers/0/metadata/serverAddress"),
        ("overlays/monitoring", "ServiceMonitor", "dynein", "spec/endpoints/0/port"),
        ("overlays/monitoring", "PrometheusRule", "dynein", "spec/groups/0/rules/0/expr"),
    ],
)
def test_a_misspelt_field_would_be_found(directory: str, kind: str, name: str, path: str) -> None:
    manifest = copy.deepcopy(named(render(directory), kind, name))
    validate(manifest, OLDEST)
    misspell(path)(manifest)
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest, OLDEST)


def test_no_secret_is_in_the_repository() -> None:
    for directory in EVERYTHING:
        assert of_kind(render(directory), "Secret") == []
