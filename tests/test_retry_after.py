"""`Retry-After`, end to end: what it asks for is done, and whatever it says, it cannot hurt."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import islice
from typing import Final

import anyio
import httpx
import pytest

from eggapi_async import AsyncEggClient, RateLimitedError, RateLimiter, RetryPolicy, _protocol
from eggapi_async._protocol import Answer
from eggapi_async._retry import next_delay
from tests.scripted import data, error, task
from tests.virtual_time import run_virtual

HERE: Final = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST: Final = 120
LATENCY: Final = 0.05

PAUSES: Final = (
    *(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 45, 59, 60, 61, 75, 90, 100),
    *(110, 115, 118, 119, 120, 121, 122, 150, 180, 300, 600, 3600, 7200, 86_400, 604_800),
    *(31_536_000, 4_294_967_295),
)
"""Forty wishes, in seconds."""
SKEWS: Final = {"clocks agree": 0, "2 h ahead": 7200, "2 h behind": -7200}


class Service:
    """Refuses the first request with that header, and answers the others."""

    def __init__(self, wish: str, *, skew: float = 0.0) -> None:
        self._wish = wish
        self._skew = skew
        self.times: list[float] = []

    async def __call__(self, _: httpx.Request) -> httpx.Response:
        """Answer one request."""
        await anyio.sleep(LATENCY)
        self.times.append(anyio.current_time())
        date = format_datetime(self.now(), usegmt=True)
        if len(self.times) > 1:
            return httpx.Response(200, json=data(task()), headers={"Date": date})
        headers = [(b"Date", date.encode()), (b"Retry-After", self._wish.encode("utf-8"))]
        return httpx.Response(429, json=error("RATE_LIMITED"), headers=headers)

    def now(self) -> datetime:
        """The service's clock."""
        return HERE + timedelta(seconds=self._skew)


async def slept(service: Service, retry: RetryPolicy) -> float | RateLimitedError:
    """The pause before the second request, or the error where there was none."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(service))
    limiter = RateLimiter(per_second=None)
    async with AsyncEggClient("a-key", http_client=http, limiter=limiter, retry=retry) as egg:
        try:
            await egg.get_task("gen_1")
        except RateLimitedError as refusal:
            assert len(service.times) == 1
            return refusal
    return service.times[1] - LATENCY - service.times[0]


@pytest.mark.parametrize("skew", SKEWS.values(), ids=SKEWS)
@pytest.mark.parametrize("form", ["seconds", "a date"])
@pytest.mark.parametrize("deadline", [30.0, 1000.0])
async def test_forty_wishes(form: str, skew: float, deadline: float) -> None:
    """Obeyed to the second up to 120 s and the deadline; beyond, the error tells it at once."""
    retry = RetryPolicy(deadline=deadline)
    for seconds in PAUSES:
        service = Service(str(seconds), skew=skew)
        if form == "a date":
            if seconds > 10**9:
                continue  # that date has no year
            until = service.now() + timedelta(seconds=seconds)
            service = Service(format_datetime(until, usegmt=True), skew=skew)

        pause = await slept(service, retry)

        if seconds <= LONGEST and seconds + LATENCY <= deadline:
            assert pause == pytest.approx(seconds), seconds
        else:
            assert isinstance(pause, RateLimitedError), seconds
            assert pause.retry_after == seconds


def wishes(dice: random.Random) -> Iterator[str]:
    """Headers as they should not be, without end: nonsense, and what is nearly right."""
    parts = (
        *("Sun,", "06", "Nov", "1994", "9999", "0000", "12:00:00", "99:99:99", "GMT", "+2500"),
        *("-1", "1e9", "NaN", "inf", "0x1F", "1_000", "٣", "²", ",", ";", "\x00", "ä", "s", "."),
        *("9" * 12, "9" * 13, "9" * 5000, "0.5", "120.000001", "-", " ", "Fri, 31 Dec 9999"),
    )
    while True:
        how = dice.random()
        if how < 0.3:
            yield "".join(chr(dice.randrange(1, 0x300)) for _ in range(dice.randrange(12)))
        elif how < 0.5:
            yield str(dice.uniform(-10, 10 ** dice.randint(0, 30)))
        elif how < 0.7:
            moment = HERE + timedelta(seconds=dice.uniform(-(10**9), 10**10))
            date = list(format_datetime(moment, usegmt=True))
            date[dice.randrange(len(date))] = dice.choice("0123456789 ,:+-x")
            yield "".join(date)
        else:
            yield " ".join(dice.choice(parts) for _ in range(dice.randint(1, 7)))


def bounded(number: int, *, seed: int = 7) -> set[tuple[bool, bool]]:
    """Read so many odd wishes: whether one was none, and whether the call is given up for it.

    No exception, no sleep beyond 120 s, nothing that is no number.
    """
    policy, odd = RetryPolicy(deadline=10_000.0), wishes(random.Random(seed))
    call = _protocol.get_task("gen_1")
    date = format_datetime(HERE, usegmt=True)
    kinds = set()
    for wish in islice(odd, number):
        try:
            call.read(Answer(429, {"retry-after": wish, "date": date}, b""))
        except RateLimitedError as refusal:
            delay = next_delay(policy, refusal, attempt=1, spent=0.0, jitter=1.0)
            is_none = refusal.retry_after is None
        if delay is not None and not 0 <= delay <= LONGEST:
            raise AssertionError(f"a pause of {delay} s after {wish!r}")
        kinds.add((is_none, delay is None))
    return kinds


def test_odd_wishes_are_bounded() -> None:
    """Twenty thousand of them: ignored, obeyed, or too long."""
    assert bounded(20_000) == {(True, False), (False, False), (False, True)}


def test_odd_wishes_make_nobody_sleep_long() -> None:
    """Through the limiter too, which pauses everybody; and none past the call's deadline."""

    async def live() -> None:
        odd = wishes(random.Random(1))
        for deadline in (10.0, 1000.0):
            for _ in range(150):
                wish = next(odd)
                started = anyio.current_time()
                pause = await slept(Service(wish), RetryPolicy(deadline=deadline))
                took = anyio.current_time() - started
                assert took <= min(LONGEST, deadline) + 1, wish
                assert isinstance(pause, RateLimitedError) or pause <= min(LONGEST, deadline), wish

    run_virtual(live)
