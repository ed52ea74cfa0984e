"""What one small GET costs the client, by arrangement of its connections, behind a semaphore of its
own, so that nothing queues inside the HTTP library.

Two paces: flat out, with many callers, and 95 requests per second, just under the documented 100
per second and address, where every request also wakes the process. Each figure is of a fresh
process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

from .client import cpu_seconds
from .figures import NOT_INSTALLED, write
from .runner import python, server
from .scenario import Scenario
from .tables import DID_NOT_FINISH, table
from .wire_h2 import serve_h2

Get = Callable[[], Awaitable[object]]
PACE = 95.0
CALLERS = 200
WARM_UP = 0.5
COLUMNS = ("arrangement", "flat out: ms CPU", "requests/s", "at 95/s: ms CPU", "requests/s")


@attrs.frozen
class Arrangement:
    """*width* requests at once at most, through *door*, which needs *package*."""

    name: str
    width: int
    door: Callable[[str, int], AbstractAsyncContextManager[Get]]
    package: str = "httpx"


@asynccontextmanager
async def _pool(origin: str, width: int, **options: Any) -> AsyncIterator[Get]:
    httpx = import_module("httpx")
    limits = httpx.Limits(max_connections=width, max_keepalive_connections=width)
    timeout = httpx.Timeout(30.0, pool=None)
    async with httpx.AsyncClient(limits=limits, timeout=timeout, **options) as http:
        yield partial(http.get, f"{origin}/_nothing")


@asynccontextmanager
async def _over(origin: str, _: int, *, make: Callable[[], Any]) -> AsyncIterator[Get]:
    async with import_module("httpx").AsyncClient(transport=make()) as http:
        yield partial(http.get, f"{origin}/_nothing")


def _lanes() -> Any:
    return import_module("eggapi_async._lanes").Lanes()


def _h2() -> Any:
    return import_module("httpx").AsyncHTTPTransport(http1=False, http2=True)


def _over_aiohttp() -> Any:
    return import_module("httpx_aiohttp").AiohttpTransport()


@asynccontextmanager
async def _aiohttp(origin: str, width: int) -> AsyncIterator[Get]:
    aiohttp = import_module("aiohttp")
    connector = aiohttp.TCPConnector(limit=width)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def get() -> None:
            async with http.get(f"{origin}/_nothing") as response:
                await response.read()

        yield get


@asynccontextmanager
async def _exchange(origin: str, _: int) -> AsyncIterator[Get]:
    """Our own exchange: lanes, one deadline, a capped body, mapped errors."""
    module = import_module("eggapi_async._wire")
    wire, key = module.Wire(), module.ApiKey("egg-bench-key")
    url = f"{origin}/_nothing"
    yield partial(wire.exchange, "GET", url, key=key, params={}, body=None, timeout=30.0)
    await wire.aclose()


@asynccontextmanager
async def _whole(origin: str, width: int) -> AsyncIterator[Get]:
    """Our whole client: a GET of one task, limiter and values included."""
    eggapi = import_module("eggapi_async")
    limiter = eggapi.RateLimiter(width, None)
    async with eggapi.AsyncEggClient("egg-bench-key", base_url=origin, limiter=limiter) as egg:
        task = await egg.generate("A cat")
        yield partial(egg.get_task, task.id)


LANES = partial(_over, make=_lanes)
H2 = partial(_over, make=_h2)
OVER_AIOHTTP = partial(_over, make=_over_aiohttp)
ARRANGEMENTS = (
    *(Arrangement(f"httpx, one pool of {width}", width, _pool) for width in (1, 10, 20, 32, 100)),
    *(Arrangement(f"httpx over {width} lanes", width, LANES) for width in (1, 10, 32, 100)),
    Arrangement("eggapi_async's exchange, 32 lanes", 32, _exchange),
    Arrangement("eggapi_async's get_task, 32 lanes", 32, _whole),
    Arrangement("httpx over HTTP/2, one connection", 32, H2, "h2"),
    Arrangement("httpx over httpx-aiohttp", 32, OVER_AIOHTTP, "httpx_aiohttp"),
    Arrangement("aiohttp", 32, _aiohttp, "aiohttp"),
)


def wire(*, seconds: float, only: Sequence[str] | None = None, keep: Path | None = None) -> None:
    """Measure, print the table, and store the figures in *keep*."""
    content = [_row(it, seconds) for it in range(len(ARRANGEMENTS)) if _wanted(it, only)]
    write(keep, "wire", content)
    sys.stdout.write("CPU per GET, 50 ms added latency (none for one connection).\n\n")
    sys.stdout.write(wire_table(content) + "\n")


def wire_table(content: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    return table(COLUMNS, [[row["name"], *_cells(row["figures"])] for row in content])


def _cells(figures: list[list[Any]]) -> list[str]:
    if not figures:
        return [NOT_INSTALLED, "", "", ""]
    return [cell for figure in figures for cell in _pair(*figure)]


def _pair(cpu: float | None, rate: float) -> tuple[str, str]:
    return (DID_NOT_FINISH, "") if cpu is None else (f"{1000 * cpu:.2f}", f"{rate:.0f}")


def _wanted(number: int, only: Sequence[str] | None) -> bool:
    return not only or any(word in ARRANGEMENTS[number].name for word in only)


def _row(number: int, seconds: float) -> dict[str, Any]:
    """CPU seconds per request and requests per second, flat out and paced."""
    arrangement = ARRANGEMENTS[number]
    if find_spec(arrangement.package) is None:
        return {"name": arrangement.name, "figures": []}
    scenario = Scenario(1, latency=0.0 if arrangement.width == 1 else 0.05)
    serving = serve_h2 if arrangement.package == "h2" else server
    figures = []
    for pace in (0.0, PACE):
        with serving(scenario) as origin:
            words = ["benchmarks.wire", str(number), origin, str(pace), str(seconds)]
            text = python(words, core=0, timeout=60 + 10 * seconds)
        figures.append(json.loads(text) if text else [None, 0.0])
    return {"name": arrangement.name, "figures": figures}


# --- the process that is measured ------------------------------------------------------------


async def measure(
    arrangement: Arrangement, origin: str, *, pace: float, seconds: float
) -> tuple[float, float]:
    """CPU seconds per request, and requests per second."""
    async with arrangement.door(origin, arrangement.width) as get:
        gate = asyncio.Semaphore(arrangement.width)

        async def gated() -> None:
            async with gate:
                await get()

        drive = partial(_paced, gated, pace) if pace else partial(_flat_out, gated)
        await drive(WARM_UP)
        began, cpu = time.monotonic(), cpu_seconds()
        count = await drive(seconds)
        spent, took = cpu_seconds() - cpu, time.monotonic() - began
    return spent / count, count / took


async def _flat_out(get: Get, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    until, count = loop.time() + seconds, 0

    async def caller() -> None:
        nonlocal count
        while loop.time() < until:
            await get()
            count += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return count


async def _paced(get: Get, pace: float, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    began, tasks = loop.time(), []
    for number in range(round(pace * seconds)):
        await asyncio.sleep(began + number / pace - loop.time())
        tasks.append(asyncio.ensure_future(get()))
    await asyncio.gather(*tasks)
    return len(tasks)


def main() -> None:
    """Measure what the arguments name."""
    number, origin, pace, seconds = sys.argv[1:]
    arrangement = ARRANGEMENTS[int(number)]
    work = measure(arrangement, origin, pace=float(pace), seconds=float(seconds))
    sys.stdout.write(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
