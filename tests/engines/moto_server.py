"""moto's server in a thread of this process, its table calls one at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Run it; its URL."""
    app = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def one_table_call_at_a_time(environ: Any, start_response: Any) -> Any:
        # moto deviates: it checks a condition and then writes, without a lock, so of two calls at a time both may win.
        # SQS calls stay concurrent, or a long poll would block them all.
        locked = environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB")
        with lock if locked else contextlib.nullcontext():
            return app(environ, start_response)

    server = make_server("127.0.0.1", 0, one_table_call_at_a_time, threaded=True)
    thread = threading.Thread(target=server.serve_forever, name="moto")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
