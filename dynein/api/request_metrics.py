"""Counts and times HTTP requests by their route's template: with the raw path, every token would be a label value."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Histogram
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from dynein.observability.telemetry import OTHER, Telemetry


class RequestMetrics:
    """Counts and times the requests to one application's ``routes``."""

    def __init__(self, routes: Sequence[BaseRoute], telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._templates: dict[Any, str] = {route.endpoint: route.path for route in routes if isinstance(route, Route)}
        self._paths = {path for path in self._templates.values() if "{" not in path}
        self._counters: dict[tuple[str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def now(self) -> float:
        """Seconds, for `responded`."""
        return asyncio.get_running_loop().time()

    def responded(self, scope: Scope, status: int, began: float) -> None:
        """Count a request whose response has been sent; ``began`` is when it arrived, by `now`."""
        route = self._template(scope)
        counter = self._counters.get((route, status))
        if counter is None:
            counter = self._telemetry.requests.labels(route, str(status))
            self._counters[route, status] = counter
            self._timers[route] = self._telemetry.request_seconds.labels(route)
        counter.inc()
        self._timers[route].observe(self.now() - began)

    def _template(self, scope: Scope) -> str:
        # The router stores the endpoint it chose. On the fast path there is none, and the path is the template.
        endpoint = scope.get("endpoint")
        if endpoint is not None:
            return self._templates.get(endpoint, OTHER)
        path: str = scope["path"]
        return path if path in self._paths else OTHER
