"""The errors of the client, by what is known about the request."""

from __future__ import annotations


class ClientError(Exception):
    """Base of all errors of `dynein.client` but for a `ValueError` about an argument.

    ``request_id`` is the response's ``X-Request-Id``, which is in the API's log lines about the request; ``None``
    without a response.
    """

    def __init__(self, detail: str, *, request_id: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.request_id = request_id


class Refused(ClientError):
    """The API refused the request, and would again: a wrong field, an unknown token, a cancel that comes too late.

    ``code`` is one of its problem types (``/problems/too-late``: ``too-late``); ``field`` and ``fix`` say what is
    wrong and what to send instead; ``moved_to`` is the token that the job has now.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str,
        field: str | None = None,
        fix: str | None = None,
        moved_to: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{detail} {fix}" if fix else detail, request_id=request_id)
        self.detail = detail
        self.status = status
        self.code = code
        self.field = field
        self.fix = fix
        self.moved_to = moved_to


class NotDone(ClientError):
    """It was tried for ``patience_s`` and has certainly not been done: no connection, or the API is overloaded."""


class Unanswered(ClientError):
    """It may have been done or not: there was no response, or one that says so.

    A submit raises this at once, since a repeat might deliver the job twice; one with a prepared token is repeated for
    ``patience_s`` first.
    """
