"""Who is compared: each by its own public API and at its own default settings.

A contender is an async context manager that gives `one(number) -> task id`: submit one task, wait
for its end, say whose it was. Peers' packages are imported only in the process that runs them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import attrs

One = Callable[[int], Awaitable[str]]
Door = Callable[[str], AbstractAsyncContextManager[One]]

FIRST = 3.0
INTERVAL = 5.0
"""Seconds: the API page advises a first poll after 3 to 5 s, then one every 5 s."""
FINAL = ("completed", "failed")
HEADERS = {"Authorization": "Bearer egg-bench-key"}


@attrs.frozen
class Contender:
    """*name* on the command line and in the tables, *package* that must be installed, *what*."""

    name: str
    package: str
    what: str
    door: Door

    @property
    def is_installed(self) -> bool:
        """Whether it can run here."""
        return find_spec(self.package) is not None


def _prompt(number: int) -> dict[str, Any]:
    return {"model": "nanobanana", "prompt": f"A cat, number {number}", "aspect_ratio": "16:9"}


# --- ours ------------------------------------------------------------------------------------


@asynccontextmanager
async def _ours(origin: str, **options: Any) -> AsyncIterator[One]:
    eggapi = import_module("eggapi_async")
    async with eggapi.AsyncEggClient("egg-bench-key", base_url=origin, **options) as egg:

        async def one(number: int) -> str:
            task = await egg.generate(f"A cat, number {number}", aspect_ratio="16:9")
            result = await task.result(timeout=None)
            return str(result.id)

        yield one


@asynccontextmanager
async def _ours_unlimited(origin: str) -> AsyncIterator[One]:
    limiter = import_module("eggapi_async").RateLimiter(per_second=None)
    async with _ours(origin, limiter=limiter) as one:
        yield one


@asynccontextmanager
async def _ours_aiohttp(origin: str) -> AsyncIterator[One]:
    transport = import_module("httpx_aiohttp").AiohttpTransport()
    async with import_module("httpx").AsyncClient(transport=transport) as http:
        async with _ours(origin, http_client=http) as one:
            yield one


# --- the API page's loop ---------------------------------------------------------------------


Fetch = Callable[[str, str, Any], Awaitable[Any]]
"""(method, path, body or None) -> `data` of the answer; raises for anything but 2xx."""


def _loop(fetch: Fetch) -> One:
    async def one(number: int) -> str:
        task = await fetch("POST", "/v1/generate", _prompt(number))
        pause = FIRST
        while task["status"] not in FINAL:
            await asyncio.sleep(pause)
            task = await fetch("GET", f"/v1/tasks/{task['id']}", None)
            pause = INTERVAL
        return str(task["id"])

    return one


@asynccontextmanager
async def _httpx_loop(origin: str, **options: Any) -> AsyncIterator[One]:
    httpx = import_module("httpx")
    async with httpx.AsyncClient(base_url=origin, headers=HEADERS, **options) as http:

        async def fetch(method: str, path: str, body: Any) -> Any:
            response = await http.request(method, path, json=body)
            response.raise_for_status()
            return response.json()["data"]

        yield _loop(fetch)


@asynccontextmanager
async def _httpx_loop_20(origin: str) -> AsyncIterator[One]:
    httpx = import_module("httpx")
    limits = httpx.Limits(max_connections=20, max_keepalive_connections=20)
    timeout = httpx.Timeout(30.0, pool=None)
    async with _httpx_loop(origin, limits=limits, timeout=timeout) as one:
        yield one


@asynccontextmanager
async def _aiohttp_loop(origin: str, *, retries: bool = False) -> AsyncIterator[One]:
    aiohttp = import_module("aiohttp")
    async with aiohttp.ClientSession(origin, headers=HEADERS) as http:

        async def fetch(method: str, path: str, body: Any) -> Any:
            attempt = 0
            while True:
                async with http.request(method, path, json=body) as response:
                    if not (retries and response.status == 429):
                        response.raise_for_status()
                        return (await response.json())["data"]
                    asked = response.headers.get("Retry-After")
                await asyncio.sleep(_backoff(asked, attempt))
                attempt += 1

        yield _loop(fetch)


def _backoff(retry_after: str | None, attempt: int) -> float:
    """Seconds before a refused request goes again: doubled up to 16, and spread."""
    if retry_after:
        return float(retry_after) + random.random()
    return 2.0 ** min(4, attempt) * (0.5 + random.random())


@asynccontextmanager
async def _aiohttp_loop_retries(origin: str) -> AsyncIterator[One]:
    async with _aiohttp_loop(origin, retries=True) as one:
        yield one


# --- peers -----------------------------------------------------------------------------------


@asynccontextmanager
async def _replicate(origin: str, *, interval: float | None = None) -> AsyncIterator[One]:
    client = import_module("replicate").Client(api_token="none", base_url=f"{origin}/replicate")
    if interval is not None:
        client.poll_interval = interval

    async def one(number: int) -> str:
        prediction = await client.predictions.async_create(
            model="egg/nanobanana", input=_prompt(number)
        )
        await prediction.async_wait()
        return str(prediction.id)

    yield one


@asynccontextmanager
async def _fal(origin: str) -> AsyncIterator[One]:
    module = import_module("fal_client.client")
    # Its address is not an argument, and always https.
    module.QUEUE_URL_FORMAT = f"{origin}/fal/"  # type: ignore[attr-defined]
    client = module.AsyncClient(key="none")

    async def one(number: int) -> str:
        return str((await client.subscribe("egg/nanobanana", _prompt(number)))["request_id"])

    yield one


@asynccontextmanager
async def _runway(origin: str) -> AsyncIterator[One]:
    make = import_module("runwayml").AsyncRunwayML
    async with make(api_key="none", base_url=f"{origin}/runway") as client:

        async def one(number: int) -> str:
            task = await client.text_to_image.create(
                model="gen4_image", prompt_text=f"A cat, number {number}", ratio="1920:1080"
            )
            return str((await task.wait_for_task_output()).id)

        yield one


@asynccontextmanager
async def _openai(origin: str, **options: Any) -> AsyncIterator[One]:
    make = import_module("openai").AsyncOpenAI
    async with make(api_key="none", base_url=f"{origin}/openai") as client:

        async def one(number: int) -> str:
            video = await client.videos.create_and_poll(
                model="sora-2", prompt=f"A cat, number {number}", **options
            )
            return str(video.id)

        yield one


_replicate_5s = partial(_replicate, interval=INTERVAL)
_openai_5s = partial(_openai, poll_interval_ms=round(1000 * INTERVAL))


# --- the floor -------------------------------------------------------------------------------


@asynccontextmanager
async def _bare(origin: str) -> AsyncIterator[One]:
    """One caller, one connection, the number of requests in BENCH_REQUESTS, read as JSON."""
    httpx = import_module("httpx")
    submit, lists, gets = map(int, os.environ["BENCH_REQUESTS"].split(","))
    pace = float(os.environ.get("BENCH_PACE", "0"))
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    http = httpx.AsyncClient(base_url=origin, headers=HEADERS, limits=limits)
    loop, ids = asyncio.get_running_loop(), []
    began, sent = loop.time(), 0

    async def fetch(method: str, path: str, body: Any = None) -> Any:
        nonlocal sent
        sent += 1
        if pace:
            await asyncio.sleep(max(0.0, began + sent / pace - loop.time()))
        return (await http.request(method, path, json=body)).json()["data"]

    async def one(number: int) -> str:
        task = await fetch("POST", "/v1/generate", _prompt(number))
        ids.append(task["id"])
        for _ in range(_share(lists, number, submit)):
            await fetch("GET", "/v1/tasks?page=1&per_page=100")
        for _ in range(_share(gets, number, submit)):
            await fetch("GET", f"/v1/tasks/{task['id']}")
        return str(task["id"])

    async with http:
        yield one


def _share(total: int, number: int, of: int) -> int:
    return total * (number + 1) // of - total * number // of


CONTENDERS = (
    Contender("ours", "eggapi_async", "eggapi-async, default settings (95 requests/s)", _ours),
    Contender("ours-unlimited", "eggapi_async", "RateLimiter(per_second=None)", _ours_unlimited),
    Contender("ours-aiohttp", "httpx_aiohttp", "ours, httpx-aiohttp transport", _ours_aiohttp),
    Contender("httpx-loop", "httpx", "the API page's loop on httpx, default pool", _httpx_loop),
    Contender("httpx-loop-20", "httpx", "the same, 20 connections", _httpx_loop_20),
    Contender("aiohttp-loop", "aiohttp", "the API page's loop on aiohttp", _aiohttp_loop),
    Contender("aiohttp-retries", "aiohttp", "the same with retries on 429", _aiohttp_loop_retries),
    Contender("replicate", "replicate", "async_create, async_wait", _replicate),
    Contender("fal-client", "fal_client", "subscribe", _fal),
    Contender("runwayml", "runwayml", "text_to_image.create, wait_for_task_output", _runway),
    Contender("openai", "openai", "videos.create_and_poll", _openai),
    Contender("replicate-5s", "replicate", "replicate, told to look every 5 s", _replicate_5s),
    Contender("openai-5s", "openai", "openai, told to look every 5 s", _openai_5s),
    Contender("bare-httpx", "httpx", "the same requests, 1 caller, 1 connection", _bare),
    Contender("bare-paced", "httpx", "the same, spread over as much time as ours took", _bare),
)
BY_NAME = {contender.name: contender for contender in CONTENDERS}
LABELS = {
    "ours": "eggapi-async",
    "ours-unlimited": "eggapi-async, no rate of its own",
    "ours-aiohttp": "eggapi-async over aiohttp",
    "httpx-loop": "loop on httpx",
    "httpx-loop-20": "loop on httpx, 20 connections",
    "aiohttp-loop": "loop on aiohttp",
    "aiohttp-retries": "loop on aiohttp, retries",
    "replicate-5s": "replicate, every 5 s",
    "openai-5s": "openai, every 5 s",
    "bare-httpx": "bare httpx, flat out",
    "bare-paced": "bare httpx, paced",
}
"""Where the list of contenders is not at hand; the others are called as their package."""


def label(name: str) -> str:
    """What a contender is called where the list of them is not at hand."""
    return LABELS.get(name, name)
