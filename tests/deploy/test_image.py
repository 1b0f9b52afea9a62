"""What ``k8s/Dockerfile`` makes, run as the manifests run it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import aiohttp
import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from aiohttp import web

from dynein import __version__
from dynein.settings import Settings
from tests.acceptance.fleet import Fleet, fleet, free_port, monotonic, pause, until
from tests.deploy.image import DOCKERFILE, IGNORED, Image, context, instructions
from tests.deploy.rendering import BOOTSTRAP, K8S, Manifest, container, environment, missing, pods, render
from tests.deploy.running import Running, container_of, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRETS = {"DYNEIN_TOKEN_SECRETS": "a-secret-of-sixteen-bytes-or-more"}
ROLE = "arn:aws:iam::111122223333:role/dynein"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """SQS and DynamoDB with nothing on them; the tests build on one another, in order."""
    async with fleet(tmp_path_factory.mktemp("image"), bootstrapped=False) as made:
        yield made


@pytest.fixture(scope="module")
def all_roles() -> Manifest:
    """The pod of ``k8s/base``."""
    return dict(pods(render("base")))["dynein"]


def pod_environment(directory: str, name: str, engine: Fleet, port: int) -> dict[str, str]:
    """A pod's variables; only where AWS is, and the ports, are not the manifest's."""
    manifests = render(directory)
    return {
        **environment(manifests, dict(pods(manifests))[name], SECRETS),
        "DYNEIN_ENDPOINT_URL": engine.endpoint,
        "DYNEIN_PORT": str(port),
        "DYNEIN_OPS_PORT": str(free_port()),
    }


KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


# --- the image itself -------------------------------------------------------------------------------------------------


async def test_the_base_is_pinned_and_the_user_is_the_pods(image: Image, all_roles: Manifest) -> None:
    # One base for all stages, and no other image can come in its place, whatever becomes of the tag.
    assert {rest.partition(" AS ")[0] for word, rest in instructions() if word == "FROM"} == {"${BASE}"}
    [(name, base)] = [tuple(rest.split("=", 1)) for word, rest in instructions() if word == "ARG"]
    assert name == "BASE"
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    tag = base.partition("@")[0]
    assert f"docker buildx imagetools inspect {tag} " in DOCKERFILE.read_text(), "how it is renewed"
    context_of = all_roles["spec"]["securityContext"]
    assert image.stage.user == f"{context_of['runAsUser']}:{context_of['runAsGroup']}"
    assert image.stage.exposed == [" ".join(str(port["containerPort"]) for port in container(all_roles)["ports"])]
    assert "0.0.0.0" in image.stage.cmd


async def test_the_context_is_what_is_needed_and_no_more() -> None:
    assert {path.parts[0] for path in context()} == {"LICENSE", "README.md", "dynein", "k8s", "pyproject.toml"}
    assert all(path.suffix in {".py", ".typed", ".md", ".toml", ".txt", ""} for path in context())
    assert IGNORED.name == "Dockerfile.dockerignore", "where the builder looks for it"


async def test_what_is_installed_is_what_is_pinned(image: Image) -> None:
    listed = await run(
        image,
        [
            "python",
            "-c",
            "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))",
        ],
        {},
    )
    assert listed.code == 0, listed.output
    pinned = {line.partition(" ")[0] for line in (K8S / "requirements.txt").read_text().splitlines() if "==" in line}
    assert {_canonical(line) for line in listed.output.split()} == pinned | {f"dynein=={__version__}"}


def _canonical(pin: str) -> str:
    """As PyPI spells the name (PEP 503)."""
    name, _, version = pin.partition("==")
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"


async def test_the_image_installs_nothing_whose_hash_is_not_known() -> None:
    commands = [part for word, rest in instructions() if word == "RUN" for part in rest.split("&&")]
    from_index = [part for part in commands if "pip" in part and " install " in part and "--no-index" not in part]
    assert len(from_index) == 2
    assert all("--require-hashes" in part and "--only-binary=:all:" in part for part in from_index)


async def test_it_can_send_traces(image: Image) -> None:
    loaded = await run(
        image, ["python", "-c", "import dynein.observability.otel as otel; print(otel.SERVICE_NAME)"], {}
    )
    assert loaded.output == "dynein\n"


async def test_it_runs_as_somebody_who_can_write_nowhere(image: Image) -> None:
    if not image.confined:
        missing("confinement (root on Linux, with util-linux)", "run these tests as root")
    who = await run(image, ["python", "-c", "import os; print(os.getuid(), os.getgid(), os.getgroups())"], {})
    assert who.output.split(maxsplit=2)[:2] == image.stage.user.split(":")
    program = """
import os, sys
for place in ["/", "/tmp", "/var/tmp", os.path.dirname(os.__file__), sys.prefix, os.path.expanduser("~")]:
    try:
        open(os.path.join(place, "written"), "w")
    except OSError as error:
        print(error.strerror)
    else:
        sys.exit(place + " can be written to")
"""
    tried = await run(image, ["python", "-c", program], {})
    assert tried.code == 0, tried.output
    assert len(tried.output.splitlines()) == 6


async def test_the_entry_point_is_dynein(image: Image) -> None:
    version = await run(image, [*image.stage.entrypoint, "--version"], {})
    assert version == (0, f"dynein {__version__}\n")
    # The image's command, with no settings at all, gets as far as asking for what only its owner can know.
    alone = await run(image, [*image.stage.entrypoint, *image.stage.cmd], {})
    assert alone.code == 1
    assert alone.output.startswith("error: DYNEIN_TOKEN_SECRETS is needed")


# --- as the manifests run it ------------------------------------------------------------------------------------------


class NodeMetadata(NamedTuple):
    """The metadata service of a node, which has its role."""

    url: str
    requests: list[str]


@contextlib.asynccontextmanager
async def node_metadata() -> AsyncIterator[NodeMetadata]:
    requests: list[str] = []

    async def respond(request: web.BaseRequest) -> web.Response:
        requests.append(request.path)
        return web.Response(status=404)

    runner = web.ServerRunner(web.Server(respond))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield NodeMetadata(f"http://127.0.0.1:{runner.addresses[0][1]}", requests)
    finally:
        await runner.cleanup()


async def test_without_a_role_a_pod_says_so_at_once(image: Image, engine: Fleet, all_roles: Manifest) -> None:
    async with node_metadata() as node:
        given = {
            **pod_environment("base", "dynein", engine, free_port()),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": node.url,
        }
        alone = await run(image, [*image.stage.entrypoint, *container(all_roles)["args"]], given)
    assert alone.code == 1
    assert "no AWS credentials were found: give the process some" in alone.output
    assert node.requests == [], "it did not go looking for the node's role"


async def test_the_job_prepares_queues_and_table(image: Image, engine: Fleet) -> None:
    [(name, job)] = pods(render(BOOTSTRAP))
    given = {**pod_environment(BOOTSTRAP, name, engine, 0), **KEYS}
    for outcome in ("created", "verified"):
        done = await run(image, [*image.stage.entrypoint, *container(job)["args"]], given)
        assert done.code == 0, done.output
        assert done.output.count(outcome) == 4, done.output


async def submit(engine: Fleet, pod: Running, region: str, queue: str, policy: str) -> None:
    """A job goes in, and comes out; a large one, which must not be kept in a file meanwhile."""
    # The region of the settings: another one has other queues.
    opened = get_session().create_client(
        "sqs", region_name=region, endpoint_url=engine.endpoint, aws_access_key_id="a", aws_secret_access_key="b"
    )
    async with opened as sqs:
        url = (await sqs.create_queue(QueueName=queue))["QueueUrl"]
        body = "x" * 200_000
        job: dict[str, Any] = {"queue": queue, "body": body, "policy": policy}
        if policy == "SCHEDULED":
            job["delay"] = 1
        async with engine.http.post(f"{pod.url}/v1/jobs", json=job) as answer:
            assert answer.status == 202, await answer.text()

        async def arrived() -> str:
            found = (await sqs.receive_message(QueueUrl=url)).get("Messages", [])
            return str(found[0]["Body"]) if found else ""

        assert await until(arrived, "the job arrives") == body


async def test_a_pod_lives_as_its_probes_expect(
    image: Image, engine: Fleet, all_roles: Manifest, tmp_path: Path
) -> None:
    given = {**pod_environment("base", "dynein", engine, 0), **KEYS}
    linger_s, grace_s = float(given["DYNEIN_LINGER_S"]), all_roles["spec"]["terminationGracePeriodSeconds"]
    assert linger_s < Settings(linger_s=linger_s).drain_s < grace_s
    # Once is enough. It is tried again with more time on a machine so busy that the time to linger was over too soon.
    for longer in (1, 4, 16):
        given |= {"DYNEIN_LINGER_S": str(linger_s * longer), "DYNEIN_DRAIN_S": "120", "DYNEIN_PORT": str(free_port())}
        if await lives_and_lingers(image, engine, container(all_roles), given, tmp_path / f"log-{longer}"):
            return
    pytest.fail("no lingering pod was seen to take a job")


async def lives_and_lingers(image: Image, engine: Fleet, only: Manifest, given: dict[str, str], log: Path) -> bool:
    """Start a pod and stop it; was a job taken after ``/readyz`` said no, within the time to linger?"""
    took_a_job = False
    async with container_of(image, only["args"], given, log, int(given["DYNEIN_PORT"])) as pod:
        await pod.passes(only["startupProbe"])
        await pod.passes(only["readinessProbe"])
        await pod.passes(only["livenessProbe"])
        assert (await run(image, image.stage.healthcheck, given)).code == 0
        await submit(engine, pod, given["DYNEIN_REGION"], "from-a-pod", "SCHEDULED")

        stopped_at = monotonic()
        pod.process.terminate()

        async def not_ready() -> bool:
            return await pod.status("/readyz") in {503, None}

        await until(not_ready, "/readyz says no, or is gone")
        with contextlib.suppress(aiohttp.ClientConnectionError):
            assert await pod.status("/healthz") in {200, None}
            await submit(engine, pod, given["DYNEIN_REGION"], "from-a-lingering-pod", "IMMEDIATE")
            took_a_job = True
        assert await pod.ended() == 0, pod.log
        assert monotonic() - stopped_at >= float(given["DYNEIN_LINGER_S"])
        assert (await run(image, image.stage.healthcheck, given)).code != 0
    lines = pod.log.splitlines()
    assert lines
    assert all(line.startswith("{") for line in lines), "JSON, as the settings say"
    return took_a_job


# --- the role, as IRSA gives it ---------------------------------------------------------------------------------------


class SecurityTokenService:
    """AWS's STS, as far as IRSA goes: a service account's token for temporary credentials."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.granted: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        asked = parse_qs(await request.text())
        assert asked["Action"] == ["AssumeRoleWithWebIdentity"]
        if asked["WebIdentityToken"] != [self._token]:
            return web.Response(status=403)
        self.granted += asked["RoleArn"]
        return web.Response(
            content_type="text/xml",
            text="""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
            <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIATEST</AccessKeyId>
            <SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>
            <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
            </AssumeRoleWithWebIdentityResponse>""",
        )


async def test_the_role_comes_from_the_token_that_the_webhook_mounts(
    image: Image, engine: Fleet, all_roles: Manifest, tmp_path: Path
) -> None:
    port, only = free_port(), container(all_roles)
    # Readable by the group of `fsGroup` alone, as the kubelet makes it.
    token = image.stage.root / "token"
    token.write_text("a-token-of-the-service-account")
    if image.confined:
        os.chown(token, 0, all_roles["spec"]["securityContext"]["fsGroup"])
        token.chmod(0o640)
    service = SecurityTokenService(token.read_text())
    application = web.Application()
    application.router.add_post("/", service.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert runner.addresses
        given = {
            **pod_environment("base", "dynein", engine, port),
            # What the webhook adds.
            "AWS_ROLE_ARN": ROLE,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_STS_REGIONAL_ENDPOINTS": "regional",
            # Where STS is, here.
            "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{runner.addresses[0][1]}",
            "DYNEIN_LINGER_S": "0",
        }
        async with container_of(image, only["args"], given, tmp_path / "log", port) as pod:
            await pod.passes(only["startupProbe"])
            await pod.passes(only["readinessProbe"])
            assert set(service.granted) == {ROLE}
            assert await pod.terminate() == 0, pod.log
    finally:
        await runner.cleanup()
        await pause(0)
