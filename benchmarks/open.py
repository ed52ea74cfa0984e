"""Ten thousand tasks open at once in one process: what each keeps in memory, and how long it takes
to cancel them all.

Memory is what Python's allocator counts (tracemalloc), with the fake service in this process and
virtual time. Subtracted is what the same number of callers cost that each wait for something else,
and the service's own records. Cancelling is measured in real time, from the first `cancel()` until
the last caller has ended.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import httpx

from .alone import JumpingLoop
from .figures import write
from .scenario import Scenario
from .simulated import ORIGIN, Door
from .tables import number, table
from .world import World

ENDLESS = 1e9
"""Seconds: no task ends while it is looked at."""
COLUMNS = ("open tasks", "kB per task beyond the caller's own", "cancelled in s")


@attrs.frozen
class Open:
    """What so many open tasks took: bytes in all, seconds to cancel, callers left behind."""

    n: int
    size: int
    cancelled_in: float
    left: int


class _Endless(World):
    """Tasks that never end."""

    def _add(self, task_id: str, now: float) -> Any:
        job = super()._add(task_id, now)
        job.ends = now + ENDLESS
        return job


def measured(n: int) -> dict[str, Any]:
    """Bytes per open task, and seconds until all were cancelled."""
    for batch in (_others, _ours):
        _run(3, batch, is_sized=False)  # what is loaded and kept once
    theirs, ours = _run(n, _others, is_sized=True), _run(n, _ours, is_sized=True)
    timed = _run(n, _ours, is_sized=False)
    return {
        "n": n,
        "bytes": (ours.size - theirs.size) / n,
        "cancelled_in": timed.cancelled_in,
        "left": timed.left,
    }


def opened(n: int, *, keep: Path | None = None) -> None:
    """Measure, print the table, and store the figures in *keep*."""
    content = measured(n)
    write(keep, "open", content)
    sys.stdout.write(open_table(content) + "\n")


def open_table(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    row = [
        number(content["n"], 0),
        number(content["bytes"] / 1024, 2),
        number(content["cancelled_in"], 2),
    ]
    return table(COLUMNS, [row])


Batch = Callable[[World, int], Awaitable[tuple[list["asyncio.Task[Any]"], Any]]]


def _run(n: int, batch: Batch, *, is_sized: bool) -> Open:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(_measure(n, batch, is_sized=is_sized))


async def _measure(n: int, batch: Batch, *, is_sized: bool) -> Open:
    world = _Endless(Scenario(n), now=asyncio.get_running_loop().time(), wall_now=1.7e9)
    if is_sized:
        tracemalloc.start()
    callers, kept = await batch(world, n)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    began = time.perf_counter()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    took = time.perf_counter() - began
    left = kept.left() if kept is not None else 0
    if kept is not None:
        await kept.aclose()
    return Open(n, size, took, left)


@attrs.frozen
class _Client:
    egg: Any
    http: httpx.AsyncClient

    def left(self) -> int:
        """Callers that the client still counts."""
        return int(self.egg._engines.hub.waited)

    async def aclose(self) -> None:
        await self.egg.aclose()
        await self.http.aclose()


async def _ours(world: World, n: int) -> tuple[list[asyncio.Task[Any]], _Client]:
    from eggapi_async import AsyncEggClient

    http = httpx.AsyncClient(transport=Door(world))
    egg = AsyncEggClient("egg-bench-key", base_url=ORIGIN, http_client=http)

    async def caller(index: int) -> None:
        task = await egg.generate(f"A cat, number {index}", aspect_ratio="16:9")
        await task.result(timeout=None)

    callers = [asyncio.create_task(caller(index)) for index in range(n)]
    await asyncio.sleep(10.0 + n / 50.0)  # all are submitted, and have been looked at
    assert len(egg.unfinished) == n
    return callers, _Client(egg, http)


async def _others(world: World, n: int) -> tuple[list[asyncio.Task[Any]], None]:
    """Callers of the same shape, and the same records at the service."""
    loop = asyncio.get_running_loop()
    moment = datetime.now(UTC)

    async def caller(index: int) -> None:
        world.create(loop.time()).shown(loop.time(), moment)
        await loop.create_future()
        raise AssertionError(index)

    callers = [asyncio.create_task(caller(index)) for index in range(n)]
    await asyncio.sleep(1.0)
    return callers, None
