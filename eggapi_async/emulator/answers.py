"""What the emulator says: status, headers and body as one value, and the envelope around JSON.

Its rule: an answer is complete before its first byte is sent. It does not decide when to say what.
"""

from __future__ import annotations

import json
from email.utils import formatdate
from http.client import responses
from typing import Any

import attrs

CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "BAD_REQUEST",
    413: "BAD_REQUEST",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    502: "UPSTREAM_ERROR",
    503: "SERVICE_UNAVAILABLE",
}
"""The documented error code of each HTTP status; 405 and 413 have none and borrow that of 400."""


class RefusedError(Exception):
    """A request that gets an error envelope: HTTP status, the API's code, and a message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@attrs.frozen
class Answer:
    """One HTTP answer; header names are lower case. Without `sized` no Content-Length is sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    sized: bool = True
    length: int | None = None
    """The Content-Length to claim when it is not that of the body (HEAD, and files cut short)."""

    def start(self, now: float) -> dict[str, Any]:
        """The message that opens this answer in ASGI; *now*, a unix time, becomes its Date."""
        claimed = len(self.body) if self.length is None else self.length
        extra = (("content-length", str(claimed)),) if self.sized else ()
        dated = (("date", formatdate(now, usegmt=True)), *self.headers, *extra)
        raw = [(name.encode(), value.encode("latin-1")) for name, value in dated]
        return {"type": "http.response.start", "status": self.status, "headers": raw}


def data_answer(data: object, *, status: int = 200) -> Answer:
    """A success envelope."""
    return _json({"data": data, "error": None}, status=status)


def error_answer(
    status: int, *, code: str, message: str, retry_after: float | None = None
) -> Answer:
    """An error envelope; `retry_after` in seconds becomes a Retry-After header."""
    answer = _json({"data": None, "error": {"code": code, "message": message}}, status=status)
    if retry_after is None:
        return answer
    return attrs.evolve(answer, headers=(*answer.headers, ("retry-after", f"{retry_after:g}")))


def html_answer(status: int) -> Answer:
    """The page a proxy in front of the service puts in the place of JSON."""
    title = f"{status} {responses.get(status, 'Error')}"
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n"
        f"<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    )
    return Answer(status, (("content-type", "text/html"),), page.encode())


def _json(content: object, *, status: int) -> Answer:
    body = json.dumps(content, separators=(",", ":")).encode()
    return Answer(status, (("content-type", "application/json"),), body)


def pagination(page: int, size: int, total: int) -> dict[str, int]:
    """The `pagination` of a list of `total` items in pages of `size`, at `page`."""
    return {"page": page, "per_page": size, "total": total, "total_pages": -(-total // size)}
