"""The API documentation as functions: every path, field and status code is here and nowhere else.

An endpoint is a value, `Call[T]`: what to send, and how to read the answer. Reading gives a `T` or
raises one of the documented errors, whatever the bytes are (`_values` reads the single values).
This room does no I/O and reads no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Generic, NoReturn, TypeVar
from urllib.parse import quote

import attrs
from cattrs import BaseValidationError, transform_error

from ._values import retry_after, snapshot, summary
from .errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    InsufficientBalanceError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    UnexpectedResponseError,
)
from .models import GenerationRequest, Page, TaskSnapshot, UsageRecord, UsageSummary

T = TypeVar("T")

DEFAULT_ORIGIN: Final = "https://api.eggapi.ai"
PAGE_LIMIT: Final = 100
"""Items that a list page holds at most."""


@attrs.frozen
class Answer:
    """What came back: the HTTP status, the headers (lower-case names) and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Call(Generic[T]):
    """One request, and how to read its answer.

    *kind* is the word it is counted under, *parse* gets `$.data` and the answer, *is_billing* marks
    the one call that must never be repeated blindly.
    """

    kind: str
    method: str
    path: str
    parse: Callable[[Any, Answer], T] = attrs.field(repr=False)
    query: Mapping[str, int] = attrs.field(factory=dict)
    body: bytes | None = attrs.field(default=None, repr=False)

    @property
    def is_billing(self) -> bool:
        """True for the POST that buys something."""
        return self.method == "POST"

    def read(self, answer: Answer) -> T:
        """The value that *answer* carries; raises APIError or UnexpectedResponseError."""
        if not 200 <= answer.status < 300:
            raise _refusal(answer)
        envelope = _envelope(answer)
        if envelope.get("error") is not None:
            raise _refusal(answer)
        return self.parse(envelope.get("data"), answer)


# --- the endpoints ---------------------------------------------------------------------------


def submit(request: GenerationRequest) -> Call[TaskSnapshot]:
    """POST /v1/generate: 202 with a task object; 200 with a final one is valid too."""
    body = json.dumps(_body(request)).encode()
    return Call("submit", "POST", "/v1/generate", _submitted, body=body)


def get_task(task_id: str, *, kind: str = "get") -> Call[TaskSnapshot]:
    """GET /v1/tasks/{id}: 200 with the task object, whose id must be the one asked for."""
    path = f"/v1/tasks/{quote(task_id, safe='')}"
    return Call(kind, "GET", path, partial(_this_task, task_id))


def list_tasks(
    *, page: int = 1, per_page: int = 20, kind: str = "list"
) -> Call[Page[TaskSnapshot]]:
    """GET /v1/tasks: a page of task objects, in no documented order."""
    return Call(
        kind, "GET", "/v1/tasks", partial(_page, _task, page, per_page), _paging(page, per_page)
    )


def sweep_tasks(page: int) -> Call[Page[Mapping[str, Any]]]:
    """GET /v1/tasks, the largest page, its items left as they came: most are of no interest."""
    query = {"page": page, "per_page": PAGE_LIMIT}
    return Call("sweep", "GET", "/v1/tasks", partial(_page, _item, page, PAGE_LIMIT), query)


def usage(*, page: int = 1, per_page: int = PAGE_LIMIT) -> Call[Page[UsageRecord]]:
    """GET /v1/usage: a page of records whose fields are not documented."""
    return Call(
        "usage",
        "GET",
        "/v1/usage",
        partial(_page, _record, page, per_page),
        _paging(page, per_page),
    )


def usage_summary() -> Call[list[UsageSummary]]:
    """GET /v1/usage/summary: one entry per model."""
    return Call("usage", "GET", "/v1/usage/summary", _summaries)


def checked_task_id(task_id: object) -> str:
    """*task_id* if it can stand in a path; raises InvalidRequestError."""
    if not isinstance(task_id, str) or not _TASK_ID.fullmatch(task_id) or not task_id.strip("."):
        raise InvalidRequestError("task_id", task_id, "an id as the service gives it (gen_…)")
    return task_id


def _paging(page: int, per_page: int) -> dict[str, int]:
    for name, value, high in (("page", page, 10**9), ("per_page", per_page, PAGE_LIMIT)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
            raise InvalidRequestError(name, value, f"a whole number from 1 to {high}")
    return {"page": page, "per_page": per_page}


def _body(request: GenerationRequest) -> dict[str, Any]:
    fields = attrs.asdict(request, recurse=False, filter=lambda _, value: value not in (None, ()))
    extra = fields.pop("extra")
    return {**fields, **extra}


# --- reading: envelope and errors ------------------------------------------------------------

_TASK_ID = re.compile(r"[A-Za-z0-9_\-.~:]{1,200}")
_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
_BY_STATUS: Final[Mapping[int, type[APIError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
}
_BY_CODE: Final[Mapping[str, type[APIError]]] = {
    "BAD_REQUEST": BadRequestError,
    "VALIDATION_ERROR": BadRequestError,
    "UNAUTHORIZED": AuthenticationError,
    "FORBIDDEN": PermissionDeniedError,
    "INSUFFICIENT_BALANCE": InsufficientBalanceError,
    "NOT_FOUND": NotFoundError,
    "INTERNAL_ERROR": ServerError,
    "UPSTREAM_ERROR": ServerError,
    "SERVICE_UNAVAILABLE": ServerError,
}


def is_own_unavailable(error: Exception) -> bool:
    """True for 503 in the API's own envelope: the one 5xx that states that nothing was done."""
    if not isinstance(error, ServerError):
        return False
    return error.status_code == 503 and error.code == "SERVICE_UNAVAILABLE"


def is_refusal(error: Exception) -> bool:
    """True when the answer to a POST proves that the service did not take it.

    4xx does (the request was understood and declined), save 408, which a proxy may give after
    passing the request on. So do redirects that were not followed (save 303, the answer to work
    that was done), and 503 in the API's own envelope. Everything else leaves a doubt.
    """
    if isinstance(error, UnexpectedResponseError):
        return error.status_code in (301, 302, 307, 308)
    if not isinstance(error, APIError):
        return False
    return (400 <= error.status_code < 500 and error.status_code != 408) or is_own_unavailable(
        error
    )


def _refusal(answer: Answer) -> APIError | UnexpectedResponseError:
    if answer.status < 200 or 300 <= answer.status < 400:
        origin = answer.headers.get("location", "").partition("?")[0].split("/")[:3]
        host = quote("/".join(origin)[:100], safe=":/.-_")  # the rest may be a secret
        return _surprise(answer, f"a redirect to {host!r}, which is not followed; check base_url")
    code, message = _error_of(answer)
    request_id = answer.headers.get("x-request-id")
    if answer.status == 429 or (answer.status < 300 and code == "RATE_LIMITED"):
        return RateLimitedError(
            message,
            status_code=answer.status,
            code=code,
            request_id=request_id,
            retry_after=retry_after(answer.headers),
        )
    kind = _kind_of_error(answer.status, code)
    return kind(message, status_code=answer.status, code=code, request_id=request_id)


def _kind_of_error(status: int, code: str | None) -> type[APIError]:
    if status == 403 and code == "INSUFFICIENT_BALANCE":
        return InsufficientBalanceError
    if status < 300:
        return _BY_CODE.get(code or "", APIError)
    return ServerError if status >= 500 else _BY_STATUS.get(status, APIError)


def _error_of(answer: Answer) -> tuple[str | None, str]:
    """The envelope's code and message; None and the body's start where there is no envelope."""
    try:
        error = _envelope(answer).get("error")
    except UnexpectedResponseError:
        return None, f"an answer without envelope: {_start(answer)!r}"
    if isinstance(error, str):
        return None, error[:500]
    if not isinstance(error, dict):
        return None, f"an answer without error text: {_start(answer)!r}"
    code, message = error.get("code"), error.get("message")
    return code if isinstance(code, str) else None, str(message or code or "no message")[:500]


def _envelope(answer: Answer) -> dict[str, Any]:
    try:
        text = answer.body.decode(json.detect_encoding(answer.body), "surrogatepass")
        value = json.loads(text, parse_constant=_refuse_constant)
        # Looked for only where one may be: the search costs more than the parsing.
        if (not text.isascii() or "\\u" in text) and _SURROGATE.search(text):
            value = _without_surrogates(value)
    except (ValueError, RecursionError):
        raise _surprise(answer, "expected JSON") from None
    if not isinstance(value, dict):
        raise _surprise(answer, "expected an object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _without_surrogates(value: Any) -> Any:
    """*value* with lone surrogates replaced: they would blow up in whoever writes them out."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value


def _surprise(answer: Answer, problem: str, *, where: str = "$") -> UnexpectedResponseError:
    return UnexpectedResponseError(
        problem, where=where, status_code=answer.status, body=_start(answer)
    )


def _start(answer: Answer) -> str:
    return answer.body[:200].decode("utf-8", "replace")


# --- reading: values -------------------------------------------------------------------------


def _structured(data: Any, answer: Answer, make: Callable[[Any], T], where: str) -> T:
    if not isinstance(data, dict):
        raise _surprise(answer, f"expected an object, got {type(data).__name__}", where=where)
    try:
        return make(data)
    except BaseValidationError as exc:
        problem, _, place = transform_error(exc, path=where)[0].partition(" @ ")
        raise _surprise(answer, problem, where=place) from None


def _task(data: Any, answer: Answer, where: str = "$.data") -> TaskSnapshot:
    return _structured(data, answer, snapshot, where)


def _submitted(data: Any, answer: Answer) -> TaskSnapshot:
    """A new task; with an id alone it is already one that is paid for, and must not be lost."""
    if isinstance(data, dict) and not isinstance(data.get("status"), str):
        data = {**data, "status": "pending"}
    return _task(data, answer)


def _this_task(task_id: str, data: Any, answer: Answer) -> TaskSnapshot:
    task = _task(data, answer)
    if task.id != task_id:
        raise _surprise(
            answer, f"expected the task {task_id!r}, got {task.id!r}", where="$.data.id"
        )
    return task


def _record(data: Any, answer: Answer, where: str) -> UsageRecord:
    return _structured(data, answer, UsageRecord, where)


def _item(data: Any, answer: Answer, where: str) -> Mapping[str, Any]:
    return _structured(data, answer, dict[str, Any], where)


def _summaries(data: Any, answer: Answer) -> list[UsageSummary]:
    if not isinstance(data, list):
        raise _surprise(answer, "expected a list", where="$.data")
    return [
        _structured(entry, answer, summary, f"$.data[{index}]") for index, entry in enumerate(data)
    ]


def _page(
    read_item: Callable[[Any, Answer, str], T], page: int, per_page: int, data: Any, answer: Answer
) -> Page[T]:
    items = data.get("items") if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise _surprise(answer, "expected a list", where="$.data.items")
    found = tuple(
        read_item(item, answer, f"$.data.items[{index}]") for index, item in enumerate(items)
    )
    place = data.get("pagination")
    return _placed(found, page, per_page, place if isinstance(place, dict) else {})


def _placed(items: tuple[T, ...], page: int, per_page: int, place: Mapping[str, Any]) -> Page[T]:
    """*items* with what the pagination says.

    Where it is silent, they are what was asked for, and a full page is not taken for the last.
    """

    def number(name: str, default: int) -> int:
        value = place.get(name)
        return value if type(value) is int and value >= 0 else default

    page = number("page", page) or 1
    per_page = number("per_page", 0) or per_page
    is_full = len(items) >= per_page
    total = number("total", (page - 1) * per_page + len(items) + is_full)
    pages = number("total_pages", -(-total // per_page))
    return Page(items=items, page=page, per_page=per_page, total=total, total_pages=pages)
