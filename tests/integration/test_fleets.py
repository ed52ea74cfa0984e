"""Fleets for real, in a form that a busy machine can run: real servers, real processes.

What load could break is not asserted here but printed by the long forms: `python -m
tests.integration.rate` (the rate within 2 %, fair within 10 %, over a minute) and `python -m
tests.integration.fleet taskiq 1000` (or procrastinate).
"""

from __future__ import annotations

import asyncio
import random
import time

import anyio
import pytest
from redis.asyncio import Redis

from eggapi_async import JournalError, RedisLedger, RedisRateLimiter
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.redis import SWAP, TURNS
from tests.integration.rate import ROUTES, longest_gap, times_of, two_workers
from tests.integration.servers import PATIENCE, needs_postgres, needs_redis, redis_server
from tests.served import served
from tests.toy_redis import ToyRedis

pytestmark = [pytest.mark.real_time]


@needs_redis
async def test_the_toy_does_what_the_server_does() -> None:
    """Both scripts, by hundreds of random calls: the same answers, but for the time that passes."""
    dice, toy = random.Random(7), ToyRedis(clock=time.time)
    with redis_server() as server:
        async with Redis.from_url(server.url) as redis:
            for _ in range(300):
                key, old, new = (dice.choice(["", "a", "b"]) for _ in range(3))
                words: list[str | int] = [old, new, 60_000]
                real = await redis.register_script(SWAP)(keys=[f"k{key}"], args=words)
                assert real == await toy.register_script(SWAP)(keys=[f"k{key}"], args=words)
            assert [await redis.mget(["k", "ka", "kb"])] == [await toy.mget(["k", "ka", "kb"])]
            long = 60_000_000  # so that a slow machine does not matter
            for _ in range(100):
                pause = dice.choice([0, 0, 0, long * dice.randrange(9)])
                args = [long, long // 2, dice.randrange(4), pause]
                real = await redis.register_script(TURNS)(keys=["t", "h"], args=args)
                toys = await toy.register_script(TURNS)(keys=["t", "h"], args=args)
                assert abs(real - toys) < long / 4


@needs_redis
def test_two_processes_have_one_rate_and_one_pause() -> None:
    """40 per second for both: so many cannot be through sooner. A 429 to one pauses both."""
    emulator, number = EggEmulator(), 80
    with redis_server() as redis, served(emulator) as url:
        with two_workers(url, redis.url, per_second=40, number=number) as workers:
            for worker in workers:
                worker.wait(PATIENCE)
        took = [times_of(emulator, route)[1:] for route in ROUTES]  # the first was before the start
        assert [len(times) for times in took] == [number, number]
        seconds = max(map(max, took)) - min(map(min, took))
        assert seconds >= (2 * number - 10) / 40
        with two_workers(url, redis.url, per_second=40):
            time.sleep(1)
            emulator.fail_next(Fault.refused(429, retry_after=6), on=f"GET {ROUTES[0]}")
            refused = time.time()
            time.sleep(9)
        assert min(longest_gap(times_of(emulator, route), refused) for route in ROUTES) > 4


@needs_redis
async def test_redis_is_stopped_and_started() -> None:
    """Requests go on at the process's part, and at the whole rate again; the ledger says no."""
    left: list[tuple[float, str]] = []
    with redis_server() as server:
        async with Redis.from_url(server.url) as redis:
            limiter = RedisRateLimiter(redis, per_second=50, processes=10)
            ledger = RedisLedger(redis)

            async def caller(phase: list[str]) -> None:
                while True:
                    await limiter.acquire()
                    limiter.release()
                    left.append((anyio.current_time(), phase[0]))

            phase = ["with"]
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(caller, phase)
                await asyncio.sleep(1.5)
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(0.3)  # what was reserved is used up
                phase[0] = "without"
                with pytest.raises(JournalError):
                    await ledger.swap("job", None, "text")
                await asyncio.sleep(3)
                phase[0] = "starting"
                await asyncio.to_thread(server.start)
                while "without Redis" in repr(limiter):
                    await asyncio.sleep(0.05)
                phase[0] = "again"
                assert await ledger.swap("job", None, "text")
                while sum(what == "again" for _, what in left) < 60:
                    await asyncio.sleep(0.05)
                group.cancel_scope.cancel()
    without = [moment for moment, what in left if what == "without"]
    again = [moment for moment, what in left if what == "again"]
    assert 1 <= len(without) <= (without[-1] - without[0]) * 5 + 2
    assert len(again) <= (again[-1] - again[0]) * 50 * 1.1 + 6


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("taskiq", marks=needs_redis),
        pytest.param("procrastinate", marks=needs_postgres),
    ],
)
def test_a_fleet_that_loses_a_worker_pays_for_none_twice_and_loses_none(engine: str) -> None:
    """With jobs that are delivered again, and others that were sent twice."""
    pytest.importorskip(engine, reason="needs the extra `examples`")
    pytest.importorskip("psycopg", reason="needs the extra `examples`")
    from tests.integration.fleet import work_through

    it = work_through(engine, 40)
    assert (it.sold, it.twice, it.pictures) == (40, 0, 40)
    assert it.in_doubt >= 1, "the order that was under way when it was killed"
    assert it.requests["victim"].keys() == it.requests["survivor"].keys() == {"POST /v1/generate"}
    assert it.requests["collector"].get("GET /v1/tasks", 0) <= 40
