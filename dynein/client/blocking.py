"""The client for code that waits."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import urllib3

from dynein.client import flows
from dynein.client.exchange import Answer, Call, NoAnswer, Steps, drive
from dynein.client.flows import Outcome
from dynein.client.jobs import Accepted, Delay, Job, Moved, Prepared, Status, When
from dynein.client.options import CONNECTIONS_MAX, PATIENCE_S, TIMEOUT_S, Options, answer_of

ResultT = TypeVar("ResultT")


class Client:
    """Calls the Dynein API at ``url``; threads may share it.

    ``headers`` go with every request. An answer is waited for ``timeout_s``; a request that was turned away is repeated
    for ``patience_s``. ``ssl_context`` is for an ``https`` URL whose certificate is of an authority of your own. Every
    method raises `Refused`, `NotDone` and `Unanswered`, unless it says otherwise.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._options = Options(url, headers, timeout_s, patience_s)
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS_MAX,
            retries=False,
            timeout=timeout_s,
            headers=self._options.headers,
            ssl_context=ssl_context,
        )

    def submit(self, job: Job, *, once: bool = False) -> Accepted:
        """Submit a job. ``once``: take a token first, so that it can be repeated in doubt. Raises `ValueError` too."""
        return self._drive(flows.submit(self._options.patience, job, once=once))

    def submit_many(self, jobs: Iterable[Job]) -> list[Outcome]:
        """Submit any number of jobs; what came of each, in order. Raises only `ValueError`, and then sends none."""
        return self._drive(flows.submit_many(self._options.patience, list(jobs)))

    def prepare(self, *, run_at: When | None = None, delay: Delay | None = None) -> Prepared:
        """A token for a job to be submitted soon (within a day of its due time), as often as need be."""
        return self._drive(flows.prepare(self._options.patience, run_at, delay))

    def get(self, token: str) -> Status:
        """Where a job is."""
        return self._drive(flows.get(self._options.patience, token))

    def cancel(self, token: str) -> None:
        """Cancel a job. When this returns, it will not be delivered; `Refused` says why that cannot be promised."""
        self._drive(flows.cancel(self._options.patience, token))

    def move(self, token: str, *, run_at: When | None = None, delay: Delay | None = None) -> Moved:
        """Give a job another due time, and with it another token."""
        return self._drive(flows.move(self._options.patience, token, run_at, delay))

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _drive(self, steps: Steps[ResultT]) -> ResultT:
        return drive(steps, self._send, time.sleep)  # noqa: TID251 - the caller's own thread waits

    def _send(self, call: Call) -> Answer | NoAnswer:
        url = self._options.url + call.path
        try:
            answer = self._pool.request(call.method, url, body=call.body, redirect=False)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            return NoAnswer(sent=False, why=f"{self._options.url} cannot be reached: {error}")
        except urllib3.exceptions.HTTPError as error:
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in error.args):
                return NoAnswer(sent=False, why=f"{self._options.url} has a certificate that is not trusted: {error}")
            return NoAnswer(sent=True, why=f"{self._options.url} did not answer: {error}")
        return answer_of(answer.status, answer.headers, answer.data)
