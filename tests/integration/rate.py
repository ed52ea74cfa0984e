"""Two processes under one limit: `python -m tests.integration.rate --seconds 60`.

Each is a process with a client of its own that always has requests waiting; a real Redis gives them
turns, and the emulator over TCP counts who came when. Printed are the requests per second in sum,
what is between the two, and the pause after a 429 to one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

import attrs

from eggapi_async.emulator import EggEmulator, Fault
from tests.integration.servers import PATIENCE, redis_server
from tests.served import ROOT, environment, served

RATE: Final = 20.0
CALLERS: Final = 4
ROUTES: Final = ("/v1/tasks", "/v1/usage/summary")
"""What each of the two asks for, so that the service can tell them apart."""


async def ask_on(redis_url: str, route: str, per_second: float, number: int) -> None:
    """A worker: asks for *number* things (0: until it is ended), several at a time."""
    from redis.asyncio import Redis

    from eggapi_async import AsyncEggClient, RedisRateLimiter

    async with Redis.from_url(redis_url) as redis:
        limiter = RedisRateLimiter(redis, per_second=per_second, processes=len(ROUTES))
        async with AsyncEggClient("a-key", limiter=limiter) as egg:
            ask: Any = egg.tasks_page if route == ROUTES[0] else egg.usage_summary
            await ask()  # everything is loaded, and both are there
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.readline)

            async def caller() -> None:
                left = number // CALLERS if number else sys.maxsize
                for _ in range(left):
                    await ask()

            await asyncio.gather(*(caller() for _ in range(CALLERS)))


@contextmanager
def two_workers(
    service: str, redis_url: str, *, per_second: float = RATE, number: int = 0
) -> Iterator[list[subprocess.Popen[str]]]:
    """Both, set off at the same moment."""
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.rate", "--worker"),
                json.dumps([redis_url, route, per_second, number]),
            ],
            cwd=ROOT,
            env=environment(EGGAPI_BASE_URL=service),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for route in ROUTES
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate(timeout=PATIENCE)


@attrs.frozen
class Counted:
    """Requests of both in some seconds, and the seconds without any after a 429 to the first."""

    seconds: float
    requests: tuple[int, ...]
    paused: tuple[float, ...]
    asked_pause: float

    @property
    def per_second(self) -> float:
        """In sum."""
        return sum(self.requests) / self.seconds

    @property
    def apart(self) -> float:
        """The difference of the two, as a part of the greater."""
        return 1 - min(self.requests) / max(self.requests)


def count(seconds: float, *, pause: float = 5.0) -> Counted:
    """Count for so long, then refuse one request of the first with a `Retry-After` of *pause*."""
    emulator = EggEmulator()
    with redis_server() as redis, served(emulator) as url, two_workers(url, redis.url):
        time.sleep(2)
        start = time.time()
        time.sleep(seconds + 0.5)
        times = {route: times_of(emulator, route) for route in ROUTES}
        requests = [sum(start <= t < start + seconds for t in times[route]) for route in ROUTES]
        emulator.fail_next(Fault.refused(429, retry_after=pause), on=f"GET {ROUTES[0]}")
        refused = time.time()
        time.sleep(pause + 2)
        paused = [longest_gap(times_of(emulator, route), refused) for route in ROUTES]
    return Counted(seconds, tuple(requests), tuple(paused), pause)


def times_of(emulator: EggEmulator, route: str) -> list[float]:
    """When a route was asked for."""
    return [moment for moment, _, path in list(emulator.log) if path.partition("?")[0] == route]


def longest_gap(times: list[float], since: float) -> float:
    """The longest time without a request after *since*."""
    later = [since, *(t for t in times if t >= since)]
    return max(after - before for before, after in pairwise(later))


def main() -> None:
    """The figures, as text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--worker")
    wanted = parser.parse_args()
    if wanted.worker:
        asyncio.run(ask_on(*json.loads(wanted.worker)))
        return
    it = count(wanted.seconds)
    sys.stdout.write(
        f"{it.per_second:.2f} per second in sum under a limit of {RATE:g}, over {it.seconds:g} s\n"
        f"{it.requests} by process: {it.apart:.1%} apart\n"
        f"after a 429 with Retry-After {it.asked_pause:g} to one, both paused for"
        f" {it.paused[0]:.2f} and {it.paused[1]:.2f} s\n"
    )


if __name__ == "__main__":
    main()
