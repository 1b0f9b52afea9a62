"""``localstack.yml`` and its page: every command in them is run, with the embedded engine in LocalStack's place and
Debian's Prometheus in that of its image. Grafana is only read: its files, and what they lead to."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import pytest_asyncio
from aiohttp import web

from dynein.settings import Settings
from tests.acceptance.fleet import HANG_S, Fleet, fleet, free_port, until
from tests.deploy.crd_schemas import TEXT, Schema, closed
from tests.deploy.image import Image
from tests.deploy.rendering import ROOT, parse
from tests.deploy.running import Running, container_of, run
from tests.monitoring.expected import rules
from tests.monitoring.prometheus import prometheus, promtool

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILE = ROOT / "localstack.yml"
PAGE = ROOT / "docs" / "how-to" / "local-stack.md"
STACK: dict[str, Any] = parse(FILE)
SERVICES: dict[str, Any] = STACK["services"]
DYNEIN = {name: service for name, service in SERVICES.items() if "build" in service}

LIST: Schema = {"type": "array", "items": TEXT, "minItems": 1}
SPAN: Schema = {"type": "string", "pattern": r"^\d+s$"}
CONDITION = closed({"condition": {"enum": ["service_healthy", "service_completed_successfully"]}})
SERVICE = closed(
    {"image": TEXT},
    {
        "environment": {"type": "object", "additionalProperties": TEXT},
        "build": closed({"context": TEXT, "dockerfile": TEXT}),
        "command": LIST,
        "entrypoint": LIST,
        "read_only": {"const": True},
        "cap_drop": {"const": ["ALL"]},
        "security_opt": {"const": ["no-new-privileges:true"]},
        "ports": LIST,
        "volumes": LIST,
        "depends_on": {"type": "object", "additionalProperties": CONDITION},
        "healthcheck": closed({"test": LIST, "interval": SPAN, "timeout": SPAN, "retries": {"type": "integer"}}),
        "stop_grace_period": SPAN,
    },
)
"""The part of the Compose specification that the file uses, closed: nothing is misspelt."""


def seconds(span: str) -> float:
    return float(span.removesuffix("s"))


# --- the file ---------------------------------------------------------------------------------------------------------


async def test_the_file_is_well_formed() -> None:
    services: Schema = {"type": "object", "additionalProperties": SERVICE, "minProperties": 4}
    jsonschema.Draft202012Validator(closed({"name": TEXT, "services": services, "x-dynein": {}})).validate(STACK)
    assert "$" not in FILE.read_text(), "nothing for Compose to interpolate, by accident or else"
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for name, needed in service.get("depends_on", {}).items():
            # Who is waited for until healthy has a check; who is waited for until done, ends.
            assert (needed["condition"] == "service_healthy") == ("healthcheck" in SERVICES[name])


async def test_images_are_pinned_or_built_here() -> None:
    assert {name for name in SERVICES if name not in DYNEIN} == {"aws", "prometheus", "grafana"}
    # The last one that needs no account; see the page.
    assert SERVICES["aws"]["image"].startswith("localstack/localstack:4.14.0@")
    for name in ("aws", "prometheus", "grafana"):
        tag, _, digest = SERVICES[name]["image"].partition("@")
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", tag)
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
        assert tag in PAGE.read_text()
    for service in DYNEIN.values():
        assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).samefile(ROOT / "k8s/Dockerfile")
        assert service["image"] == "dynein:local"


async def test_settings_are_known_and_lead_to_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"DYNEIN_{field.upper()}" for field in Settings.model_fields}
    for service in DYNEIN.values():
        given = service["environment"]
        assert {name for name in given if name.startswith("DYNEIN_")} <= known
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        settings = Settings()
        assert settings.endpoint_url == given["AWS_ENDPOINT_URL"] == "http://aws:4566"
        assert settings.region == given["AWS_DEFAULT_REGION"]
        assert settings.host == "0.0.0.0"
        assert DYNEIN["dynein"]["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"], "not that of metrics"
        assert f"127.0.0.1:{settings.ops_port}/readyz" in str(DYNEIN["dynein"]["healthcheck"]["test"])
        assert seconds(DYNEIN["dynein"]["stop_grace_period"]) > settings.drain_s


def mounts(service: str) -> dict[str, Path]:
    """Files of the repository, by where the service sees them."""
    split = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    assert all(mode == "ro" for _, _, mode in split)
    return {inside: ROOT / outside for outside, inside, _ in split}


async def test_what_is_mounted_is_there_and_readable_by_anyone() -> None:
    for service in ("prometheus", "grafana"):
        for path in mounts(service).values():
            assert path.is_file()
            assert path.stat().st_mode & stat.S_IROTH, "the image's user is not ours"


async def test_grafana_finds_the_dashboard_and_its_data() -> None:
    seen = mounts("grafana")
    [source] = parse(seen["/etc/grafana/provisioning/datasources/dynein.yaml"])["datasources"]
    prometheus_port = SERVICES["prometheus"]["ports"][0].rsplit(":", 1)[1]
    assert source["url"] == f"http://prometheus:{prometheus_port}"
    assert source["type"] == "prometheus"
    scraping = parse(mounts("prometheus")["/etc/prometheus/prometheus.yml"])["global"]
    assert source["jsonData"]["timeInterval"] == scraping["scrape_interval"]
    [provider] = parse(seen["/etc/grafana/provisioning/dashboards/dynein.yaml"])["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert json.loads(seen[home].read_text())["uid"] == "dynein"
    assert SERVICES["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 22)])
async def test_the_emulators_check_tells_a_yes_from_a_no(status: int, code: int) -> None:
    async def health(_: web.Request) -> web.Response:
        return web.json_response({"services": {"dynamodb": "running", "sqs": "running"}}, status=status)

    application = web.Application()
    application.router.add_get("/_localstack/health", health)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        kind, *command = SERVICES["aws"]["healthcheck"]["test"]
        assert kind == "CMD"
        here = f"127.0.0.1:{runner.addresses[0][1]}"
        process = await asyncio.create_subprocess_exec(
            *[argument.replace("127.0.0.1:4566", here) for argument in command], stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == code
    finally:
        await runner.cleanup()


# --- run --------------------------------------------------------------------------------------------------------------


class Stack:
    """The services of the file, on an engine of ours."""

    def __init__(self, image: Image, engine: Fleet) -> None:
        self.image = image
        self._here = {
            "http://aws:4566": engine.endpoint,
            "127.0.0.1:8080": f"127.0.0.1:{free_port()}",
            "127.0.0.1:8081": f"127.0.0.1:{free_port()}",
        }

    def here(self, text: str) -> str:
        """``text``, with the addresses of this machine in place of the containers'."""
        for there, here in self._here.items():
            text = text.replace(there, here)
        return text

    @property
    def port(self) -> int:
        return int(self.here("127.0.0.1:8080").rpartition(":")[2])

    @property
    def ops_port(self) -> int:
        return int(self.here("127.0.0.1:8081").rpartition(":")[2])

    def environment(self, service: str) -> dict[str, str]:
        given = {name: self.here(value) for name, value in SERVICES[service]["environment"].items()}
        url = self.here("http://127.0.0.1:8080")
        return {**given, "DYNEIN_PORT": str(self.port), "DYNEIN_OPS_PORT": str(self.ops_port), "DYNEIN_URL": url}

    async def one_shot(self, service: str) -> str:
        """Run a service that ends; what it printed."""
        described = SERVICES[service]
        command = [*described.get("entrypoint", self.image.stage.entrypoint), *described.get("command", [])]
        done = await run(self.image, command, self.environment(service))
        assert done.code == 0, done.output
        return done.output


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(image: Image, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """An engine with what the one-shot services make."""
    async with fleet(tmp_path_factory.mktemp("local-stack"), bootstrapped=False) as engine:
        made = Stack(image, engine)
        assert (await made.one_shot("bootstrap")).count("created") == 4
        assert (await made.one_shot("demo-queue")).strip().endswith("/demo")
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The service ``dynein``, healthy by its own check."""
    log = tmp_path_factory.mktemp("served") / "log"
    arguments = SERVICES["dynein"]["command"]
    async with container_of(stack.image, arguments, stack.environment("dynein"), log, stack.port) as running:

        async def healthy() -> bool:
            assert running.process.returncode is None, running.log
            return (await run(stack.image, check(stack), stack.environment("dynein"))).code == 0

        await until(healthy, "the healthcheck passes")
        yield running


def check(stack: Stack) -> list[str]:
    kind, *command = SERVICES["dynein"]["healthcheck"]["test"]
    assert kind == "CMD"
    return [stack.here(argument) for argument in command]


async def test_one_shot_services_can_run_again(stack: Stack) -> None:
    assert (await stack.one_shot("bootstrap")).count("verified") == 4
    await stack.one_shot("demo-queue")


def commands(starting: str) -> list[list[str]]:
    """The commands of the page that begin like this, without that."""
    lines = re.findall(rf"^\$ {re.escape(starting)}(.+)$", PAGE.read_text(), re.MULTILINE)
    return [shlex.split(line) for line in lines]


async def test_what_the_page_submits_arrives(stack: Stack, served: Running) -> None:
    del served
    [submit] = commands("curl ")
    process = await asyncio.create_subprocess_exec(
        "curl", *[stack.here(argument) for argument in submit], stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate()
    assert b'"policy":"SCHEDULED"' in answer, answer
    [tail] = [command for command in commands("docker compose -f localstack.yml exec dynein ") if "tail" in command]
    watching = await asyncio.create_subprocess_exec(
        *stack.image.command(tail),
        env=stack.image.environment(stack.environment("dynein")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert watching.stdout is not None
        async with asyncio.timeout(HANG_S):
            line = (await watching.stdout.readline()).decode()
        assert line.split()[1] == "demo"
        assert line.rstrip().endswith("hello")
    finally:
        watching.kill()
        await watching.communicate()


async def test_the_other_commands_of_the_page_work(stack: Stack, served: Running) -> None:
    del served
    inside = [command for command in commands("docker compose -f localstack.yml exec dynein ") if "tail" not in command]
    assert [command[:2] for command in inside] == [["dynein", "submit"], ["dynein", "audit"]]
    once = commands("docker compose -f localstack.yml run --rm bootstrap ")
    assert once == [SERVICES["bootstrap"]["command"]]
    for command in [*inside, [*stack.image.stage.entrypoint, *once[0]]]:
        done = await run(stack.image, command, stack.environment("dynein"))
        assert done.code == 0, done.output


async def test_prometheus_scrapes_it_and_knows_the_rules(stack: Stack, served: Running, tmp_path: Path) -> None:
    del served
    seen = mounts("prometheus")
    (tmp_path / "alerts.yaml").write_text(seen["/etc/prometheus/alerts.yaml"].read_text())
    text = seen["/etc/prometheus/prometheus.yml"].read_text()
    text = text.replace("/etc/prometheus/", f"{tmp_path}/").replace("dynein:8081", stack.here("127.0.0.1:8081"))
    config = tmp_path / "checked.yml"
    config.write_text(text)
    checked = promtool("check", "config", config)
    assert checked.returncode == 0, checked.stderr
    async with prometheus(tmp_path, parse(config)) as server:

        async def scraped() -> bool:
            found = (await server.get("targets"))["activeTargets"]
            assert {target["labels"]["job"] for target in found} <= {"dynein"}
            return [target["health"] for target in found] == ["up"]

        await until(scraped, "Prometheus scrapes the service")
        assert await server.instant("dynein_leases_held")
        assert len(await server.rules()) == len(rules())


async def test_it_stops_and_its_check_notices(stack: Stack, served: Running) -> None:
    # In time: `drain_s`, which bounds it, is less than the grace period (above).
    assert await served.terminate() == 0, served.log
    assert (await run(stack.image, check(stack), stack.environment("dynein"))).code != 0


async def test_every_service_the_page_names_exists() -> None:
    named = re.findall(r"localstack\.yml (?:exec|run --rm) (\S+)", PAGE.read_text())
    assert named
    assert set(named) <= set(SERVICES)
    assert Path("localstack.yml").name in PAGE.read_text()
