"""The SQS half: queues that only count what is sent to them, and queues that keep it to be received."""

from __future__ import annotations

import asyncio
import itertools
import re
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from benchmarks.stub.meter import CHUNK_BYTES, Meter
from benchmarks.wall import now_us

Reply = Callable[[bytes], None]
"""Sends the JSON body of a response, now or later."""

RECEIVE_MAX = 10
_ID = re.compile(rb'"Id":\s*"([^"]{1,80})"')
_URL = re.compile(rb'"QueueUrl":\s*"[^"]*/([^"/]+)"')
_NAME = re.compile(rb'"QueueName":\s*"([^"]+)"')
_DUE_AT = re.compile(rb'"dynein-due-at":\s*\{[^}]*?"StringValue":\s*"(\d+)"')
_TOKEN = re.compile(rb'"dynein-token":\s*\{[^}]*?"StringValue":\s*"([^"]+)"')


class _SentEntry(msgspec.Struct):
    id: str = msgspec.field(name="Id")
    body: msgspec.Raw = msgspec.field(name="MessageBody")


class _Sent(msgspec.Struct):
    entries: list[_SentEntry] = msgspec.field(name="Entries")


class _Receive(msgspec.Struct):
    wait_s: float = msgspec.field(name="WaitTimeSeconds", default=0)
    entries_max: int = msgspec.field(name="MaxNumberOfMessages", default=1)


class _Message:
    __slots__ = ("body", "name")

    def __init__(self, body: bytes, name: str) -> None:
        self.body = body
        """JSON text of the body, quotes included: it goes out as it came in."""
        self.name = name


class Arrivals:
    """When watched messages came, by the wall clock of this machine, next to when they were due."""

    def __init__(self) -> None:
        self.due_ms: array[int] = array("q")
        self.at_us: array[int] = array("q")
        self.tokens: set[bytes] = set()

    def note(self, body: bytes, at_us: int) -> None:
        """Take in every entry of one SendMessageBatch."""
        for due_ms in _DUE_AT.findall(body):
            self.due_ms.append(int(due_ms))
            self.at_us.append(at_us)
        self.tokens.update(_TOKEN.findall(body))

    def take(self) -> dict[str, Any]:
        """All arrivals; they are then forgotten."""
        taken = {
            "count": len(self.due_ms),
            "distinct": len(self.tokens),
            "due_ms": self.due_ms.tolist(),
            "at_us": self.at_us.tolist(),
        }
        self.due_ms, self.at_us, self.tokens = array("q"), array("q"), set()
        return taken


class Queue:
    """A queue that keeps what it gets."""

    def __init__(self) -> None:
        self.waiting: deque[_Message] = deque()
        self.in_flight: dict[str, _Message] = {}
        self.feed: Iterator[bytes] | None = None
        """Brings messages for ever, once all that were sent have been received."""
        self.receivers: deque[tuple[Reply, int, asyncio.TimerHandle]] = deque()


class Queues:
    """Every queue name exists. ``kept`` are the queues that keep their messages; the others only count."""

    def __init__(self, meter: Meter, kept: Sequence[str]) -> None:
        self._meter = meter
        self._kept = {name.encode(): Queue() for name in kept}
        self._names = (f"m-{n}" for n in itertools.count())
        self._send_responses: dict[tuple[bytes, ...], bytes] = {}
        self._delete_responses: dict[tuple[bytes, ...], bytes] = {}
        self._attributes: dict[bytes, dict[str, str]] = {}
        self.watched = False
        self.arrivals = Arrivals()
        self.base_url = ""

    def feed(self, name: str, bodies: Sequence[str] | None) -> None:
        """Bring ``bodies`` over and over, or stop (``None``)."""
        queue = self._kept[name.encode()]
        queue.feed = None
        if bodies:
            queue.feed = itertools.cycle([msgspec.json.encode(body) for body in bodies])
            self._serve_waiting(queue)

    def depth(self, name: str) -> dict[str, int]:
        """How many messages wait and how many are in flight."""
        queue = self._kept[name.encode()]
        return {"waiting": len(queue.waiting), "in_flight": len(queue.in_flight)}

    def bodies(self, name: str) -> list[str]:
        """What waits."""
        return [msgspec.json.decode(message.body) for message in self._kept[name.encode()].waiting]

    def purge(self, name: str) -> None:
        """Forget all that wait or are in flight."""
        queue = self._kept[name.encode()]
        queue.waiting.clear()
        queue.in_flight.clear()

    def handle(self, operation: bytes, body: bytes, reply: Reply) -> None:
        """Serve one request."""
        match operation:
            case b"SendMessageBatch":
                reply(self._send_batch(body))
            case b"DeleteMessageBatch":
                reply(self._delete_batch(body))
            case b"ReceiveMessage":
                self._receive(body, reply)
            case b"SendMessage":
                self._meter.sqs("SendMessage", 1, len(body) if len(body) <= CHUNK_BYTES else _payload(body))
                reply(b'{"MessageId":"stub-message","MD5OfMessageBody":"0"}')
            case b"ChangeMessageVisibilityBatch":
                reply(self._extend(body))
            case b"GetQueueUrl" | b"CreateQueue":
                self._meter.sqs(operation.decode(), 1, 0)
                reply(msgspec.json.encode({"QueueUrl": f"{self.base_url}/000000000000/{_only(_NAME, body).decode()}"}))
            case b"GetQueueAttributes" | b"SetQueueAttributes":
                self._meter.sqs(operation.decode(), 1, 0)
                reply(self._queue_attributes(operation, body))
            case _:
                raise NotImplementedError(operation.decode())

    def _send_batch(self, body: bytes) -> bytes:
        at_us = now_us()
        ids = tuple(_ID.findall(body))
        self._meter.sqs("SendMessageBatch", len(ids), len(body) if len(body) <= CHUNK_BYTES else _payload(body))
        queue = self._kept.get(_only(_URL, body))
        if queue is not None:
            for entry in msgspec.json.decode(body, type=_Sent).entries:
                queue.waiting.append(_Message(bytes(entry.body), next(self._names)))
            self._serve_waiting(queue)
        elif self.watched:
            self.arrivals.note(body, at_us)
        response = self._send_responses.get(ids)
        if response is None:
            response = _batch_response(ids, b',"MessageId":"stub-message","MD5OfMessageBody":"0"')
            if len(self._send_responses) < 1000:  # noqa: PLR2004 - callers number their entries alike
                self._send_responses[ids] = response
        return response

    def _delete_batch(self, body: bytes) -> bytes:
        ids = tuple(_ID.findall(body))
        self._meter.sqs("DeleteMessageBatch", len(ids), 0)
        queue = self._kept.get(_only(_URL, body))
        if queue is not None:
            for entry in msgspec.json.decode(body)["Entries"]:
                queue.in_flight.pop(entry["ReceiptHandle"], None)
        response = self._delete_responses.get(ids)
        if response is None:
            response = self._delete_responses[ids] = _batch_response(ids, b"")
        return response

    def _extend(self, body: bytes) -> bytes:
        request = msgspec.json.decode(body)
        entries = request["Entries"]
        self._meter.sqs("ChangeMessageVisibilityBatch", len(entries), 0)
        queue = self._kept.get(_only(_URL, body))
        if queue is not None:
            for entry in entries:
                if entry["VisibilityTimeout"] == 0 and entry["ReceiptHandle"] in queue.in_flight:
                    queue.waiting.append(queue.in_flight.pop(entry["ReceiptHandle"]))
        return _batch_response(tuple(entry["Id"].encode() for entry in entries), b"")

    def _receive(self, body: bytes, reply: Reply) -> None:
        request = msgspec.json.decode(body, type=_Receive)
        queue = self._kept.get(_only(_URL, body)) or Queue()
        if queue.waiting or queue.feed is not None:
            reply(self._take(queue, request.entries_max))
        elif request.wait_s <= 0:
            reply(self._take(queue, 0))
        else:
            timer = asyncio.get_running_loop().call_later(request.wait_s, self._give_up, queue, reply)
            queue.receivers.append((reply, request.entries_max, timer))

    def _give_up(self, queue: Queue, reply: Reply) -> None:
        queue.receivers = deque(receiver for receiver in queue.receivers if receiver[0] is not reply)
        reply(self._take(queue, 0))

    def _serve_waiting(self, queue: Queue) -> None:
        while queue.receivers and (queue.waiting or queue.feed is not None):
            reply, entries_max, timer = queue.receivers.popleft()
            timer.cancel()
            reply(self._take(queue, entries_max))

    def _take(self, queue: Queue, entries_max: int) -> bytes:
        """Count a receive when its response is sent: a long poll is one request, and its payload is known only now."""
        parts: list[bytes] = []
        payload = 0
        for _ in range(entries_max):
            if queue.waiting:
                message = queue.waiting.popleft()
            elif queue.feed is not None:
                message = _Message(next(queue.feed), next(self._names))
            else:
                break
            queue.in_flight[message.name] = message
            name = message.name.encode()
            parts.append(
                b'{"MessageId":"%b","ReceiptHandle":"%b","MD5OfBody":"0","Attributes":{"ApproximateReceiveCount":"1"},'
                b'"Body":%b}' % (name, name, message.body)
            )
            payload += len(message.body)
        if payload > CHUNK_BYTES:
            payload = sum(len(msgspec.json.decode(part)["Body"].encode()) for part in parts)
        self._meter.sqs("ReceiveMessage", len(parts), payload)
        if not parts:
            self._meter.requests["ReceiveMessage (empty)"] += 1
            return b"{}"
        return b'{"Messages":[' + b",".join(parts) + b"]}"

    def _queue_attributes(self, operation: bytes, body: bytes) -> bytes:
        name = _only(_URL, body)
        attributes = self._attributes.setdefault(name, {"QueueArn": f"arn:aws:sqs:us-east-1:000000000000:{name!r}"})
        if operation == b"SetQueueAttributes":
            attributes.update(msgspec.json.decode(body)["Attributes"])
            return b"{}"
        queue = self._kept.get(name)
        counts = {
            "ApproximateNumberOfMessages": str(len(queue.waiting) if queue else 0),
            "ApproximateNumberOfMessagesNotVisible": str(len(queue.in_flight) if queue else 0),
            "ApproximateNumberOfMessagesDelayed": "0",
        }
        return msgspec.json.encode({"Attributes": attributes | counts})


def _batch_response(ids: tuple[bytes, ...], rest: bytes) -> bytes:
    return b'{"Successful":[' + b",".join(b'{"Id":"%b"%b}' % (name, rest) for name in ids) + b"]}"


def _only(pattern: re.Pattern[bytes], body: bytes) -> bytes:
    found = pattern.search(body)
    assert found is not None, body[:200]
    return found[1]


def _payload(body: bytes) -> int:
    """Exact, but for attributes: only bodies make a request longer than a chunk here."""
    request = msgspec.json.decode(body)
    entries = request.get("Entries", (request,))
    return sum(len(entry["MessageBody"].encode()) for entry in entries)
