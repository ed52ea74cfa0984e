"""Verification and the receiver: what is refused and how, and that each event counts once."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anyio
import attrs
import pytest

from eggapi_async import (
    ConfigurationError,
    ConnectionFailedError,
    NotFoundError,
    TaskSnapshot,
    WebhookEvent,
    WebhookReceiver,
    WebhookVerificationError,
    sign_webhook,
    verify_webhook,
)
from eggapi_async._verification import MAX_BODY
from tests.deliveries import NOW, SECRET, body_of, delivery
from tests.virtual_time import on_both

# --- verification --------------------------------------------------------------------------------


def test_a_genuine_delivery_becomes_an_event() -> None:
    """Typed, money as Decimal, and trusted."""
    body, headers = delivery()
    event = verify_webhook(body, headers, SECRET, now=NOW)

    assert (event.event, event.task_id, event.status) == ("task.completed", "gen_a", "completed")
    assert event.cost == Decimal("0.01")
    assert event.is_trusted


@pytest.mark.parametrize(
    "options",
    [
        {"now": datetime.fromtimestamp(NOW, UTC)},
        {"now": NOW + 299.9},
        {"now": NOW + 10_000, "tolerance": float("inf")},
        {"now": NOW, "tolerance": 0},
        {"now": NOW, "secret": ["new", SECRET]},
        {"now": NOW, "secret": SECRET.encode()},
        {"now": NOW, "body": bytearray(body_of())},
    ],
    ids=[
        "by a datetime",
        "within the tolerance",
        "at any time",
        "without any tolerance",
        "by one of several secrets",
        "by a secret in bytes",
        "in a bytearray",
    ],
)
def test_a_genuine_delivery_is_accepted(options: dict[str, Any]) -> None:
    """However it is put."""
    body, headers = delivery()
    given = {"body": body, "secret": SECRET, **options}
    assert verify_webhook(given.pop("body"), headers, given.pop("secret"), **given).is_trusted


def test_by_default_now_is_this_machines_clock() -> None:
    """For the signature and for its age."""
    body = body_of()
    assert verify_webhook(body, sign_webhook(body, SECRET), SECRET).is_trusted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"body": body_of().decode()}, "not_bytes", id="a body that was decoded"),
        pytest.param({"body": {"event": "x"}}, "not_bytes", id="a body that was parsed"),
        pytest.param({"body": b"a" * (MAX_BODY + 1)}, "too_large", id="a body without end"),
        pytest.param({"secret": None}, "no_secret", id="no secret"),
        pytest.param({"secret": " "}, "no_secret", id="a blank secret"),
        pytest.param({"headers": {}}, "unsigned", id="no signature"),
        pytest.param({"headers": None}, "malformed", id="no headers"),
        pytest.param({"body": body_of("gen_b")}, "forged", id="another body"),
        pytest.param({"now": NOW + 301}, "stale", id="a replay"),
        pytest.param({"now": NOW - 301}, "future", id="a delivery from the future"),
        pytest.param({"now": "soon"}, "misused", id="a now that is no time"),
        pytest.param({"now": 1e12}, "misused", id="a now in milliseconds"),
        pytest.param({"now": float("nan")}, "misused", id="a now that is no number"),
        pytest.param(
            {"now": datetime(1, 1, 1)},  # noqa: DTZ001
            "misused",
            id="a now at the end of the calendar",
        ),
        pytest.param({"tolerance": -1}, "misused", id="a tolerance below none"),
        pytest.param({"tolerance": None}, "misused", id="a tolerance that is no number"),
        pytest.param({"tolerance": float("nan")}, "misused", id="a tolerance that is nothing"),
    ],
)
def test_anything_else_is_refused_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    """By the one error that verification raises."""
    body, headers = delivery()
    given: dict[str, Any] = {"body": body, "headers": headers, "secret": SECRET, "now": NOW}
    given |= changes
    with pytest.raises(WebhookVerificationError) as caught:
        verify_webhook(given.pop("body"), given.pop("headers"), given.pop("secret"), **given)

    assert caught.value.reason == reason
    assert SECRET not in str(caught.value)
    assert caught.value.task_id == ("gen_a" if reason in ("stale", "future") else None)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"body": "{}"}, "expected the raw body in bytes, got str"),
    "too large": ({"body": b"a" * (MAX_BODY + 1)}, "a body of over 1048576 bytes"),
    "as large as may be": (
        {"body": b"a" * MAX_BODY},
        "the signature is not that of this body and time with any of the secrets",
    ),
    "no secret": (
        {"secret": None},
        "expected a webhook secret, or several, none of them empty",
    ),
    "unsigned": (
        {"headers": {}},
        "there is no X-EggAPI-Signature header: the service signs once a webhook secret has been"
        " generated in its dashboard",
    ),
    "malformed": (
        {"headers": None},
        "expected one X-EggAPI-Timestamp of digits and one X-EggAPI-Signature of sha256=HEX",
    ),
    "stale": ({"now": NOW + 301}, "it is signed, but older than the tolerance"),
    "future": ({"now": NOW - 301}, "it is signed, but by a clock that is ahead of this one"),
    "no time": ({"now": "soon"}, "now: expected unix seconds"),
    "no tolerance": ({"tolerance": -1}, "tolerance: expected seconds from 0"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_in_words_what_was_wrong(name: str) -> None:
    """The texts are what the program's log will show, so they are part of the answer."""
    changes, words = REFUSALS[name]
    body, headers = delivery()
    given = {"body": body, "headers": headers, "secret": SECRET, "now": NOW, **changes}
    with pytest.raises(WebhookVerificationError) as caught:
        verify_webhook(given.pop("body"), given.pop("headers"), given.pop("secret"), **given)
    assert str(caught.value).startswith(words)


def test_what_is_signed_but_no_event_is_refused_too() -> None:
    """With the place where it fails."""
    body, headers = delivery(b"[]")
    with pytest.raises(WebhookVerificationError, match="expected an object") as caught:
        verify_webhook(body, headers, SECRET, now=NOW)
    assert caught.value.reason == "unreadable"


def test_a_stale_delivery_still_tells_its_task() -> None:
    """Its signature is good, so the task may have ended; the error survives pickling."""
    body, headers = delivery()
    with pytest.raises(WebhookVerificationError) as caught:
        verify_webhook(body, headers, SECRET, now=NOW + 1000)

    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, copy.task_id) == ("stale", "gen_a")
    assert not copy.event.is_trusted


def test_unsigned_deliveries_pass_only_where_they_are_allowed_and_are_not_trusted() -> None:
    """With or without a secret; a signature that is there must be good all the same."""
    body, headers = delivery()
    for secret in (None, SECRET):
        event = verify_webhook(body, {}, secret, now=NOW, allow_unsigned=True)
        assert (event.task_id, event.is_trusted) == ("gen_a", False)
        with pytest.raises(WebhookVerificationError) as caught:
            verify_webhook(b" " + body, headers, secret, now=NOW, allow_unsigned=True)
        assert caught.value.reason == "forged"


def test_signing_needs_a_secret() -> None:
    """An empty one is a mistake."""
    with pytest.raises(ConfigurationError) as caught:
        sign_webhook(b"", "")
    assert str(caught.value) == "secret: expected text that is not empty"


def test_the_headers_of_a_delivery_are_the_documented_ones() -> None:
    """With the type that the service sends, so that a framework reads the body as it will then."""
    headers = sign_webhook(b"{}", SECRET, now=NOW)
    assert list(headers) == ["Content-Type", "X-EggAPI-Timestamp", "X-EggAPI-Signature"]
    assert (headers["Content-Type"], headers["X-EggAPI-Timestamp"]) == (
        "application/json",
        str(NOW),
    )


# --- the receiver --------------------------------------------------------------------------------


@attrs.define
class Desk:
    """A receiver, what was delivered by it, and what its handler was told."""

    delivered: list[WebhookEvent] = attrs.field(factory=list)
    told: list[WebhookEvent] = attrs.field(factory=list)
    answer: Callable[[WebhookEvent], TaskSnapshot | None] = lambda _: None
    now: float = NOW

    async def deliver(self, event: WebhookEvent) -> TaskSnapshot | None:
        self.delivered.append(event)
        return self.answer(event)

    def receiver(self, **options: Any) -> WebhookReceiver:
        given = {"deliver": self.deliver, "on_event": self.told.append, **options}
        return WebhookReceiver(given.pop("secret", SECRET), now=lambda: self.now, **given)


@attrs.define
class Answer:
    """What an ASGI application answered."""

    status: int = 0
    headers: dict[bytes, bytes] = attrs.field(factory=dict)
    body: bytes = b""
    parts_read: int = 0


async def post(
    receiver: WebhookReceiver,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    query: str = "",
    chunks: list[bytes | None] | None = None,
    pause: float = 0.0,
) -> Answer:
    """One request to the receiver as ASGI servers make it; a chunk None: the caller hangs up."""
    parts = [body] if chunks is None else chunks
    answer = Answer()
    sent = {"content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": "/",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
    }

    async def receive() -> dict[str, Any]:
        await anyio.sleep(pause)
        part = parts[answer.parts_read]
        answer.parts_read += 1
        if part is None:
            return {"type": "http.disconnect"}
        more = answer.parts_read < len(parts)
        return {"type": "http.request", "body": part, "more_body": more}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], dict(message["headers"])
        else:
            answer.body += message["body"]

    await receiver(scope, receive, send)
    return answer


@on_both
async def test_a_delivery_is_handed_on_and_then_answered() -> None:
    """To the client first, then to the handler; 204 and no body."""
    desk = Desk()
    answer = await post(desk.receiver(), *delivery(), query="egg_ref=abc")

    assert (answer.status, answer.headers, answer.body) == (204, {}, b"")
    assert [event.task_id for event in desk.delivered] == ["gen_a"]
    assert desk.told == desk.delivered
    assert desk.told[0].reference == "abc"


@on_both
async def test_the_same_event_counts_once() -> None:
    """However often it comes; another event of the task, or another task, is another event."""
    desk = Desk()
    receiver = desk.receiver()
    bodies = [body_of(), body_of(), body_of(event="task.failed"), body_of("gen_b"), body_of()]
    statuses = [await receiver.handle(*delivery(body)) for body in bodies]

    assert statuses == [204] * 5
    told = [(event.task_id, event.event) for event in desk.told]
    assert told == [
        ("gen_a", "task.completed"),
        ("gen_a", "task.failed"),
        ("gen_b", "task.completed"),
    ]
    assert "3 taken in" in repr(receiver)


@on_both
async def test_after_a_day_it_counts_again() -> None:
    """The service has given up long before."""
    desk = Desk()
    receiver = desk.receiver()
    await receiver.handle(*delivery())
    desk.now += 90_000
    await receiver.handle(*delivery(now=desk.now))
    assert len(desk.told) == 2


@on_both
async def test_what_comes_twice_at_a_time_waits_for_the_first() -> None:
    """Both are answered 2xx when the handler is done, which was called once."""
    desk = Desk()
    calls = []

    async def slowly(event: WebhookEvent) -> None:
        calls.append(event)
        await anyio.sleep(5)

    receiver = desk.receiver(on_event=slowly)
    statuses = await both(
        lambda: receiver.handle(*delivery()), lambda: receiver.handle(*delivery())
    )

    assert statuses == [204, 204]
    assert len(calls) == 1


async def both(*works: Callable[[], Any]) -> list[Any]:
    """The results of coroutines that run at a time."""
    results: list[Any] = [None] * len(works)

    async def keep(place: int, work: Callable[[], Any]) -> None:
        results[place] = await work()

    async with anyio.create_task_group() as group:
        for place, work in enumerate(works):
            group.start_soon(keep, place, work)
    return results


@on_both
async def test_a_handler_that_fails_is_called_again() -> None:
    """503, so that the service delivers again; then it counts."""
    desk, calls = Desk(), []

    async def fail_first(event: WebhookEvent) -> None:
        calls.append(event)
        if len(calls) == 1:
            raise RuntimeError("the database is away")

    receiver = desk.receiver(on_event=fail_first)
    statuses = [await receiver.handle(*delivery()) for _ in range(3)]

    assert statuses == [503, 204, 204]
    assert len(calls) == 2


@on_both
async def test_when_the_first_of_two_fails_the_second_is_tried() -> None:
    """It has waited, and takes over at once."""
    desk, calls = Desk(), []

    async def fail_first(event: WebhookEvent) -> None:
        calls.append(event)
        await anyio.sleep(1)
        if len(calls) == 1:
            raise ConnectionFailedError("reset")

    receiver = desk.receiver(on_event=fail_first)
    statuses = await both(
        lambda: receiver.handle(*delivery()), lambda: receiver.handle(*delivery())
    )

    assert sorted(statuses) == [204, 503]
    assert len(calls) == 2


@on_both
async def test_a_handler_that_takes_too_long_is_ended() -> None:
    """Before the service gives up waiting; it will deliver again."""
    desk = Desk()

    async def for_ever(_: WebhookEvent) -> None:
        await anyio.sleep_forever()

    receiver = desk.receiver(on_event=for_ever)
    before = anyio.current_time()
    assert await receiver.handle(*delivery()) == 503
    assert anyio.current_time() - before == 25.0
    desk.told.clear()
    with anyio.move_on_after(1) as scope:  # as servers do when the caller hangs up
        await receiver.handle(*delivery())
    assert scope.cancelled_caught
    assert receiver._under_way == {}


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        pytest.param({"method": "GET"}, 405, id="GET"),
        pytest.param({"method": "HEAD"}, 405, id="HEAD"),
        pytest.param({"headers": {"content-type": "text/plain"}}, 415, id="another content"),
        pytest.param({"headers": {"content-encoding": "gzip"}}, 415, id="a compressed body"),
        pytest.param({"headers": {"content-length": "x"}}, 400, id="a length that is none"),
        pytest.param({"headers": {"content-length": "9" * 20}}, 400, id="a length beyond numbers"),
        pytest.param(
            {"headers": {"content-length": "1048577"}}, 413, id="a length that is too big"
        ),
        pytest.param({}, 401, id="no signature"),
        pytest.param({"headers": {"X-EggAPI-Signature": "sha256="}}, 401, id="half a signature"),
    ],
)
async def test_much_is_refused_before_the_body_is_read(
    request_of: dict[str, Any], status: int
) -> None:
    """By method and headers alone, with an empty answer."""
    desk = Desk()
    answer = await post(desk.receiver(), body_of(), **request_of)

    assert (answer.status, answer.body, answer.parts_read) == (status, b"", 0)
    assert answer.headers[b"content-length"] == b"0"
    assert answer.headers.get(b"allow") == (b"POST" if status == 405 else None)
    assert desk.told == []


@pytest.mark.parametrize(
    ("options", "status", "read"),
    [
        pytest.param({"chunks": [b"a" * 2**20] * 50}, 413, 2, id="a body that is too long"),
        pytest.param({"chunks": [b"a" * 2**20, b"a"]}, 413, 2, id="a body one byte too long"),
        pytest.param({"chunks": [b"{"] * 50, "pause": 1.0}, 408, 9, id="a body that is too slow"),
        pytest.param({"chunks": [b"{", None]}, 0, 2, id="a caller who hangs up"),
        pytest.param({"chunks": [b"{"]}, 401, 1, id="a forged body"),
    ],
)
async def test_no_body_is_waited_for_too_long(
    options: dict[str, Any], status: int, read: int
) -> None:
    """Nor is more of it kept than is allowed."""
    desk = Desk()
    answer = await post(desk.receiver(), headers=delivery()[1], **options)

    assert (answer.status, answer.parts_read) == (status, read)
    assert desk.told == []


async def test_forgers_learn_nothing() -> None:
    """Whatever is wrong, the answer is the same."""
    body, headers = delivery()
    receiver = Desk().receiver(deliver=())
    stale = delivery(now=NOW - 1000)
    tries = [(body, {}), (body, {**headers, "X-EggAPI-Timestamp": "x"}), (body + b" ", headers)]
    answers = [await post(receiver, *one) for one in [*tries, stale]]

    assert {answer.status for answer in answers} == {401}
    assert {answer.body for answer in answers} == {b""}
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1


async def test_what_is_signed_and_no_event_is_told_so() -> None:
    """400: it comes from the service, and coming again will not help it."""
    receiver = Desk().receiver()
    assert (await post(receiver, *delivery(b"[]"))).status == 400
    assert await receiver.handle(b"a" * (MAX_BODY + 1), delivery()[1]) == 413


async def test_a_body_that_was_parsed_is_the_programs_mistake() -> None:
    """It is raised, and not answered away."""
    with pytest.raises(WebhookVerificationError, match="raw body in bytes"):
        await Desk().receiver().handle({"event": "x"}, {})  # type: ignore[arg-type]


async def test_refusals_are_told_once_each_and_show_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first may be a configuration to mend; floods must not fill the log."""
    receiver = Desk().receiver()
    with caplog.at_level(logging.DEBUG, "eggapi_async"):
        for _ in range(3):
            await receiver.handle(body_of("gen_secret"), {})
            await receiver.handle(*delivery(b"{}"))
    levels = [record.levelno for record in caplog.records]

    assert levels == [logging.WARNING] * 2 + [logging.DEBUG] * 4
    assert "gen_secret" not in caplog.text
    assert "dashboard" in caplog.text


async def test_only_so_many_are_served_at_a_time() -> None:
    """More are told to come again; those who hang about must not hold all the memory."""
    desk = Desk()
    receiver = desk.receiver(max_concurrent=2)
    slow: dict[str, Any] = {"headers": delivery()[1], "chunks": [b"{"] * 50, "pause": 1.0}
    one, two, three = await both(
        lambda: post(receiver, **slow),
        lambda: post(receiver, **slow),
        lambda: post(receiver, *delivery()),
    )

    assert [one.status, two.status, three.status] == [408, 408, 503]
    assert (await post(receiver, *delivery())).status == 204


def test_a_receiver_needs_a_secret_and_somebody_to_tell() -> None:
    """Only deliveries without a signature can do without the secret, and only if asked for."""
    for secret in (None, "", [" "]):
        with pytest.raises(ConfigurationError, match="secret"):
            WebhookReceiver(secret, on_event=print)
    with pytest.raises(ConfigurationError, match="secret"):
        WebhookReceiver("", on_event=print, allow_unsigned=True)
    with pytest.raises(ConfigurationError, match="deliver"):
        WebhookReceiver(SECRET)
    assert WebhookReceiver(on_event=print, allow_unsigned=True)


def ended(status: str = "completed") -> Callable[[WebhookEvent], TaskSnapshot]:
    """A client that finds the task in this state."""
    return lambda event: TaskSnapshot(id=event.task_id, status=status, cost=Decimal(2))


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        pytest.param({}, delivery(now=NOW - 1000), id="stale"),
        pytest.param({}, delivery(now=NOW + 1000), id="from the future"),
        pytest.param({"allow_unsigned": True}, (body_of(), {}), id="unsigned"),
        pytest.param({}, delivery(body_of(output=None)), id="without its output"),
    ],
)
async def test_what_is_doubtful_is_confirmed(
    options: dict[str, Any], sent: tuple[bytes, dict[str, str]]
) -> None:
    """The handler is told what the client found; it counts once."""
    desk = Desk(answer=ended())
    receiver = desk.receiver(**options)

    assert [(await post(receiver, *sent)).status for _ in range(2)] == [204, 204]
    assert [(event.cost, event.is_trusted) for event in desk.told] == [(Decimal(2), True)]


async def test_what_the_service_does_not_confirm_is_not_taken_in() -> None:
    """It comes again, and may be true then."""
    desk = Desk(answer=ended("processing"))
    receiver = desk.receiver()
    stale = delivery(now=NOW - 1000)
    assert await receiver.handle(*stale) == 503
    desk.answer = ended()
    assert await receiver.handle(*stale) == 204
    assert len(desk.told) == 1


async def test_a_delivery_to_another_place_is_told_that_it_is_only_a_hint() -> None:
    """Whoever takes it there knows what to do."""
    desk = Desk()
    receiver = desk.receiver(deliver=desk.delivered.append)
    assert await receiver.handle(*delivery(now=NOW - 1000)) == 204
    assert [event.is_trusted for event in desk.delivered] == [False]
    assert desk.told == desk.delivered


def strange(event: WebhookEvent) -> TaskSnapshot:
    """A client with another key."""
    raise NotFoundError("no such task", status_code=404)


async def test_of_several_clients_one_must_know_the_task() -> None:
    """The others may be of other keys; a failure of any other sort is delivered again."""
    desk = Desk(answer=ended())
    stale = delivery(now=NOW - 1000)

    def broken(event: WebhookEvent) -> None:
        raise ConnectionFailedError("reset")

    statuses = [
        await desk.receiver(deliver=deliver).handle(*stale)
        for deliver in ([strange, desk.deliver], [strange], [desk.deliver, broken])
    ]
    assert statuses == [204, 503, 503]


async def test_unknown_events_are_handed_on() -> None:
    """The service may tell more one day."""
    desk = Desk()
    assert await desk.receiver(deliver=()).handle(*delivery(body_of(event="task.started"))) == 204
    assert [event.event for event in desk.told] == ["task.started"]


async def test_a_receiver_without_a_handler_only_delivers() -> None:
    """For those who wait for their tasks."""
    desk = Desk()
    assert await desk.receiver(on_event=None).handle(*delivery()) == 204
    assert len(desk.delivered) == 1


async def test_a_receiver_stands_alone_too() -> None:
    """It agrees to start and to end; it speaks nothing but HTTP."""
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        said.append(message["type"])

    receiver = Desk().receiver()
    await receiver({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(NotImplementedError, match="websocket"):
        await receiver({"type": "websocket"}, receive, send)
