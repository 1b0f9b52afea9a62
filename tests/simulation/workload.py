"""Users: they submit, cancel, move and look up jobs, and report to the auditor what they were answered."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from dynein.api.schemas import JobRequest, MoveRequest, PrepareRequest
from dynein.core.job import Policy
from dynein.errors import Conflict, DyneinError, Rejected, Retryable
from tests.simulation.answers import Asked
from tests.simulation.auditor import Auditor
from tests.simulation.clients import Client
from tests.simulation.jobs import JobMaker
from tests.simulation.loop import OWNER
from tests.simulation.process import Process, pause
from tests.simulation.world import World

ResultT = TypeVar("ResultT")
Ask = Callable[[Client], Coroutine[Any, Any, ResultT]]
_PATIENCE_S = 15.0


class NoResponse(Exception):
    """No response came: the user does not know whether it was done."""


class Workload:
    """All users of one run."""

    def __init__(self, world: World, auditor: Auditor) -> None:
        self.world = world
        self.auditor = auditor
        self.rng = random.Random(f"workload {world.scenario.seed}")
        self.jobs = JobMaker(world, self.rng)
        self.active = 0
        """Users who have not finished."""

    async def run(self, jobs: int, seconds: float, *, bursts: bool = True) -> None:
        """Submit about ``jobs`` jobs within ``seconds``.

        ``bursts``: sometimes many that are due at one instant, and some that are due much later. How late the former
        may be depends on bounds that a scenario may have set very low.
        """
        self.jobs.horizon_s = 60.0 if bursts else 20.0
        began = self.world.loop.time()
        times = sorted(self.rng.random() * seconds for _ in range(jobs))
        while times:
            at = times.pop(0)
            await pause(self.world.loop, max(0.0, began + at - self.world.loop.time()))
            roll = self.rng.random()
            if bursts and roll < 0.01:
                self._start(self._series())
            elif bursts and roll < 0.03:
                many = self.rng.choice((5, 15, 40))
                due_ms = self.world.now_ms() + self.rng.randint(0, 20_000)
                self._start(self._batch(many, due_ms))
            elif roll < 0.15:
                self._start(self._prepared())
            elif roll < 0.2 and self.world.scenario.alteration_rate:
                self._start(self._away_and_back())
            elif roll < 0.22 and self.world.scenario.alteration_rate:
                self._start(self._around_a_mark())
            elif bursts and roll < 0.225 and self.world.scenario.alteration_rate:
                self._start(self._mass_change())
            else:
                self._start(self._single())

    def _start(self, user: Coroutine[Any, Any, None]) -> None:
        self.active += 1

        async def live() -> None:
            try:
                await user
            finally:
                self.active -= 1

        self.world.spawn(live())

    # --- what users do ------------------------------------------------------------------------------------------------

    async def _single(self) -> None:
        request = self.jobs.make()
        token = await self._submit(request)
        if token is not None:
            await self._play_with(token)

    async def _batch(self, many: int, due_ms: int) -> None:
        policies = (None, Policy.SCHEDULED)
        requests = [self.jobs.make(run_at=due_ms, policy=self.rng.choice(policies)) for _ in range(many)]
        accepted = await self._submit_many(requests)
        for queue in self.world.scenario.destinations:
            if queue.endswith(".fifo"):
                self.auditor.accepted_in_order([token for request, token in accepted if request.queue == queue])

    async def _series(self) -> None:
        """Jobs for one queue, at once and in order."""
        queue = self.world.scenario.destinations[-1]
        requests = [self.jobs.make(queue=queue, policy=Policy.IMMEDIATE, run_at=None, delay=None) for _ in range(25)]
        accepted = await self._submit_many(requests)
        if queue.endswith(".fifo"):
            self.auditor.accepted_in_order([token for _, token in accepted])

    async def _submit_many(self, requests: list[JobRequest]) -> list[tuple[JobRequest, str]]:
        """Those accepted, and their tokens."""
        tokens: list[tuple[JobRequest, str]] = []
        for request in requests:
            self.auditor.submitting(request)

        async def ask(api: Client) -> None:
            since = self.world.loop.time()
            for request, outcome in zip(requests, await api.accept_many(requests), strict=True):
                self._answered("submit", request, "", since, outcome)
                if isinstance(outcome, DyneinError):
                    self.auditor.refused(request, outcome)
                else:
                    self.auditor.accepted(request, outcome)
                    tokens.append((request, outcome.token))

        try:
            await self._ask(ask)
        except DyneinError as error:
            # Refused as a whole: too large, or the process is draining.
            for request in requests:
                self.auditor.refused(request, error)
        except NoResponse:
            pass
        return tokens

    async def _prepared(self) -> None:
        request = self.jobs.make(policy=None)

        async def prepare(api: Client) -> str:
            group = request.message_group_id
            return (await api.prepare(PrepareRequest(request.run_at, request.delay, request.queue, group))).token

        try:
            token = await self._ask(prepare)
        except (NoResponse, DyneinError):
            return
        request = msgspec.structs.replace(request, run_at=None, delay=None, cancellable=None, token=token)
        for _ in range(self.rng.choice((1, 2, 3))):
            if self.rng.random() < 0.5:
                self._start(self._create(request))
            else:
                await self._create(request)
            await pause(self.world.loop, self.rng.choice((0.0, 0.1, 3.0, 20.0)) * self.rng.random())
        if self.rng.random() < 0.4:
            await self._play_with(token)

    async def _away_and_back(self) -> None:
        """Have a job due just ahead of the marks and move it away; once its owner may read that far, move it back.

        Then the owner may have read the tombstone that the job left there, and not yet the page after it.
        """
        world, rng = self.world, self.rng
        token = await self._submit(self.jobs.make(policy=Policy.SCHEDULED, delay=30.0))
        if token is None:
            return
        await pause(world.loop, 2.0 + rng.random() * 5.0)  # it is stored by then, most likely
        shard = world.signer.verify(token).key.shard
        ahead_ms = max(world.table.shards()[shard].cancel_mark_ms, world.now_ms()) + rng.choice((50, 200, 1_000))
        left = await self._move(token, ahead_ms)
        if left is None:
            return
        left_ms = world.signer.verify(left).key.due_at_ms
        away = await self._move(left, left_ms + 15_000)
        if away is None:
            return
        while world.table.shards()[shard].settled_mark_ms < left_ms and world.now_ms() < left_ms:
            await pause(world.loop, 0.002)
        await pause(world.loop, rng.random() * 3 * world.intensity.latency_s)
        await self._move(away, left_ms)

    async def _around_a_mark(self) -> None:
        """Have a job due within milliseconds of where the marks will be soon; change it, and ask for it, many times."""
        world, rng, settings = self.world, self.rng, self.world.settings
        token = await self._submit(self.jobs.make(policy=Policy.SCHEDULED, delay=settings.hold_window_s + 4.0))
        if token is None:
            return
        await pause(world.loop, 1.0 + rng.random() * 2.0)
        shard = world.signer.verify(token).key.shard
        for _ in range(rng.choice((2, 4, 8))):
            mark_ms = max(world.table.shards()[shard].cancel_mark_ms, world.now_ms())
            what = rng.choice(("get", "old", "move", "move", "cancel"))
            if what == "get":
                await self._get(token)
            elif what == "cancel" and rng.random() < 0.3:
                await self._cancel(token)
            else:
                moved = await self._move(token, mark_ms + rng.choice((-1, 0, 1, 2, 50, 400, 1_500)))
                if moved is not None and moved != token and what == "old":
                    await self._by_an_old(token)
                token = moved or token
            await pause(world.loop, rng.choice((0.0, 0.003, 0.3)) * rng.random())
        for ask in rng.sample((self._cancel, self._get, self._cancel, self._get, self._by_an_old), 3):
            self._start(ask(token))

    async def _by_an_old(self, token: str) -> None:
        """Ask by a token that the job may not have any more."""
        ask = self.rng.choice(("get", "cancel", "move", "move"))
        if ask == "get":
            await self._get(token)
        elif ask == "cancel":
            await self._cancel(token)
        else:
            await self._move(token)

    async def _mass_change(self) -> None:
        """Many jobs due at the same few milliseconds are all cancelled or moved at once, far from a mark or close."""
        world, rng = self.world, self.rng
        due_ms = world.now_ms() + rng.randint(8_000, 20_000)
        many = rng.choice((20, 40))
        requests = [self.jobs.make(run_at=due_ms + rng.choice((0, 0, 1)), policy=Policy.SCHEDULED) for _ in range(many)]
        tokens = [token for _, token in await self._submit_many(requests)]
        lead_s = rng.choice((world.settings.read_ahead_s, world.settings.hold_window_s, 5.0))
        await pause(world.loop, max(0.0, (due_ms - world.now_ms()) / 1000 - lead_s + 0.5 * (rng.random() - 0.5)))
        mark_ms = due_ms + rng.choice((1, 3_000))
        for token in tokens:
            self._start(self._cancel(token) if rng.random() < 0.7 else self._moved(token, mark_ms))

    async def _moved(self, token: str, run_at: int) -> None:
        await self._move(token, run_at)

    async def _create(self, request: JobRequest) -> None:
        await self._submit(request)

    async def _submit(self, request: JobRequest) -> str | None:
        self.auditor.submitting(request)

        async def ask(api: Client) -> str:
            try:
                accepted = await self._recorded("submit", request, request.token or "", api.accept(request))
            except DyneinError as error:
                self.auditor.refused(request, error)
                raise
            self.auditor.accepted(request, accepted)
            return accepted.token

        try:
            return await self._ask(ask)
        except (NoResponse, DyneinError):
            return None

    async def _play_with(self, token: str) -> None:
        """Perhaps cancel or move it, at a moment that is likely to be close to some other event of the job."""
        rng = self.rng
        roll = rng.random()
        while roll < self.world.scenario.alteration_rate:
            await self._wait_for_a_moment(token)
            what = rng.choice(("cancel", "cancel", "move", "move", "move", "get", "brink", "brink"))
            if what == "cancel":
                await self._cancel(token)
            elif what == "get":
                await self._get(token)
            elif what == "brink":
                await self._to_the_brink(token)
            else:
                moved = await self._move(token)
                if moved is not None and moved != token and rng.random() < 0.3:
                    await self._by_an_old(token)
                token = moved or token
            roll = rng.random()

    async def _wait_for_a_moment(self, token: str) -> None:
        rng, settings = self.rng, self.world.settings
        due_in_s = (self.world.signer.verify(token).key.due_at_ms - self.world.now_ms()) / 1000
        lead_s = rng.choice(
            (0.0, settings.read_ahead_s, settings.hold_window_s, settings.read_ahead_s + settings.tick_s, 60.0)
        )
        jitter_s = rng.choice((0.01, 0.5, 2.0)) * (rng.random() - 0.3)
        await pause(self.world.loop, max(rng.random() * 0.05, due_in_s - lead_s + jitter_s))

    async def _cancel(self, token: str) -> None:
        self.auditor.cancelling(token)

        async def ask(api: Client) -> None:
            await self._recorded("cancel", token, token, api.cancel(token))
            self.auditor.cancelled(token)

        try:
            await self._ask(ask)
        except (NoResponse, DyneinError):
            return

    async def _to_the_brink(self, token: str) -> None:
        """Move it to where it can just no longer be cancelled, or just still, and cancel it; or to a bucket that is
        about to be retired."""
        record = self.world.table.shards()[self.world.signer.verify(token).key.shard]
        if self.rng.random() < 0.5:
            width_ms = self.world.scenario.bucket_width_s * 1000
            await self._move(token, record.retired_before * width_ms + self.rng.randrange(width_ms))
            return
        mark_ms = record.cancel_mark_ms
        moved = await self._move(token, mark_ms + self.rng.choice((0, 1, 100)))
        if moved is not None:
            await self._cancel(moved)

    async def _move(self, token: str, run_at: int | None = None) -> str | None:
        due_ms = self.world.signer.verify(token).key.due_at_ms
        delay: float | None = None
        if run_at is not None:
            pass
        elif self.rng.random() < 0.6:
            delay = self.rng.choice((0, 1, 4, 10, self.jobs.horizon_s / 2)) * (0.5 + self.rng.random())
        else:
            run_at = due_ms + self.rng.choice((-60_000, -5_000, 0, 1, 5_000, int(self.jobs.horizon_s * 500)))
        self.auditor.moving(token)

        async def ask(api: Client) -> str:
            request = MoveRequest(run_at, delay)
            moved = await self._recorded("move", request, token, api.move(token, request))
            self.auditor.moved(token, moved.token)
            return moved.token

        try:
            return await self._ask(ask)
        except Conflict as conflict:
            return conflict.moved_to
        except (NoResponse, DyneinError):
            return None

    async def _get(self, token: str) -> None:
        async def ask(api: Client) -> None:
            await self._recorded("get", token, token, api.get(token))

        try:
            await self._ask(ask)
        except (NoResponse, DyneinError):
            return

    # --- their requests --------------------------------------------------------------------------------------------

    async def _recorded(
        self, verb: str, what: JobRequest | MoveRequest | str, token: str, call: Coroutine[Any, Any, ResultT]
    ) -> ResultT:
        """The result of ``call``, which the process that is asked makes. The auditor gets it, or its error."""
        since = self.world.loop.time()
        try:
            answer = await call
        except DyneinError as error:
            self._answered(verb, what, token, since, error)
            raise
        self._answered(verb, what, token, since, answer)
        return answer

    def _answered(self, verb: str, what: JobRequest | MoveRequest | str, token: str, since: float, answer: Any) -> None:
        process = OWNER.get()
        assert isinstance(process, Process), "called in a process"
        self.auditor.answered(Asked(verb, what, token, process.name, since, self.world.loop.time(), answer))

    async def _ask(self, ask: Ask[ResultT]) -> ResultT:
        """One request to some API process. Raises `NoResponse`, or the error that it was answered with."""
        world = self.world
        tries = 0
        while not world.apis:
            tries += 1
            if tries > 20:
                raise NoResponse
            await pause(world.loop, 0.5)
        name = self.rng.choice(list(world.apis))
        process = next(p for p in world.processes if p.name == name)
        await pause(world.loop, 0.001 + self.rng.random() * 0.003)
        return await self._answer(process, ask(world.apis[name]) if name in world.apis else None)

    async def _answer(self, process: Process, work: Coroutine[Any, Any, ResultT] | None) -> ResultT:
        if work is None:
            raise NoResponse
        asking = self.world.loop.create_task(process.ask(work))
        timer = self.world.loop.call_later(_PATIENCE_S, asking.cancel)
        try:
            return await asking
        except (Rejected, Retryable):
            raise
        except BaseException as error:
            if isinstance(error, (ConnectionResetError, GeneratorExit)) or asking.cancelled():
                raise NoResponse from None
            raise
        finally:
            timer.cancel()
