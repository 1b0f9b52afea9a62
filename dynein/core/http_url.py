"""Is a text the URL of an HTTP server, such as an endpoint of an emulator?"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

EXAMPLE = "http://127.0.0.1:4566"
_HOST = re.compile(r"[A-Za-z0-9._~-]+|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORT_MAX = 65535


def http_url_problem(url: str) -> str | None:  # noqa: PLR0911 - a table
    """What is wrong with ``url`` and how to write it, as the end of a sentence; ``None`` if nothing is."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return f"has a space or a character that no URL has; write it like {EXAMPLE}"
    if not _SCHEME.match(url):
        rest = url.partition("//")[2] if "//" in url else url
        return f"has no scheme; write http://{rest or '127.0.0.1:4566'}, or https://"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"has a host or port that cannot be read (a port is a number up to {_PORT_MAX}); write it like {EXAMPLE}"
    if parts.scheme not in {"http", "https"}:
        return f"has the scheme {parts.scheme}; write http:// or https://"
    if "@" in parts.netloc:
        return f"has a user name in it; write it like {EXAMPLE}"
    if not parts.hostname or not _HOST.fullmatch(parts.hostname):
        return f"has no host; write it like {EXAMPLE}"
    if port == 0 or parts.netloc.endswith(":"):
        return f"has no port after the colon; write it like {EXAMPLE}"
    if parts.query or parts.fragment:
        return f"has a query or a fragment; write it like {EXAMPLE}"
    return None
