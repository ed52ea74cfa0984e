"""The API as functions: the documentation's own samples, its variants, and answers that make none.

The samples in `payloads` are the documentation's, word for word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eggapi_async import _protocol
from eggapi_async._protocol import Answer, Call
from eggapi_async._values import moment, money, retry_after, server_time
from eggapi_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    EggError,
    InsufficientBalanceError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    UnexpectedResponseError,
)
from eggapi_async.models import GenerationRequest, TaskSnapshot, UsageRecord, UsageSummary

PAYLOADS = Path(__file__).parent / "payloads"
TASK_ID = "gen_abc123def456"
PICTURE = "https://cdn.eggapi.ai/outputs/abc123.png"
REQUEST = GenerationRequest(prompt="A cat")
CREATED = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)

SUBMIT = _protocol.submit(REQUEST)
GET = _protocol.get_task(TASK_ID)
LIST = _protocol.list_tasks()
SWEEP = _protocol.sweep_tasks(1)
USAGE = _protocol.usage()
SUMMARY = _protocol.usage_summary()
MAKERS: dict[str, Callable[[], Call[Any]]] = {
    "submit": lambda: _protocol.submit(REQUEST),
    "get": lambda: _protocol.get_task(TASK_ID),
    "list": _protocol.list_tasks,
    "sweep": lambda: _protocol.sweep_tasks(1),
    "usage": _protocol.usage,
    "summary": _protocol.usage_summary,
}
each_call = pytest.mark.parametrize("call", MAKERS, indirect=True)


@pytest.fixture
def call(request: pytest.FixtureRequest) -> Call[Any]:
    """One call of each kind, by its name."""
    return MAKERS[request.param]()


def sample(name: str) -> bytes:
    """A body as the documentation prints it."""
    return (PAYLOADS / f"{name}.json").read_bytes()


def answer(
    body: object = None, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """An answer with a JSON body, or with these very bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, headers or {}, data)


def good(data: object, *, status: int = 200) -> Answer:
    """An answer in the envelope."""
    return answer({"data": data, "error": None}, status=status)


def bad(status: int, code: object = None, message: object = "no") -> Answer:
    """A refusal in the envelope."""
    return answer({"data": None, "error": {"code": code, "message": message}}, status=status)


def task(**fields: object) -> TaskSnapshot:
    """The snapshot that is read from a task object with these *fields*."""
    return GET.read(good({"id": TASK_ID, "status": "pending", **fields}))


# --- what is sent ----------------------------------------------------------------------------


def sent(**fields: Any) -> Any:
    """The body of a submission with these fields."""
    body = _protocol.submit(GenerationRequest(**{"prompt": "A cat", **fields})).body
    assert body is not None
    return json.loads(body)


@pytest.mark.parametrize(
    ("call", "kind", "method", "path", "query"),
    [
        ("submit", "submit", "POST", "/v1/generate", {}),
        ("get", "get", "GET", f"/v1/tasks/{TASK_ID}", {}),
        ("list", "list", "GET", "/v1/tasks", {"page": 1, "per_page": 20}),
        ("sweep", "sweep", "GET", "/v1/tasks", {"page": 1, "per_page": 100}),
        ("usage", "usage", "GET", "/v1/usage", {"page": 1, "per_page": 100}),
        ("summary", "usage", "GET", "/v1/usage/summary", {}),
    ],
    indirect=["call"],
)
def test_every_path_is_the_documented_one(
    call: Call[Any], kind: str, method: str, path: str, query: Mapping[str, int]
) -> None:
    """Method, path and query of each call, and the word that it is counted under."""
    assert (call.kind, call.method, call.path, call.query) == (kind, method, path, query)


def test_a_page_is_asked_for_as_it_was_wished() -> None:
    """The numbers of a list's page go into its query, the kind is the caller's word."""
    wished = {"page": 3, "per_page": 7}
    assert _protocol.list_tasks(page=3, per_page=7, kind="search").query == wished
    assert _protocol.list_tasks(page=3, per_page=7, kind="search").kind == "search"
    assert _protocol.usage(page=3, per_page=7).query == wished
    assert _protocol.sweep_tasks(3).query == {"page": 3, "per_page": 100}
    assert _protocol.get_task(TASK_ID, kind="peek").kind == "peek"


@pytest.mark.parametrize("make", [_protocol.list_tasks, _protocol.usage])
def test_a_page_that_says_nothing_of_its_place_has_the_one_that_was_asked_for(
    make: Callable[..., Call[Any]],
) -> None:
    """Some documents have no `pagination`: then the request tells."""
    page = make(page=3, per_page=7).read(good({"items": []}))
    assert (page.page, page.per_page) == (3, 7)


def test_each_call_reads_what_it_asked_for() -> None:
    """A task is a task, a page of the list has tasks, one of the usage has records."""
    found = good({"id": TASK_ID, "status": "pending"})
    page = good({"items": [{"id": TASK_ID, "status": "pending"}]})
    assert _protocol.submit(REQUEST).read(found).id == TASK_ID
    assert _protocol.get_task(TASK_ID).read(found).id == TASK_ID
    assert _protocol.list_tasks().read(page).items[0].id == TASK_ID
    assert _protocol.sweep_tasks(2).read(page).items == ({"id": TASK_ID, "status": "pending"},)
    assert (_protocol.sweep_tasks(2).read(page).page, page.status) == (2, 200)
    assert _protocol.usage().read(page).items[0].raw == {"id": TASK_ID, "status": "pending"}
    assert _protocol.usage_summary().read(good([])) == []


def test_the_documented_submission() -> None:
    """The example of the documentation is sent word for word."""
    assert sent(
        model="nanobanana-pro",
        prompt="A cat playing with a ball of yarn",
        aspect_ratio="16:9",
        webhook_url="https://webhook.site/your-webhook-id",
    ) == {
        "model": "nanobanana-pro",
        "prompt": "A cat playing with a ball of yarn",
        "aspect_ratio": "16:9",
        "webhook_url": "https://webhook.site/your-webhook-id",
    }


def test_what_is_not_given_is_not_sent() -> None:
    """A field that was left open stays the service's choice."""
    assert sent() == {"model": "nanobanana", "prompt": "A cat"}


def test_every_field_is_sent_under_its_own_name() -> None:
    """All documented fields and the extra ones are in one flat object."""
    fields = {
        "negative_prompt": "dogs",
        "num_outputs": 4,
        "resolution": "4k",
        "image_urls": ["https://files.example/a.png"],
        "duration": 8,
    }
    assert sent(**fields, extra={"seed": 7}) == {
        "model": "nanobanana",
        "prompt": "A cat",
        **fields,
        "seed": 7,
    }


def test_extra_fields_win() -> None:
    """`extra` is the caller's last word, null included."""
    assert sent(extra={"model": "new", "prompt": None}) == {"model": "new", "prompt": None}


@pytest.mark.parametrize("prompt", ["Кот 🐈", "a\u2028cat", 'a "cat"\\\n'])
def test_any_text_arrives(prompt: str) -> None:
    """A prompt in any script arrives as it is."""
    assert sent(prompt=prompt)["prompt"] == prompt


@pytest.mark.parametrize(
    ("call", "kind", "line", "query"),
    [
        (SUBMIT, "submit", "POST /v1/generate", {}),
        (GET, "get", f"GET /v1/tasks/{TASK_ID}", {}),
        (_protocol.get_task("a:~b", kind="peek"), "peek", "GET /v1/tasks/a%3A~b", {}),
        (LIST, "list", "GET /v1/tasks", {"page": 1, "per_page": 20}),
        (_protocol.list_tasks(page=3, kind="x"), "x", "GET /v1/tasks", {"page": 3, "per_page": 20}),
        (_protocol.sweep_tasks(2), "sweep", "GET /v1/tasks", {"page": 2, "per_page": 100}),
        (USAGE, "usage", "GET /v1/usage", {"page": 1, "per_page": 100}),
        (SUMMARY, "usage", "GET /v1/usage/summary", {}),
    ],
)
def test_endpoints(call: Call[Any], kind: str, line: str, query: dict[str, int]) -> None:
    """Each endpoint has the documented method, path and query; only the POST bills."""
    assert (call.kind, f"{call.method} {call.path}", call.query) == (kind, line, query)
    assert call.is_billing is (call is SUBMIT)
    assert (call.body is not None) is call.is_billing


@pytest.mark.parametrize("page", [0, -1, 10**9 + 1, True, 1.0, "1", None])
def test_impossible_pages(page: Any) -> None:
    """A page number is a whole number from 1."""
    with pytest.raises(InvalidRequestError, match="page: expected a whole number from 1"):
        _protocol.list_tasks(page=page)


@pytest.mark.parametrize("per_page", [0, 101, True, "20"])
def test_impossible_page_sizes(per_page: Any) -> None:
    """The service lists at most 100 items a page."""
    with pytest.raises(InvalidRequestError, match="per_page: expected a whole number from 1 to"):
        _protocol.usage(per_page=per_page)


@pytest.mark.parametrize("task_id", [TASK_ID, "0", "a.b-c_d~e:f", "x" * 200])
def test_usable_ids(task_id: str) -> None:
    """Anything that looks like an id is taken as one."""
    assert _protocol.checked_task_id(task_id) == task_id


@pytest.mark.parametrize(
    "task_id", ["", ".", "..", "a/b", "../usage", "a b", "a?b", "é", "x" * 201, "a\n", 5, None]
)
def test_unusable_ids(task_id: object) -> None:
    """An id never leads to another path."""
    with pytest.raises(InvalidRequestError, match="task_id: expected an id"):
        _protocol.checked_task_id(task_id)


# --- the documentation's own samples ---------------------------------------------------------


def test_the_documented_submission_is_accepted() -> None:
    """202 with a pending task."""
    snapshot = SUBMIT.read(answer(sample("submitted"), status=202))
    assert (snapshot.id, snapshot.status, snapshot.model) == (TASK_ID, "pending", "nanobanana-pro")
    assert (snapshot.type, snapshot.created_at) == ("image_generate", CREATED)
    assert snapshot.cost == 0
    assert (snapshot.started_at, snapshot.completed_at, snapshot.error) == (None, None, None)
    assert (snapshot.url, snapshot.urls, snapshot.output) == (None, (), None)
    assert not snapshot.is_final


def test_the_documented_processing_task() -> None:
    """A task at work has begun."""
    snapshot = GET.read(answer(sample("processing")))
    assert (snapshot.status, snapshot.is_final) == ("processing", False)
    assert snapshot.started_at == CREATED + timedelta(seconds=5)


def test_the_documented_completed_task() -> None:
    """A completed task has an output, a price and an end."""
    snapshot = GET.read(answer(sample("completed")))
    assert snapshot.is_completed
    assert (snapshot.url, snapshot.urls) == (PICTURE, (PICTURE,))
    assert (snapshot.output, snapshot.cost) == ({"url": PICTURE}, Decimal("0.016"))
    assert snapshot.completed_at == CREATED + timedelta(seconds=30)
    assert snapshot.raw == json.loads(sample("completed"))["data"]


def test_the_documented_failed_task() -> None:
    """A failed task is no error of the answer: HTTP 200 with the reason in it."""
    snapshot = GET.read(answer(sample("failed")))
    assert snapshot.is_final
    assert not snapshot.is_completed
    assert snapshot.error == "Content moderation: prompt contains prohibited content"
    assert snapshot.cost == 0
    assert snapshot.url is None


@pytest.mark.parametrize("name", ["completed", "failed"])
def test_an_answer_to_the_post_may_be_final_already(name: str) -> None:
    """Models that answer at once do so with 200 and a final task."""
    assert SUBMIT.read(answer(sample(name), status=200)).is_final


@pytest.mark.parametrize(
    ("name", "cost"), [("webhook_completed", Decimal("0.016")), ("webhook_failed", Decimal(0))]
)
def test_money_in_deliveries(name: str, cost: Decimal) -> None:
    """A webhook writes the price without the sign and with six digits, and means the same."""
    assert money(json.loads(sample(name))["cost"]) == cost


def test_the_samples_in_a_list() -> None:
    """A list page has task objects in all states."""
    names = ("submitted", "processing", "completed", "failed")
    items = [json.loads(sample(name))["data"] for name in names]
    place = {"page": 2, "per_page": 4, "total": 9, "total_pages": 3}
    body = good({"items": items, "pagination": place})
    page = LIST.read(body)
    assert [item.status for item in page.items] == ["pending", "processing", "completed", "failed"]
    assert (page.page, page.per_page, page.total, page.total_pages) == (2, 4, 9, 3)
    assert SWEEP.read(body).items == tuple(items)


# --- variants of task objects ----------------------------------------------------------------


@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
@pytest.mark.parametrize(
    "field",
    ["model", "type", "output", "error", "cost", "created_at", "started_at", "completed_at"],
)
def test_absent_and_null_are_the_same(field: str, absent: bool) -> None:
    """A field without a value may be missing or null."""
    empty: dict[str, object] = {} if absent else {field: None}
    plain = task()
    assert getattr(task(**empty), field) == getattr(plain, field)
    assert not getattr(plain, field)


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        pytest.param({"url": "a"}, ("a",), id="one output"),
        pytest.param({"url": "a", "urls": ["a", "b"]}, ("a", "b"), id="many, the first twice"),
        pytest.param({"urls": ["a", "b"]}, ("a", "b"), id="many alone"),
        pytest.param({"url": "c", "urls": ["a", "b"]}, ("c", "a", "b"), id="one beside many"),
        pytest.param({"url": "a", "urls": None}, ("a",), id="null instead of many"),
        pytest.param({"url": "a", "urls": []}, ("a",), id="none instead of many"),
        pytest.param({"url": None, "urls": ["a"]}, ("a",), id="null instead of one"),
        pytest.param({"url": "", "urls": [""]}, (), id="empty ones"),
        pytest.param({"url": 5, "urls": "a"}, (), id="nonsense"),
        pytest.param({"urls": [None, 5, "a", {}]}, ("a",), id="nonsense among many"),
        pytest.param({}, (), id="an empty output"),
        pytest.param("a", (), id="an output that is no object"),
        pytest.param(["a"], (), id="an output that is a list"),
    ],
)
def test_outputs(output: object, urls: tuple[str, ...]) -> None:
    """`url` is the first of `urls`, whichever of them the service sent."""
    snapshot = task(status="completed", output=output)
    assert snapshot.urls == urls
    assert snapshot.url == (urls[0] if urls else None)
    assert snapshot.output == (output if isinstance(output, dict) else None)


def test_a_video_keeps_what_its_output_says() -> None:
    """A video's length is in its output."""
    snapshot = task(type="video_generate", output={"url": "a.mp4", "duration_seconds": 8})
    assert snapshot.type == "video_generate"
    assert snapshot.output == {"url": "a.mp4", "duration_seconds": 8}


def test_what_is_unknown_is_kept() -> None:
    """New fields, statuses and types are kept and never fail."""
    snapshot = task(status="resting", type="song_generate", mood="good", raw=1, urls=["x"], url=5)
    assert (snapshot.status, snapshot.type, snapshot.is_final) == (
        "resting",
        "song_generate",
        False,
    )
    assert snapshot.raw["mood"] == "good"
    assert snapshot.urls == ()


@pytest.mark.parametrize("value", ["", 5, [], {}, False], ids=repr)
@pytest.mark.parametrize("field", ["model", "type"])
def test_an_unusable_model_or_type_does_not_lose_the_task(field: str, value: object) -> None:
    """Only id and status are needed: a paid task is not lost over a word beside them."""
    data = {"id": TASK_ID, "status": "pending", field: value}
    assert getattr(SUBMIT.read(good(data, status=202)), field) == ""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param("no", "no", id="text"),
        pytest.param({"code": "X", "message": "no"}, "no", id="an object with a message"),
        pytest.param({"code": "X"}, '{"code": "X"}', id="an object without one"),
        pytest.param(["no"], "['no']", id="a list"),
        pytest.param(5, "5", id="a number"),
        pytest.param(None, None, id="null"),
    ],
)
def test_reasons(error: object, text: str | None) -> None:
    """A task's error is text, whatever came."""
    assert task(status="failed", error=error).error == text


@pytest.mark.parametrize(
    ("data", "where"),
    [
        pytest.param(None, "$.data", id="no data"),
        pytest.param([], "$.data", id="a list instead of a task"),
        pytest.param("gen_1", "$.data", id="a bare id"),
        pytest.param({}, "$.data.id", id="an empty object"),
        pytest.param({"status": "pending"}, "$.data.id", id="no id"),
        pytest.param({"id": None, "status": "pending"}, "$.data.id", id="a null id"),
        pytest.param({"id": "", "status": "pending"}, "$.data.id", id="an empty id"),
        pytest.param({"id": 5, "status": "pending"}, "$.data.id", id="a number as id"),
        pytest.param({"id": TASK_ID}, "$.data.status", id="no status"),
        pytest.param({"id": TASK_ID, "status": 5}, "$.data.status", id="a number as status"),
        pytest.param({"id": "gen_2", "status": "pending"}, "$.data.id", id="somebody else's task"),
    ],
)
def test_unusable_tasks(data: object, where: str) -> None:
    """A task without id or status, or with another id, says where it is wrong and what came."""
    with pytest.raises(UnexpectedResponseError) as caught:
        GET.read(good(data))
    assert caught.value.where == where
    assert caught.value.status_code == 200
    assert caught.value.body.startswith('{"data": ')


# --- lists and usage -------------------------------------------------------------------------

ITEM = {"id": "gen_1", "status": "pending"}


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        pytest.param(
            {"page": 1, "per_page": 20, "total": 45, "total_pages": 3}, (1, 20, 45, 3), id="all"
        ),
        pytest.param({"page": 2, "per_page": 20, "total": 45}, (2, 20, 45, 3), id="no pages"),
        pytest.param({"total": 45}, (1, 20, 45, 3), id="a total alone"),
        pytest.param({}, (1, 20, 2, 1), id="nothing"),
        pytest.param(None, (1, 20, 2, 1), id="null"),
        pytest.param([], (1, 20, 2, 1), id="no object"),
        pytest.param(
            {"page": "1", "per_page": 0, "total": -1, "total_pages": 1.5},
            (1, 20, 2, 1),
            id="nonsense",
        ),
        pytest.param({"page": True, "total": True}, (1, 20, 2, 1), id="truths instead of numbers"),
    ],
)
def test_pagination(place: object, expected: tuple[int, int, int, int]) -> None:
    """What the pagination does not say follows from the items and from what was asked for."""
    page = LIST.read(good({"items": [ITEM, ITEM], "pagination": place}))
    assert (page.page, page.per_page, page.total, page.total_pages) == expected
    assert not any(isinstance(number, bool) for number in (page.page, page.total))


def test_a_full_page_of_a_silent_list_is_not_the_last() -> None:
    """Without pagination there may always be more behind a full page, and not behind another."""
    second = _protocol.list_tasks(page=2, per_page=2)
    full = second.read(good({"items": [ITEM, ITEM]}))
    short = second.read(good({"items": [ITEM]}))
    assert (full.page, full.total, full.total_pages) == (2, 5, 3)
    assert (short.page, short.total, short.total_pages) == (2, 3, 2)


def test_an_empty_list() -> None:
    """No items are no pages, and no division by zero."""
    page = LIST.read(good({"items": []}))
    assert (page.items, page.per_page, page.total, page.total_pages) == ((), 20, 0, 0)


@pytest.mark.parametrize("call", [LIST, SWEEP, USAGE], ids=["list", "sweep", "usage"])
@pytest.mark.parametrize(
    ("data", "where"),
    [
        (None, "$.data.items"),
        ([], "$.data.items"),
        ({}, "$.data.items"),
        ({"items": {}}, "$.data.items"),
        ({"items": [ITEM, None]}, "$.data.items[1]"),
        ({"items": ["gen_1"]}, "$.data.items[0]"),
    ],
)
def test_unusable_lists(call: Call[Any], data: object, where: str) -> None:
    """A list that is none says where."""
    with pytest.raises(UnexpectedResponseError) as caught:
        call.read(good(data))
    assert caught.value.where == where


def test_an_unusable_task_in_a_list_is_named() -> None:
    """The place of a bad item is in the error, down to the field."""
    with pytest.raises(UnexpectedResponseError) as caught:
        LIST.read(good({"items": [ITEM, {"id": "gen_2"}]}))
    assert caught.value.where == "$.data.items[1].status"


def test_a_sweep_does_not_care_what_its_items_are() -> None:
    """Most items of a sweep are of no interest: they are not read, so they cannot fail."""
    assert SWEEP.read(good({"items": [{"id": 5}]})).items == ({"id": 5},)


def test_usage_records_are_kept_as_they_come() -> None:
    """The fields of usage records are not documented."""
    records = USAGE.read(good({"items": [{"what": "ever"}, {}]})).items
    assert records == (UsageRecord({"what": "ever"}), UsageRecord({}))


def test_the_usage_summary() -> None:
    """One entry per model, money as Decimal."""
    data: list[dict[str, Any]] = [
        {"model": "m", "total_units": 1, "total_cost": "$0.0100", "request_count": 1, "new": 0},
        {"model": "n", "total_units": "2.5", "total_cost": None},
        {"model": "o", "total_units": "many", "total_cost": "free", "request_count": "3"},
        {"model": "p", "request_count": True, "raw": 5},
    ]
    assert SUMMARY.read(good(data)) == [
        UsageSummary(
            model="m",
            total_units=Decimal(1),
            total_cost=Decimal("0.01"),
            request_count=1,
            raw=data[0],
        ),
        UsageSummary(model="n", total_units=Decimal("2.5"), raw=data[1]),
        UsageSummary(model="o", raw=data[2]),
        UsageSummary(model="p", raw=data[3]),
    ]


@pytest.mark.parametrize(
    ("data", "where"),
    [({}, "$.data"), (None, "$.data"), ([5], "$.data[0]"), ([{}], "$.data[0].model")],
)
def test_unusable_summaries(data: object, where: str) -> None:
    """A summary that is none says where."""
    with pytest.raises(UnexpectedResponseError) as caught:
        SUMMARY.read(good(data))
    assert caught.value.where == where


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "BAD_REQUEST", BadRequestError),
        (400, "VALIDATION_ERROR", BadRequestError),
        (401, "UNAUTHORIZED", AuthenticationError),
        (403, "FORBIDDEN", PermissionDeniedError),
        (403, "INSUFFICIENT_BALANCE", InsufficientBalanceError),
        (404, "NOT_FOUND", NotFoundError),
        (429, "RATE_LIMITED", RateLimitedError),
        (500, "INTERNAL_ERROR", ServerError),
        (502, "UPSTREAM_ERROR", ServerError),
        (503, "SERVICE_UNAVAILABLE", ServerError),
        (404, "RATE_LIMITED", NotFoundError),
        (418, "TEAPOT", APIError),
        (599, None, ServerError),
        (200, "UNAUTHORIZED", AuthenticationError),
        (200, "INSUFFICIENT_BALANCE", InsufficientBalanceError),
        (202, "RATE_LIMITED", RateLimitedError),
        (200, "SERVICE_UNAVAILABLE", ServerError),
        (200, "TEAPOT", APIError),
        (200, None, APIError),
    ],
)
@each_call
def test_refusals(call: Call[Any], status: int, code: str | None, kind: type[APIError]) -> None:
    """The HTTP status decides what a refusal is; where it is 2xx, the service's code does."""
    with pytest.raises(APIError) as caught:
        call.read(bad(status, code, "because"))
    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.code, error.message) == (status, code, "because")


def test_an_error_beside_data_wins() -> None:
    """An envelope with both is an error, whatever the data."""
    with pytest.raises(NotFoundError):
        GET.read(answer({"data": {**ITEM}, "error": {"code": "NOT_FOUND"}}))


def test_a_bad_status_wins_over_a_good_body() -> None:
    """HTTP 500 with a task in it is an error."""
    with pytest.raises(ServerError, match="an answer without error text"):
        GET.read(answer(sample("completed"), status=500))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        pytest.param("broken", None, "broken", id="text instead of an object"),
        pytest.param("x" * 600, None, "x" * 500, id="a long text is cut"),
        pytest.param({"message": "m" * 600}, None, "m" * 500, id="a long message is cut"),
        pytest.param({"code": "X"}, "X", "X", id="a code without message"),
        pytest.param({"code": 5, "message": None}, None, "5", id="a number as code"),
        pytest.param({}, None, "no message", id="an empty object"),
        pytest.param({"message": {"en": "no"}}, None, "{'en': 'no'}", id="an object as message"),
        pytest.param(
            [1],
            None,
            'an answer without error text: \'{"data": null, "error": [1]}\'',
            id="a list instead of an object",
        ),
    ],
)
def test_odd_error_envelopes(error: object, code: str | None, message: str) -> None:
    """Whatever stands where the error should be, the message says something bounded."""
    with pytest.raises(ServerError) as caught:
        GET.read(answer({"data": None, "error": error}, status=500))
    assert (caught.value.code, caught.value.message) == (code, message)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><h1>502 Bad Gateway</h1></html>", b"\xff\xfe\x00", b"upstream timed out", b"[]"],
)
@pytest.mark.parametrize("status", [401, 404, 429, 500, 502, 503, 504])
def test_refusals_of_proxies(status: int, body: bytes) -> None:
    """A body without envelope leaves the status to say it, and its start to show."""
    with pytest.raises(APIError) as caught:
        GET.read(answer(body, status=status))
    assert (caught.value.status_code, caught.value.code) == (status, None)
    assert "an answer without envelope" in caught.value.message


def test_a_request_id_is_kept() -> None:
    """`X-Request-Id` is what support will ask for."""
    refusal = bad(500, "INTERNAL_ERROR")
    with pytest.raises(ServerError, match=r"\(request req_7\)$"):
        GET.read(Answer(500, {"x-request-id": "req_7"}, refusal.body))


def test_a_rate_limit_brings_its_pause() -> None:
    """`Retry-After` is in the error."""
    with pytest.raises(RateLimitedError) as caught:
        GET.read(Answer(429, {"retry-after": "2.5", "x-request-id": "r"}, b""))
    assert (caught.value.retry_after, caught.value.request_id) == (2.5, "r")


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308, 100, 199])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect says that the base URL is wrong, and to which host it led."""
    moved = answer(
        b"", status=status, headers={"location": "https://evil.example/\x1b[2J" + "x" * 999}
    )
    with pytest.raises(UnexpectedResponseError, match="check base_url") as caught:
        GET.read(moved)
    assert "'https://evil.example'" in str(caught.value)
    assert len(str(caught.value)) < 600


# --- what a refusal proves -------------------------------------------------------------------


def error_of(answered: Answer) -> EggError:
    """The error that *answered* is read as, by the POST."""
    with pytest.raises(EggError) as caught:
        SUBMIT.read(answered)
    return caught.value


@pytest.mark.parametrize(
    ("answered", "proves"),
    [
        pytest.param(bad(400, "BAD_REQUEST"), True, id="400 proves that nothing was bought"),
        pytest.param(bad(401, "UNAUTHORIZED"), True, id="401 does"),
        pytest.param(bad(403, "INSUFFICIENT_BALANCE"), True, id="403 does"),
        pytest.param(bad(404), True, id="404 does"),
        pytest.param(answer(b"<html>", status=413), True, id="413 by a proxy does"),
        pytest.param(bad(429, "RATE_LIMITED"), True, id="429 does"),
        pytest.param(answer(b"slow down", status=429), True, id="429 without envelope does"),
        pytest.param(bad(503, "SERVICE_UNAVAILABLE"), True, id="503 in the API's envelope does"),
        pytest.param(answer(b"", status=301), True, id="a permanent redirect does"),
        pytest.param(answer(b"", status=302), True, id="a redirect does"),
        pytest.param(answer(b"", status=307), True, id="a temporary redirect does"),
        pytest.param(answer(b"", status=308), True, id="a redirect of the POST does"),
        pytest.param(answer(b"", status=303), False, id="303 follows on work that was done"),
        pytest.param(answer(b"", status=304), False, id="304 is no answer to a POST"),
        pytest.param(
            answer(b"", status=408), False, id="408 may come from a proxy that sent it on"
        ),
        pytest.param(bad(500, "INTERNAL_ERROR"), False, id="500 proves nothing"),
        pytest.param(bad(502, "UPSTREAM_ERROR"), False, id="502 proves nothing"),
        pytest.param(bad(503, "OVERLOADED"), False, id="503 in other words proves nothing"),
        pytest.param(answer(b"<html>", status=503), False, id="503 of a proxy proves nothing"),
        pytest.param(answer(b"<html>", status=504), False, id="504 proves nothing"),
        pytest.param(answer(b"<html>", status=202), False, id="202 with HTML may have bought"),
        pytest.param(good({"status": "pending"}, status=202), False, id="so may 202 without an id"),
        pytest.param(bad(200, "INTERNAL_ERROR"), False, id="so may 200 with an error"),
        pytest.param(bad(200, "RATE_LIMITED"), False, id="so may 200 that says rate limit"),
        pytest.param(bad(200, "SERVICE_UNAVAILABLE"), False, id="so may 200 that says unavailable"),
    ],
)
def test_what_a_refusal_proves(answered: Answer, proves: bool) -> None:
    """A billing POST is refused only where the answer proves it; all else is doubt."""
    assert _protocol.is_refusal(error_of(answered)) is proves


def test_a_lost_connection_is_no_refusal() -> None:
    """What is no answer proves nothing here."""
    assert not _protocol.is_refusal(ConnectionFailedError("reset", was_sent=True))


# --- bodies that make no sense ---------------------------------------------------------------

TEXT = sample("processing").decode()
STRANGE = '{"data": {"id": "gen_abc123def456", "status": "pending", "x": %s}, "error": null}'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" \n", id="blanks"),
        pytest.param(b"<html></html>", id="HTML"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(b"5", id="a number"),
        pytest.param(sample("completed")[:-20], id="half a body"),
        pytest.param(sample("completed") + b"x", id="more than a body"),
        pytest.param((STRANGE % "NaN").encode(), id="NaN"),
        pytest.param((STRANGE % "Infinity").encode(), id="Infinity"),
        pytest.param((STRANGE % "-Infinity").encode(), id="-Infinity"),
        pytest.param((STRANGE % ("9" * 5000)).encode(), id="an int of 5000 digits"),
        pytest.param(b"[" * 100_000, id="100,000 brackets"),
        pytest.param((STRANGE % ("[" * 100_000)).encode(), id="100,000 brackets inside"),
        pytest.param(b'{"a":' * 100_000, id="100,000 braces"),
        pytest.param(TEXT.replace("nanobanana", "näno").encode("latin-1"), id="latin-1"),
        pytest.param(b"\xff\xfe" + b"{", id="half a character of UTF-16"),
        pytest.param(b"\x00\x01\x02", id="binary"),
    ],
)
@each_call
def test_nonsense(call: Call[Any], body: bytes) -> None:
    """A body that is no JSON object is unexpected, never a foreign exception."""
    with pytest.raises(UnexpectedResponseError) as caught:
        call.read(answer(body))
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(TEXT.encode("utf-8-sig"), id="UTF-8 with a byte order mark"),
        pytest.param(TEXT.encode("utf-16"), id="UTF-16"),
        pytest.param(TEXT.encode("utf-16-be"), id="UTF-16 without a mark"),
        pytest.param(TEXT.encode("utf-32"), id="UTF-32"),
        pytest.param(f"\n {TEXT} \n".encode(), id="blanks around"),
        pytest.param(
            TEXT.replace("{", '{"error": 5,', 1).encode(), id="a key twice: the last holds"
        ),
    ],
)
def test_other_clothes(body: bytes) -> None:
    """JSON in another encoding is JSON."""
    assert GET.read(answer(body)).status == "processing"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param((STRANGE % r'"\ud800"').encode(), id="an escape"),
        pytest.param((STRANGE % r'"\uDFFF"').encode(), id="an escape in capitals"),
        pytest.param((STRANGE % r'{"\ud800": ["\udc00", 1]}').encode(), id="deep inside"),
        pytest.param((STRANGE % r'"\ud800"').encode("utf-16"), id="an escape in UTF-16"),
        pytest.param((STRANGE % '"\ud800"').encode("utf-8", "surrogatepass"), id="bare in UTF-8"),
        pytest.param((STRANGE % '"\udc00"').encode("utf-16", "surrogatepass"), id="bare in UTF-16"),
    ],
)
@pytest.mark.parametrize("read", [GET.read, SUBMIT.read], ids=["get", "submit"])
def test_lone_surrogates_are_replaced(read: Any, body: bytes) -> None:
    """What could not be written out again is replaced at the border; the task is not lost."""
    snapshot = read(answer(body))
    assert snapshot.id == TASK_ID
    assert "?" in json.dumps(snapshot.raw, ensure_ascii=False).encode().decode()


def test_whole_pairs_of_surrogates_are_kept() -> None:
    """An escaped cat is a cat."""
    assert GET.read(answer((STRANGE % r'"\ud83d\udc08"').encode())).raw["x"] == "🐈"


def place_of_surprise(body: bytes) -> str | None:
    """Where *body* is unexpected; None where it is read."""
    try:
        GET.read(answer(body))
    except UnexpectedResponseError as error:
        return error.where
    return None


@pytest.mark.parametrize("depth", [300, 600, 900, 960, 975, 985, 990])
def test_deep_bodies_with_surrogates(depth: int) -> None:
    """Mending surrogates does not dig deeper than the stack is."""
    deep = "[" * depth + r'"\ud800"' + "]" * depth
    assert place_of_surprise((STRANGE % deep).encode()) in (None, "$")


def test_deep_reasons() -> None:
    """A reason too deep to be written out is an unexpected answer, at the depth where it is."""
    for depth in range(900, 1000):
        body = '{"data": {"id": "%s", "status": "failed", "error": {"x": %s}}}'
        deep = body % (TASK_ID, "[" * depth + "]" * depth)
        assert place_of_surprise(deep.encode()) in (None, "$", "$.data.error")


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([TASK_ID, "completed", "$0.01", "2024-01-15T10:30:00Z", "RATE_LIMITED", ""])
)
names = st.text(max_size=4) | st.sampled_from(
    [
        "data",
        "error",
        "id",
        "status",
        "model",
        "type",
        "output",
        "url",
        "urls",
        "cost",
        "created_at",
        "items",
        "pagination",
        "page",
        "total",
        "total_pages",
        "per_page",
        "code",
        "message",
        "total_units",
        "total_cost",
        "request_count",
        "raw",
    ]
)
trees = st.recursive(
    scalars | st.sampled_from(["\ud800", "\udfff"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(names, inner, max_size=5)
        | st.fixed_dictionaries({"id": st.just(TASK_ID), "status": inner})
        | st.fixed_dictionaries({"items": inner, "pagination": inner})
    ),
    max_leaves=12,
)
documents = st.fixed_dictionaries({"data": trees}, optional={"error": trees}) | trees


def _written(document: object, encoding: str) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode(encoding, "surrogatepass")


encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
bodies = st.binary(max_size=64) | st.builds(_written, documents, encodings)


@settings(max_examples=250, derandomize=True, deadline=None, database=None)
@given(
    body=bodies,
    status=st.sampled_from([200, 202, 204, 302, 400, 403, 404, 429, 500, 503]),
    headers=st.dictionaries(
        st.sampled_from(["date", "retry-after", "location", "x-request-id"]), st.text(max_size=20)
    ),
)
def test_whatever_comes_is_a_value_or_an_egg_error(
    body: bytes, status: int, headers: dict[str, str]
) -> None:
    """No bytes, status or headers make any endpoint raise a foreign exception."""
    for call in (make() for make in MAKERS.values()):
        try:
            value = call.read(Answer(status, headers, body))
        except EggError as error:
            str(error).encode()
        else:
            if isinstance(value, TaskSnapshot):
                json.dumps(value.raw, ensure_ascii=False).encode()


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.data())
def test_a_damaged_sample_is_a_value_or_an_egg_error(data: st.DataObject) -> None:
    """One byte of a good body may be anything."""
    body = bytearray(sample("completed"))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    for call in (make() for make in MAKERS.values()):
        try:
            call.read(answer(bytes(body)))
        except EggError as error:
            str(error).encode()


# --- money -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "dollars"),
    [
        ("$0.00", "0"),
        ("$0.0160", "0.016"),
        ("$0.0000", "0"),
        ("0.016000", "0.016"),
        ("$12", "12"),
        ("999999999999.999999999999", "999999999999.999999999999"),
        (0.016, "0.016"),
        (0, "0"),
        (3, "3"),
    ],
)
def test_money(text: object, dollars: str) -> None:
    """The three documented formats, and JSON numbers, are exact."""
    assert money(text) == Decimal(dollars)


@pytest.mark.parametrize(
    "text",
    [
        *["", "$", "free", "-1", "+1", "$-1", "$$1", "1$", "1,000.00", "1.", ".5", "$ 1", " 1"],
        *["1\n", "NaN", "Infinity", "1e5", "1_0", "０.０１", "١", "€1", "1" * 13, "0." + "1" * 13],
        *[None, True, False, [], {}, b"1", math.nan, math.inf, -1, -0.5, 1e300, 10**5000],
    ],
    ids=lambda text: repr(text) if not isinstance(text, int) or text < 10**9 else "a huge int",
)
def test_no_money(text: object) -> None:
    """What is no amount is None, never an exception and never a guess."""
    assert money(text) is None


anything = st.text() | st.from_regex(r"\$?[0-9.e_+-]{0,20}") | scalars | st.binary() | trees


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(anything)
def test_money_is_total(value: object) -> None:
    """Whatever comes is a plain amount or None."""
    amount = money(value)
    assert amount is None or (amount.is_finite() and 0 <= amount < 10**12)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.decimals(0, 10**6, places=6))
def test_money_is_exact(amount: Decimal) -> None:
    """Every amount comes back to the last digit, with and without the sign."""
    assert money(f"{amount:f}") == money(f"${amount:f}") == amount


# --- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-01-15T10:30:00Z", "2024-01-15T10:30:00+00:00"),
        ("2024-01-15t10:30:00z", "2024-01-15T10:30:00+00:00"),
        ("2024-01-15 10:30:00Z", "2024-01-15T10:30:00+00:00"),
        ("2024-01-15T10:30:00", "2024-01-15T10:30:00+00:00"),
        ("2025-12-25T21:03:47.879577+08:00", "2025-12-25T13:03:47.879577+00:00"),
        ("2025-12-25T21:03:47.879577-0330", "2025-12-26T00:33:47.879577+00:00"),
        ("2024-01-15T10:30:00.1Z", "2024-01-15T10:30:00.100000+00:00"),
        ("2024-01-15T10:30:00.12Z", "2024-01-15T10:30:00.120000+00:00"),
        ("2024-01-15T10:30:00.1234Z", "2024-01-15T10:30:00.123400+00:00"),
        ("2024-01-15T10:30:00.12345Z", "2024-01-15T10:30:00.123450+00:00"),
        ("2024-01-15T10:30:00.1234567Z", "2024-01-15T10:30:00.123456+00:00"),
        ("2024-01-15T10:30:00.123456789Z", "2024-01-15T10:30:00.123456+00:00"),
        ("2024-01-15T10:30:00.999999999+00:00", "2024-01-15T10:30:00.999999+00:00"),
        ("2024-02-29T23:59:59-00:00", "2024-02-29T23:59:59+00:00"),
    ],
)
def test_times(text: str, utc: str) -> None:
    """Z, offsets and neither, with up to nine fraction digits, are aware times in UTC."""
    time = moment(text)
    assert time is not None
    assert time.tzinfo is UTC
    assert time.isoformat(timespec="microseconds") == datetime.fromisoformat(utc).isoformat(
        timespec="microseconds"
    )


@pytest.mark.parametrize(
    "text",
    [
        *["", "yesterday", "2024-01-15", "10:30:00", "2024-01-15T10:30Z", "2024-13-01T00:00:00Z"],
        *["2024-02-30T00:00:00Z", "2024-01-15T25:00:00Z", "2024-01-15T10:30:60Z", "1705314600"],
        *["2024-01-15T10:30:00.Z", "2024-01-15T10:30:00.1234567890Z", "2024-01-15T10:30:00+08"],
        *["2024-01-15T10:30:00+99:99", "2024-01-15T10:30:00Z\n", "２０２４-01-15T10:30:00Z"],
        *["0001-01-01T00:00:00+08:00", "9999-12-31T23:59:59-08:00", "0000-01-01T00:00:00Z"],
        *[None, 1705314600, 1705314600.5, True, [], {}, b"2024-01-15T10:30:00Z"],
    ],
    ids=repr,
)
def test_no_times(text: object) -> None:
    """What is no moment is None, never an exception and never a guess."""
    assert moment(text) is None


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(
    anything
    | st.from_regex(
        r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,10})?(Z|[+-]\d\d:?\d\d)?", fullmatch=True
    )
)
def test_times_are_total(value: object) -> None:
    """Whatever comes is an aware time in UTC or None."""
    time = moment(value)
    assert time is None or time.utcoffset() == timedelta(0)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_times_are_exact(time: datetime) -> None:
    """Every time that can be written comes back the same."""
    assert moment(time.isoformat()) == moment(time.isoformat().replace("+00:00", "Z")) == time


# --- headers ---------------------------------------------------------------------------------

NOON = "Sun, 06 Nov 1994 12:00:00 GMT"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("0", 0.0, id="none at all"),
        pytest.param("120", 120.0, id="seconds"),
        pytest.param("1.5", 1.5, id="a fraction"),
        pytest.param(" 7 ", 7.0, id="blanks around"),
        pytest.param("Sun, 06 Nov 1994 12:00:30 GMT", 30.0, id="the usual date"),
        pytest.param("Sunday, 06-Nov-94 12:00:30 GMT", 30.0, id="the old date"),
        pytest.param("Sun Nov  6 12:00:30 1994", 30.0, id="the oldest date"),
        pytest.param("Sun, 06 Nov 1994 20:00:30 +0800", 30.0, id="a date with an offset"),
        pytest.param("Sun, 06 Nov 1994 11:00:00 GMT", 0.0, id="a date in the past"),
        pytest.param("Mon, 07 Nov 1994 12:00:00 GMT", 86400.0, id="tomorrow"),
        *[
            pytest.param(text, None, id=f"nonsense: {text!r}")
            for text in (
                *("", "soon", "-5", "+5", "1e3", "NaN", "inf", "1_0", "0x10", "5s", "5, 5", "1."),
                *(".5", "٣", "1" * 13, "Sun, 06 Nov", "99 Foo 1994 12:00:00 GMT", "\x00", "²"),
                *("Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -0100"),
            )
        ],
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Seconds, fractions and all three HTTP dates count; nonsense is ignored."""
    assert retry_after({"retry-after": text, "date": NOON}) == seconds


@pytest.mark.parametrize("date", [{}, {"date": ""}, {"date": "noon"}])
def test_a_date_needs_the_answers_own_clock(date: dict[str, str]) -> None:
    """A date without the service's `Date` says nothing: our clock may be wrong."""
    assert retry_after({"retry-after": "Sun, 06 Nov 1994 12:00:30 GMT", **date}) is None


def test_no_retry_after() -> None:
    """The header is not documented: most answers do without."""
    assert retry_after({"date": NOON}) is None


dates = st.text(max_size=40) | st.lists(
    st.sampled_from(
        [
            "Sun,",
            "Sun",
            "Sunday,",
            "06",
            "Nov",
            "1994",
            "06-Nov-94",
            "9999",
            "0001",
            "31",
            "Dec",
            "12:00:00",
            "23:59:59",
            "GMT",
            "+0800",
            "-2359",
            "-9999",
            ",",
            "-",
            "+",
            ":",
            "12.00",
            "²",
            "99999999999",
            "am",
        ]
    ),
    max_size=8,
).map(" ".join)


@settings(max_examples=500, derandomize=True, deadline=None, database=None)
@given(wish=dates | st.floats().map(str) | st.integers().map(str), date=dates | st.just(NOON))
def test_retry_after_is_total_and_bounded(wish: str, date: str) -> None:
    """Whatever the headers are, the pause is a finite number from 0, or None."""
    pause = retry_after({"retry-after": wish, "date": date})
    assert pause is None or 0 <= pause <= 1e12


@pytest.mark.parametrize(
    ("text", "time"),
    [
        pytest.param(NOON, datetime(1994, 11, 6, 12, tzinfo=UTC), id="the usual date"),
        pytest.param(
            "Sun, 06 Nov 1994 20:00:00 +0800", datetime(1994, 11, 6, 12, tzinfo=UTC), id="an offset"
        ),
        pytest.param(
            "Sun Nov  6 12:00:00 1994", datetime(1994, 11, 6, 12, tzinfo=UTC), id="no zone is UTC"
        ),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", None, id="the end of time leaves no room"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 -0100", None, id="nor does what lies beyond"),
        pytest.param("", None, id="nothing is no time"),
        pytest.param("today", None, id="a word is no time"),
    ],
)
def test_server_time(text: str, time: datetime | None) -> None:
    """The service's clock is an aware time in UTC, or None where `Date` is nonsense."""
    read = server_time({"date": text})
    assert read == time
    assert read is None or read.tzinfo is UTC


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(dates)
def test_server_time_is_total_and_leaves_room(text: str) -> None:
    """Whatever `Date` says can be reckoned with, a day back and forth."""
    time = server_time({"date": text})
    assert time is None or time - timedelta(days=1) < time < time + timedelta(days=1)


# --- words -----------------------------------------------------------------------------------

WORDS: dict[str, tuple[str, Answer, str]] = {
    "no JSON": ("get", answer(b"<html>"), "expected JSON"),
    "no object": ("get", answer([]), "expected an object"),
    "no task": ("get", good(5), "expected an object, got int"),
    "a number as id": (
        "get",
        good({"id": 5, "status": "pending"}),
        "invalid value for type, expected str",
    ),
    "another task": (
        "get",
        good({"id": "gen_2", "status": "pending"}),
        f"expected the task '{TASK_ID}', got 'gen_2'",
    ),
    "no list": ("list", good({}), "expected a list"),
    "no item": ("list", good({"items": [None]}), "expected an object, got NoneType"),
    "no summaries": ("summary", good({}), "expected a list"),
    "a redirect without a place": (
        "get",
        answer(b"", status=300),
        "a redirect to '', which is not followed; check base_url",
    ),
    "a redirect to a secret": (
        "get",
        answer(b"", status=302, headers={"location": "https://evil.example?key=secret"}),
        "a redirect to 'https://evil.example', which is not followed; check base_url",
    ),
    "a redirect to a long name": (
        "get",
        answer(b"", status=302, headers={"location": "https://" + "x" * 200}),
        f"a redirect to 'https://{'x' * 92}', which is not followed; check base_url",
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_is_unexpected_is_said_in_words(name: str) -> None:
    """The texts are all that whoever reads the log has: what was expected, and what came."""
    kind, answered, words = WORDS[name]
    with pytest.raises(UnexpectedResponseError) as caught:
        MAKERS[kind]().read(answered)
    assert f": {words} (HTTP {answered.status}, body starts with " in str(caught.value)


def test_an_answer_shows_its_first_two_hundred_bytes() -> None:
    """Enough to know a proxy's page by, too little to fill a log."""
    with pytest.raises(UnexpectedResponseError) as caught:
        GET.read(answer(b"x" * 300))
    assert caught.value.body == "x" * 200


def test_a_wish_that_cannot_be_is_shown() -> None:
    """The error names the field, what came and what was expected."""
    with pytest.raises(InvalidRequestError) as of_page:
        _protocol.list_tasks(page=10**9 + 1)
    assert str(of_page.value) == (
        "page: expected a whole number from 1 to 1000000000, got 1000000001"
    )
    with pytest.raises(InvalidRequestError, match=r"got 'a/b'$"):
        _protocol.checked_task_id("a/b")


def test_the_last_page_that_can_be_asked_for() -> None:
    """Nobody has a billion pages, but whoever does may read the last."""
    assert _protocol.list_tasks(page=10**9, per_page=100).query == {"page": 10**9, "per_page": 100}


def test_a_new_task_without_a_status_is_pending() -> None:
    """It is paid for: an answer to the POST that has an id alone is a task all the same."""
    for odd in ({}, {"status": None}, {"status": 5}):
        bought = _protocol.submit(REQUEST).read(good({"id": TASK_ID, **odd}))
        assert (bought.id, bought.status) == (TASK_ID, "pending")


def test_the_place_of_a_page_is_the_services_word() -> None:
    """Also where it is not what the items would tell, or nothing: a page 0 is the first."""
    place = {"page": 0, "per_page": 20, "total": 0, "total_pages": 9}
    page = _protocol.list_tasks(page=3).read(good({"items": [ITEM], "pagination": place}))
    assert (page.page, page.total, page.total_pages) == (1, 0, 9)


def test_nested_lists_are_kept_where_surrogates_are_replaced() -> None:
    """Only the character is lost, nothing beside it."""
    odd = (STRANGE % r'["\ud800", ["b", 1, null]]').encode()
    assert list(GET.read(answer(odd)).raw.values()).count(["?", ["b", 1, None]]) == 1


# --- secrets ---------------------------------------------------------------------------------


def test_no_repr_shows_a_body() -> None:
    """Bodies may be long and private: neither calls nor answers show them."""
    prompt = "a prompt that is nobody's business"
    shown = repr(_protocol.submit(GenerationRequest(prompt=prompt))) + repr(answer(prompt.encode()))
    assert not re.search("business", shown)
