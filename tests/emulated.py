"""The emulator behind an HTTP client in process, on a clock that tests move by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx

from eggapi_async.emulator import EggEmulator

ORIGIN = "https://egg.test"
KEY = {"Authorization": "Bearer a-key"}


@attrs.define
class Clock:
    """Unix seconds that pass only when told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@attrs.define
class Desk:
    """An emulator, its clock, and somebody with a key who asks it things."""

    clock: Clock
    emulator: EggEmulator
    http: httpx.AsyncClient

    async def post(self, **fields: Any) -> httpx.Response:
        """Submit a generation; model and prompt are given unless named."""
        body = {"model": "nanobanana", "prompt": "A cat"} | fields
        return await self.http.post("/v1/generate", json=body)

    async def submit(self, **fields: Any) -> str:
        """Submit a generation and return its id."""
        answer = await self.post(**fields)
        return str(answer.json()["data"]["id"])

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers=headers)

    async def data(self, path: str) -> Any:
        """The data in the envelope of a successful GET."""
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["error"] is None
        return answer.json()["data"]

    async def task(self, task_id: str) -> Any:
        return await self.data(f"/v1/tasks/{task_id}")

    async def listed(self, query: str = "") -> list[str]:
        """The ids of a page of the list."""
        page = await self.data(f"/v1/tasks{query}")
        return [item["id"] for item in page["items"]]

    async def finish(self, task_id: str) -> Any:
        """Move the clock to the end of a task and return it."""
        self.clock.now = max(self.clock.now, self.emulator.task(task_id).completed_at)
        return await self.task(task_id)

    async def file(self, url: str, *, method: str = "GET", **headers: str) -> httpx.Response:
        """Ask for an output as a stranger, without the key."""
        transport = httpx.ASGITransport(self.emulator)
        async with httpx.AsyncClient(transport=transport) as stranger:
            return await stranger.request(method, url, headers=headers)


@asynccontextmanager
async def desk(*, start: float = 0.0, **options: Any) -> AsyncIterator[Desk]:
    """A desk whose emulator takes these options, its clock standing at `start`."""
    clock = Clock(start)
    emulator = EggEmulator(clock=clock, **options)
    transport = httpx.ASGITransport(emulator)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=KEY) as http:
        yield Desk(clock, emulator, http)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """HTTP status and error code of an answer that is an error envelope."""
    content = answer.json()
    assert content["data"] is None
    return answer.status_code, content["error"]["code"]
