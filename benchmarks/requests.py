"""Raw HTTP requests for the load generator, to Dynein and to SQS."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.jobs import QUEUE, body_text

FAR = "2d"


def dynein_job(*, scheduled: bool) -> dict[str, Any]:
    """One job as a user submits it."""
    job: dict[str, Any] = {"queue": QUEUE, "body": body_text()}
    return job | {"delay": FAR} if scheduled else job


def post_single(address: str, *, scheduled: bool) -> str:
    """``POST /v1/jobs``."""
    return post(address, "/v1/jobs", json.dumps(dynein_job(scheduled=scheduled)))


def post_batch(address: str, jobs: int, *, scheduled: bool) -> str:
    """``POST /v1/jobs/batch``."""
    return post(address, "/v1/jobs/batch", json.dumps({"jobs": [dynein_job(scheduled=scheduled)] * jobs}))


def raw_send_message(address: str) -> str:
    """The bare SQS call, with a signature, as short as possible: the lower bound of an API's latency."""
    body = json.dumps({"QueueUrl": f"http://{address}/000000000000/{QUEUE}", "MessageBody": body_text()})
    return post(address, "/", body, "X-Amz-Target: AmazonSQS.SendMessage\r\nAuthorization: AWS4-HMAC-SHA256 stub\r\n")


def post(address: str, path: str, body: str, headers: str = "") -> str:
    return (
        f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{headers}"
        f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
    )
