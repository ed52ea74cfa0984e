"""A fleet on one key: its rate and its jobs, shared by processes and machines through Redis.

The only redis. Turns are reserved by one small script on the server's clock, so that no clocks need
to agree; in each process one request at a time asks for them, submissions before polls. When Redis
cannot be reached each process goes on at its own part of the rate: never an unlimited burst. What
must not be guessed, whether a job was bought, is not: without its ledger nothing is.

For asyncio. The `redis.asyncio.Redis` stays its owner's to close.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, Final

import anyio
import anyio.lowlevel

from .errors import ConfigurationError, JournalError
from .limiter import RateLimiter

try:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError
except ModuleNotFoundError as exc:
    problem = "RedisRateLimiter and RedisLedger need: pip install 'eggapi-async[redis]'"
    raise ModuleNotFoundError(problem, name=exc.name) from exc

__all__ = ["RedisLedger", "RedisRateLimiter"]

log = logging.getLogger("eggapi_async")

AHEAD: Final = 0.1
"""Seconds for which turns are reserved at a time, where so many requests wait: a high rate does not
depend on the way to Redis then."""
LATENESS: Final = 0.02
"""Seconds by which a turn may be late without being lost, as far as the rate allows."""
FRESH: Final = 0.1
"""Seconds ahead of which a turn is so far away that a refusal may make it void meanwhile."""
ANSWER: Final = 1.0
"""Seconds that an answer of Redis may take."""
ALONE: Final = 1.0
"""Seconds between two attempts to reach Redis while it is away."""
WRITTEN: Final = 5.0
"""Seconds that the ledger may take."""
WEEK: Final = 7 * 86_400.0

TURNS: Final = """
-- Microseconds until the first of ARGV[3] turns (0: until the cool-down ends, after one of ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local gap, lateness = tonumber(ARGV[1]), tonumber(ARGV[2])
local turns, pause = tonumber(ARGV[3]), tonumber(ARGV[4])
local hold = tonumber(redis.call('GET', KEYS[2]) or 0)
if pause > 0 and now + pause > hold then
    hold = now + pause
    redis.call('SET', KEYS[2], hold, 'PX', math.ceil(pause / 1000))
end
if turns == 0 then return math.max(0, hold - now) end
local turn = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now - lateness, hold)
local free = turn + turns * gap
redis.call('SET', KEYS[1], free, 'PX', math.ceil((free - now) / 1000) + 1000)
return math.max(0, turn - now)
"""
SWAP: Final = """
-- 1 if ARGV[2] is under the key now, in the place of ARGV[1]; an empty text stands for nothing
local there = redis.call('GET', KEYS[1]) or ''
if there == ARGV[2] then return 1 end
if there ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


class RedisRateLimiter:
    """The limits of a key that several processes share: give each `AsyncEggClient(limiter=…)` one.

    redis        a `redis.asyncio.Redis`, the same server for all
    per_second   requests per second of the whole fleet, evenly spaced. A turn that comes up to 20
                 ms late is not lost, so that one second can hold a fiftieth more, and one
    processes    how many processes share it at most. Each goes on at its part of the rate while
                 Redis cannot be reached. Where some reach it and others do not, as for a second
                 after its return, they may have twice the rate in sum, never more
    concurrency  requests of this process under way at the same time
    name         tells limits on one server from each other: one for each key of the Egg API

    Turns are handed out in the order in which processes ask, so that busy ones get equal parts, and
    one alone gets all. Within a process submissions go before polls. A 429 to one pauses all within
    a fifth of a second (`Retry-After` is honoured), and lowers the rate of the process that it came
    to for a while. Raises ConfigurationError for impossible numbers.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        per_second: float,
        processes: int,
        concurrency: int = 32,
        name: str = "eggapi",
    ) -> None:
        if per_second is None:
            raise ConfigurationError("per_second: expected above 0, got None")
        if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
            raise ConfigurationError(f"processes: expected 1 or more, got {processes!r}")
        self._places = RateLimiter(concurrency, None)
        self._line = RateLimiter(1, per_second)  # one at a time asks Redis: the others can be
        # overtaken by a submission, and wait without a turn of the fleet's
        self.per_second, self.processes, self.concurrency = per_second, processes, concurrency
        self.name = name
        self._gap = 1.0 / per_second
        self._ask_for = redis.register_script(TURNS)
        self._keys = [f"{{{name}}}:turn", f"{{{name}}}:hold"]  # one slot of a cluster
        self._is_away = False
        self._token: object = None
        self._start_afresh()

    def __repr__(self) -> str:
        state = "without Redis" if self._is_away else f"{self._waiting} waiting"
        return f"<RedisRateLimiter {self.name!r} {self.per_second:g}/s for all, {state}>"

    def _start_afresh(self) -> None:
        self._turns: deque[float] = deque()
        self._waiting = 0
        self._took = 0.0
        self._alone_until = self._held_until = self._own_due = -math.inf

    async def acquire(self, *, poll: bool = False, again: bool = False) -> None:
        """Wait for a turn of the fleet's, and a free place in this process; see `RateLimiter`."""
        token = anyio.lowlevel.current_token()
        if token != self._token:  # another event loop: its clock is not ours
            self._token = token
            self._start_afresh()
        self._waiting += 1
        try:
            await self._line.acquire(poll=poll, again=again)
            try:
                await self._places.acquire()  # first: no turn is lost for want of a place
                await self._turn()
            finally:
                self._line.release()
        finally:
            self._waiting -= 1

    async def _turn(self) -> None:
        try:
            while True:
                await anyio.sleep_until(await self._next())
                if anyio.current_time() >= self._held_until:  # no refusal has made the turn void
                    return
        except BaseException:
            self._places.release()
            raise

    async def _next(self) -> float:
        """When the next request may leave."""
        late = anyio.current_time() - max(AHEAD, self._lateness)
        while self._turns and self._turns[0] < late:  # nobody was there to take it
            self._turns.popleft()
        if not self._turns:
            self._turns.extend(await self._reserved())
        return self._turns.popleft()

    @property
    def _lateness(self) -> float:
        return max(self._gap / 2, min(LATENESS, 0.9 * self._gap))

    async def _reserved(self) -> list[float]:
        """The times of the turns that come next for this process, one at least."""
        while True:
            turns = max(1, min(self._waiting, int(AHEAD * self.per_second)))
            wait = await self._ask(turns)
            now = anyio.current_time()
            if wait is None:
                return [self._own_turn(now)]
            first = now + wait
            if wait > FRESH:
                await anyio.sleep_until(first - self._took)
            if wait <= FRESH or not await self._ask():  # held by a refusal elsewhere: once more
                return [first + number * self._gap for number in range(turns)]

    def _own_turn(self, now: float) -> float:
        """Without Redis: each process has its part of the rate."""
        part = self._gap * self.processes
        turn = max(self._own_due, now, self._held_until)
        self._own_due = turn + part
        return turn

    def release(self) -> None:
        """Give the turn back."""
        self._places.release()

    async def refused(self, *, sent_at: float, retry_after: float | None) -> None:
        """A request sent at *sent_at* (`anyio.current_time()`) was answered 429: all cool down."""
        self._line.refused(sent_at=sent_at, retry_after=retry_after)
        pause = self._line.pause
        self._held_until = max(self._held_until, anyio.current_time() + pause)
        await self._ask(pause=pause)

    def answered(self, *, sent_at: float) -> None:
        """A request sent at *sent_at* was not refused."""
        self._line.answered(sent_at=sent_at)

    # --- Redis -------------------------------------------------------------------------------

    async def _ask(self, turns: int = 0, *, pause: float = 0.0) -> float | None:
        """Seconds until the first of so many turns, or until the cool-down ends; None: away."""
        if anyio.current_time() < self._alone_until:
            return None
        micro = [round(seconds * 1e6) for seconds in (self._gap, self._lateness, pause)]
        arguments = [micro[0], micro[1], turns, micro[2]]
        began = anyio.current_time()
        try:
            with anyio.fail_after(ANSWER):
                wait: Any = await self._ask_for(keys=self._keys, args=arguments)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._note_away(error)
            return None
        self._note_answer(began)
        return int(wait) / 1e6

    def _note_away(self, error: Exception) -> None:
        now = anyio.current_time()
        if not self._is_away:
            part = self.per_second / self.processes
            log.warning("Redis is away (%s): %.3g requests per second here", _said(error), part)
            self._own_due = max(self._own_due, now + self._gap * self.processes)
        self._is_away, self._alone_until = True, now + ALONE

    def _note_answer(self, began: float) -> None:
        self._took = anyio.current_time() - began
        if self._is_away:
            log.warning("Redis is back")
            self._is_away = False


class RedisLedger:
    """The ledger of a fleet's jobs in Redis; see `AsyncEggClient.once`.

    redis    a `redis.asyncio.Redis`, the same server for all. It is as durable as that: with
             `appendonly yes`, and no eviction
    name     tells ledgers on one server from each other: one for each account of the Egg API
    keep     seconds for which a job is known after its last change: longer than any queue delivers
             it again
    """

    def __init__(self, redis: Redis, *, name: str = "eggapi", keep: float = WEEK) -> None:
        if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 1 <= keep < 1e9:
            raise ConfigurationError(f"keep: expected seconds from 1, got {keep!r}")
        self._redis = redis
        self._prefix = f"{name}:ledger:"
        self._keep = int(keep * 1000)
        self._swap = redis.register_script(SWAP)

    async def read(self, keys: Collection[str]) -> Mapping[str, str]:
        """The texts under those of *keys* that are there. Raises JournalError."""
        if not keys:
            return {}
        texts = await _written(self._redis.mget([self._prefix + key for key in keys]))
        pairs = zip(keys, texts, strict=True)
        return {key: _as_text(text) for key, text in pairs if text is not None}

    async def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Put *new* in the place of *old*; None is nothing there. Raises JournalError."""
        arguments: list[str | int] = [old or "", new or "", self._keep]
        return bool(await _written(self._swap(keys=[self._prefix + key], args=arguments)))


async def _written(command: Any) -> Any:
    try:
        with anyio.fail_after(WRITTEN):
            return await command
    except (RedisError, OSError) as error:
        raise JournalError(f"the ledger cannot be reached: {_said(error)}") from error


def _as_text(text: bytes | str) -> str:
    return text.decode() if isinstance(text, bytes) else text


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
