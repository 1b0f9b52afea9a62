"""The CloudFormation template, read; and stacks made of it on an engine that understands CloudFormation (moto)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]
from aiobotocore.session import get_session

from tests.deploy.iam import Policy
from tests.deploy.rendering import ROOT

TEMPLATE = ROOT / "docs" / "aws" / "cloudformation.yaml"
ROLES = ("Api", "Ingester", "Dispatcher", "Service", "Operator")
"""Names of policies and roles in the template: ``ApiPolicy``, ``ApiRole``."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with CloudFormation's short forms, as their long ones."""


def _long_form(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    else:
        value = loader.construct_sequence(node, deep=True)
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _long_form)


@cache
def template() -> dict[str, Any]:
    """The whole template."""
    loaded: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader=_Loader)
    return loaded


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """The resources of one type, by logical id."""
    return {name: found for name, found in template()["Resources"].items() if found["Type"] == kind}


_NOTHING: Any = object()


def resolved(value: Any, conditions: Collection[str], values: Mapping[str, Any]) -> Any:
    """A part of the template as CloudFormation would make it, where these conditions hold.

    ``values``: of parameters, of pseudo parameters, and of resources (in place of their ARN).
    """
    made = value
    match value:
        case {"Ref": name} | {"Fn::GetAtt": name}:
            made = _NOTHING if name == "AWS::NoValue" else values[name.removesuffix(".Arn")]
        case {"Fn::Sub": text}:
            made = re.sub(r"\$\{([\w:]+)\}", lambda found: str(values[found[1]]), text)
        case {"Fn::If": [condition, there, otherwise]}:
            made = resolved(there if condition in conditions else otherwise, conditions, values)
        case dict():
            parts = {key: resolved(found, conditions, values) for key, found in value.items()}
            made = {key: found for key, found in parts.items() if found is not _NOTHING}
        case list():
            made = [part for found in value if (part := resolved(found, conditions, values)) is not _NOTHING]
    return made


def client(service: str, endpoint: str, region: str) -> AbstractAsyncContextManager[Any]:
    """Any service's client on an engine."""
    session: Any = get_session()  # its stubs know only the services that Dynein itself uses
    opened: AbstractAsyncContextManager[Any] = session.create_client(
        service, region_name=region, endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
    )
    return opened


class Stack(NamedTuple):
    """A stack, once made."""

    name: str
    outputs: dict[str, str]
    resources: dict[str, str]
    """Physical by logical id."""
    policies: dict[str, Policy]
    """By role, as IAM has them."""
    trust: dict[str, Mapping[str, Any]]
    """The trust policies of the roles that were made, by role."""
    attached: dict[str, set[str]]
    """The policies attached to those, by their ARN."""


async def deploy(endpoint: str, region: str, name: str, **parameters: str) -> Stack:
    """Make a stack of the file as it is, and look at what came of it."""
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    async with client("cloudformation", endpoint, region) as cloudformation:
        await cloudformation.create_stack(
            StackName=name, TemplateBody=TEMPLATE.read_text(), Parameters=given, Capabilities=["CAPABILITY_IAM"]
        )
        (made,) = (await cloudformation.describe_stacks(StackName=name))["Stacks"]
        assert made["StackStatus"] == "CREATE_COMPLETE", made
        summaries = (await cloudformation.list_stack_resources(StackName=name))["StackResourceSummaries"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}
    # moto deviates: what it does not know (alarms) is there without an id.
    resources = {found["LogicalResourceId"]: found["PhysicalResourceId"] for found in summaries if len(found) > 3}
    async with client("iam", endpoint, region) as iam:
        documents = await asyncio.gather(*(_document(iam, outputs[f"{role}PolicyArn"]) for role in ROLES))
        made_roles = [role for role in ROLES if f"{role}RoleArn" in outputs]
        trust, attached = {}, {}
        for role in made_roles:
            role_name = outputs[f"{role}RoleArn"].rsplit("/", 1)[-1]
            document = (await iam.get_role(RoleName=role_name))["Role"]["AssumeRolePolicyDocument"]
            trust[role] = json.loads(document) if isinstance(document, str) else document
            found = await iam.list_attached_role_policies(RoleName=role_name)
            attached[role] = {policy["PolicyArn"] for policy in found["AttachedPolicies"]}
    policies = {role: Policy(document) for role, document in zip(ROLES, documents, strict=True)}
    return Stack(name, outputs, resources, policies, trust, attached)


async def _document(iam: Any, arn: str) -> dict[str, Any]:
    answer = await iam.get_policy_version(PolicyArn=arn, VersionId="v1")
    document: dict[str, Any] = answer["PolicyVersion"]["Document"]
    return document
