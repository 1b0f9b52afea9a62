"""The trails of all jobs, and what else there is to know, from the calls that pass on all links."""

from __future__ import annotations

import itertools
from base64 import b64decode
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from dynein.core.delivered_message import TOKEN_ATTRIBUTE
from dynein.core.inbound_message import unpack
from dynein.core.job_token import parse
from dynein.core.keys import Kind, parse_partition_key, parse_sort_key
from dynein.core.ledger import FLOWS, Counts
from dynein.core.seal import Seal
from tests.acceptance.fleet import SECRET, now_ms
from tests.chaos.settings import LEASE_MS
from tests.chaos.trails import End, Receipt, Sent, Trail
from tests.chaos.wire import Call, Wire

INBOUND = "/dynein-inbound"
SEAL = Seal([SECRET.encode()])
SLOW_MS = 1_000
SHARD = "shard#"
LEDGER = "ledger#"


class Posting(NamedTuple):
    """Counts were posted to the ledger, perhaps not for the first time."""

    call: Call
    posting_id: str
    windows: dict[int, Counts]
    """By the window's start, ms."""


class Evidence:
    """Listens on all links. Trails are by job id, which a job keeps when it is moved."""

    def __init__(self, now: Callable[[], int] = now_ms) -> None:
        self._now = now
        self.trails: defaultdict[bytes, Trail] = defaultdict(Trail)
        self.postings: list[Posting] = []
        """To the conservation ledger."""
        self.engine_slow: list[tuple[int, int]] = []
        """From when until when a call was with the engine that took `SLOW_MS` or more, as on a disk that is busy."""
        self._receipts: dict[str, Receipt] = {}
        self._owned: defaultdict[tuple[str, int], list[list[int]]] = defaultdict(list)

    def listener(self, process: str) -> Wire:
        """For one connection of a process, to either service."""
        return Wire(process, self._asked, self._answered, self._now)

    def of(self, token: str) -> Trail:
        """The trail of the job with this token; an empty one if no call had it."""
        return self.trails.get(parse(token).key.job_id) or Trail()

    def owners(self, shard: int, from_ms: float, until_ms: float) -> set[str]:
        """The dispatchers that renewed a lease on the shard, in that time or so shortly before that it lasted still."""
        return {
            process
            for (process, owned), spans in self._owned.items()
            if owned == shard and any(begin <= until_ms and from_ms <= end + LEASE_MS for begin, end in spans)
        }

    def check(self) -> None:
        """Fail unless calls of every kind were seen: what is not recognised any more would be no evidence."""
        assert self._owned, "no renewal of a lease was seen"
        for name in ("submissions", "receipts", "sends", "stores", "removals", "ends"):
            assert any(getattr(trail, name) for trail in self.trails.values()), f"no {name} were seen"

    # --- what passes --------------------------------------------------------------------------------------------------

    def _asked(self, call: Call, request: Mapping[str, Any]) -> None:
        match call.operation:
            case "SendMessageBatch":
                for entry in request["Entries"]:
                    self._sent(call, request["QueueUrl"], entry)
            case "SendMessage":
                self._sent(call, request["QueueUrl"], request)
            case "DeleteMessageBatch":
                self._deleted(call, (entry["ReceiptHandle"] for entry in request["Entries"]))
            case "BatchWriteItem":
                self._written(call, itertools.chain.from_iterable(request["RequestItems"].values()))
            case "TransactWriteItems":
                self._transacted(call, request)
            case "UpdateItem" if call.process.startswith("dispatcher"):
                self._renewed(call, request["Key"]["pk"]["S"])
            case _:
                pass

    def _answered(self, call: Call, answer: Mapping[str, Any]) -> None:
        if call.operation != "ReceiveMessage":  # which may wait
            self._waited(call)
        else:
            for message in answer.get("Messages") or ():
                receipt = Receipt(call, message["MessageId"])
                self._receipts[message["ReceiptHandle"]] = receipt
                for arrival in unpack(message["Body"], SEAL).arrivals:
                    self.trails[arrival.key.job_id].receipts.append(receipt)

    def _waited(self, call: Call) -> None:
        """As one with the last, where they overlap."""
        from_ms, until_ms = call.asked_at_ms, call.answered_at_ms
        if until_ms - from_ms >= SLOW_MS:
            if self.engine_slow and from_ms <= self.engine_slow[-1][1]:
                from_ms = min(from_ms, self.engine_slow.pop()[0])
            self.engine_slow.append((from_ms, until_ms))

    def _sent(self, call: Call, url: str, message: Mapping[str, Any]) -> None:
        if TOKEN_ATTRIBUTE in message.get("MessageAttributes", {}):
            token = message["MessageAttributes"][TOKEN_ATTRIBUTE]["StringValue"]
            self.trails[parse(token).key.job_id].sends.append(Sent(call, token))
        elif url.endswith(INBOUND):
            for arrival in unpack(message["MessageBody"], SEAL).arrivals:
                self.trails[arrival.key.job_id].submissions.append(call)

    def _deleted(self, call: Call, receipts: Iterable[str]) -> None:
        for receipt in receipts:
            if receipt in self._receipts:
                self._receipts[receipt].deletes.append(call)

    def _written(self, call: Call, writes: Iterable[Mapping[str, Any]]) -> None:
        for write in writes:
            stored = "PutRequest" in write
            item = write["PutRequest"]["Item"] if stored else write["DeleteRequest"]["Key"]
            if parse_partition_key(item["pk"]["S"]) is not None:
                key, kind = parse_sort_key(b64decode(item["sk"]["B"]), 0)
                if kind is Kind.TRIGGER:
                    trail = self.trails[key.job_id]
                    (trail.stores if stored else trail.removals).append(call)

    def _transacted(self, call: Call, request: Mapping[str, Any]) -> None:
        updates = [action["Update"] for action in request["TransactItems"] if "Update" in action]
        if any(update["Key"]["pk"]["S"].startswith(LEDGER) for update in updates):
            self.postings.append(Posting(call, request["ClientRequestToken"], dict(map(_posted, updates))))
            return
        for action in request["TransactItems"]:
            item = action.get("Put", {}).get("Item")
            if item is not None and parse_partition_key(item["pk"]["S"]) is not None:
                key, kind = parse_sort_key(b64decode(item["sk"]["B"]), 0)
                if kind is Kind.TOMBSTONE:
                    self.trails[key.job_id].ends.append(End(call, key.due_at_ms))

    def _renewed(self, call: Call, record: str) -> None:
        if not record.startswith(SHARD):
            return
        spans = self._owned[call.process, int(record.removeprefix(SHARD))]
        if spans and call.asked_at_ms - spans[-1][1] < LEASE_MS:
            spans[-1][1] = call.asked_at_ms
        else:
            spans.append([call.asked_at_ms, call.asked_at_ms])


def _posted(update: Mapping[str, Any]) -> tuple[int, Counts]:
    values = update["ExpressionAttributeValues"]
    counts = Counts(**{flow: int(values[f":{flow}"]["N"]) for flow in FLOWS if f":{flow}" in values})
    return int.from_bytes(b64decode(update["Key"]["sk"]["B"]), "big"), counts
