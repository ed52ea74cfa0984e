"""One call of the client's: whose line it waits in, what repeating costs, how it is counted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

import anyio
import httpx
import pytest

from eggapi_async import AsyncEggClient, EggError, RateLimiter, RetryPolicy
from eggapi_async._pacing import FIRST_PAUSE
from eggapi_async._quota import DECLINED
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.content_host import Host, Reply, customer, says, whole
from tests.scripted import data, error, task


def _says(status: int, body: object) -> Reply:
    return says(status, json.dumps(body).encode())


BUSY: Final = _says(503, error("SERVICE_UNAVAILABLE"))
REFUSED: Final = _says(429, error("RATE_LIMITED"))
GONE: Final = _says(404, error("NOT_FOUND"))


class Line(RateLimiter):
    """A limiter that notes who asks: a submission or the like, or a poll; and whether again."""

    def __init__(self) -> None:
        super().__init__(per_second=None)
        self.asked: list[str] = []

    async def acquire(self, *, poll: bool = False, again: bool = False) -> None:
        self.asked.append(("poll" if poll else "urgent") + (", first" if again else ""))
        await super().acquire(poll=poll, again=again)


def buyer(
    *refusals: Reply, line: RateLimiter | None = None, delay: float = 0.001
) -> AbstractAsyncContextManager[AsyncEggClient]:
    """A client that repeats at most twice, of a service that first answers with *refusals*."""
    left = list(refusals)

    def play(request: httpx.Request) -> Reply:
        if request.url.host == "cdn.test":
            return whole()
        if left:
            return left.pop(0)
        if request.method == "POST":
            return _says(202, data(task()))
        return _says(200, data(task(status="completed", output={"url": "https://cdn.test/1.png"})))

    return customer(
        Host(play=play),
        limiter=line or RateLimiter(per_second=None),
        retry=RetryPolicy(max_attempts=3, base_delay=delay, max_delay=delay),
    )


# --- whose line it waits in --------------------------------------------------------------------


async def test_submissions_go_before_polls_and_repetitions_first() -> None:
    """What was refused once has waited already."""
    line = Line()
    async with buyer(BUSY, line=line) as egg:
        await (await egg.generate("an egg")).result()
    assert line.asked == ["urgent", "urgent, first", "poll"]


async def test_a_page_of_the_list_goes_before_polls_of_one_task() -> None:
    """It tells of many at once."""
    line = Line()
    async with connect(EggEmulator(clock=anyio.current_time), limiter=line) as egg:
        await asyncio.gather(*(egg.run(f"egg {number}") for number in range(20)))
        lines = Counter(line.asked)
        pages = egg.stats.requests["sweep"]
        assert pages
        assert lines == {"urgent": 20, "poll, first": pages, "poll": egg.stats.requests["peek"]}


async def test_what_a_caller_asks_for_directly_is_urgent() -> None:
    """Somebody waits for this very answer."""
    line = Line()
    async with buyer(line=line) as egg:
        await egg.get_task("gen_1")
    assert line.asked == ["urgent"]


async def test_after_a_refusal_the_cool_down_of_all_is_the_pause() -> None:
    """No other pause comes on top of it."""
    began = anyio.current_time()
    async with buyer(REFUSED, delay=20.0) as egg:
        egg._engines.transport._dice = lambda: 0.5
        await egg.get_task("gen_1")
    assert anyio.current_time() - began == pytest.approx(FIRST_PAUSE, abs=0.01)


async def test_after_any_other_failure_the_pause_is_the_policys() -> None:
    """Nobody else has to wait for it."""
    began = anyio.current_time()
    async with buyer(BUSY, delay=20.0) as egg:
        egg._engines.transport._dice = lambda: 0.5
        await egg.get_task("gen_1")
    assert anyio.current_time() - began == pytest.approx(10.0, abs=0.01)


# --- what repeating costs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "left"),
    [
        ([], 101),
        ([BUSY], 100),
        ([REFUSED, BUSY], 100),
        ([BUSY, GONE], 100 - DECLINED),
        ([BUSY, REFUSED, BUSY], 100 - 2 * DECLINED),
    ],
    ids=["good at once", "healed", "healed the second time", "not healed", "given up"],
)
async def test_what_heals_costs_nothing(answers: list[Reply], left: int) -> None:
    """And what is good at once fills the quota a little."""
    async with buyer(*answers) as egg:
        quota = egg._engines.transport._quota
        quota.tokens = 100
        with suppress(EggError):
            await egg.get_task("gen_1")
    assert quota.tokens == left


async def test_a_good_poll_fills_the_quota_too() -> None:
    """One token each, as any answer that is good at once."""
    async with buyer() as egg:
        quota = egg._engines.transport._quota
        quota.tokens = 100
        await egg.task("gen_1").result()
    assert quota.tokens == 101


async def test_what_the_quota_cannot_pay_is_not_repeated() -> None:
    """The error stands at once, as without any policy."""
    line = Line()
    async with buyer(BUSY, line=line) as egg:
        egg._engines.transport._quota.tokens = DECLINED - 1
        with pytest.raises(EggError):
            await egg.get_task("gen_1")
    assert line.asked == ["urgent"]


# --- how it is counted -------------------------------------------------------------------------


async def test_requests_are_counted_by_their_kind() -> None:
    """Refused ones and repetitions are requests as well."""
    async with buyer(REFUSED, REFUSED) as egg:
        await (await egg.generate("an egg")).read()
        seen = egg.stats
        assert (seen.rate_limited, seen.retries) == (2, 2)
        assert {kind: n for kind, n in seen.requests.items() if n} == {
            "submit": 3,
            "peek": 1,
            "download": 1,
        }
