"""Time that jumps instead of passing, on asyncio.

Its rule: the clock moves only when nothing can run and no worker thread is at work, and then
straight to the next deadline. Jobs of `anyio.to_thread`, `loop.run_in_executor` and
`asyncio.to_thread` hold it still; a thread of one's own does so inside `loop.hold()`.

It refuses to guess: a program that can never go on raises `DeadlockError` instead of hanging, and
a real socket under virtual time raises `RealSocketError`, since whether its bytes or the next
deadline come first would be luck. A coroutine that sleeps on behalf of a thread
(`anyio.from_thread.run`) cannot end either, since its thread is at work all the while;
`MAX_THREAD_SECONDS` ends that. What reads another clock, as `time.time()`, sees no jump.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import selectors
import threading
import types
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, Unpack

import anyio
from anyio._backends._asyncio import WorkerThread

if TYPE_CHECKING:
    import pytest

START: Final = 1000.0
"""What a virtual clock shows at first, in seconds."""

MAX_THREAD_SECONDS: Final = 30.0
"""Real seconds that one worker thread may be at work before it is taken for stuck."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Ready = list[tuple[selectors.SelectorKey, int]]


def virtual_clock() -> float:
    """The virtual time, also before there is an event loop: for what is made by a fixture."""
    try:
        return anyio.current_time()
    except anyio.NoEventLoopError:
        return START


class DeadlockError(RuntimeError):
    """Nothing is ready, nothing is scheduled and no thread is at work: nobody will go on."""


class RealSocketError(RuntimeError):
    """A file descriptor is watched under virtual time: such a test needs real time."""


class LeftoverTaskError(AssertionError):
    """A task outlived the code that started it."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose `time()` starts at `START` and jumps to the next deadline."""

    def __init__(self) -> None:
        self._seconds = START
        self._held = 0
        self._pool: concurrent.futures.Executor | None = None
        self._jobs: set[concurrent.futures.Future[Any]] = set()
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let virtual time pass, as a slow computation would."""
        self._seconds += seconds

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the clock still while a thread that nobody else counts is at work."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def threads_at_work(self) -> int:
        """Jobs under way in other threads whose answers have not reached this loop yet."""
        return self._held + len(self._jobs) + sum(map(self._is_busy, threading.enumerate()))

    def _is_busy(self, thread: threading.Thread) -> bool:
        # anyio takes a worker off `idle_workers` before it queues a job, and puts it back on this
        # loop when the answer is delivered: just the span in which time must not pass.
        return (
            isinstance(thread, WorkerThread)
            and thread.loop is self
            and not thread.stopping
            and thread not in thread.idle_workers
        )

    def set_default_executor(self, executor: concurrent.futures.ThreadPoolExecutor) -> None:  # type: ignore[override]
        """As the base class does, and remember it."""
        super().set_default_executor(executor)
        self._pool = executor

    def run_in_executor(
        self,
        executor: concurrent.futures.Executor | None,
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """As the base class does, and hold the clock until the job has really ended."""
        job = (executor or self._default_pool()).submit(func, *args)
        answer = asyncio.wrap_future(job, loop=self)
        self._jobs.add(job)
        # After wrap_future: callbacks run in order, so the answer is here before the hold ends.
        job.add_done_callback(self._job_ended)
        return answer

    async def shutdown_default_executor(self, _timeout: float | None = None) -> None:
        """Wait for the pool's threads, however long: virtual seconds could not measure it."""
        with self.hold():
            await super().shutdown_default_executor()

    def _default_pool(self) -> concurrent.futures.Executor:
        if self._pool is None:
            self.set_default_executor(concurrent.futures.ThreadPoolExecutor())
        assert self._pool is not None
        return self._pool

    def _job_ended(self, job: concurrent.futures.Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self.call_soon_threadsafe(self._jobs.discard, job)


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances its loop's clock where another one would wait."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Ready:
        """What is ready now; else wait for threads; else jump by `timeout` seconds."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._loop.threads_at_work():
            return self._wait_for_thread()
        self._jump(timeout)
        return []

    def _wait_for_thread(self) -> Ready:
        ready = super().select(MAX_THREAD_SECONDS)
        if not ready:
            raise DeadlockError(f"a thread is at work for {MAX_THREAD_SECONDS} real seconds")
        return ready

    def _jump(self, timeout: float | None) -> None:
        if len(self.get_map()) > 1:  # one is the pipe by which threads wake the loop
            raise RealSocketError("a socket or pipe is open under virtual time: it needs real time")
        if timeout is None:
            raise DeadlockError(deadlock(map(_asyncio_place, asyncio.all_tasks(self._loop))))
        self._loop.advance(timeout)


def run_virtual(
    function: Callable[[Unpack[Ts]], Awaitable[T]],
    *args: *Ts,
) -> T:
    """Run a coroutine function on a fresh virtual loop; no task of it may be left at its end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(_awaited(function, *args))
        refuse_leftovers(asyncio.all_tasks(runner.get_loop()))
        return result


def refuse_leftovers(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Raise `LeftoverTaskError` with the names of `tasks`, if there are any."""
    places = sorted(map(_asyncio_place, tasks))
    if places:
        raise LeftoverTaskError("still running at the end:\n  " + "\n  ".join(places))


async def _awaited(function: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
    return await function(*args)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A hook of pytest-asyncio, to be imported by your conftest.py: tests that use a fixture of
    eggapi-async run in virtual time, unless they are marked `egg_real_time`; others as ever."""
    is_ours = "egg_clock" in getattr(item, "fixturenames", ())
    if is_ours and not item.get_closest_marker("egg_real_time"):
        return {"virtual": VirtualLoop}
    return {"asyncio": asyncio.new_event_loop}


def deadlock(places: Iterable[str]) -> str:
    """What a DeadlockError says."""
    lines = ["nothing is ready, nothing is scheduled and no thread is at work; waiting:"]
    return "\n  ".join([*lines, *sorted(places)])


def _asyncio_place(task: asyncio.Task[Any]) -> str:
    chain: list[tuple[types.CodeType, int]] = []
    awaited: object = task.get_coro()
    while frame := getattr(awaited, "cr_frame", None):
        chain.append((frame.f_code, frame.f_lineno))
        awaited = getattr(awaited, "cr_await", None)
    return place(task.get_name(), chain)


def place(name: str, chain: Iterable[tuple[types.CodeType, int]]) -> str:
    """Where a task is, as its name and its calls."""
    calls = [f"{code.co_qualname} ({Path(code.co_filename).name}:{line})" for code, line in chain]
    return f"{name}: {' > '.join(calls)}"
