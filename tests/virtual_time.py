"""Time that jumps instead of passing, on asyncio and on trio.

What asyncio needs is in the package (`eggapi_async.testing`), where the rule is told. Here the same
is made of trio, and tests that run on both. Tests with sockets, pipes or child processes are marked
`real_time`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import outcome
import pytest
import trio
import trio.testing

from eggapi_async.testing.virtual import (
    START,
    DeadlockError,
    LeftoverTaskError,
    RealSocketError,
    VirtualLoop,
    deadlock,
    place,
    refuse_leftovers,
    run_virtual,
    virtual_clock,
)

__all__ = [
    "BOTH",
    "START",
    "DeadlockError",
    "LeftoverTaskError",
    "RealSocketError",
    "VirtualLoop",
    "on_both",
    "refuse_leftovers",
    "run_on",
    "run_virtual",
    "run_virtual_trio",
    "virtual_clock",
]

BOTH: Final = pytest.mark.parametrize("backend", ["asyncio", "trio"])
"""For a test that starts `run_on(backend, ...)` itself."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


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
        self._deadlock = DeadlockError(deadlock(map(_trio_place, _trio_tasks())))
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


def _trio_place(task: trio.lowlevel.Task) -> str:
    return place(task.name, [(frame.f_code, line) for frame, line in task.iter_await_frames()])


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
