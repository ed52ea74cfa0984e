"""What docs/scaling.md says of many processes: who looks, with how many requests; its blocks."""

from __future__ import annotations

import ast
import inspect
import re
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
import redis.asyncio

import eggapi_async
from eggapi_async import RateLimiter
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.pages import ROOT, named
from tests.test_readme import run_fragment
from tests.toy_redis import ToyRedis
from tests.virtual_time import run_virtual, virtual_clock

NUMBER = 300


async def looks(submitters: int, *, each_waits: bool = False) -> tuple[int, int]:
    """List pages and single looks for so many tasks, submitted 20 per second in sum.

    By one process that does all (0), or by processes that do not wait, and a collector that awaits
    every id; *each_waits*: by processes that await what they submit.
    """
    emulator = EggEmulator(clock=anyio.current_time, seed=3)
    async with AsyncExitStack() as stack:

        async def process() -> eggapi_async.AsyncEggClient:
            limiter = RateLimiter(per_second=80)
            return await stack.enter_async_context(connect(emulator, limiter=limiter))

        collector = await process()
        sellers = [await process() for _ in range(submitters)] or [collector]

        async def one(number: int) -> None:
            await anyio.sleep(number / 20)
            seller = sellers[number % len(sellers)]
            task = await seller.generate(f"egg {number}")
            await (task if each_waits else collector.task(task.id))

        async with anyio.create_task_group() as group:
            for number in range(NUMBER):
                group.start_soon(one, number)
        is_quiet = all(seller.stats.polls == 0 for seller in sellers if seller is not collector)
        assert is_quiet or each_waits
    return emulator.requests["GET /v1/tasks"], emulator.requests["GET /v1/tasks/{id}"]


def test_the_list_is_read_once_for_a_fleet() -> None:
    """Four submitters and a collector read as many pages as one process that does all."""
    alone, fleet = run_virtual(looks, 0), run_virtual(looks, 4)
    each = run_virtual(lambda: looks(4, each_waits=True))
    assert sum(alone) < NUMBER
    assert fleet[0] <= 1.2 * alone[0]
    assert sum(fleet) <= 1.25 * sum(alone)
    assert sum(each) > 2 * sum(fleet)
    told = re.findall(r"about (\d+) \|", (ROOT / "docs/scaling.md").read_text("utf-8"))
    assert [*map(int, told)] == pytest.approx([sum(alone), sum(fleet), sum(each)], rel=0.1)


@pytest.mark.parametrize("name", ["one-rate", "one-bill"])
def test_a_block_that_needs_redis_runs_as_it_stands(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a toy of a server; tests/integration has real ones."""
    server = ToyRedis(clock=virtual_clock)

    class Redis:
        """redis-py's, as far as the page uses it."""

        @classmethod
        def from_url(cls, _: str) -> Any:
            return server

    def client(api_key: str = "a-key", **options: Any) -> eggapi_async.AsyncEggClient:
        return connect(EggEmulator(clock=virtual_clock), api_key, **options)

    monkeypatch.setattr(redis.asyncio, "Redis", Redis)
    monkeypatch.setattr(eggapi_async, "AsyncEggClient", client)
    code = compile(named("docs/scaling.md", name), name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert code.co_flags & inspect.CO_COROUTINE
    run_virtual(run_fragment, code)
