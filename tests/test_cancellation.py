"""Cancellation is a normal path: no id that is paid for is lost by it, and nothing is left behind.

By `task.cancel()` once and often, by `asyncio.timeout`, by a failing sibling, by a scope; at every
step of the event loop and at every moment of a submission.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from eggapi_async import AsyncEggClient, Journal, RateLimiter
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.scripted import client_of, data, task
from tests.storm import TURNS, How, storm
from tests.virtual_time import VirtualLoop, on_both, run_on, run_virtual

LATENCY = 0.5
STEPS = 60
"""Steps of the event loop, more than a submission has between two waits."""
MOMENTS = [n / 50 for n in range(40)]
"""Seconds, well beyond the end of a submission."""


# --- the storm -------------------------------------------------------------------------------


@pytest.mark.real_time
@pytest.mark.parametrize("how", ["task", "scope"])
async def test_a_client_survives_a_storm_of_cancellations(
    how: How, caplog: pytest.LogCaptureFixture
) -> None:
    """Thousands of cancelled calls over five turns: all turns come back, and no id is lost."""
    report = await storm(3000, how=how, seed=1)
    assert report.cancelled >= 3000
    assert report.failed == 0
    assert report.limiter == f"<RateLimiter 0 of {TURNS} busy, 0 waiting, no rate limit>"
    assert report.good_calls_seconds < 5
    assert report.stray_tasks == 0
    assert report.most_open <= 2 * TURNS, "GETs and POSTs have connections of their own"
    assert report.accepted
    assert report.unfinished == report.accepted
    assert "lost" not in caplog.text, "nothing that was sent is in doubt"


# --- every step of a submission --------------------------------------------------------------

Cancel = Callable[[Callable[[], Awaitable[Any]], Callable[[], Awaitable[None]]], Awaitable[bool]]
"""Awaits the first until the second has ended, and then cancels it; whether it was cancelled."""


async def _natively(
    call: Callable[[], Awaitable[Any]], until: Callable[[], Awaitable[None]], *, times: int = 1
) -> bool:
    task = asyncio.ensure_future(call())
    await until()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((task,))
    return task.cancelled()


async def _by_a_scope(
    call: Callable[[], Awaitable[Any]], until: Callable[[], Awaitable[None]]
) -> bool:
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await until()
                scope.cancel()

            group.start_soon(cancel)
            await call()
    return scope.cancelled_caught


async def _by_a_failing_sibling(
    call: Callable[[], Awaitable[Any]], until: Callable[[], Awaitable[None]]
) -> bool:
    async def fail() -> None:
        await until()
        raise LookupError("a sibling")

    async def one() -> None:
        await call()

    task: asyncio.Task[None] | None = None
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(one())
            group.create_task(fail())
    except* LookupError:
        pass
    assert task is not None
    return task.cancelled()


async def _by_a_timeout(
    call: Callable[[], Awaitable[Any]], until: Callable[[], Awaitable[None]]
) -> bool:
    async def end(timer: asyncio.Timeout) -> None:
        await until()
        timer.reschedule(0)

    ending: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(None) as timer:
            ending = asyncio.ensure_future(end(timer))
            await call()
    except TimeoutError:
        return True
    finally:
        assert ending is not None
        ending.cancel()
        await asyncio.wait((ending,))
    return False


CANCELS: dict[str, Cancel] = {
    "cancelled once": _natively,
    "cancelled again and again": partial(_natively, times=5),
    "cancelled by a scope": _by_a_scope,
    "cancelled by a failing sibling": _by_a_failing_sibling,
    "cancelled by a timeout": _by_a_timeout,
}


async def _steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _after(seconds: float, steps: int) -> None:
    await anyio.sleep(seconds)
    await _steps(steps)


async def _check(cancel: Cancel, until: Callable[[], Awaitable[None]], *, crowd: int) -> bool:
    """Cancel one submission in a crowd; nothing that was accepted may be unknown."""
    emulator = EggEmulator(clock=anyio.current_time, latency=LATENCY)
    limiter = RateLimiter(1 if crowd else 5, None)
    egg = connect(emulator, limiter=limiter)
    others = [asyncio.ensure_future(egg.generate(f"Egg {n}")) for n in range(crowd)]
    was_cancelled = await cancel(lambda: egg.generate("The one"), until)
    await asyncio.gather(*others)
    assert {task.id for task in egg.unfinished} == set(emulator.accepted)
    assert len(emulator.accepted) >= crowd + (not was_cancelled)
    await egg.generate("An egg afterwards")
    assert repr(limiter).startswith(f"<RateLimiter 0 of {limiter.concurrency} busy, 0 waiting")
    return was_cancelled


@pytest.mark.parametrize("crowd", [0, 2], ids=["alone", "behind two others"])
@pytest.mark.parametrize("cancel", CANCELS.values(), ids=CANCELS)
@pytest.mark.parametrize("phase", [0.0, LATENCY, 2 * LATENCY], ids=["start", "end", "later"])
def test_no_id_is_lost_at_any_step_of_the_event_loop(
    phase: float, cancel: Cancel, crowd: int
) -> None:
    """Whatever step it is, either nothing was accepted or the id is in `unfinished`."""
    ends = [
        run_virtual(partial(_check, cancel, partial(_after, phase, steps), crowd=crowd))
        for steps in range(STEPS)
    ]
    assert all(ends) or phase > 0


async def _check_closing(cancel: Cancel, steps: int, *, closed_after: int) -> None:
    """The same while the client is being closed by somebody else."""
    emulator = EggEmulator(clock=anyio.current_time, latency=LATENCY)
    egg = connect(emulator, limiter=RateLimiter(5, None))

    async def until() -> None:
        await _steps(closed_after)
        closing = asyncio.ensure_future(egg.aclose())
        await _steps(steps)
        await closing

    was_cancelled = await cancel(lambda: egg.generate("The one"), until)
    assert was_cancelled, "half a second has not passed"
    assert {task.id for task in egg.unfinished} == set(emulator.accepted)


@pytest.mark.parametrize("cancel", CANCELS.values(), ids=CANCELS)
@pytest.mark.parametrize("closed_after", [0, 5, 20])
def test_no_id_is_lost_at_any_step_while_the_client_is_closed(
    cancel: Cancel, closed_after: int
) -> None:
    """Closing takes nothing away from who is on the way; the cancellation goes on."""
    for steps in range(STEPS // 2):
        run_virtual(partial(_check_closing, cancel, steps, closed_after=closed_after))


@pytest.mark.parametrize("phase", [0.0, LATENCY], ids=["start", "end"])
@pytest.mark.parametrize("cancel", CANCELS.values(), ids=CANCELS)
def test_no_id_is_missing_in_the_journal_at_any_step(
    cancel: Cancel, phase: float, tmp_path: Path
) -> None:
    """A batch that is cancelled leaves every id that was paid for in its journal too."""

    async def check(steps: int) -> None:
        path = tmp_path / f"{steps}.sqlite3"
        emulator = EggEmulator(clock=anyio.current_time, latency=LATENCY)
        egg = connect(emulator, limiter=RateLimiter(5, None))

        async def batch() -> None:
            await egg.map(["Egg 1", "Egg 2"], journal=path)

        assert await cancel(batch, partial(_after, phase, steps)), "eggs take longer"
        if path.exists():
            with Journal(path) as journal:
                known = {item.task_id for item in journal if item.task_id}
        else:
            known = set()
        assert known == set(emulator.accepted) == {task.id for task in egg.unfinished}

    for steps in range(0, STEPS, 6):
        run_virtual(partial(check, steps))


@pytest.mark.parametrize("cancel", CANCELS.values(), ids=CANCELS)
def test_no_id_is_lost_at_any_moment(cancel: Cancel) -> None:
    """Before the answer the cancellation goes on, afterwards it comes too late."""
    ends = [
        run_virtual(partial(_check, cancel, partial(anyio.sleep, moment), crowd=0))
        for moment in MOMENTS
    ]
    before = sum(1 for moment in MOMENTS if moment < LATENCY)
    assert all(ends[:before])
    assert not any(ends[before + 1 :])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_id_is_lost_at_any_moment_of_a_queue(backend: str) -> None:
    """A scope that ends while ten wait for one turn: all that were accepted are known."""

    async def program(moment: float) -> None:
        emulator = EggEmulator(clock=anyio.current_time, latency=LATENCY)
        limiter = RateLimiter(2, None)
        egg = connect(emulator, limiter=limiter)
        with anyio.move_on_after(moment):
            async with anyio.create_task_group() as group:
                for n in range(10):
                    group.start_soon(egg.generate, f"Egg {n}")
        assert {task.id for task in egg.unfinished} == set(emulator.accepted)
        assert limiter._busy == 0
        await egg.generate("An egg afterwards")

    for n in range(60):
        run_on(backend, partial(program, n / 20))


# --- the grace -------------------------------------------------------------------------------


@on_both
async def test_a_cancelled_submission_waits_for_its_answer() -> None:
    """The cancellation goes on when the answer is there, and the task can be awaited."""
    emulator = EggEmulator(clock=anyio.current_time, latency=3.0)
    egg = connect(emulator)
    began = anyio.current_time()
    with anyio.move_on_after(1) as scope:
        await egg.generate("An egg")
    assert scope.cancelled_caught
    assert anyio.current_time() - began == 3
    (task,) = egg.unfinished
    assert (await task.result()).is_completed


@on_both
async def test_a_cancelled_submission_waits_for_five_seconds_at_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A service that does not answer holds nobody up for longer; the loss is logged."""
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.slow(20.0))
    egg = connect(emulator)
    began = anyio.current_time()
    with anyio.move_on_after(1) as scope:
        await egg.generate("An egg")
    assert scope.cancelled_caught
    assert anyio.current_time() - began == 6
    assert egg.unfinished == ()
    (record,) = [record for record in caplog.records if record.name == "eggapi_async"]
    assert record.levelno == logging.WARNING
    assert "(cancelled before the answer came)" in record.getMessage()


async def test_a_process_that_is_stopped_hears_what_came_meanwhile() -> None:
    """A grace counts while the loop runs: a machine that stands still for a minute costs no id."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)

    async def answer(_: httpx.Request) -> httpx.Response:
        await anyio.sleep(1)
        for _read in range(5):  # head and body come in several reads
            await anyio.sleep(0)
        return httpx.Response(202, json=data(task()))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        for stopped_after in (0.6, 0.99, 1.0):
            egg = client_of("https://egg.test", http_client=http, timeout=600.0)
            loop.call_later(stopped_after, loop.advance, 60)
            with anyio.move_on_after(0.5) as scope:
                await egg.generate("An egg")
            assert scope.cancelled_caught
            assert [one.id for one in egg.unfinished] == ["gen_1"]


@on_both
async def test_a_cancelled_submission_keeps_to_its_own_timeout() -> None:
    """The grace does not outlast the attempt."""
    emulator = EggEmulator(clock=anyio.current_time, latency=20)
    egg = connect(emulator, timeout=2.0)
    began = anyio.current_time()
    with anyio.move_on_after(1):
        await egg.generate("An egg")
    assert anyio.current_time() - began == 2


@on_both
async def test_a_submission_that_still_waits_for_its_turn_is_cancelled_at_once() -> None:
    """Nothing was sent, so there is nothing to wait for."""
    limiter = RateLimiter()
    await limiter.acquire()
    limiter.release()
    limiter.refused(sent_at=anyio.current_time(), retry_after=60)
    emulator = EggEmulator(clock=anyio.current_time)
    egg, began = connect(emulator, limiter=limiter), anyio.current_time()
    with anyio.move_on_after(1):
        await egg.generate("An egg")
    assert anyio.current_time() - began == 1
    assert emulator.requests.total() == 0


@on_both
async def test_a_submission_that_pauses_before_a_repetition_is_cancelled_at_once() -> None:
    """Neither is there while it sleeps."""
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.refused(429, retry_after=60))
    egg, began = connect(emulator), anyio.current_time()
    with anyio.move_on_after(1):
        await egg.generate("An egg")
    assert anyio.current_time() - began == 1
    assert (emulator.requests.total(), emulator.accepted) == (1, [])


@on_both
async def test_a_wait_is_cancelled_at_once_and_the_task_goes_on() -> None:
    """Waiting buys nothing: it ends when it is told to, and can begin again."""
    egg = connect(EggEmulator(clock=anyio.current_time, latency=0.2))
    task = await egg.generate("An egg")
    for moment in (0.0, 0.1, 3.05, 4.0, 5.1):
        began = anyio.current_time()
        with anyio.move_on_after(moment) as scope:
            await task.result()
        assert scope.cancelled_caught
        assert anyio.current_time() - began == pytest.approx(moment, abs=1e-6)
    assert egg.unfinished[0].id == task.id
    assert (await task.result()).is_completed


async def test_closing_the_loop_leaves_nothing_half_done() -> None:
    """A program whose tasks are all cancelled at once ends, and knows what it bought."""
    emulator = EggEmulator(clock=anyio.current_time, latency=LATENCY)
    egg: AsyncEggClient = connect(emulator)
    callers = [asyncio.ensure_future(egg.generate(f"Egg {n}")) for n in range(50)]
    await asyncio.sleep(LATENCY / 2)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert all(caller.cancelled() for caller in callers)
    assert {task.id for task in egg.unfinished} == set(emulator.accepted)


@pytest.mark.parametrize("closes", [True, False], ids=["closed on the way", "never closed"])
def test_no_id_is_lost_when_the_program_ends_in_the_middle(closes: bool) -> None:
    """`asyncio.run` cancels all that still runs at its end, the requests' own tasks too."""
    emulator = EggEmulator(clock=lambda: 0.0, latency=1.0)
    egg = connect(emulator, limiter=RateLimiter(per_second=None))
    started: list[asyncio.Task[Any]] = []

    async def main() -> None:
        try:
            started.extend(asyncio.ensure_future(egg.generate(f"Egg {n}")) for n in range(20))
            await asyncio.sleep(0.5)
            raise RuntimeError("somewhere else")
        finally:
            if closes:
                await egg.aclose()

    with pytest.raises(RuntimeError, match="somewhere else"):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main())

    assert len(emulator.accepted) == 20
    assert {task.id for task in egg.unfinished} == set(emulator.accepted)
    assert all(task.cancelled() for task in started)
