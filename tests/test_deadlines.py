"""A call and a wait end in time whatever is slow: exactly in virtual time, and on real sockets."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import httpx
import pytest

from eggapi_async import AsyncEggClient, EggError, RetryPolicy, TaskTimeoutError
from eggapi_async._transport import LATE
from tests.deadlines import KINDS, Slow, late_by
from tests.scripted import client_of, data, task
from tests.virtual_time import run_virtual
from tests.wire import Wire, silence

SEEDS = range(40)
ROUNDING = 1e-6


@pytest.mark.real_time
@pytest.mark.parametrize("post", [False, True], ids=["a read", "a submission"])
@pytest.mark.parametrize("slow", KINDS.values(), ids=KINDS)
async def test_what_is_slow_on_the_wire_ends(slow: Slow, post: bool) -> None:
    """By the client's own timeout, and not after it has been served."""
    with anyio.fail_after(30):
        assert await late_by(slow, 0.1, post=post) >= -0.01


@pytest.mark.real_time
async def test_a_handshake_that_is_given_up_leaves_no_socket() -> None:
    """It is closed at once, and not when its memory is looked through."""
    gc.disable()
    try:
        with Wire([], accept={1: silence()}) as server:
            async with client_of(f"https://127.0.0.1:{server.port}", timeout=0.1) as egg:
                with pytest.raises(TaskTimeoutError):
                    await egg.task("gen_1").result(timeout=0.5)
                await server.wait_for(lambda it: it.hung_up >= {1})
    finally:
        gc.enable()


# --- virtual time ----------------------------------------------------------------------------


class Body(httpx.AsyncByteStream):
    """A byte every so many seconds, for ever."""

    def __init__(self, every: float) -> None:
        self._every = every

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await anyio.sleep(self._every)
            yield b" "


Answer = Callable[[random.Random], Awaitable[httpx.Response]]
Use = Callable[[AsyncEggClient], Awaitable[Any]]


async def silent(dice: random.Random) -> httpx.Response:
    await anyio.sleep_forever()
    raise AssertionError("nobody wakes it")


async def dripping(dice: random.Random) -> httpx.Response:
    await anyio.sleep(dice.random() * 5)
    return httpx.Response(200, stream=Body(dice.uniform(0.01, 3)))


async def failing(dice: random.Random) -> httpx.Response:
    await anyio.sleep(dice.random() * 20)
    return httpx.Response(502)


async def unreachable(dice: random.Random) -> httpx.Response:
    await anyio.sleep(dice.random() * 5)
    raise httpx.ConnectError("refused")


async def refusing(dice: random.Random) -> httpx.Response:
    pause = {"Retry-After": str(dice.randrange(1, 30))} if dice.random() < 0.5 else {}
    return httpx.Response(429, headers=pause)


async def mixed(dice: random.Random) -> httpx.Response:
    return await dice.choice([silent, dripping, failing, unreachable, refusing, pending])(dice)


async def pending(dice: random.Random) -> httpx.Response:
    await anyio.sleep(dice.random())
    return httpx.Response(200, json=data(task()))


ANSWERS: dict[str, Answer] = {
    "silence": silent,
    "a drip": dripping,
    "failures, after a while": failing,
    "failed connections": unreachable,
    "refusals": refusing,
    "all of it": mixed,
}


async def spent(answer: Answer, use: Use, **how: Any) -> float:
    """Virtual seconds until *use* has ended, by an error or not."""
    dice = random.Random(how.pop("seed"))

    async def serve(_: httpx.Request) -> httpx.Response:
        return await answer(dice)

    async with httpx.AsyncClient(transport=httpx.MockTransport(serve)) as http:
        egg = AsyncEggClient("a-key-of-a-test", http_client=http, **how)
        began = anyio.current_time()
        with suppress(EggError):
            await use(egg)
        return anyio.current_time() - began


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_no_call_outlasts_its_deadline_and_one_attempt(answer: Answer) -> None:
    """The last attempt begins before the deadline, and every attempt ends by its timeout."""
    for seed in SEEDS:
        dice = random.Random(f"{seed}/limits")
        timeout, deadline = dice.uniform(0.1, 30), dice.uniform(0.1, 120)
        retry = RetryPolicy(max_attempts=dice.randrange(1, 6), deadline=deadline)

        async def program(seed: int = seed, **how: Any) -> float:
            return await spent(answer, lambda egg: egg.get_task("gen_1"), seed=seed, **how)

        took = run_virtual(partial(program, timeout=timeout, retry=retry))
        assert took <= deadline + LATE + timeout + ROUNDING
        if retry.max_attempts == 1 and answer is not refusing and answer is not mixed:
            assert took <= timeout + ROUNDING


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_no_wait_outlasts_its_timeout(answer: Answer) -> None:
    """A wait ends to the second, polls under way or not."""
    for seed in SEEDS:
        patience = random.Random(f"{seed}/patience").uniform(0.1, 60)

        async def wait(egg: AsyncEggClient, patience: float = patience) -> None:
            with pytest.raises(TaskTimeoutError):
                await egg.task("gen_1").result(timeout=patience)

        async def program(wait: Any = wait, seed: int = seed) -> float:
            return await spent(answer, wait, seed=seed)

        assert run_virtual(program) == pytest.approx(patience, abs=ROUNDING)
