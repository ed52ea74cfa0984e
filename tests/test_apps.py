"""Web apps around the client: order, look, events, webhook, all in one process and virtual time."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

import eggapi_async
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.deliveries import SECRET
from tests.pages import ROOT, named
from tests.virtual_time import START, virtual_clock

HOST = "http://app.test"
LOOK, SWEEP = "GET /v1/tasks/{id}", "GET /v1/tasks"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> EggEmulator:
    """The service that clients of an app meet, whoever makes them."""
    began = time.time() - START  # receivers compare with the real clock, within their tolerance
    made = EggEmulator(clock=lambda: began + virtual_clock(), webhook_secret=SECRET)

    def client(**options: Any) -> eggapi_async.AsyncEggClient:
        return connect(made, **options)

    monkeypatch.setattr(eggapi_async, "AsyncEggClient", client)
    monkeypatch.setenv("EGGAPI_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("WEBHOOK_URL", "https://app.test/webhooks/egg")
    return made


@asynccontextmanager
async def visitor(app: Any, emulator: EggEmulator) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with a browser, while *app* lives and the service can reach it."""
    async with living(app), emulator.delivering(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=HOST) as browser:
            yield browser


@asynccontextmanager
async def living(app: Any) -> AsyncIterator[None]:
    """What a server does around an app: ASGI's lifespan."""
    started, ending, ended = anyio.Event(), anyio.Event(), anyio.Event()
    events = {"lifespan.startup.complete": started, "lifespan.shutdown.complete": ended}

    async def receive() -> dict[str, str]:
        if not started.is_set():
            return {"type": "lifespan.startup"}
        await ending.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: dict[str, Any]) -> None:
        events[message["type"]].set()

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope, receive, send)
        await started.wait()
        try:
            yield
        finally:
            ending.set()
            await ended.wait()


FRAMEWORKS = ["fastapi", "starlette", "litestar"]
"""Django, whose threads nobody counts, is tried over TCP, in `test_examples`."""


@pytest.fixture(params=FRAMEWORKS)
def app(request: pytest.FixtureRequest, emulator: EggEmulator) -> Iterator[Any]:
    """The example for each framework, made anew; what it does to logging is undone."""
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("EGGAPI_API_KEY", "a-key")
    name = f"app_{request.param}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    app = importlib.import_module(name).app
    added = [handler for handler in root.handlers if handler not in handlers]
    yield app
    root.setLevel(level)
    for handler in added:
        root.removeHandler(handler)


async def test_a_picture_is_ordered_followed_and_looked_at(app: Any, emulator: EggEmulator) -> None:
    """202 at once; each change as an event, the last one told by the webhook; then it is known."""
    async with visitor(app, emulator) as browser:
        ordered = await browser.post("/pictures", content="an egg")
        assert ordered.status_code == 202
        place = ordered.json()
        task_id = place["id"]
        assert (await browser.get(place["look"])).json()["status"] == "pending"
        polls = emulator.requests[LOOK]
        stream = await browser.get(place["follow"])
        assert emulator.requests[LOOK] == polls + 1, "one to begin the stream"
        assert stream.headers["content-type"].startswith("text/event-stream")
        *_, last = events(stream.text)
        assert last["event"] == "completed"
        seen = json.loads(last["data"])
        assert seen == {"id": task_id, "status": "completed", "url": seen["url"], "error": None}
        assert seen["url"].endswith(".png")
        assert (await browser.get(place["look"])).json() == seen
        assert [each["event"] for each in events((await browser.get(place["follow"])).text)] == [
            "completed"
        ]

    assert emulator.requests[SWEEP] == 0


async def test_errors_become_answers(app: Any, emulator: EggEmulator) -> None:
    """What a visitor can mend is named; a stranger's id is not found; the rest is our trouble."""
    async with visitor(app, emulator) as browser:
        empty = await browser.post("/pictures", content="")
        unknown = await browser.get("/pictures/gen_unknown")
        unheard = await browser.get("/pictures/gen_unknown/events")
        emulator.fail_next(Fault.refused(403, "INSUFFICIENT_BALANCE"))
        poor = await browser.post("/pictures", content="an egg")

    assert (empty.status_code, unknown.status_code, unheard.status_code) == (422, 404, 404)
    assert "prompt" in empty.json()["error"]
    assert unknown.json() == unheard.json() == {"error": "there is no such picture"}
    assert (poor.status_code, poor.json()) == (503, {"error": "pictures cannot be had just now"})


async def test_a_failed_picture_says_why(app: Any, emulator: EggEmulator) -> None:
    """A generation that fails ends the stream like one that does not."""
    async with visitor(app, emulator) as browser:
        place = (await browser.post("/pictures", content="a forbidden egg")).json()
        *_, last = events((await browser.get(place["follow"])).text)

    assert last["event"] == "failed"
    assert json.loads(last["data"])["error"]


def events(stream: str) -> list[dict[str, str]]:
    """The server-sent events in a body."""
    parts = [part for part in stream.replace("\r\n", "\n").split("\n\n") if part.strip()]
    return [dict(line.split(": ", 1) for line in part.splitlines()) for part in parts]


def test_every_app_is_tried() -> None:
    """None is forgotten."""
    assert {path.stem for path in (ROOT / "examples").glob("app_*.py")} == {
        f"app_{name}" for name in [*FRAMEWORKS, "django"]
    }


async def test_the_app_of_the_readme(emulator: EggEmulator) -> None:
    """It answers at once, is told the end by a webhook, and asks only when somebody looks."""
    scope: dict[str, Any] = {"__name__": "app"}
    exec(compile(named("README.md", "app"), "app.py", "exec"), scope)

    async with visitor(scope["app"], emulator) as browser:
        ordered = await browser.post("/pictures", params={"prompt": "an egg"})
        assert ordered.status_code == 202
        place = ordered.json()["look"]
        assert (await browser.get(place)).json() == {"status": "pending", "url": None}
        looks = emulator.requests[LOOK]
        assert looks == 1
        await anyio.sleep(50)
        seen = (await browser.get(place)).json()
        assert (await browser.get("/pictures/gen_unknown")).status_code == 404

    assert seen["status"] == "completed"
    assert seen["url"].endswith(".png")
    assert emulator.requests[LOOK] == looks + 1, "one for the unknown; the webhook told the known"
