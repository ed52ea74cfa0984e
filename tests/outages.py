"""A service that can be down, the crowd that calls it, and what an outage does to both.

Virtual time: nothing waits. The tests run it small. At its full size, a thousand who wait through
an outage of an hour, it is a program: `python -m tests.outages [waits] [seconds]`.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import anyio
import attrs
import httpx

from eggapi_async import AsyncEggClient, EggError
from tests.scripted import data, error, task
from tests.virtual_time import START, run_virtual

HOUR: Final = 3600.0
Answer = Callable[[], httpx.Response]


class Service:
    """Takes every generation and completes it after *takes* seconds, unless *failing* says no."""

    def __init__(self, failing: Callable[[str, float], Answer | None], takes: float = 10.0) -> None:
        self._failing = failing
        self._takes = takes
        self._made_at: list[float] = []
        self.calls: Counter[str] = Counter()
        self.times: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.calls[request.method] += 1
        self.times.append(anyio.current_time())
        await anyio.sleep(0.05)
        answer = self._failing(request.method, anyio.current_time())
        return self._good(request) if answer is None else answer()

    def _good(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self._made_at.append(anyio.current_time())
            return httpx.Response(202, json=data(task(f"gen_{len(self._made_at) - 1}")))
        name = request.url.path.rpartition("/")[2]
        if name != "tasks":
            return httpx.Response(200, json=data(self._task(int(name.removeprefix("gen_")))))
        number, size = int(request.url.params["page"]), int(request.url.params["per_page"])
        newest = range(len(self._made_at))[::-1][(number - 1) * size : number * size]
        place = {"page": number, "per_page": size, "total": len(self._made_at)}
        return httpx.Response(
            200, json=data({"items": [self._task(n) for n in newest], "pagination": place})
        )

    def _task(self, number: int) -> dict[str, Any]:
        is_done = anyio.current_time() >= self._made_at[number] + self._takes
        end: dict[str, Any] = {"status": "completed", "output": {"url": "https://cdn.test/a.png"}}
        return task(f"gen_{number}", **(end if is_done else {}))

    def busiest_second(self) -> int:
        """The requests of that second, from any moment on, that had the most."""
        recent: deque[float] = deque()
        most = 0
        for moment in self.times:
            recent.append(moment)
            while recent[0] <= moment - 1.0:
                recent.popleft()
            most = max(most, len(recent))
        return most


def client_of(service: Service, **options: Any) -> AsyncEggClient:
    """A client of *service*."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(service))
    return AsyncEggClient("outage-key", http_client=http, **options)


def broken(kind: type[Exception]) -> Answer:
    """What raises."""

    def answer() -> httpx.Response:
        raise kind("broken")

    return answer


def refused(status: int, code: str, **headers: str) -> Answer:
    """An answer that declines."""
    return lambda: httpx.Response(status, json=error(code), headers=headers)


def page(status: int) -> Answer:
    """An answer of a proxy's."""
    return lambda: httpx.Response(status, text="<html>Bad gateway")


TOO_MANY = refused(429, "RATE_LIMITED")
TOO_MANY_FOR_A_SECOND = refused(429, "RATE_LIMITED", **{"Retry-After": "1"})
UNAVAILABLE = refused(503, "SERVICE_UNAVAILABLE")
BAD_GATEWAY = page(502)
NO_CONNECTION = broken(httpx.ConnectError)
RESET = broken(httpx.ReadError)


KINDS: Final[Mapping[str, Answer]] = {
    "429": TOO_MANY,
    "429 for a second": TOO_MANY_FOR_A_SECOND,
    "503": UNAVAILABLE,
    "502": BAD_GATEWAY,
    "no connection": NO_CONNECTION,
    "reset": RESET,
}


async def crowd(callers: int, call: Callable[[int], Awaitable[Any]]) -> list[EggError | None]:
    """What comes of so many calls at once: the error of each, or None."""
    ends: list[EggError | None] = [None] * callers

    async def one(n: int) -> None:
        try:
            await call(n)
        except EggError as error:
            ends[n] = error

    async with anyio.create_task_group() as group:
        for n in range(callers):
            group.start_soon(one, n)
    return ends


@attrs.frozen
class Outcome:
    """What came of an outage: the waits that failed, the busiest second, requests in vain, and how
    long after its end the last wait ended."""

    failed: int
    busiest_second: int
    in_vain: int
    after: float


async def outlast(answer: Answer, *, waits: int, seconds: float) -> Outcome:
    """So many waits while every request is answered by *answer* for so many seconds."""
    begins, ends = START + 60.0, START + 60.0 + seconds
    service = Service(lambda _, now: answer if begins <= now < ends else None, takes=120.0)
    async with client_of(service) as egg:
        tasks = [await egg.generate(f"Egg {n}") for n in range(waits)]
        failed = await crowd(waits, lambda n: tasks[n].result(timeout=2 * seconds + HOUR))
        after = anyio.current_time() - ends
    in_vain = sum(begins <= moment < ends for moment in service.times)
    return Outcome(waits - failed.count(None), service.busiest_second(), in_vain, after)


def main(waits: int = 1000, seconds: float = HOUR) -> None:
    """Let them wait through an outage of each kind, and write what came of it."""
    for name, answer in KINDS.items():
        outcome = run_virtual(partial(outlast, answer, waits=waits, seconds=seconds))
        sys.stdout.write(f"{name}: {outcome}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
