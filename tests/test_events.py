"""What a webhook's body says: the documented examples, and everything that may differ from them."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from eggapi_async import TaskSnapshot
from eggapi_async._events import (
    WebhookEvent,
    confirmed,
    read_event,
    task_fields,
    tells_all,
)
from eggapi_async._values import snapshot

COMPLETED: dict[str, Any] = {
    "event": "task.completed",
    "task_id": "gen_abc123def456",
    "status": "completed",
    "model": "nanobanana-pro",
    "output": {"url": "https://cdn.eggapi.ai/outputs/abc123.png"},
    "error": None,
    "cost": "0.016000",
    "timestamp": 1705314690,
}
FAILED: dict[str, Any] = {
    "event": "task.failed",
    "task_id": "gen_abc123def456",
    "status": "failed",
    "model": "nanobanana-pro",
    "error": "Content moderation: prompt contains prohibited content",
    "cost": "0.000000",
    "timestamp": 1705314690,
}


def event_of(fields: dict[str, Any], **changes: Any) -> WebhookEvent:
    return read_event(json.dumps({**fields, **changes}).encode())


def test_the_documented_completion() -> None:
    """Every field, money as Decimal and the time as an aware datetime."""
    event = event_of(COMPLETED)

    assert event == WebhookEvent(
        event="task.completed",
        task_id="gen_abc123def456",
        status="completed",
        model="nanobanana-pro",
        output={"url": "https://cdn.eggapi.ai/outputs/abc123.png"},
        error=None,
        cost=Decimal("0.016"),
        timestamp=datetime(2024, 1, 15, 10, 31, 30, tzinfo=UTC),
        raw=COMPLETED,
    )
    assert event.is_final
    assert pickle.loads(pickle.dumps(event)) == event


def test_the_documented_failure() -> None:
    """The reason in the service's words, and no output."""
    event = event_of(FAILED)

    assert (event.status, event.output, event.cost) == ("failed", None, Decimal(0))
    assert event.error == "Content moderation: prompt contains prohibited content"
    assert event.is_final


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        pytest.param({"event": "task.started"}, "event", "task.started", id="an unknown event"),
        pytest.param({"event": "x", "status": "brewing"}, "status", "brewing", id="a new status"),
        pytest.param({"status": None}, "status", "completed", id="the status that the event names"),
        pytest.param({"event": "x", "status": 7}, "status", "", id="a status that is no text"),
        pytest.param({"model": None}, "model", "", id="no model"),
        pytest.param({"output": "x"}, "output", None, id="an output that is no object"),
        pytest.param({"error": {"code": 1}}, "error", '{"code": 1}', id="an error as an object"),
        pytest.param({"cost": "$0.0160"}, "cost", Decimal("0.016"), id="money with its sign"),
        pytest.param({"cost": "free"}, "cost", None, id="money that is none"),
        pytest.param({"timestamp": "soon"}, "timestamp", None, id="a time that is none"),
        pytest.param({"timestamp": 10**30}, "timestamp", None, id="a time beyond all calendars"),
        pytest.param({"timestamp": -1}, "timestamp", None, id="a time before all webhooks"),
        pytest.param({"error": "half \ud83d"}, "error", "half ?", id="half a character"),
        pytest.param({"error": "an \U0001f95a"}, "error", "an \U0001f95a", id="a whole one"),
    ],
)
def test_what_differs_is_kept_or_none(changes: dict[str, Any], field: str, value: object) -> None:
    """The world is open: nothing but an event without a name or a task is refused."""
    event = event_of(COMPLETED, **changes)
    assert getattr(event, field) == value
    json.dumps(event.raw, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param(b"", r"\$: expected JSON", id="nothing"),
        pytest.param(b"\xff", r"\$: expected JSON", id="no UTF-8"),
        pytest.param(b"[" * 100_000, r"\$: expected JSON", id="a bottomless list"),
        pytest.param(b'{"n": ' + b"9" * 5000 + b"}", r"\$: expected JSON", id="an endless number"),
        pytest.param(b"[1]", r"\$: expected an object", id="a list"),
        pytest.param(b"{}", r"\$\.event: expected text", id="no event"),
        pytest.param(b'{"event": 7}', r"\$\.event: expected text", id="an event that is no text"),
        pytest.param(b'{"event": "x"}', r"\$\.task_id: expected an id", id="no task"),
        pytest.param(
            b'{"event": "x", "task_id": "../usage"}',
            r"\$\.task_id: expected an id",
            id="a task that would lead elsewhere",
        ),
        pytest.param(
            b'{"event": "x", "task_id": ".."}', r"\$\.task_id: expected an id", id="a task of dots"
        ),
    ],
)
def test_what_is_no_event_is_refused(body: bytes, problem: str) -> None:
    """With the place where it fails."""
    with pytest.raises(ValueError, match=problem):
        read_event(body)


def test_an_event_is_laid_over_what_is_known() -> None:
    """What it does not tell stays: the kind, and when the task was created."""
    known = {"id": "gen_abc123def456", "status": "pending", "model": "nanobanana-pro"}
    known |= {"type": "image_edit", "cost": "$0.00", "created_at": "2024-01-15T10:30:00Z"}
    task = snapshot({**known, **task_fields(event_of(COMPLETED))})

    assert (task.status, task.type, task.cost) == ("completed", "image_edit", Decimal("0.016"))
    assert task.url == "https://cdn.eggapi.ai/outputs/abc123.png"
    assert task.created_at == datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
    assert task.completed_at is None  # the event's time is when it was made


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        pytest.param(event_of(COMPLETED), True, id="a completion with output and cost"),
        pytest.param(event_of(FAILED), True, id="a failure"),
        pytest.param(event_of(COMPLETED, output=None), False, id="a completion without output"),
        pytest.param(event_of(COMPLETED, output={}), False, id="an output without a URL"),
        pytest.param(event_of(COMPLETED, cost=None), False, id="a completion without a cost"),
        pytest.param(event_of(COMPLETED, status="failed"), False, id="a contradiction"),
        pytest.param(
            event_of(COMPLETED, event="task.done"), False, id="an event that is not known"
        ),
        pytest.param(
            WebhookEvent(event="task.failed", task_id="a", status="failed", is_trusted=False),
            False,
            id="a hint",
        ),
    ],
)
def test_some_events_tell_all(event: WebhookEvent, expected: bool) -> None:
    """The others need one look at the task."""
    assert tells_all(event) is expected


def test_a_confirmed_event_says_what_the_service_says() -> None:
    """Whatever it said itself."""
    task = TaskSnapshot(id="gen_abc123def456", status="failed", error="no", cost=Decimal(0))
    event = confirmed(event_of(COMPLETED), task)

    assert (event.event, event.status, event.error) == ("task.failed", "failed", "no")
    assert (event.output, event.cost, event.is_trusted) == (None, Decimal(0), True)
