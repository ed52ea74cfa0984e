"""One task at a time, by a client that has seen fifty before: looks per task, and how late the end
is seen, beside the API page's loop on the very same tasks.

Time is virtual: an event loop whose clock jumps to the next deadline runs the client as it is
shipped against the emulator in this process. So the figures are exact, free of the machine's noise,
and take seconds instead of hours; CPU is not measured here. Each history is a client of its own
with durations of its own; both sides meet the same ones.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import attrs

from .contenders import FINAL, FIRST, HEADERS, INTERVAL
from .figures import write
from .runner import p95
from .tables import number, table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eggapi_async.emulator import EggEmulator

PAST = 50
"""Tasks that a client has seen before it is measured."""
COLD = 20
"""The first tasks of a client, of which it has learned nothing yet."""
LATENCY = 0.05
ORIGIN = "https://egg.test"
COLUMNS = ("contender", "tasks", "looks/task", "lag mean s", "lag p50 s", "lag p95 s")
One = Callable[[], Awaitable[str]]


@attrs.frozen
class Look:
    """One task: requests made for it besides the submission, seconds from its end to ours."""

    polls: int
    lag: float


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` jumps to the next deadline. It is not made for sockets."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self.seconds


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select()  # a thread is at work
        self._loop.seconds += timeout
        return []


def alone(*, histories: int, keep: Path | None = None) -> None:
    """Measure, print the table, and store the figures in *keep*."""
    content = measured(histories)
    write(keep, "alone", content)
    sys.stdout.write(alone_table(content) + "\n")


def measured(histories: int, *, after: int = PAST) -> dict[str, Any]:
    """The figures of the loop and of ours, over so many *histories*, *after* more tasks each."""
    theirs = [run(_loop, seed, tasks=PAST + after) for seed in range(histories)]
    ours = [run(_ours, seed, tasks=PAST + after) for seed in range(histories)]
    late, cold = slice(PAST, None), slice(0, COLD)
    rows = [
        _row(f"the API page's loop, {PAST} tasks past", theirs, late),
        _row(f"eggapi-async, {PAST} tasks past", ours, late),
        _row(f"the API page's loop, first {COLD} tasks", theirs, cold),
        _row(f"eggapi-async, first {COLD} tasks", ours, cold),
    ]
    return {"histories": histories, "past": PAST, "rows": rows}


def alone_table(content: dict[str, Any]) -> str:
    """What `measured` gave, as Markdown, and how the lag after the past tasks compares."""
    rows = [
        [
            row["name"],
            number(row["tasks"], 0),
            number(row["polls"], 2),
            number(row["mean"], 2),
            number(row["p50"], 2),
            number(row["p95"], 2),
        ]
        for row in content["rows"]
    ]
    theirs, ours = content["rows"][:2]
    shares = [f"{ours[name] / theirs[name]:.2f}" for name in ("polls", "mean", "p50", "p95")]
    return table(COLUMNS, [*rows, ["ours / the loop's, after the past tasks", "", *shares]])


def run(door: Callable[[EggEmulator], Any], seed: int, *, tasks: int) -> list[Look]:
    """One client's life in virtual time: *tasks* one after another."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(_one_by_one(door, seed, tasks))


async def _one_by_one(door: Callable[[EggEmulator], Any], seed: int, tasks: int) -> list[Look]:
    from eggapi_async.emulator import EggEmulator

    loop, looks = asyncio.get_running_loop(), []
    emulator = EggEmulator(clock=loop.time, seed=seed, latency=LATENCY)
    async with door(emulator) as one:
        for _ in range(tasks):
            before = emulator.requests.total()
            task_id = await one()
            polls = emulator.requests.total() - before - 1
            looks.append(Look(polls, loop.time() - emulator.task(task_id).completed_at))
    return looks


@asynccontextmanager
async def _ours(emulator: EggEmulator) -> AsyncIterator[One]:
    from eggapi_async.testing import connect

    async with connect(emulator) as egg:

        async def one() -> str:
            return (await egg.run("A cat", timeout=None)).id

        yield one


@asynccontextmanager
async def _loop(emulator: EggEmulator) -> AsyncIterator[One]:
    """As the page writes it: a first look, then one every so many seconds."""
    import httpx

    transport = httpx.ASGITransport(emulator)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=HEADERS) as http:

        async def one() -> str:
            body = {"model": "nanobanana", "prompt": "A cat"}
            task = (await http.post("/v1/generate", json=body)).json()["data"]
            pause = FIRST
            while task["status"] not in FINAL:
                await asyncio.sleep(pause)
                task = (await http.get(f"/v1/tasks/{task['id']}")).json()["data"]
                pause = INTERVAL
            return str(task["id"])

        yield one


def _row(name: str, lives: list[list[Look]], part: slice) -> dict[str, Any]:
    looks = [look for life in lives for look in life[part]]
    lags = [look.lag for look in looks]
    return {
        "name": name,
        "tasks": len(looks),
        "polls": fmean(look.polls for look in looks),
        "mean": fmean(lags),
        "p50": median(lags),
        "p95": p95(lags),
    }
