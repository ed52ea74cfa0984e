"""The emulator's webhooks: what they say, how they are signed and repeated, and their faults."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from threading import Thread
from typing import Any

import anyio
import attrs
import httpx
import pytest

from eggapi_async.emulator import EggEmulator, WebhookFault
from eggapi_async.emulator.senders import over_tcp, to_app
from tests.deliveries import HOOK, SECRET, published_verify
from tests.emulated import KEY, ORIGIN
from tests.virtual_time import on_both


@attrs.define
class Ear:
    """An ASGI application that hears webhooks, and answers as it is told to."""

    statuses: list[int] = attrs.field(factory=list)
    heard: list[tuple[float, str, dict[str, str], bytes]] = attrs.field(factory=list)
    seconds: float = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        url = f"{scope['scheme']}://{headers['host']}{scope['path']}"
        query = scope["query_string"].decode()
        self.heard.append(
            (anyio.current_time(), f"{url}?{query}" if query else url, headers, message["body"])
        )
        await anyio.sleep(self.seconds)
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 0:
            raise RuntimeError("broken")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @property
    def times(self) -> list[float]:
        return [time for time, *_ in self.heard]

    @property
    def events(self) -> list[Any]:
        return [json.loads(body) for *_, body in self.heard]


@attrs.define
class Stand:
    """An emulator that delivers to an ear."""

    emulator: EggEmulator
    ear: Ear
    http: httpx.AsyncClient

    async def submit(self, **fields: Any) -> str:
        body = {"model": "nanobanana", "prompt": "A cat", "webhook_url": HOOK, **fields}
        answer = await self.http.post("/v1/generate", json=body, headers=KEY)
        return str(answer.json()["data"]["id"])

    async def until_told(self) -> None:
        """Wait until nothing is left to be told."""
        while self.emulator.pending_webhooks:
            await anyio.sleep(20)


@asynccontextmanager
async def stand(**options: Any) -> AsyncIterator[Stand]:
    given = {"webhook_secret": SECRET, **options}
    emulator, ear = EggEmulator(clock=anyio.current_time, **given), Ear()
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(emulator), base_url=ORIGIN) as http,
        emulator.delivering(ear),
    ):
        yield Stand(emulator, ear, http)


@on_both
async def test_a_completed_task_is_told_as_documented() -> None:
    """At its end, to exactly the URL that was given, with the documented fields."""
    async with stand() as here:
        task_id = await here.submit(
            model="nanobanana-pro", num_outputs=2, webhook_url=f"{HOOK}/a%20b?x=%2F&y=1"
        )
        life = here.emulator.task(task_id)
        await here.until_told()
    ((time, url, headers, body),) = here.ear.heard
    assert time == life.completed_at
    assert url == f"{HOOK}/a b?x=%2F&y=1"
    assert here.emulator.deliveries[0].url == f"{HOOK}/a%20b?x=%2F&y=1"
    assert headers["content-type"] == "application/json"
    assert headers["x-eggapi-timestamp"] == str(int(time))
    assert json.loads(body) == {
        "event": "task.completed",
        "task_id": task_id,
        "status": "completed",
        "model": "nanobanana-pro",
        "output": {
            "url": ORIGIN + life.output_paths()[0],
            "urls": [ORIGIN + path for path in life.output_paths()],
        },
        "error": None,
        "cost": "0.032000",
        "timestamp": int(time),
    }


@on_both
async def test_a_failed_task_is_told_as_documented() -> None:
    """With the reason, without an output, for nothing."""
    async with stand() as here:
        task_id = await here.submit(prompt="A forbidden egg")
        await here.until_told()
    (event,) = here.ear.events
    event.pop("timestamp")
    assert event == {
        "event": "task.failed",
        "task_id": task_id,
        "status": "failed",
        "model": "nanobanana",
        "error": "Content moderation: prompt contains prohibited content",
        "cost": "0.000000",
    }


@on_both
async def test_the_published_function_accepts_every_genuine_delivery() -> None:
    """Repeated ones, too; and none of the others."""
    faults = {"forged": 0.5, "duplicated": 0.2, "late": 0.2}
    async with stand(webhook_faults=faults) as here:
        here.ear.statuses = [500] * 20
        for number in range(100):
            await here.submit(prompt=f"A cät {number} 🥚")
        await here.until_told()
    verify = published_verify()
    attempts = here.emulator.deliveries
    assert len(attempts) > 150
    assert any(attempt.is_forged for attempt in attempts)
    for attempt in attempts:
        signature = attempt.headers["X-EggAPI-Signature"]
        timestamp = attempt.headers["X-EggAPI-Timestamp"]
        is_good = verify(signature, timestamp, attempt.body.decode(), SECRET)
        assert is_good is not attempt.is_forged


@on_both
async def test_without_a_secret_nothing_is_signed() -> None:
    """As before one has been generated in the dashboard."""
    async with stand(webhook_secret=None) as here:
        await here.submit()
        await here.until_told()
    ((_, _, headers, _),) = here.ear.heard
    assert "x-eggapi-timestamp" in headers
    assert "x-eggapi-signature" not in headers


@on_both
async def test_only_tasks_that_ask_for_it_and_end_are_told() -> None:
    """Others have nothing to tell, or nobody to tell it to."""
    async with stand(faults={"stuck": 1.0}) as here:
        await here.submit()
        await here.submit(webhook_url=None)
        await anyio.sleep(10_000)
    assert here.ear.heard == []


@pytest.mark.parametrize("refreshed", [True, False], ids=["anew", "as before"])
async def test_what_is_not_answered_with_2xx_is_repeated_five_times(refreshed: bool) -> None:
    """Four times slower each time, but never beyond four hours; signed anew, or not."""
    async with stand(webhook_backoff=200.0, webhook_refresh=refreshed) as here:
        here.ear.statuses = [500, 302, 404, 0, 503, 500, 500]
        await here.submit()
        await here.until_told()
    times = here.ear.times
    gaps = [round(b - a) for a, b in pairwise(times)]
    assert gaps == [200, 800, 3200, 12_800, 14_400]
    stamps = [int(headers["x-eggapi-timestamp"]) for _, _, headers, _ in here.ear.heard]
    assert stamps == [int(time) if refreshed else int(times[0]) for time in times]
    assert [attempt.status for attempt in here.emulator.deliveries] == [
        500,
        302,
        404,
        None,
        503,
        500,
    ]


@on_both
async def test_a_receiver_has_thirty_seconds() -> None:
    """Then the attempt counts as failed; others are not held up by it."""
    async with stand() as here:
        here.ear.seconds = 1000
        first = await here.submit()
        end = here.emulator.task(first).completed_at
        await anyio.sleep(end + 29 - anyio.current_time())
        assert not here.emulator.deliveries
        assert here.emulator.pending_webhooks == 1
        here.ear.seconds = 0
        second = await here.submit()
        await anyio.sleep(2)
        assert [attempt.status for attempt in here.emulator.deliveries] == [None]
        await here.until_told()
    told = [(attempt.task_id, attempt.status) for attempt in here.emulator.deliveries]
    assert sorted(told[1:]) == sorted([(first, 204), (second, 204)])


@on_both
async def test_a_hurried_service_repeats_sooner() -> None:
    """By as much as its tasks are shorter."""
    async with stand(speed=10) as here:
        here.ear.statuses = [500]
        await here.submit()
        await here.until_told()
    first, second = here.ear.times
    assert second - first == pytest.approx(3.0)


@on_both
async def test_faults_befall_the_next_webhooks_in_order() -> None:
    """Lost, late, duplicated, cut and forged, one each."""
    async with stand() as here:
        lost, late = WebhookFault.lost(), WebhookFault.late(100)
        here.emulator.fail_next_webhooks(
            lost, late, WebhookFault.duplicated(), WebhookFault.cut(), WebhookFault.forged()
        )
        here.ear.statuses = []
        ids = [await here.submit(prompt=f"egg {number}") for number in range(6)]
        await anyio.sleep(200)
    ends = [here.emulator.task(task_id).completed_at for task_id in ids]
    attempts = {
        task_id: [one for one in here.emulator.deliveries if one.task_id == task_id]
        for task_id in ids
    }
    times = [
        [one.time - end for one in attempts[task_id]]
        for task_id, end in zip(ids, ends, strict=True)
    ]
    assert [len(each) for each in times] == [0, 1, 3, 1, 2, 1]
    assert times[1] == [pytest.approx(100)]
    assert attempts[ids[1]][0].headers["X-EggAPI-Timestamp"] == str(int(ends[1]))
    assert times[2] == [0.0, 0.0, pytest.approx(5)]
    assert len(attempts[ids[3]][0].body) < len(attempts[ids[5]][0].body) * 0.6
    assert [one.is_forged for one in attempts[ids[4]]] == [True, False]
    assert b"forged." in attempts[ids[4]][0].body


@on_both
async def test_a_cut_webhook_comes_whole_the_next_time() -> None:
    """A forged one does not come again."""
    async with stand() as here:
        here.emulator.fail_next_webhooks(WebhookFault.cut(), WebhookFault.forged())
        here.ear.statuses = [401, 401, 401, 401, 401]
        await here.submit()
        await here.until_told()
        here.ear.statuses = [401]
        await here.submit()
        await here.until_told()
    bodies = [attempt.body for attempt in here.emulator.deliveries]
    assert bodies[1].startswith(bodies[0])
    assert len(bodies[1]) > len(bodies[0])
    assert [attempt.is_forged for attempt in here.emulator.deliveries][-2:] == [True, False]


@on_both
async def test_a_reordered_webhook_comes_after_the_next_or_at_last_alone() -> None:
    """It waits ten seconds for somebody to overtake it."""
    async with stand() as here:
        reordered = WebhookFault.reordered()
        here.emulator.fail_next_webhooks(reordered)
        ids = [await here.submit(prompt=f"egg {number}") for number in range(5)]
        await here.until_told()
        by_end = sorted(ids, key=lambda task_id: here.emulator.task(task_id).completed_at)
        told = [event["task_id"] for event in here.ear.events]
        place = by_end.index(ids[0])
        expected = [*by_end]
        if place < 4:
            expected[place : place + 2] = [by_end[place + 1], by_end[place]]
        assert told == expected
        here.emulator.fail_next_webhooks(reordered)
        alone = await here.submit()
        await here.until_told()
        late = here.ear.times[-1] - here.emulator.task(alone).completed_at
        assert late == pytest.approx(10)


@pytest.mark.parametrize("chances", [{"eaten": 0.5}, {"lost": 1.5}], ids=["kind", "chance"])
def test_an_unknown_fault_is_refused(chances: dict[str, float]) -> None:
    """By its name, with those there are."""
    with pytest.raises(ValueError, match="duplicated"):
        EggEmulator(webhook_faults=chances)


async def test_what_is_sent_stops_with_the_block_and_goes_on_with_the_next() -> None:
    """What was due in between is told then."""
    emulator, ear = EggEmulator(clock=anyio.current_time), Ear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(emulator), base_url=ORIGIN) as http:
        body = {"model": "nanobanana", "prompt": "A cat", "webhook_url": HOOK}
        await http.post("/v1/generate", json=body, headers=KEY)
        async with emulator.delivering(ear):
            pass
        await anyio.sleep(100)
        assert ear.heard == []
        async with emulator.delivering(ear):
            await anyio.sleep(1)
    assert len(ear.heard) == 1
    with pytest.raises(ZeroDivisionError):  # as it is, and in no group
        async with emulator.delivering(ear):
            raise ZeroDivisionError


async def test_a_server_that_speaks_lifespan_delivers() -> None:
    """From its start to its end, over TCP: elsewhere is left alone."""
    emulator = EggEmulator(clock=anyio.current_time)
    to_end = anyio.Event()
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        if not said:
            return {"type": "lifespan.startup"}
        await to_end.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    async with anyio.create_task_group() as group:
        group.start_soon(emulator, {"type": "lifespan"}, receive, send)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(emulator), base_url=ORIGIN
        ) as http:
            body = {"model": "nanobanana", "prompt": "A cat", "webhook_url": HOOK}
            await http.post("/v1/generate", json=body, headers=KEY)
        await anyio.sleep(100)
        assert [attempt.status for attempt in emulator.deliveries] == [None]
        assert emulator.pending_webhooks == 0
        to_end.set()
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# --- ways out ------------------------------------------------------------------------------------


async def test_an_application_may_wait_for_the_end() -> None:
    """It hears of a disconnection once it has answered, and not before."""
    heard: list[tuple[float, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            for _ in range(2):
                kind = (await receive())["type"]
                heard.append((anyio.current_time() - began, kind))

        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.sleep(1)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await anyio.sleep(1)
            await send({"type": "http.response.body", "body": b"b"})

    assert await to_app(app)("https://a.test", {}, b"") == 200
    assert heard == [(0.0, "http.request"), (2.0, "http.disconnect")]


class Handler(BaseHTTPRequestHandler):
    """Notes what comes, and redirects."""

    heard: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.heard.append((self.path, str(self.headers["X-Test"]), self.rfile.read(length)))
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("path", "target"),
    [("", "/"), ("?a=1", "/?a=1"), ("/x%20y/?a=%2F#part", "/x%20y/?a=%2F")],
    ids=["no path", "a query alone", "with escapes and a fragment"],
)
async def test_over_tcp_the_url_is_called_as_it_is(path: str, target: str) -> None:
    """Redirects are an answer, and not followed."""
    heard: list[tuple[str, str, bytes]] = []
    handler = type("Noting", (Handler,), {"heard": heard})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}{path}"
        assert await over_tcp(url, {"X-Test": "x"}, b"body") == 302
        thread.join()
    assert heard == [(target, "x", b"body")]


@pytest.mark.real_time
async def test_over_tcp_only_this_machine_is_called() -> None:
    """And who does not speak TLS is no https."""
    assert await over_tcp("https://bot.test/x", {}, b"") is None
    with pytest.raises(OSError):  # noqa: PT011
        await over_tcp("https://127.0.0.1:9/x", {}, b"")
