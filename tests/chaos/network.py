"""A proxy for each process and service: each can be cut off from SQS, or from DynamoDB, by itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from functools import partial

from tests.acceptance.proxy import Counts, LinkFaults, Listener, Proxy

SERVICES = ("sqs", "dynamodb")
Link = tuple[str, str]
"""A process and a service."""


class Network:
    """Where processes reach the engine. A process that comes in another's place, by its name, has the same links."""

    def __init__(self, proxies: dict[Link, Proxy]) -> None:
        self._proxies = proxies

    def environment(self, process: str) -> dict[str, str]:
        """Settings of a process: its own links."""
        return {f"DYNEIN_{service.upper()}_ENDPOINT_URL": self._proxies[process, service].url for service in SERVICES}

    def links(self, processes: Collection[str], services: Iterable[str] = SERVICES) -> list[Proxy]:
        """Those of these processes to these services."""
        return [self._proxies[process, service] for process in sorted(processes) for service in services]

    @property
    def counts(self) -> Counts:
        """Of all links together."""
        total = Counts()
        for proxy in self._proxies.values():
            for name, count in vars(proxy.counts).items():
                setattr(total, name, getattr(total, name) + count)
        return total


@contextlib.asynccontextmanager
async def network(
    processes: Iterable[str], upstream_port: int, listener: Callable[[str], Listener], *, seed: int
) -> AsyncIterator[Network]:
    """Links of all ``processes``, each with a ``listener`` for the process."""
    async with contextlib.AsyncExitStack() as stack:
        proxies = {
            (process, service): await stack.enter_async_context(
                Proxy(upstream_port, seed=seed + number, listener=partial(listener, process))
            )
            for number, (process, service) in enumerate((p, s) for p in processes for s in SERVICES)
        }
        yield Network(proxies)


def set_faults(links: Iterable[Proxy], faults: LinkFaults) -> None:
    """The same on all."""
    for link in links:
        link.faults = faults
