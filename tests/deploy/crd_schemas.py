"""The parts of custom resources that the manifests use, closed: whatever is not named here is an error.

The definitions themselves are far larger and come with the operators. From the documentation of KEDA (2.13 and later)
and of the Prometheus operator.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
DURATION: Schema = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}


def closed(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these fields and no others."""
    properties = {**required, **(optional or {})}
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
    }


def resource(api_version: str, kind: str, spec: Schema) -> Schema:
    metadata = closed({"name": TEXT, "namespace": TEXT, "labels": LABELS}, {"annotations": LABELS})
    return closed({"apiVersion": {"const": api_version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


_SCALING_POLICY = closed({"type": {"enum": ["Pods", "Percent"]}, "value": COUNT, "periodSeconds": COUNT})
_SCALING_RULES = closed(
    {},
    {
        "stabilizationWindowSeconds": COUNT,
        "selectPolicy": {"enum": ["Max", "Min", "Disabled"]},
        "policies": {"type": "array", "items": _SCALING_POLICY, "minItems": 1},
    },
)
_SQS_TRIGGER = closed(
    {
        "type": {"const": "aws-sqs-queue"},
        # KEDA's trigger metadata is text throughout, numbers and truth values too.
        "metadata": closed(
            {"queueURL": TEXT, "awsRegion": TEXT, "queueLength": {"type": "string", "pattern": r"^[1-9]\d*$"}},
            {
                "activationQueueLength": {"type": "string", "pattern": r"^\d+$"},
                "scaleOnInFlight": {"enum": ["true", "false"]},
                "scaleOnDelayed": {"enum": ["true", "false"]},
                "awsEndpoint": TEXT,
            },
        ),
        "authenticationRef": closed({"name": TEXT}),
    }
)
_CPU_TRIGGER = closed(
    {
        "type": {"const": "cpu"},
        "metricType": {"enum": ["Utilization", "AverageValue"]},
        "metadata": closed({"value": {"type": "string", "pattern": r"^\d+$"}}, {"containerName": TEXT}),
    }
)
_PROMETHEUS_TRIGGER = closed(
    {
        "type": {"const": "prometheus"},
        "metadata": closed(
            {"serverAddress": TEXT, "query": TEXT, "threshold": {"type": "string", "pattern": r"^[1-9]\d*$"}},
            {"ignoreNullValues": {"enum": ["true", "false"]}, "activationThreshold": TEXT},
        ),
    }
)
_TRIGGERS = [_SQS_TRIGGER, _PROMETHEUS_TRIGGER, _CPU_TRIGGER]
SCALED_OBJECT = resource(
    "keda.sh/v1alpha1",
    "ScaledObject",
    closed(
        {
            "scaleTargetRef": closed({"name": TEXT}, {"apiVersion": TEXT, "kind": TEXT}),
            "triggers": {
                "type": "array",
                "items": {"oneOf": [_SQS_TRIGGER, _PROMETHEUS_TRIGGER, _CPU_TRIGGER]},
                "minItems": 1,
            },
        },
        {
            "minReplicaCount": COUNT,
            "maxReplicaCount": COUNT,
            "pollingInterval": COUNT,
            "cooldownPeriod": COUNT,
            "advanced": closed(
                {},
                {
                    "horizontalPodAutoscalerConfig": closed(
                        {}, {"behavior": closed({}, {"scaleUp": _SCALING_RULES, "scaleDown": _SCALING_RULES})}
                    )
                },
            ),
        },
    ),
)
TRIGGER_AUTHENTICATION = resource(
    "keda.sh/v1alpha1",
    "TriggerAuthentication",
    closed(
        {
            "podIdentity": closed(
                {"provider": {"const": "aws"}}, {"identityOwner": {"enum": ["keda", "workload"]}, "roleArn": TEXT}
            )
        }
    ),
)
_ENDPOINT = closed({"port": TEXT, "path": TEXT, "interval": DURATION, "scrapeTimeout": DURATION})
SERVICE_MONITOR = resource(
    "monitoring.coreos.com/v1",
    "ServiceMonitor",
    closed(
        {
            "selector": closed({"matchLabels": LABELS}),
            "endpoints": {"type": "array", "items": _ENDPOINT, "minItems": 1},
        },
        {"jobLabel": TEXT, "podTargetLabels": {"type": "array", "items": TEXT}},
    ),
)
_ALERT = closed(
    {
        "alert": TEXT,
        "expr": TEXT,
        "for": DURATION,
        "labels": closed({"severity": {"enum": ["critical", "warning"]}}),
        "annotations": closed({"summary": TEXT, "description": TEXT, "runbook_url": TEXT}),
    }
)
_RECORDING = closed({"record": TEXT, "expr": TEXT})
_GROUP = closed(
    {"name": TEXT, "rules": {"type": "array", "items": {"oneOf": [_ALERT, _RECORDING]}, "minItems": 1}},
)
PROMETHEUS_RULE = resource(
    "monitoring.coreos.com/v1",
    "PrometheusRule",
    closed({"groups": {"type": "array", "items": _GROUP, "minItems": 1}}),
)
SCHEMAS = {
    ("keda.sh/v1alpha1", "ScaledObject"): SCALED_OBJECT,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): TRIGGER_AUTHENTICATION,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PROMETHEUS_RULE,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): SERVICE_MONITOR,
}
