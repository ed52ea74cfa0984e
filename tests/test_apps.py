"""Web apps around the client: order, look, events, webhook, all in one process and virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

import eggapi_async
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.deliveries import SECRET
from tests.pages import named
from tests.virtual_time import virtual_clock

HOST = "http://app.test"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> EggEmulator:
    """The service that clients of an app meet, whoever makes them."""
    made = EggEmulator(clock=virtual_clock, webhook_secret=SECRET)

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


async def test_the_app_of_the_readme(emulator: EggEmulator) -> None:
    """It answers at once, is told the end by a webhook, and asks only when somebody looks."""
    scope: dict[str, Any] = {"__name__": "app"}
    exec(compile(named("README.md", "app"), "app.py", "exec"), scope)

    async with visitor(scope["app"], emulator) as browser:
        ordered = await browser.post("/pictures", params={"prompt": "an egg"})
        assert ordered.status_code == 202
        place = ordered.json()["look"]
        assert (await browser.get(place)).json() == {"status": "pending", "url": None}
        looks = emulator.requests["GET task"]
        await anyio.sleep(50)
        seen = (await browser.get(place)).json()

    assert seen["status"] == "completed"
    assert seen["url"].endswith(".png")
    assert emulator.requests["GET task"] == looks, "the webhook told it"
