"""What can come of a call that did not succeed."""

from __future__ import annotations


class ClientError(Exception):
    """Base of all errors of `dynein.client` but for a `ValueError` about an argument.

    ``request_id`` is the answer's ``X-Request-Id``, by which the API's log tells of the request; ``None`` without one.
    """

    def __init__(self, detail: str, *, request_id: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.request_id = request_id


class Refused(ClientError):
    """The API says no, and would say no again: a wrong field, an unknown token, a cancel that comes too late.

    ``code`` is one of its problem types (``/problems/too-late``: ``too-late``); ``field`` and ``fix`` say what to send
    in place of what; ``moved_to`` is the token that the job has now.
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
    """It was tried until patience ended, and has certainly not been done: nobody answers, or all are busy."""


class Unanswered(ClientError):
    """It may have been done or not: there was no answer, or one that says so.

    A submit ends like this at the first doubt, since a repeat might deliver twice; one with a prepared token is
    repeated, and ends like this when patience does.
    """
