"""The jobs that users submit: every policy, due now, soon, and later than that; some large, some for FIFO queues."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import msgspec

from dynein.api.schemas import JobRequest
from dynein.core.job import Policy
from dynein.testing.queues import URL_PREFIX
from tests.simulation.world import World

_BODY_BYTES = (0,) * 12 + (300,) * 3 + (9_000,)


class JobMaker:
    """Makes requests, no two alike. ``horizon_s``: how far ahead they are due."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._serial = 0
        self.horizon_s = 60.0

    def make(self, **given: Any) -> JobRequest:
        """A request. Fields in ``given`` have that value, and are left out where it is ``None``."""
        rng = self._rng
        self._serial += 1
        queue = given.pop("queue", None) or rng.choice(self._world.scenario.destinations)
        fifo = queue.endswith(".fifo")
        fields: dict[str, Any] = {
            "queue": URL_PREFIX + queue if not fifo and rng.random() < 0.05 else queue,
            "message_group_id": rng.choice("ab") if fifo or rng.random() < 0.05 else None,
            "deduplication_id": f"own-{self._serial}" if fifo and rng.random() < 0.3 else None,
            **self._body(f"job {self._serial} " + "x" * rng.choice(_BODY_BYTES)),
            **self._extras(),
        }
        policy = rng.choice((Policy.SCHEDULED, Policy.SCHEDULED, Policy.SCHEDULED, None, Policy.SQS_DELAYED))
        settings = self._world.settings
        delay = rng.choice(
            (
                0.0,
                rng.random() * settings.hold_window_s,
                settings.hold_window_s + rng.random() * 6.0,
                rng.random() * 15.0,
                rng.random() * self.horizon_s,
            )
        )
        if "policy" in given:
            policy = given["policy"]
        if fifo and policy is Policy.SQS_DELAYED:
            policy = None
        fields["policy"] = policy
        if rng.random() < 0.7:
            fields["delay"] = delay
        else:
            fields["run_at"] = self._world.now_ms() + int(delay * 1000) - rng.choice((0, 0, 3_000))
        if policy is None and rng.random() < 0.3:
            fields["cancellable"] = True
        if "run_at" in given or "delay" in given:
            fields.pop("run_at", None)
            fields.pop("delay", None)
        fields.update({name: value for name, value in given.items() if value is not None})
        return JobRequest(**fields)

    def _body(self, text: str) -> dict[str, Any]:
        """As text, as JSON or as bytes."""
        form = self._rng.choice(("body", "body", "body", "json", "body_base64"))
        if form == "json":
            return {form: msgspec.Raw(json.dumps({"text": text}).encode())}
        return {form: base64.b64encode(text.encode()).decode() if form == "body_base64" else text}

    def _extras(self) -> dict[str, Any]:
        """What a message has beside its body."""
        rng, serial = self._rng, self._serial
        extras: dict[str, Any] = {}
        if rng.random() < 0.3:
            extras["name"] = f"name {serial}"
        if rng.random() < 0.3:
            extras["traceparent"] = f"00-{serial:032x}-{serial:016x}-01"
        if rng.random() < 0.3:
            forms: tuple[Any, ...] = (
                f"text {serial}",
                serial,
                serial / 8,
                {"type": "Number.cents", "value": f"{serial}.50"},
                {"type": "Binary", "value": base64.b64encode(b"%d" % serial).decode()},
            )
            chosen = rng.sample(forms, rng.choice((1, 1, 2, 5)))
            attributes = {f"own-{i}": form for i, form in enumerate(chosen)}
            if rng.random() < 0.2:  # as many as there is room for, and a trace context that must give way
                count = 8 - ("name" in extras) - 1
                attributes |= {f"more-{i}": str(i) for i in range(count - len(chosen))}
            extras["attributes"] = msgspec.Raw(json.dumps(attributes).encode())
        return extras
