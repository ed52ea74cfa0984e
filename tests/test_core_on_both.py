"""The core of the package, by the same tests on asyncio and on trio, over httpx and over httpx2."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from eggapi_async import (
    AsyncEggClient,
    GenerationTask,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    RetryPolicy,
    SubmissionUncertainError,
    TaskFailedError,
    TaskSnapshot,
    TaskTimeoutError,
)
from eggapi_async.emulator import EggEmulator, Fault
from tests.virtual_time import on_both

_LIBRARY: list[ModuleType] = []


@pytest.fixture(autouse=True, params=[httpx, httpx2], ids=["httpx", "httpx2"])
def _library(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whose client a test's client sends with."""
    _LIBRARY.append(request.param)
    yield
    _LIBRARY.clear()


def emulated(**options: Any) -> tuple[EggEmulator, AsyncEggClient]:
    """An emulator on virtual time, and a client of it over the library of the test."""
    emulator = EggEmulator(clock=anyio.current_time, **options)
    [library] = _LIBRARY
    http = library.AsyncClient(transport=library.ASGITransport(app=emulator))
    return emulator, AsyncEggClient("test-key", http_client=http)


async def gathered(*works: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What `asyncio.gather` does, on either loop."""
    results: list[Any] = [None] * len(works)

    async def keep(place: int, work: Callable[[], Awaitable[Any]]) -> None:
        results[place] = await work()

    async with anyio.create_task_group() as group:
        for place, work in enumerate(works):
            group.start_soon(keep, place, work)
    return results


@on_both
async def test_generate_returns_before_the_picture_is_there() -> None:
    """A task with its id, its request and its first snapshot."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", aspect_ratio="9:16")
    assert [task.id] == emulator.accepted
    assert task.request is not None
    assert task.request.aspect_ratio == "9:16"
    assert task.status == "pending"
    assert not task.done


@on_both
async def test_await_brings_the_picture() -> None:
    """`await task` is the completed task, once it has ended and soon after."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        result = await task
        late = anyio.current_time() - emulator.task(task.id).completed_at
        assert task.done
        assert await task is result
    assert result.is_completed
    assert result.url
    assert 0 <= late <= 5


@on_both
async def test_many_are_awaited_together() -> None:
    """Sixty tasks come back each with its own picture, by fewer polls than one each every 5 s."""
    _, egg = emulated()
    async with egg:
        started = anyio.current_time()
        tasks = await gathered(*[lambda n=n: egg.generate(f"cat {n}") for n in range(60)])
        results = await gathered(*[task.result for task in tasks])
        seconds = anyio.current_time() - started
    assert [result.id for result in results] == [task.id for task in tasks]
    assert len({result.url for result in results}) == 60
    assert egg.stats.polls < 60 * seconds / 5
    assert egg.unfinished == ()


@on_both
async def test_run_is_both_in_one() -> None:
    """`run` generates and waits."""
    _, egg = emulated()
    async with egg:
        assert (await egg.run("A cat", model="nanobanana-pro")).model == "nanobanana-pro"


@on_both
async def test_map_takes_many() -> None:
    """In input order, failures as values."""
    _, egg = emulated()
    async with egg:
        outcomes = await egg.map(["A cat", "A forbidden egg", ""], in_flight=2)
    assert [outcome.ok for outcome in outcomes] == [True, False, False]


@on_both
async def test_save_waits_and_stores(tmp_path: Path) -> None:
    """`save` needs no await before it."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        paths = await task.save(tmp_path)
    assert paths == [tmp_path / f"{task.id}.png"]
    assert emulator.leaks == []


@on_both
async def test_a_time_out_is_not_the_end() -> None:
    """TaskTimeoutError names the task and shows the last of it; the task can be awaited again."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", resolution="4k")
        with pytest.raises(TaskTimeoutError) as caught:
            await task.result(timeout=1)
        assert caught.value.task_id == task.id
        assert caught.value.snapshot == task.snapshot
        assert (await egg.task(caught.value.task_id)).is_completed


@on_both
async def test_a_failed_generation_raises() -> None:
    """TaskFailedError with the task in it, to every waiter."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A forbidden egg")
        for _ in range(2):
            with pytest.raises(TaskFailedError) as caught:
                await task
            assert caught.value.is_moderation
            assert caught.value.task.cost == 0


@on_both
async def test_an_unknown_task_is_not_found() -> None:
    """A wait for what the service does not know ends."""
    _, egg = emulated()
    async with egg:
        with pytest.raises(NotFoundError):
            await egg.task("gen_unknown")
        with pytest.raises(NotFoundError):
            await egg.get_task("gen_unknown")


@on_both
async def test_a_lost_answer_is_not_paid_twice() -> None:
    """SubmissionUncertainError, and one task at the service."""
    emulator, egg = emulated()
    emulator.fail_next(Fault.lost())
    async with egg:
        with pytest.raises(SubmissionUncertainError):
            await egg.generate("A cat")
    assert len(emulator.accepted) == 1


@on_both
async def test_a_refusal_is_waited_out() -> None:
    """429 and 503 are repeated, and buy one task; a Retry-After beyond all patience is raised."""
    emulator, egg = emulated()
    emulator.fail_next(Fault.refused(429, retry_after=7), Fault.refused(503))
    async with egg:
        started = anyio.current_time()
        await egg.generate("A cat")
        assert anyio.current_time() - started >= 7
        assert len(emulator.accepted) == 1
        emulator.fail_next(Fault.refused(429, retry_after=1000))
        with pytest.raises(RateLimitedError) as caught:
            await egg.with_options(retry=RetryPolicy(max_retry_after=10)).generate("A cat")
    assert caught.value.retry_after == 1000


@on_both
async def test_a_bad_request_is_never_sent() -> None:
    """The field is named, and nothing was asked."""
    emulator, egg = emulated()
    async with egg:
        with pytest.raises(InvalidRequestError, match="num_outputs"):
            await egg.generate("A cat", num_outputs=9)
    assert not emulator.requests


@on_both
async def test_updates_show_every_change() -> None:
    """From pending to the end, no snapshot twice."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", resolution="4k")
        seen = [snapshot async for snapshot in task.updates()]
    assert [snapshot.status for snapshot in seen] == ["pending", "processing", "completed"]


@on_both
async def test_a_cancelled_submission_loses_no_id() -> None:
    """The POST under way is heard to its end, and its task is in `unfinished`."""
    emulator, egg = emulated(latency=2.0)
    async with egg:
        with anyio.move_on_after(1):
            await egg.generate("A cat")
        assert [task.id for task in egg.unfinished] == emulator.accepted
        assert len(emulator.accepted) == 1
        assert (await egg.unfinished[0]).is_completed
    assert egg.unfinished == ()


@on_both
async def test_a_cancelled_waiter_leaves_the_others() -> None:
    """When the one who polls is cancelled, another takes over."""
    emulator, egg = emulated()
    results: list[TaskSnapshot] = []

    async def wait(task: GenerationTask) -> None:
        results.append(await task)

    async with egg:
        task = await egg.generate("A cat", resolution="4k")
        async with anyio.create_task_group() as group:
            with anyio.move_on_after(4):
                async with anyio.create_task_group() as first:
                    first.start_soon(wait, task)
                    await anyio.sleep(1)
                    group.start_soon(wait, task)
    assert [result.id for result in results] == emulator.accepted


@on_both
async def test_listing_shows_each_task_once() -> None:
    """All pages, in the service's order; `max_items` bounds them, and the requests for them."""
    emulator, egg = emulated()
    async with egg:
        for n in range(105):
            await egg.generate(f"cat {n}")
        ids = [task.id async for task in egg.tasks()]
        assert ids == emulator.accepted[::-1]
        assert [task.id async for task in egg.tasks(max_items=7)] == ids[:7]
        page = await egg.tasks_page(2, per_page=100)
    assert [task.id for task in page.items] == ids[100:]
    assert (page.page, page.per_page, page.total, page.total_pages) == (2, 100, 105, 2)


@on_both
async def test_usage_tells_what_was_bought() -> None:
    """Records and summary, money as Decimal."""
    _, egg = emulated()
    async with egg:
        result = await egg.run("A cat", num_outputs=3)
        records = [record async for record in egg.usage()]
        [summary] = await egg.usage_summary()
    assert [record.raw["task_id"] for record in records] == [result.id]
    assert (summary.model, summary.request_count) == ("nanobanana", 1)
    assert summary.total_units == 3
    assert summary.total_cost == result.cost == egg.stats.cost
