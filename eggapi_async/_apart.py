"""Runs one piece of I/O so that its caller's cancellation cannot break it.

Under asyncio a native `task.cancel()` inside httpcore loses connections for ever, and no shielded
scope stops it. So the work runs in a task of its own that is never cancelled natively: the caller's
cancellation becomes a scope cancel inside it, at once or after a grace (a paid POST is left to hear
its answer), and goes on only when the work has ended. Under trio scopes suffice.

The only module that knows asyncio; so the signal that wakes a sleeper cheaply is here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio

T = TypeVar("T")

SLICE: Final = 0.25
"""Seconds of a grace that one standstill can cost at most."""


async def apart(work: Callable[[], Awaitable[T]], *, grace: Callable[[], float] = lambda: 0.0) -> T:
    """Await `work()`; when the caller is cancelled, give it `grace()` seconds to end by itself.

    The caller's cancellation goes on only when the work has ended, so that nothing is left behind.
    """
    return await (_by_task if _is_asyncio() else _by_scopes)(work, grace)


class Signal:
    """Wakes the one who waits for it, now or later; who was woken may wait again.

    It does what an `anyio.Event` does for any number, in a fraction of its memory and time.
    """

    __slots__ = ("_is_set", "_sleeper")

    def __init__(self) -> None:
        self._is_set = False
        self._sleeper: asyncio.Future[None] | anyio.Event | None = None

    def set(self) -> None:
        """End the present wait, or the next one at once."""
        self._is_set = True
        if isinstance(self._sleeper, anyio.Event):
            self._sleeper.set()
        elif self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def wait(self) -> None:
        """Wait until `set` was called since the last wait."""
        if not self._is_set:
            try:
                if _is_asyncio():
                    self._sleeper = asyncio.get_running_loop().create_future()
                    await self._sleeper
                else:
                    self._sleeper = anyio.Event()
                    await self._sleeper.wait()
            finally:
                self._sleeper = None
        self._is_set = False


def _is_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None  # trio as asyncio's guest has a loop, but no task
    except RuntimeError:
        return False


async def _by_task(work: Callable[[], Awaitable[T]], grace: Callable[[], float]) -> T:
    scope = anyio.CancelScope()

    async def child() -> T | None:
        with scope:
            return await work()
        return None  # cancelled, and so is the only one who asked

    def let_end() -> None:
        _count_down(task, scope, grace())

    task = _Child(child(), let_end=let_end)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        let_end()
        await _end_of(task)
        raise
    return task.result()  # type: ignore[return-value]


class _Child(asyncio.Task[T]):
    """Work under way, which nobody can cancel natively but the scopes inside it.

    `asyncio.run` cancels every task when its main coroutine has ended, this one too, and waits for
    them: it then ends as if its caller had been cancelled, so that a paid id is heard even then.
    """

    def __init__(self, work: Coroutine[Any, Any, T], *, let_end: Callable[[], None]) -> None:
        super().__init__(work, loop=asyncio.get_running_loop())
        self._let_end = let_end

    def cancel(self, msg: Any = None) -> bool:
        """Pass on what a scope of anyio's wants; let the work end for anybody else."""
        if isinstance(msg, str) and msg.startswith("Cancelled via cancel scope"):
            return super().cancel(msg)
        self.get_loop().call_soon(self._let_end)
        return not self.done()


def _count_down(task: asyncio.Task[Any], scope: anyio.CancelScope, seconds: float) -> None:
    """Cancel *scope* after so many seconds, unless *task* has ended before.

    Counted in slices, so that only seconds count in which the loop was running: a process that was
    stopped for a while, or a machine, still hears what came meanwhile.
    """
    if task.done():
        return
    if seconds > 0:
        loop = task.get_loop()
        loop.call_later(min(seconds, SLICE), _count_down, task, scope, seconds - SLICE)
    else:
        scope.cancel()


def _let_end(scope: anyio.CancelScope, grace: float, now: float) -> None:
    if grace > 0:
        scope.deadline = min(scope.deadline, now + grace)
    else:
        scope.cancel()


async def _end_of(task: asyncio.Task[T]) -> None:
    """Wait until *task* has ended, however often the caller is cancelled meanwhile."""
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
    with suppress(asyncio.CancelledError):
        task.exception()  # looked at, so that asyncio does not complain it never was


async def _by_scopes(work: Callable[[], Awaitable[T]], grace: Callable[[], float]) -> T:
    scope = anyio.CancelScope(shield=True)
    answers: list[T] = []
    failures: list[Exception] = []

    async def pass_on_cancellation() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            _let_end(scope, grace(), anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(pass_on_cancellation)
        with scope:
            try:
                answers.append(await work())
            except Exception as exc:  # a group would wrap it
                failures.append(exc)
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return answers[0]
