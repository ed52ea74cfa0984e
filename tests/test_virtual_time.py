"""The rig's own promises about time: it jumps, it stands still for threads, it never hangs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
import trio.testing

from eggapi_async.testing import virtual as virtual_time
from tests.virtual_time import (
    BOTH,
    START,
    DeadlockError,
    LeftoverTaskError,
    RealSocketError,
    VirtualLoop,
    on_both,
    run_on,
    run_virtual,
    run_virtual_trio,
)

Job = Callable[[Callable[[], None]], Awaitable[Any]]

REAL_PAUSE = 0.02
"""Real seconds for which a thread is at work: long enough for a wrong clock to jump."""


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def work() -> None:
    time.sleep(REAL_PAUSE)


@on_both
async def test_the_clock_starts_at_a_fixed_value() -> None:
    """A run begins at START seconds, on either backend."""
    assert anyio.current_time() == START


@on_both
async def test_days_of_sleep_takes_no_time() -> None:
    """Sleeping moves the clock by exactly the time slept, and no other clock."""
    begin = time.monotonic()
    await anyio.sleep(86_400 * 3)
    assert anyio.current_time() == START + 86_400 * 3
    assert time.monotonic() - begin < 60


@on_both
async def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    """The clock goes from deadline to deadline, never past one."""
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(anyio.current_time() - START)

    async with anyio.create_task_group() as group:
        for seconds in (3.0, 1.0, 2.0):
            group.start_soon(sleeper, seconds)
    assert woken == [1.0, 2.0, 3.0]


@on_both
async def test_a_timeout_fires_at_its_deadline() -> None:
    """fail_after ends a longer sleep when its own time has come."""
    with pytest.raises(TimeoutError):
        with anyio.fail_after(5):
            await anyio.sleep(6)
    assert anyio.current_time() == START + 5


@on_both
async def test_work_that_is_ready_comes_before_any_jump() -> None:
    """The clock stands as long as some task can run."""
    with anyio.move_on_after(0.001) as scope:
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
    assert not scope.cancelled_caught
    assert anyio.current_time() == START


async def by_anyio(job: Callable[[], None]) -> None:
    await anyio.to_thread.run_sync(job)


async def by_anyio_with_a_limiter(job: Callable[[], None]) -> None:
    await anyio.to_thread.run_sync(job, limiter=anyio.CapacityLimiter(1))


async def by_default_executor(job: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, job)


async def by_asyncio_to_thread(job: Callable[[], None]) -> None:
    await asyncio.to_thread(job)


async def by_own_executor(job: Callable[[], None]) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, job)


async def by_own_default_executor(job: Callable[[], None]) -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    await asyncio.to_thread(job)


class SlowFuture(concurrent.futures.Future[Any]):
    """A future that lets the loop run between any two of its callbacks."""

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        def slowly(future: concurrent.futures.Future[Any]) -> None:
            fn(future)
            work()

        super().add_done_callback(slowly)


class SlowExecutor(concurrent.futures.Executor):
    """An executor with a thread and a slow future for each job."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> SlowFuture:
        future = SlowFuture()
        threading.Thread(target=lambda: future.set_result(fn(*args, **kwargs))).start()
        return future


async def by_slow_executor(job: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(SlowExecutor(), job)


async def by_held_thread(job: Callable[[], None]) -> None:
    loop, done = virtual_loop(), asyncio.Event()

    def body() -> None:
        job()
        loop.call_soon_threadsafe(done.set)

    thread = threading.Thread(target=body)
    with loop.hold():
        thread.start()
        await done.wait()
    thread.join()


async def by_trio(job: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(job)


THREADS: list[tuple[str, Job]] = [
    ("asyncio", by_anyio),
    ("asyncio", by_anyio_with_a_limiter),
    ("asyncio", by_default_executor),
    ("asyncio", by_asyncio_to_thread),
    ("asyncio", by_own_executor),
    ("asyncio", by_own_default_executor),
    ("asyncio", by_slow_executor),
    ("asyncio", by_held_thread),
    ("trio", by_anyio),
    ("trio", by_anyio_with_a_limiter),
    ("trio", by_trio),
]


@pytest.mark.parametrize(
    ("backend", "start"), THREADS, ids=[f"{job.__name__} on {name}" for name, job in THREADS]
)
def test_the_clock_stands_still_while_a_thread_works(backend: str, start: Job) -> None:
    """A sleeper wakes only after the thread has ended, and the thread took no virtual time."""
    log: list[tuple[str, float]] = []

    async def threaded() -> None:
        for _ in range(3):
            await start(work)
        log.append(("thread", anyio.current_time()))

    async def sleeper() -> None:
        await anyio.sleep(1)
        log.append(("sleeper", anyio.current_time()))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper)
            group.start_soon(threaded)

    run_on(backend, main)
    assert log == [("thread", START), ("sleeper", START + 1)]


@on_both
async def test_the_clock_jumps_again_after_a_thread_has_ended() -> None:
    """An idle worker thread does not hold the clock, and several jobs are counted one by one."""
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(anyio.to_thread.run_sync, work)
    await anyio.sleep(7)
    assert anyio.current_time() == START + 7


async def test_a_cancelled_executor_job_holds_the_clock_until_it_has_ended() -> None:
    """Cancelling the future does not end the thread, and time waits for the thread."""
    started, ended = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        work()
        ended.set()

    answer = asyncio.get_running_loop().run_in_executor(None, job)
    started.wait()
    answer.cancel()
    await asyncio.sleep(1)
    assert ended.is_set()


async def test_an_executor_job_cancelled_in_the_queue_does_not_hold_the_clock() -> None:
    """A job that never starts is forgotten as soon as it is cancelled."""
    release = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = asyncio.get_running_loop().run_in_executor(pool, release.wait)
        asyncio.get_running_loop().run_in_executor(pool, work).cancel()
        release.set()
        await first
    await asyncio.sleep(1)
    assert virtual_loop().threads_at_work() == 0


async def test_an_abandoned_anyio_job_holds_the_clock_until_it_has_ended() -> None:
    """On asyncio the clock waits for a worker thread even if its caller was cancelled."""
    started, ended = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        work()
        ended.set()

    caller = asyncio.create_task(anyio.to_thread.run_sync(job, abandon_on_cancel=True))
    await anyio.to_thread.run_sync(started.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.sleep(1)
    assert ended.is_set()


async def forever() -> None:
    await anyio.Event().wait()


async def shielded_forever() -> None:
    with anyio.CancelScope(shield=True):
        await forever()


async def forever_in_a_child() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(forever)


@BOTH
@pytest.mark.parametrize("program", [forever, forever_in_a_child])
def test_a_deadlock_is_an_error_that_says_who_waits(
    backend: str, program: Callable[[], Awaitable[None]]
) -> None:
    """A program that can never go on fails at once and names the place where it waits."""
    with pytest.raises(DeadlockError, match=r"forever \(test_virtual_time.py:\d+\) > Event.wait"):
        run_on(backend, program)


def test_a_deadlock_on_trio_breaks_through_a_shield() -> None:
    """A shielded wait that nobody ends is thrown out of trio by force."""
    with pytest.raises(DeadlockError, match="shielded_forever"):
        run_virtual_trio(shielded_forever)


def test_a_thread_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stuck worker thread is not waited for longer than MAX_THREAD_SECONDS."""
    monkeypatch.setattr(virtual_time, "MAX_THREAD_SECONDS", REAL_PAUSE)
    release = threading.Event()

    async def main() -> None:
        with virtual_loop().hold():
            await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError, match="a thread is at work"):
        run_virtual(main)
    release.set()


def test_a_real_socket_under_virtual_time_is_an_error() -> None:
    """Waiting for a socket under virtual time is refused, since it would be a matter of luck."""

    async def main(ours: socket.socket) -> None:
        ours.setblocking(False)
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_recv(ours, 1)

    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(RealSocketError, match="needs real time"):
        run_virtual(main, ours)


def test_wait_all_tasks_blocked_is_no_deadlock() -> None:
    """An idle moment that somebody waits for is neither a deadlock nor a reason to jump."""
    seen: list[float] = []

    async def main() -> None:
        event = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(event.wait)
            await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked(0.001)
            event.set()
            nursery.start_soon(trio.sleep, 5)
            await trio.testing.wait_all_tasks_blocked()
            seen.append(trio.current_time())

    run_virtual_trio(main)
    assert seen == [START]


async def test_async_tests_run_on_the_virtual_loop() -> None:
    """An async test needs no marker to run in virtual time."""
    before = virtual_loop().time()
    await asyncio.sleep(3600)
    virtual_loop().advance(400)
    assert asyncio.get_running_loop().time() == before + 4000


@pytest.mark.real_time
async def test_a_marked_test_runs_on_a_real_loop() -> None:
    """`real_time` gives an ordinary event loop with an ordinary clock."""
    loop = asyncio.get_running_loop()
    assert not isinstance(loop, VirtualLoop)
    assert abs(loop.time() - time.monotonic()) < 60


@BOTH
def test_a_run_returns_what_its_function_returns(backend: str) -> None:
    """Arguments go in and the result comes out."""

    async def double(number: int) -> int:
        return 2 * number

    run = {"asyncio": run_virtual, "trio": run_virtual_trio}[backend]
    assert run(double, 21) == 42


@BOTH
def test_a_run_raises_what_its_function_raises(backend: str) -> None:
    """An exception comes out as it is."""

    async def fail() -> None:
        raise LookupError("as it is")

    with pytest.raises(LookupError, match="as it is"):
        run_on(backend, fail)


def test_a_run_finishes_async_generators() -> None:
    """A generator left half way is closed before its loop is."""
    closed: list[float] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1)
            closed.append(asyncio.get_running_loop().time())

    generator = numbers()

    async def main() -> int:
        return await anext(generator)

    assert run_virtual(main) == 1
    assert closed == [START + 1]


def test_a_task_left_running_is_an_error() -> None:
    """run_virtual names the task that outlived the main function."""
    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(1), name="stray"))
        await asyncio.sleep(0)

    with pytest.raises(LeftoverTaskError, match=r"stray: sleep \(tasks.py:\d+\)"):
        run_virtual(main)
    assert tasks[0].cancelled()


@on_both
@pytest.mark.parametrize("number", [1, 2])
async def test_both_keeps_fixtures_and_parameters(
    number: int, tmp_path: Path, backend: str
) -> None:
    """A test on both backends may take fixtures, parameters and the name of its backend."""
    in_trio = trio.lowlevel.in_trio_run()
    assert (number in (1, 2), tmp_path.is_absolute(), in_trio) == (True, True, backend == "trio")


PLUGIN_SUITE = """
import asyncio, pytest

@pytest.fixture
async def helper():
    task = asyncio.create_task(asyncio.sleep(3600), name="the fixture's own")
    yield task
    task.cancel()

async def test_stray_task_fails():
    asyncio.create_task(asyncio.sleep(1), name="stray")
    await asyncio.sleep(0)

@pytest.mark.real_time
async def test_stray_task_fails_in_real_time():
    asyncio.create_task(asyncio.sleep(1), name="stray")
    await asyncio.sleep(0)

async def test_task_of_a_fixture_is_fine(helper):
    assert not helper.done()

async def test_deadlock_fails():
    await asyncio.Event().wait()
"""


def test_a_test_that_leaves_a_task_running_fails(pytester: pytest.Pytester) -> None:
    """The suite's conftest fails it and names the task; a fixture's own task is let be."""
    pytester.makepyfile(PLUGIN_SUITE)
    config = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    config += [
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        "-W",
        "error",
        "-p",
        "no:hypothesispytest",
    ]
    result = pytester.runpytest_inprocess(*config)
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines_random(
        ["*LeftoverTaskError: still running at the end:", "*  stray: *", "*DeadlockError: nothing*"]
    )
