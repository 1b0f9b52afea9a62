"""The CloudFormation template: a stack of it is what the code wants, and each role's policy is what that role does."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from dynein.cli.engine import EmbeddedEngine
from dynein.settings import Settings
from tests.acceptance.fleet import HANG_S, REGION, Fleet, free_port
from tests.acceptance.test_bootstrap import outcomes, refusal
from tests.deploy.account import ACCOUNT, EXPECTED, PARAMETERS, PROCESSES, SERVICE, Account, Story, everything
from tests.deploy.guard import Engine
from tests.deploy.iam import Access, Policy, leading_keys
from tests.deploy.rendering import K8S, ROOT, named, of_kind, pods, render
from tests.deploy.stack import ROLES, TEMPLATE, Stack, client, deploy, of_type, resolved, template

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROVIDER = "oidc.eks.us-east-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
OIDC = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{PROVIDER}"
IAM = ROOT / "docs" / "iam"
"""The policies as files, for those who have no CloudFormation."""
PAGE = ROOT / "docs" / "how-to" / "aws.md"
MADE_BY_BOOTSTRAP = {"MakeTheQueues", "MakeTheTable"}
"""Statements of the operator's file that a stack makes needless."""
SECOND = {"dynein-inbound": "second-inbound", "dynein-dead-letter": "second-letters", "table/dynein": "table/second"}
SECOND_SETTINGS: dict[str, Any] = {
    "DYNEIN_TABLE": "second",
    "DYNEIN_INBOUND_QUEUE": "second-inbound",
    "DYNEIN_DEAD_LETTER_QUEUE": "second-letters",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def account(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Account]:
    """On moto, which has CloudFormation and IAM."""
    directory = tmp_path_factory.mktemp("account")
    async with (
        EmbeddedEngine(engine="moto", host="127.0.0.1", port=free_port(), data_dir=directory / "engine") as engine,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        fleet = Fleet(directory, engine, http)
        try:
            yield Account(fleet, Engine(engine.endpoint_url, REGION, ACCOUNT, http))
        finally:
            await fleet.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(account: Account) -> Stack:
    """With as few parameters as it takes."""
    made = await deploy(account.endpoint, REGION, "dynein", **PARAMETERS)
    async with account.fleet.dynamodb() as dynamodb:
        # moto deviates: its CloudFormation passes this over.
        ttl: Any = template()["Resources"]["Table"]["Properties"]["TimeToLiveSpecification"]
        await dynamodb.update_time_to_live(TableName="dynein", TimeToLiveSpecification=ttl)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(account: Account, stack: Stack) -> Story:
    return await everything(account, stack.policies)


# --- the template by itself -------------------------------------------------------------------------------------------


async def test_cfn_lint_has_nothing_to_say() -> None:
    program = str(Path(sys.executable).with_name("cfn-lint"))
    command = [program, "--include-checks", "I", "--", str(TEMPLATE)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_its_defaults_are_those_of_the_settings() -> None:
    settings = Settings()
    defaults = {name: parameter.get("Default") for name, parameter in template()["Parameters"].items()}
    assert defaults["TableName"] == settings.table
    assert defaults["InboundQueueName"] == settings.inbound_queue
    assert defaults["DeadLetterQueueName"] == settings.dead_letter_queue
    assert defaults["VisibilityTimeoutSeconds"] == settings.visibility_timeout_s


async def test_what_holds_jobs_outlives_the_stack() -> None:
    storage = of_type("AWS::SQS::Queue") | of_type("AWS::DynamoDB::Table")
    assert storage.keys() == {"InboundQueue", "DeadLetterQueue", "Table"}
    for resource in storage.values():
        # A first deployment that fails may take away what it made; nothing else may.
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("arn:aws:sqs:eu-central-1:111122223333:orders-*", True),
        ("arn:aws-cn:sqs:cn-north-1:111122223333:orders-*.fifo", True),
        ("arn:aws:sqs:eu-central-1:111122223333:mail", True),
        ("arn:aws:sqs:eu-central-1:111122223333:*", False),
        ("arn:aws:sqs:eu-central-1:*:orders", False),
        ("arn:aws:sqs:*:111122223333:orders", False),
        ("orders-*", False),
        ("*", False),
    ],
)
async def test_no_pattern_for_all_queues_is_accepted(value: str, fits: bool) -> None:  # noqa: FBT001 - a table
    pattern = template()["Parameters"]["DestinationQueueArns"]["AllowedPattern"]
    assert (re.fullmatch(pattern, value) is not None) is fits


# --- who reaches what it makes, and under which key -------------------------------------------------------------------

KEY = "arn:aws:kms:REGION:ACCOUNT:key/YOUR-KEY-ID"
VALUES: dict[str, Any] = {
    "AWS::Partition": "aws",
    "AWS::Region": "REGION",
    "AWS::AccountId": "ACCOUNT",
    "AWS::URLSuffix": "amazonaws.com",
    "TableName": "dynein",
    "InboundQueue": "arn:aws:sqs:REGION:ACCOUNT:dynein-inbound",
    "DeadLetterQueue": "arn:aws:sqs:REGION:ACCOUNT:dynein-dead-letter",
    "StorageKeyArn": KEY,
    "DyneinRoleArns": ["arn:aws:iam::ACCOUNT:role/dynein", "arn:aws:iam::ACCOUNT:role/dynein-operator"],
    **{f"{role}Role": f"arn:aws:iam::ACCOUNT:role/{role}" for role in ROLES},
}
"""What stands in the files for what differs from account to account."""


def made(resource: str, name: str, *conditions: str) -> Any:
    """A property of a resource."""
    return resolved(template()["Resources"][resource]["Properties"].get(name), conditions, VALUES)


def in_file(name: str) -> Any:
    return json.loads((IAM / name).read_text())


@pytest.mark.parametrize("queue", ["InboundQueue", "DeadLetterQueue"])
async def test_its_queues_take_nothing_in_plain_text_and_only_its_own_roles_use_them(queue: str) -> None:
    file = json.dumps(in_file("queue-policy.json")).replace(VALUES["InboundQueue"], VALUES[queue])
    assert made(f"{queue}Policy", "PolicyDocument", "HasDyneinRoles") == json.loads(file)
    alone = made(f"{queue}Policy", "PolicyDocument")
    assert [statement["Sid"] for statement in alone["Statement"]] == ["OnlyOverTls"]


@pytest.mark.parametrize("queue", ["InboundQueue", "DeadLetterQueue"])
@pytest.mark.parametrize("way", ["HasRoleTogether", "HasRolesSplit"])
async def test_roles_of_the_stack_that_use_a_queue_are_those_whose_policy_allows_it(
    stack: Stack, queue: str, way: str
) -> None:
    document = made(f"{queue}Policy", "PolicyDocument", "HasDyneinRoles", way)
    [_, only] = document["Statement"]
    name = VALUES[queue].rsplit(":", 1)[1]
    users = {
        f"{role}Role"
        for role in (("Service", "Operator") if way == "HasRoleTogether" else (*PROCESSES, "Operator"))
        for action in only["Action"]
        if stack.policies[role].allowing(Access(action, f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"))
    }
    assert set(only["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]) == {VALUES[role] for role in users}


async def test_its_table_takes_nothing_in_plain_text() -> None:
    assert made("Table", "ResourcePolicy") == {"PolicyDocument": in_file("table-policy.json")}


async def test_a_key_of_the_owner_is_used_for_all_that_holds_jobs() -> None:
    for queue in ("InboundQueue", "DeadLetterQueue"):
        assert made(queue, "SqsManagedSseEnabled") is True
        assert made(queue, "SqsManagedSseEnabled", "HasStorageKey") is False
        assert made(queue, "KmsMasterKeyId", "HasStorageKey") == KEY
    expected = {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY}
    assert made("Table", "SSESpecification", "HasStorageKey") == expected
    assert made("StorageKeyPolicy", "PolicyDocument") == in_file("storage-key.json")
    attached = template()["Resources"]["StorageKeyPolicy"]["Properties"]["Roles"]
    assert attached == template()["Resources"]["DestinationKeyPolicy"]["Properties"]["Roles"]


# --- on an account ----------------------------------------------------------------------------------------------------


async def test_bootstrap_finds_nothing_to_change_and_writes_what_a_stack_cannot(story: Story) -> None:
    resources = ("queue dynein-dead-letter", "queue dynein-inbound", "table dynein")
    assert outcomes(story.bootstrapped) == {**dict.fromkeys(resources, "verified"), "layout": "created"}
    assert story.unchanged


async def test_jobs_of_every_kind_arrive_with_each_role_under_its_own_policy(story: Story) -> None:
    assert story.delivered == EXPECTED
    assert [finding["repaired"] for finding in story.repaired["findings"]] == [True]
    # At least: what was slow to be taken off a queue may have come twice.
    assert story.redriven["redriven"] >= 2
    assert sum(story.redriven["failed"].values()) >= 1


async def test_a_job_for_a_queue_that_the_policy_leaves_out_is_refused_with_a_reason(story: Story) -> None:
    status, problem = story.outside
    assert (status, problem["code"]) == (422, "unknown-queue")
    assert "sqs:SendMessage" in problem["fix"]


@pytest.mark.parametrize("role", [*PROCESSES, "Operator"])
async def test_a_role_may_do_what_it_does_and_nothing_else(story: Story, role: str) -> None:
    guard = story.guards[role]
    planned = {Access("sqs:GetQueueUrl", f"arn:aws:sqs:{REGION}:{ACCOUNT}:payroll")} if role == "Api" else set()
    assert guard.seen.refused == planned, "it needs more"
    assert guard.policy.grants == story.used(role), "it does not need so much"
    for sid, statement in guard.policy.statements.items():
        keys = {
            key
            for access in guard.seen.allowed
            for key in access.leading_keys
            if any(grant.sid == sid for grant in guard.policy.allowing(access))
        }
        unused = [pattern for pattern in leading_keys(statement) or () if not any(fnmatch(k, pattern) for k in keys)]
        assert not unused, f"{sid} does not need these partitions"


async def test_no_policy_names_more_than_it_must(stack: Stack) -> None:
    for policy in stack.policies.values():
        assert not any("*" in grant.action for grant in policy.grants)
        patterns = {resource for resource in policy.resources() if "*" in resource or "?" in resource}
        assert patterns == {PARAMETERS["DestinationQueueArns"]}


async def test_the_policy_for_all_roles_in_one_process_is_the_three_together(stack: Stack) -> None:
    together = {grant for role in PROCESSES for grant in stack.policies[role].grants}
    assert stack.policies["Service"].grants == together


async def test_the_operator_cannot_change_what_the_stack_made(account: Account, stack: Stack, story: Story) -> None:
    del story  # after it: this one is refused
    before = await account.attributes("dynein-inbound")
    async with account.guard(stack.policies["Operator"]) as guard:
        changed = {**SERVICE, "DYNEIN_SHARD_COUNT": "", "DYNEIN_VISIBILITY_TIMEOUT_S": "30"}
        refused = await account.fleet.run("bootstrap", **changed, DYNEIN_ENDPOINT_URL=guard.url)
    assert "sqs:SetQueueAttributes" in refusal(refused)
    assert await account.attributes("dynein-inbound") == before


async def test_every_operation_on_the_table_counts_for_the_alarm(story: Story) -> None:
    used = {operation for role in PROCESSES for operation in story.guards[role].seen.operations}
    watched = {
        dimension["Value"]
        for query in template()["Resources"]["SystemErrorAlarm"]["Properties"]["Metrics"]
        for dimension in query.get("MetricStat", {}).get("Metric", {}).get("Dimensions", [])
        if dimension["Name"] == "Operation"
    }
    assert watched == used


async def test_cloudwatch_takes_every_alarm(account: Account) -> None:
    """moto's CloudFormation has no alarms, its CloudWatch does: made from the template's properties."""
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:pages"
    values = {name: str(found.get("Default")) for name, found in template()["Parameters"].items()}
    values |= {"AlarmTopicArn": topic}

    def resolved(value: Any) -> Any:
        match value:
            case {"Ref": name}:
                return values[name]
            case {"Fn::If": ["HasAlarmTopic", there, _]}:
                return resolved(there)
            case dict():
                return {key: resolved(found) for key, found in value.items()}
            case list():
                return [resolved(found) for found in value]
        return value

    alarms = {name: resolved(found["Properties"]) for name, found in of_type("AWS::CloudWatch::Alarm").items()}
    async with client("cloudwatch", account.endpoint, REGION) as cloudwatch:
        for name, alarm in alarms.items():
            await cloudwatch.put_metric_alarm(AlarmName=name, **{**alarm, "Threshold": float(alarm["Threshold"])})
        there = (await cloudwatch.describe_alarms())["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in there} == alarms.keys()
    assert all(alarm["AlarmActions"] == alarm["OKActions"] == [topic] for alarm in there)


# --- other ways to make it --------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def without_a_stack(account: Account) -> list[str]:
    """`dynein bootstrap` on an account that has nothing, and again with another setting; by the operator's file."""
    text = (IAM / "operator.json").read_text()
    for ours, theirs in SECOND.items():
        text = text.replace(ours, theirs)
    policy = Policy(json.loads(text.replace("REGION", REGION).replace("ACCOUNT", ACCOUNT)))
    async with account.guard(policy) as guard:
        settings = {**SERVICE, **SECOND_SETTINGS, "DYNEIN_ENDPOINT_URL": guard.url}
        said = [
            await account.fleet.command("bootstrap", **{**settings, "DYNEIN_VISIBILITY_TIMEOUT_S": "16"}),
            await account.fleet.command("bootstrap", **settings),
        ]
        assert guard.seen.refused == set()
        making = {grant for grant in policy.grants if grant.sid in MADE_BY_BOOTSTRAP}
        assert making <= {grant for access in guard.seen.allowed for grant in policy.allowing(access)}
    return said


async def test_a_stack_makes_what_bootstrap_makes(
    account: Account, stack: Stack, story: Story, without_a_stack: list[str]
) -> None:
    del stack, story  # made before
    created, changed = map(outcomes, without_a_stack)
    assert set(created.values()) == {"created"}
    assert [name for name, outcome in changed.items() if outcome != "verified"] == ["queue second-inbound"]
    by_stack = json.dumps(await account.made("dynein-inbound", "dynein-dead-letter", "dynein"))
    by_bootstrap = await account.made("second-inbound", "second-letters", "second")
    for ours, theirs in SECOND.items():
        by_stack = by_stack.replace(ours, theirs)
    assert json.loads(by_stack) == by_bootstrap


async def test_a_stack_around_what_bootstrap_made(account: Account, without_a_stack: list[str]) -> None:
    del without_a_stack  # made it
    around = await deploy(
        account.endpoint, REGION, "second", **PARAMETERS, Storage="existing", TableName="second",
        InboundQueueName="second-inbound", DeadLetterQueueName="second-letters", OidcProviderArn=OIDC,
    )  # fmt: skip
    assert not around.resources.keys() & {"InboundQueue", "DeadLetterQueue", "Table"}
    for role in ROLES:
        assert set(around.policies[role].resources()) == {
            PARAMETERS["DestinationQueueArns"],
            f"arn:aws:sqs:{REGION}:{ACCOUNT}:second-inbound",
            f"arn:aws:sqs:{REGION}:{ACCOUNT}:second-letters",
            f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/second",
        }
    assert trusted(around) == {"Service": "dynein:dynein", "Operator": "dynein:dynein-operator"}


async def test_roles_apart_and_destinations_under_keys(account: Account) -> None:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    apart = await deploy(
        account.endpoint, REGION, "third", **PARAMETERS, TableName="third", InboundQueueName="third-inbound",
        DeadLetterQueueName="third-letters", BillingMode="PROVISIONED", WriteCapacityUnits="70", ServiceRoles="split",
        OidcProviderArn=OIDC, Namespace="jobs", ServiceAccount="late", DestinationKeyArns=key,
    )  # fmt: skip
    assert trusted(apart) == {
        "Api": "jobs:late-api",
        "Ingester": "jobs:late-ingester",
        "Dispatcher": "jobs:late-dispatcher",
        "Operator": "jobs:dynein-operator",
    }
    assert apart.attached == {role: {apart.outputs["DestinationKeyPolicyArn"]} for role in apart.trust}
    # moto deviates: it passes over the policies that a role names itself.
    named = {name: role["Properties"]["ManagedPolicyArns"] for name, role in of_type("AWS::IAM::Role").items()}
    assert named == {f"{role}Role": [{"Ref": f"{role}Policy"}] for role in ROLES}
    async with account.fleet.dynamodb() as dynamodb:
        throughput = (await dynamodb.describe_table(TableName="third"))["Table"]["ProvisionedThroughput"]
    assert (throughput["ReadCapacityUnits"], throughput["WriteCapacityUnits"]) == (50, 70)


def trusted(stack: Stack) -> dict[str, str]:
    """Who may take each role: namespace and service account, and nobody else."""
    found = {}
    for role, document in stack.trust.items():
        (statement,) = document["Statement"]
        assert statement["Principal"] == {"Federated": OIDC}
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert statement["Condition"].keys() == {"StringEquals"}
        conditions = dict(statement["Condition"]["StringEquals"])
        assert conditions.pop(f"{PROVIDER}:aud") == "sts.amazonaws.com"
        found[role] = conditions.pop(f"{PROVIDER}:sub").removeprefix("system:serviceaccount:")
        assert conditions == {}
    return found


# --- the files and the page -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
async def test_the_policy_files_are_those_of_the_stack(stack: Stack, role: str) -> None:
    text = (IAM / f"{role.lower()}.json").read_text()
    text = text.replace("REGION", REGION).replace("ACCOUNT", ACCOUNT).replace("YOUR-DESTINATION-PREFIX", "orders")
    in_file = Policy(json.loads(text)).statements
    if role == "Operator":  # where there is no stack, bootstrap makes what it would have made
        in_file = {sid: found for sid, found in in_file.items() if sid not in MADE_BY_BOOTSTRAP}
    of_stack = stack.policies[role].statements
    assert in_file.keys() == of_stack.keys()
    for sid, statement in of_stack.items():
        assert Policy({"Statement": [statement]}).grants == Policy({"Statement": [in_file[sid]]}).grants
        assert list(Policy({"Statement": [statement]}).resources()) == [in_file[sid]["Resource"]]
        assert leading_keys(statement) == leading_keys(in_file[sid])


def page() -> str:
    return PAGE.read_text()


async def test_the_page_lists_every_parameter_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? *\|", page().split("## Parameters")[1], re.MULTILINE)
    defaults = {name: str(found.get("Default", "")) for name, found in template()["Parameters"].items()}
    assert {name: default for name, default in rows if not name.endswith("PolicyArn")} == defaults


async def test_the_outputs_that_the_page_names_are_there() -> None:
    mentioned = set(re.findall(r"\b\w+(?:PolicyArn|RoleArn)\b|(?<=OutputKey==`)\w+", page()))
    assert mentioned <= template()["Outputs"].keys()
    assert {f"{role}PolicyArn" for role in ROLES} <= mentioned


async def test_the_overlay_on_the_page_gives_each_role_its_own_service_account(tmp_path: Path) -> None:
    files = re.findall(r"^```yaml\n# (deploy/dynein/\S+)\n(.*?)^```", page(), re.DOTALL | re.MULTILINE)
    shutil.copytree(K8S, tmp_path / "k8s")
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    manifests = render(tmp_path / "deploy" / "dynein")
    used = {name: pod["spec"]["serviceAccountName"] for name, pod in pods(manifests)}
    assert used == {f"dynein-{role.lower()}": f"dynein-{role.lower()}" for role in PROCESSES}
    for role in PROCESSES:
        found = named(manifests, "ServiceAccount", f"dynein-{role.lower()}")
        assert found["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": f"the stack's {role}RoleArn"}
        assert found["automountServiceAccountToken"] is False
    assert len({manifest["metadata"]["namespace"] for manifest in of_kind(manifests, "ServiceAccount")}) == 1
