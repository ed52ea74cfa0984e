"""A fleet's limiter and its ledger over Redis, in virtual time, on a toy of a server."""

from __future__ import annotations

import importlib.util
import logging
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from eggapi_async import (
    AsyncEggClient,
    ConfigurationError,
    JournalError,
    RateLimiter,
    RedisLedger,
    RedisRateLimiter,
    RetryPolicy,
)
from eggapi_async import redis as door
from eggapi_async._pacing import WARM, WARM_UP
from eggapi_async.emulator import EggEmulator
from eggapi_async.redis import AHEAD, ALONE, ANSWER, FRESH, WRITTEN
from eggapi_async.testing import connect
from tests.toy_redis import ToyRedis
from tests.virtual_time import run_virtual


def fleet(
    server: ToyRedis, number: int = 2, *, per_second: float = 20, concurrency: int = 32
) -> list[RedisRateLimiter]:
    """The limiters of so many processes."""
    redis = cast("Redis", server)
    return [
        RedisRateLimiter(redis, per_second=per_second, processes=number, concurrency=concurrency)
        for _ in range(number)
    ]


AT_FIRST: Final = (1 - WARM) * WARM_UP
"""Seconds' worth of turns that a process leaves out while its connections are made."""


@attrs.define
class Log:
    """Who left when, as (time, process, poll)."""

    left: list[tuple[float, int, bool]] = attrs.field(factory=list)

    async def go(
        self, limiter: RedisRateLimiter, process: int = 0, *, poll: bool = False, takes: float = 0
    ) -> None:
        """One request."""
        await limiter.acquire(poll=poll)
        try:
            self.left.append((anyio.current_time(), process, poll))
            await anyio.sleep(takes)
        finally:
            limiter.release()

    @property
    def times(self) -> list[float]:
        return [moment for moment, _, _ in self.left]

    @property
    def by_process(self) -> Counter[int]:
        return Counter(process for _, process, _ in self.left)

    def busiest_second(self) -> int:
        """The most in any second."""
        times = sorted(self.times)
        return max(bisect_left(times, t + 1 - 1e-6) - n for n, t in enumerate(times))


@asynccontextmanager
async def busy(
    limiters: list[RedisRateLimiter], log: Log, *, callers: int = 5, polls: int = 0
) -> AsyncIterator[None]:
    """Every process always has requests waiting while the block runs."""

    async def caller(limiter: RedisRateLimiter, process: int, poll: bool) -> None:
        while True:
            await log.go(limiter, process, poll=poll)

    async with anyio.create_task_group() as group:
        for process, limiter in enumerate(limiters):
            for number in range(callers + polls):
                group.start_soon(caller, limiter, process, number >= callers)
        yield
        group.cancel_scope.cancel()


# --- the rate --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 5])
async def test_a_fleet_gets_the_rate_in_sum_and_each_process_its_part(number: int) -> None:
    """20 per second among so many busy processes."""
    log = Log()
    async with busy(fleet(ToyRedis(), number), log):
        await anyio.sleep(20)
    assert len(log.left) == pytest.approx(400, abs=3)
    assert log.busiest_second() <= 21
    counts = [log.by_process[process] for process in range(number)]
    assert max(counts) - min(counts) <= 2


async def test_one_of_many_alone_gets_all() -> None:
    """What the others do not want is not lost."""
    log = Log()
    async with busy(fleet(ToyRedis(), 4)[:1], log):
        await anyio.sleep(10)
    assert len(log.left) == pytest.approx(200 - AT_FIRST * 20, abs=2)


@pytest.mark.parametrize("silence", [0.0, 0.004, 0.03])
async def test_a_high_rate_does_not_depend_on_the_way_to_redis(silence: float) -> None:
    """Several turns are reserved at a time, where as many requests wait."""
    log = Log()
    async with busy(fleet(ToyRedis(silence=silence), 2, per_second=200), log, callers=30):
        await anyio.sleep(4)
    assert len(log.left) == pytest.approx(800, rel=0.03)
    assert log.busiest_second() <= 202  # 200, and what came late


async def test_a_quiet_process_costs_the_others_nothing() -> None:
    """Turns are reserved for requests that wait, not for those that may come."""
    log, (one, other) = Log(), fleet(ToyRedis(), per_second=100)
    async with busy([one], log, callers=30):
        for _ in range(20):
            await log.go(other, 1)
            await anyio.sleep(0.5)
    assert log.by_process[1] == 20
    took = log.times[-1] - log.times[0]
    assert 100 * (took - AT_FIRST) <= len(log.left) <= 100 * took


async def test_no_more_than_the_concurrency_are_under_way() -> None:
    """In each process; a turn is not asked for before there is a place."""
    server, log = ToyRedis(), Log()
    (limiter,) = fleet(server, 1, per_second=100, concurrency=2)
    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(lambda: log.go(limiter, takes=1))
    assert [round(t - log.times[0]) for t in log.times] == [0, 0, 1, 1, 2, 2]


async def test_submissions_go_before_polls() -> None:
    """Polls get a part of the turns while submissions wait, in a fleet too."""
    log = Log()
    async with busy(fleet(ToyRedis(), 4), log, polls=5):
        await anyio.sleep(20)
    polls = sum(poll for _, _, poll in log.left)
    assert 0.1 < polls / len(log.left) < 0.3


async def test_a_cancelled_wait_gives_its_place_back() -> None:
    """At whatever moment; the turn that was reserved may be lost, nothing else is."""
    (limiter,), log = fleet(ToyRedis(silence=0.01), 1, concurrency=1), Log()
    for patience in [n / 200 for n in range(40)]:
        with anyio.move_on_after(patience):
            await log.go(limiter, takes=0.03)
    began = anyio.current_time()
    with anyio.fail_after(5):
        await log.go(limiter)
    assert anyio.current_time() - began < 0.2
    assert repr(limiter) == "<RedisRateLimiter 'eggapi' 20/s for all, 0 waiting>"


async def test_reserved_turns_that_nobody_took_are_not_saved_up() -> None:
    """Two were reserved, one was cancelled: later there is no burst."""
    (limiter,), log = fleet(ToyRedis(), 1, per_second=40), Log()
    await log.go(limiter)
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(log.go, limiter)
        await anyio.sleep(0.03)
        group.cancel_scope.cancel()
    await anyio.sleep(5)
    before = len(log.left)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(log.go, limiter)
    late = log.times[before:]
    assert late[-1] - late[0] >= 18 / 40


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [pytest.param(7.0, 7.0, id="as long as asked"), pytest.param(None, 1.0, id="a second")],
)
async def test_a_429_to_one_pauses_all(retry_after: float | None, pause: float) -> None:
    """Within a fifth of a second, and then they go on evenly."""
    log, limiters = Log(), fleet(ToyRedis())
    async with busy(limiters, log):
        await anyio.sleep(5)
        refused = anyio.current_time()
        told = limiters[0].refused(sent_at=refused, retry_after=retry_after)
        await told
        await anyio.sleep(pause + 30)
    after = [(t - refused, process) for t, process, _ in log.left if t > refused + FRESH + AHEAD]
    assert after[0][0] >= pause
    assert {process for t, process in after if t < pause + 1} == {0, 1}
    assert sum(t < pause + 1 for t, _ in after) <= 21
    assert [t for t, process, _ in log.left if process == 0 and refused < t < refused + pause] == []


async def test_a_429_makes_reserved_turns_void() -> None:
    """Those that this process has in its hand as well, whenever it comes."""
    log, limiters = Log(), fleet(ToyRedis())
    refusals = []
    async with busy(limiters, log):
        for number in range(10):
            await anyio.sleep(1 + number / 100)
            refusals.append(anyio.current_time())
            await limiters[0].refused(sent_at=refusals[-1], retry_after=1)
            await anyio.sleep(1.5)
    own = [t for t, process, _ in log.left if process == 0]
    assert [t for t in own for refused in refusals if refused < t < refused + 1] == []
    assert len(own) > 20


async def test_the_service_pauses_a_fleet_of_clients() -> None:
    """Through the client: a Retry-After to one holds the other's requests as well."""
    server = ToyRedis()
    emulator = EggEmulator(clock=anyio.current_time, per_second=5, retry_after=4)
    first, second = fleet(server, per_second=50)
    policy = RetryPolicy(max_attempts=20, deadline=600)
    async with (
        connect(emulator, limiter=first, retry=policy) as one,
        connect(emulator, limiter=second, retry=policy) as other,
    ):
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(one.generate, f"egg {number}")
        assert one.stats.rate_limited > 0
        first._line = RateLimiter(1, 50)
        await first.refused(sent_at=anyio.current_time(), retry_after=9)
        began = anyio.current_time()
        await other.generate("an egg")
        assert 9 <= anyio.current_time() - began < 10


# --- without Redis ---------------------------------------------------------------------------


@pytest.mark.parametrize("silence", [0.0, 600.0], ids=["refused at once", "silent"])
async def test_without_redis_each_process_goes_on_at_its_part(
    silence: float, caplog: pytest.LogCaptureFixture
) -> None:
    """In sum never more than the rate, and it says so once."""
    server, log = ToyRedis(), Log()
    limiters = fleet(server, 4)
    async with busy(limiters, log):
        await anyio.sleep(10)
        server.is_away, server.silence = True, silence
        gone = anyio.current_time()
        await anyio.sleep(30)
    without = [t for t in log.times if t > gone]
    assert log.busiest_second() <= 21 + 4
    assert len(without) <= 30 * 20 + 4
    assert len(without) >= (30 * 20 * 0.9 if not silence else 30 * 20 * 0.5)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert "5 requests per second" in caplog.text
    assert "without Redis" in repr(limiters[0])


async def test_redis_comes_back_without_a_burst(caplog: pytest.LogCaptureFixture) -> None:
    """Even when it has forgotten everything: at most twice the rate until all have noticed."""
    server, log = ToyRedis(), Log()
    limiters = fleet(server, 4)
    async with busy(limiters, log):
        await anyio.sleep(5)
        server.is_away = True
        await anyio.sleep(10.2)
        server.is_away = False
        server.restart()
        back = anyio.current_time()
        await anyio.sleep(20)
    assert log.busiest_second() <= 2 * 21
    after = [t for t in log.times if t > back + 1 + ALONE + ANSWER]
    assert len(after) == pytest.approx(20 * (19 - ALONE - ANSWER), abs=3)
    assert caplog.text.count("Redis is back") == 4


async def test_a_429_counts_without_redis_too() -> None:
    """The process it came to pauses."""
    server, log = ToyRedis(is_away=True), Log()
    (limiter,) = fleet(server, 1)
    await log.go(limiter)
    await limiter.refused(sent_at=anyio.current_time(), retry_after=30)
    began = anyio.current_time()
    await log.go(limiter)
    assert anyio.current_time() - began >= 30


def test_another_event_loop_begins_afresh() -> None:
    """Its clock is another one."""
    server = ToyRedis()
    (limiter,) = fleet(server, 1)

    async def use() -> float:
        began = anyio.current_time()
        await limiter.acquire()
        limiter.release()
        limiter.answered(sent_at=began)
        return anyio.current_time() - began

    assert run_virtual(use) <= 0.05
    server.restart()
    assert run_virtual(use) <= 0.05


@settings(max_examples=25, deadline=None)
@given(
    number=st.integers(1, 4),
    per_second=st.sampled_from([2.0, 20.0, 150.0]),
    callers=st.integers(1, 12),
    away=st.tuples(st.floats(0, 4), st.floats(0, 4)),
    silence=st.sampled_from([0.0, 0.0, 0.004, 0.3]),
    forgets=st.booleans(),
)
def test_whatever_redis_does_there_is_no_burst(
    number: int,
    per_second: float,
    callers: int,
    away: tuple[float, float],
    silence: float,
    forgets: bool,
) -> None:
    """In no second more than twice the rate, and what was reserved already: a turn or two each."""
    server, log = ToyRedis(silence=silence), Log()

    async def program() -> None:
        async with busy(fleet(server, number, per_second=per_second), log, callers=callers):
            await anyio.sleep(away[0])
            server.is_away = True
            await anyio.sleep(away[1])
            server.is_away = False
            if forgets:
                server.restart()
            await anyio.sleep(4)

    run_virtual(program)
    ahead = max(1, int(per_second * AHEAD))
    assert log.busiest_second() <= 2 * (per_second + 1) + number * (1 + ahead)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"per_second": None}, "per_second", id="no rate"),
        pytest.param({"per_second": 0}, "per_second", id="nothing in a second"),
        pytest.param({"processes": 0}, "processes", id="nobody"),
        pytest.param({"processes": 2.0}, "processes", id="a fraction of a process"),
        pytest.param({"processes": True}, "processes", id="a truth in the place of a number"),
        pytest.param({"concurrency": 0}, "concurrency", id="nobody at once"),
    ],
)
def test_impossible_numbers_are_refused(changes: dict[str, Any], named: str) -> None:
    """Each is a ConfigurationError that names the argument."""
    options: dict[str, Any] = {"per_second": 20, "processes": 2} | changes
    with pytest.raises(ConfigurationError, match=f"^{named}: expected"):
        RedisRateLimiter(cast("Redis", ToyRedis()), **options)


def test_a_client_takes_no_limiter_that_is_none() -> None:
    """What cannot give turns is refused."""
    with pytest.raises(ConfigurationError, match=r"^limiter: expected a RateLimiter, got int"):
        AsyncEggClient("a-key", limiter=cast("RateLimiter", 80))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    path = Path(door.__file__)
    spec = importlib.util.spec_from_file_location("eggapi_async.again", path)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ModuleNotFoundError, match=r"eggapi-async\[redis\]"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


# --- the ledger ------------------------------------------------------------------------------


async def test_a_text_is_exchanged_only_if_it_is_still_there() -> None:
    """None stands for nothing, and what is there already is as good as put."""
    server = ToyRedis()
    ledger = RedisLedger(cast("Redis", server), keep=60)
    assert await ledger.swap("a", None, "one")
    assert not await ledger.swap("a", None, "two")
    assert await ledger.swap("a", None, "one")
    assert await ledger.swap("a", "one", "two")
    assert await ledger.read(["a", "b"]) == {"a": "two"}
    assert await ledger.read([]) == {}
    assert not await ledger.swap("a", "one", None)
    assert await ledger.swap("a", "two", None)
    assert await ledger.swap("a", "two", None)
    assert await ledger.read(["a"]) == {}


async def test_what_is_kept_ends() -> None:
    """After so many seconds without a change."""
    ledger = RedisLedger(cast("Redis", ToyRedis()), keep=60)
    await ledger.swap("a", None, "one")
    await anyio.sleep(59)
    assert await ledger.read(["a"])
    await anyio.sleep(2)
    assert not await ledger.read(["a"])


@pytest.mark.parametrize("keep", [0, -5, True, float("nan"), "1"])
def test_an_impossible_time_is_refused(keep: Any) -> None:
    """Seconds, from one on."""
    with pytest.raises(ConfigurationError, match=r"^keep: expected"):
        RedisLedger(cast("Redis", ToyRedis()), keep=keep)


@pytest.mark.parametrize("silence", [0.0, 60.0], ids=["refused", "silent"])
async def test_a_ledger_that_cannot_be_reached_is_a_typed_error(silence: float) -> None:
    """In bounded time, for reading and writing."""
    server = ToyRedis(is_away=True, silence=silence)
    ledger = RedisLedger(cast("Redis", server))
    acts: list[Callable[[], Any]] = [
        lambda: ledger.read(["a"]),
        lambda: ledger.swap("a", None, "one"),
    ]
    for act in acts:
        began = anyio.current_time()
        with pytest.raises(JournalError, match="cannot be reached"):
            await act()
        assert anyio.current_time() - began <= WRITTEN


async def test_a_client_of_redis_may_decode_its_answers() -> None:
    """Text is taken as it is."""
    assert door._as_text("é") == door._as_text("é".encode())
