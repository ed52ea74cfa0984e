"""Time that jumps instead of passing, on asyncio and on trio.

The rule: the clock moves only when nothing can run and no worker thread is at work, and then
straight to the next deadline. Jobs of `anyio.to_thread`, `loop.run_in_executor` and
`asyncio.to_thread` hold it still; a thread of the test's own does so inside `loop.hold()`.

It refuses to guess: a program that can never go on raises `DeadlockError` instead of hanging, and
a real socket under virtual time raises `RealSocketError`, since whether its bytes or the
next deadline come first would be luck. Tests with sockets, pipes or child processes are marked
`real_time`. A coroutine that sleeps on behalf of a thread (`anyio.from_thread.run`) cannot end
either, since its thread is at work all the while; `MAX_THREAD_SECONDS` ends that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import math
import selectors
import threading
import types
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import anyio
import outcome
import pytest
import trio
import trio.testing
from anyio._backends._asyncio import WorkerThread

START: Final = 1000.0
"""What a virtual clock shows at first, in seconds."""

MAX_THREAD_SECONDS: Final = 30.0
"""Real seconds that one worker thread may be at work before it is taken for stuck."""

BOTH: Final = pytest.mark.parametrize("backend", ["asyncio", "trio"])
"""For a test that starts `run_on(backend, ...)` itself."""

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
    """A file descriptor is watched under virtual time: mark the test `real_time`."""


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
            raise RealSocketError("a socket or pipe is open under virtual time: use real_time")
        if timeout is None:
            raise DeadlockError(_deadlock(map(_asyncio_place, asyncio.all_tasks(self._loop))))
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


def run_virtual_trio(
    function: Callable[[Unpack[Ts]], Awaitable[T]],
    *args: *Ts,
) -> T:
    """Run an async function on trio under a jumping clock that starts at `START` too.

    `trio.testing.MockClock` alone jumps while threads work; here it stands still. A job that was
    abandoned (`abandon_on_cancel`) is no longer counted by trio and does not hold the clock.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    clock.jump(START)
    watch = _TrioWatch(clock)
    return trio.run(watch.run, function, *args, clock=clock, instruments=[watch])


class _TrioWatch(trio.abc.Instrument):
    """Holds trio's clock while threads work and ends a run that can never go on."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._scope = trio.CancelScope()
        self._idle_rounds = 0
        self._deadlock: DeadlockError | None = None

    async def run(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
    ) -> T:
        try:
            with self._scope:
                return await function(*args)
        finally:
            # An instrument cannot raise: it cancels, and the reason is told here.
            if self._deadlock:
                raise self._deadlock
        raise AssertionError("nobody else cancels this scope")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        # A job starts and ends within a step of the task that waits for it.
        busy = trio.testing.active_thread_count() > 0
        threshold = math.inf if busy else 0.0
        if self._clock.autojump_threshold != threshold:
            self._clock.autojump_threshold = threshold

    def before_io_wait(self, timeout: float) -> None:
        self._idle_rounds = self._idle_rounds + 1 if timeout == 0 and _trio_is_stuck() else 0
        # The first idle round is the one that wakes `wait_all_tasks_blocked`.
        if self._idle_rounds == 2:
            self._give_up()

    def _give_up(self) -> None:
        self._idle_rounds = 0
        if self._deadlock:
            return _throw_into_leaves(self._deadlock)  # somebody is shielded from cancelling
        self._deadlock = DeadlockError(_deadlock(map(_trio_place, _trio_tasks())))
        return self._scope.cancel()


def _trio_is_stuck() -> bool:
    now = trio.lowlevel.current_statistics()
    return (
        not now.tasks_runnable
        and not now.run_sync_soon_queue_size
        and now.seconds_to_next_deadline == math.inf
        and not trio.testing.active_thread_count()
    )


def _throw_into_leaves(error: DeadlockError) -> None:
    for task in _trio_tasks():
        if not task.child_nurseries:
            trio.lowlevel.reschedule(task, outcome.Error(error))


def _trio_tasks() -> list[trio.lowlevel.Task]:
    """The tasks of the program, without trio's own."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    # The root's last nursery is that of the main task; the others hold system tasks.
    found = list(root.child_nurseries[-1].child_tasks)
    for task in found:
        found.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


def _deadlock(places: Iterable[str]) -> str:
    lines = ["nothing is ready, nothing is scheduled and no thread is at work; waiting:"]
    return "\n  ".join([*lines, *sorted(places)])


def _asyncio_place(task: asyncio.Task[Any]) -> str:
    chain: list[tuple[types.CodeType, int]] = []
    awaited: object = task.get_coro()
    while frame := getattr(awaited, "cr_frame", None):
        chain.append((frame.f_code, frame.f_lineno))
        awaited = getattr(awaited, "cr_await", None)
    return _place(task.get_name(), chain)


def _trio_place(task: trio.lowlevel.Task) -> str:
    return _place(task.name, [(frame.f_code, line) for frame, line in task.iter_await_frames()])


def _place(name: str, chain: Iterable[tuple[types.CodeType, int]]) -> str:
    calls = [f"{code.co_qualname} ({Path(code.co_filename).name}:{line})" for code, line in chain]
    return f"{name}: {' > '.join(calls)}"


def on_both(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Turn an async test into one that runs on asyncio and on trio, both in virtual time.

    The fixtures it takes have to be ordinary ones; it may take `backend` to know where it is.
    """
    signature = inspect.signature(test)
    wanted = "backend" in signature.parameters

    @functools.wraps(test)
    def run(*args: Any, backend: str, **kwargs: Any) -> None:
        extra = {"backend": backend} if wanted else {}
        run_on(backend, functools.partial(test, *args, **kwargs, **extra))

    vars(run)["__signature__"] = signature if wanted else _with_backend(signature)
    both: Callable[..., None] = BOTH(run)
    return both


def _with_backend(signature: inspect.Signature) -> inspect.Signature:
    backend = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY)
    return signature.replace(parameters=[*signature.parameters.values(), backend])


def run_on(backend: str, function: Callable[[], Awaitable[T]]) -> T:
    """Run an async function in virtual time on `"asyncio"` or `"trio"`."""
    return {"asyncio": run_virtual, "trio": run_virtual_trio}[backend](function)
