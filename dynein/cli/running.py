"""How commands run: with settings and logging in force, and until they are asked to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from dynein.settings import Settings, load_settings


def operator_settings() -> Settings:
    """The settings in force; without any that names a deployment, those of the ``dynein dev`` of this directory."""
    from dynein.cli.output import print_remark  # noqa: PLC0415
    from dynein.cli.running_dev import left_behind, settings_of_dev  # noqa: PLC0415 - not needed by `dynein submit`

    of_dev = settings_of_dev()
    if of_dev:
        print_remark((f"using the `dynein dev` that runs in this directory, at {of_dev['endpoint_url']}", "dim"))
    stale = left_behind() if not of_dev else None
    if stale is not None:
        print_remark((f"no `dynein dev` runs in this directory; {stale} was left by one that was killed", "dim"))
    return load_settings(of_dev)


def settings_and_logging(settings: Settings | None = None) -> Settings:
    """``settings``, or those in force; the log goes where they say."""
    from dynein.observability.logs import configure_logging  # noqa: PLC0415 - keeps `dynein submit` quick to start

    settings = settings or load_settings()
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
