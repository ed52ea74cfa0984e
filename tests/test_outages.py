"""An outage is not made worse by those who wait for its end, and hiccups trouble nobody."""

from __future__ import annotations

import random

import anyio
import httpx
import pytest

from eggapi_async import (
    AsyncEggClient,
    ConnectionFailedError,
    EggError,
    RateLimitedError,
    ServerError,
    TaskTimeoutError,
)
from eggapi_async._polling import PEEKS_AT_ONCE, QUIET_MAX
from eggapi_async._quota import CAPACITY, DECLINED, FAILED, UNSENT
from tests.outages import (
    BAD_GATEWAY,
    HOUR,
    KINDS,
    NO_CONNECTION,
    RESET,
    TOO_MANY,
    TOO_MANY_FOR_A_SECOND,
    UNAVAILABLE,
    Answer,
    Service,
    client_of,
    crowd,
    outlast,
)
from tests.virtual_time import START

OUTAGES: dict[str, tuple[str, Answer, type[EggError], int]] = {
    "submissions, 429": ("POST", TOO_MANY, RateLimitedError, DECLINED),
    "submissions, 429 for a second": ("POST", TOO_MANY_FOR_A_SECOND, RateLimitedError, DECLINED),
    "submissions, 503": ("POST", UNAVAILABLE, ServerError, DECLINED),
    "submissions, no connection": ("POST", NO_CONNECTION, ConnectionFailedError, UNSENT),
    "reads, 429": ("GET", TOO_MANY, RateLimitedError, DECLINED),
    "reads, 503": ("GET", UNAVAILABLE, ServerError, DECLINED),
    "reads, 502": ("GET", BAD_GATEWAY, ServerError, FAILED),
    "reads, reset": ("GET", RESET, ConnectionFailedError, FAILED),
    "reads, no connection": ("GET", NO_CONNECTION, ConnectionFailedError, UNSENT),
}


@pytest.mark.parametrize(("method", "answer", "kind", "cost"), OUTAGES.values(), ids=OUTAGES)
async def test_a_crowd_of_callers_does_not_make_an_outage_worse(
    method: str, answer: Answer, kind: type[EggError], cost: int
) -> None:
    """One request each, and few repetitions; who gets none is told what was wrong."""
    callers = 1000 if (method, cost) == ("POST", DECLINED) else 300
    service = Service(lambda *_: answer)
    async with client_of(service) as egg:
        calls = {"POST": lambda n: egg.generate(f"Egg {n}"), "GET": lambda n: egg.get_task("gen_0")}
        ends = await crowd(callers, calls[method])
        repeated = egg.stats.retries

    assert {type(end) for end in ends} == {kind}
    assert service.calls[method] <= callers + repeated
    assert 0 < repeated <= CAPACITY // cost
    assert service.busiest_second() <= 100


@pytest.mark.parametrize("answer", KINDS.values(), ids=KINDS)
async def test_a_crowd_outlasts_an_outage(answer: Answer) -> None:
    """Polls keep a rhythm that the service bears, and all results come when it is back."""
    outcome = await outlast(answer, waits=100, seconds=300)

    assert outcome.failed == 0
    assert outcome.busiest_second <= 100
    assert outcome.in_vain <= 10 * PEEKS_AT_ONCE + 300 * PEEKS_AT_ONCE / QUIET_MAX
    assert outcome.after < 300.0, "nobody sleeps long after its end"


async def test_all_waits_end_in_time_though_nothing_answers() -> None:
    """A service that takes requests and says nothing is given up at the deadline, not after it."""

    async def silence(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            await anyio.sleep(HOUR)
        return await service(request)

    service = Service(lambda *_: None)
    http = httpx.AsyncClient(transport=httpx.MockTransport(silence))
    async with AsyncEggClient("outage-key", http_client=http) as egg:
        tasks = [await egg.generate(f"Egg {n}") for n in range(50)]
        started = anyio.current_time()
        ends = await crowd(50, lambda n: tasks[n].result(timeout=300))
        took = anyio.current_time() - started

    assert {type(end) for end in ends} == {TaskTimeoutError}
    assert took == pytest.approx(300.0)


@pytest.mark.parametrize("seed", range(3))
async def test_a_user_with_hiccups_notices_nothing(seed: int) -> None:
    """Of 200 pictures, many at once, one request in thirty meets some trouble that can heal."""
    dice = random.Random(seed)
    posts = [TOO_MANY, TOO_MANY_FOR_A_SECOND, UNAVAILABLE, NO_CONNECTION]
    reads = [*posts, BAD_GATEWAY, RESET]

    def hiccup(method: str, _: float) -> Answer | None:
        if dice.random() > 0.03:
            return None
        return dice.choice(posts if method == "POST" else reads)

    service = Service(hiccup)
    async with client_of(service) as egg:
        outcomes = await egg.map([f"Egg {n}" for n in range(200)])

    assert [outcome.error for outcome in outcomes] == [None] * 200
    assert egg.stats.submitted == 200


async def test_a_moment_without_service_troubles_no_batch() -> None:
    """For half a second everything is refused, while 200 pictures are being ordered."""
    service = Service(lambda _, now: UNAVAILABLE if START + 1 <= now < START + 1.5 else None)
    async with client_of(service) as egg:
        outcomes = await egg.map([f"Egg {n}" for n in range(200)])

    assert [outcome.error for outcome in outcomes] == [None] * 200
    assert egg.stats.retries > 10


async def test_after_an_outage_repetitions_come_back_with_good_answers() -> None:
    """Also those of clients that were made from this one, which share what is left."""
    outage, hiccup = START + HOUR, iter(range(2))

    def failing(_: str, now: float) -> Answer | None:
        if now < outage:
            return BAD_GATEWAY
        return BAD_GATEWAY if next(hiccup, 0) == 1 else None

    service = Service(failing)
    async with client_of(service) as egg:
        await crowd(100, lambda _: egg.tasks_page())
        before = egg.stats.retries
        with pytest.raises(ServerError):
            await egg.with_options(timeout=5.0).tasks_page()
        assert egg.stats.retries == before, "nothing is left"

        await anyio.sleep(outage - anyio.current_time())
        await egg.tasks_page()
        hiccup = iter(range(1, 2))
        with pytest.raises(ServerError):
            await egg.tasks_page()
        for _ in range(FAILED):
            await egg.tasks_page()
        hiccup = iter(range(1, 2))
        await egg.tasks_page()

    assert egg.stats.retries == before + 1


async def test_good_polls_bring_repetitions_back() -> None:
    """Whoever waits shows that the service is well."""
    outage = START + HOUR
    service = Service(lambda _, now: UNAVAILABLE if now < outage else None, takes=200.0)
    async with client_of(service) as egg:
        await crowd(200, lambda n: egg.generate(f"Egg {n}"))
        await anyio.sleep(outage - anyio.current_time())
        await (await egg.generate("An egg")).result()

        assert egg._engines.transport._quota.tokens > DECLINED
