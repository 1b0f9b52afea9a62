"""How commands run: with settings and logging in force, and until they are asked to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from dynein.settings import Settings, load_settings


def settings_and_logging() -> Settings:
    """The settings in force; the log goes where they say."""
    from dynein.observability.logs import configure_logging  # noqa: PLC0415 - keeps `dynein submit` quick to start

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    return settings


def run_until_stopped(work: Callable[[asyncio.Event], Awaitable[None]], settings: Settings) -> None:
    """Run ``work`` on uvloop; the first SIGTERM or SIGINT asks it to stop, the second ends it at once."""
    from dynein.observability.logs import configure_logging  # noqa: PLC0415 - keeps `dynein submit` quick to start

    configure_logging(settings.log_format, settings.log_level)

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            if stopping.is_set():
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        await work(stopping)

    try:
        import uvloop  # noqa: PLC0415 - not needed by `dynein submit`, and not installed everywhere
    except ImportError:
        asyncio.run(run())
    else:
        uvloop.run(run())
