"""Sends a job that is ready to where its policy says: its destination queue, or the inbound queue."""

from __future__ import annotations

import asyncio

from dynein.api.direct_sender import DirectJob, DirectSender
from dynein.api.drafting import Draft
from dynein.api.due_time import MS_PER_S
from dynein.api.inbound_sender import InboundSender
from dynein.api.send_result import SendResult
from dynein.core.delivered_message import outgoing_message
from dynein.core.inbound_message import Entry
from dynein.core.job import Policy
from dynein.core.queues import Destination, Queues
from dynein.delivery.destinations import Destinations
from dynein.runtime.context import Context
from dynein.settings import Settings

NEAR_MARGIN_S = 4.0
"""A job due within the ingesters' hold window plus this is near: the time an inbound message may take to be read."""


class JobSender:
    """Both ways out of the API. ``inbound_url`` is the inbound queue's."""

    def __init__(
        self, queues: Queues, destinations: Destinations, inbound_url: str, context: Context, settings: Settings
    ) -> None:
        self._direct = DirectSender(queues, destinations, context, settings)
        self._inbound = InboundSender(queues, inbound_url, context, settings)
        self._near_ms = int((settings.hold_window_s + NEAR_MARGIN_S) * MS_PER_S)

    def send(self, draft: Draft, destination: Destination, create_id: str, now_ms: int) -> asyncio.Future[SendResult]:
        """Send; the future has the result. Raises `Overloaded` when too many jobs wait already.

        ``create_id`` is empty but for a prepared token: only of such a job may there be many creates to tell apart.
        """
        if draft.policy is Policy.SCHEDULED:
            entry = Entry(draft.token, create_id, draft.record)
            return self._inbound.submit(entry, near=draft.due_at_ms - now_ms <= self._near_ms)
        delay_until_ms = draft.due_at_ms if draft.policy is Policy.SQS_DELAYED else None
        message = outgoing_message(draft.job, draft.token, draft.wanted_at_ms, fifo=destination.fifo)
        job = DirectJob(message, draft.message_bytes, delay_until_ms, draft.job.queue)
        return self._direct.submit(destination.url, job)

    async def drained(self) -> None:
        """Return once every job has its result from SQS."""
        await self._direct.drained()
        await self._inbound.drained()
