"""The manifests as a cluster would get them, and what a pod of them would see."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml  # type: ignore[import-untyped]

from tests.acceptance.fleet import HANG_S

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
WORKLOADS = ("base", "overlays/split-roles", "overlays/keda", "overlays/monitoring")
"""Everything that runs the service; `BOOTSTRAP` prepares it."""
BOOTSTRAP = "overlays/bootstrap"
EVERYTHING = (*WORKLOADS, BOOTSTRAP)

Manifest = dict[str, Any]


def missing(what: str, remedy: str) -> NoReturn:
    """Skip the test, but never in CI: a check that quietly stops running is none."""
    sentence = f"{what} is not installed: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def validator() -> Any:
    """The module that knows the Kubernetes schemas."""
    try:
        return importlib.import_module("kubernetes_validate")
    except ImportError:
        missing("kubernetes-validate", "pip install kubernetes-validate")


def _builder() -> list[str]:
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        program = shutil.which(command[0]) or shutil.which(command[0], path=str(Path.home() / "go" / "bin"))
        if program is not None:
            return [program, *command[1:]]
    missing("kustomize", "get kubectl, or: go install sigs.k8s.io/kustomize/kustomize/v5@v5.8.1")


@cache
def _build(directory: Path) -> str:
    done = subprocess.run([*_builder(), str(directory)], capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns of what it will refuse one day"
    return done.stdout


def render(directory: str | Path) -> list[Manifest]:
    """What ``kubectl apply -k`` would send; a name is relative to ``k8s/``."""
    return list(yaml.safe_load_all(_build(K8S / directory)))


def parse(path: Path) -> Any:
    """One YAML file, as it is in the repository."""
    return yaml.safe_load(path.read_text())


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name]
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod template, with the name of what makes pods of it."""
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "Job"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]


def container(pod: Manifest) -> Manifest:
    """The only container of a pod template."""
    [only] = pod["spec"]["containers"]
    found: Manifest = only
    return found


def environment(manifests: list[Manifest], pod: Manifest, secrets: dict[str, str]) -> dict[str, str]:
    """The variables that the container of ``pod`` is started with; ``secrets`` are the values of the Secret's keys."""
    only = container(pod)
    seen: dict[str, str] = {}
    for source in only["envFrom"]:
        seen |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in only["env"]:
        seen[variable["name"]] = (
            variable["value"] if "value" in variable else secrets[variable["valueFrom"]["secretKeyRef"]["key"]]
        )
    return seen
