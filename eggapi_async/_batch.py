"""Many generations: read lazily, bounded in flight, outcomes as values.

The batch knows neither the client nor the API: it gets a function that makes one picture. Failures
of items become `Outcome.error`; only what the caller brings along, the input or a callable beside
it, can fail the batch: that is raised, after what was begun has ended. Where an error will meet all
the others too (no money, no key), nothing more is sent: the rest get that error as well, and what
was submitted before is still collected.
"""

from __future__ import annotations

import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from contextlib import aclosing, suppress
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from ._home import Home
from .errors import (
    AuthenticationError,
    BudgetExceededError,
    EggError,
    InsufficientBalanceError,
    InvalidRequestError,
    JournalError,
)
from .models import GenerationRequest, Outcome, Outcomes, TaskSnapshot

__all__ = ["Batch"]

T = TypeVar("T")
Check = Callable[[], None]
"""Raises when nothing more may be sent."""
Make = Callable[[GenerationRequest, Check], Awaitable[TaskSnapshot]]
Save = Callable[[int, GenerationRequest, TaskSnapshot], Awaitable[list[Path]]]

STOPS = (AuthenticationError, InsufficientBalanceError, BudgetExceededError)
"""Errors that say of all further submissions that they will fail."""


class TheirsError(Exception):
    """A callable of the caller has raised *error*: it is theirs to see, and no item's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(repr(error))
        self.error = error


def answer(ask: Callable[..., T], *given: Any) -> T:
    """What a callable of the caller says. Raises an EggError as it is, and TheirsError."""
    try:
        return ask(*given)
    except EggError:
        raise
    except Exception as exc:
        raise TheirsError(exc) from exc


class Recorded(Protocol):
    """A course of items that a journal follows."""

    @property
    def failure(self) -> JournalError | None:
        """Why nothing more may be begun."""

    async def open(self) -> None:
        """Before the first item. Raises JournalError."""

    async def outcome(self, index: int, item: Any, check: Check) -> Outcome:
        """What becomes of an item, of which nothing is sent once *check* raises."""

    async def aclose(self) -> None:
        """After the last."""


class Batch:
    """A batch on its way.

    `await batch` gives the list of outcomes in input order. `async with batch as run:` and
    `async for outcome in run:` gives them as they finish; leaving the block early stops the rest
    (what was submitted is in the client's `unfinished`). A batch runs once. One whose
    journal can no longer be written reads no further, and raises JournalError after what was begun
    has ended.
    """

    _is_begun = True  # until it is made: one that was refused need not be run

    def __init__(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        *,
        in_flight: int,
        read: Callable[[Any], GenerationRequest],
        make: Make,
        save: Save | None,
        journal: Recorded | None = None,
        arrive: Callable[[], None] = lambda: None,
        look: Callable[[], None] | None = None,
    ) -> None:
        is_one = isinstance(requests, (str, bytes, Mapping))  # would be read letter by letter
        if is_one or not isinstance(requests, (Iterable, AsyncIterable)):
            raise InvalidRequestError("requests", requests, "an iterable of requests")
        if not isinstance(in_flight, int) or in_flight < 1:
            raise InvalidRequestError("in_flight", in_flight, "a whole number from 1")
        self._requests = requests
        self._in_flight = in_flight
        self._read, self._make, self._save = read, make, save
        self._journal = journal
        self._arrive = arrive
        self._look = look
        self._home = Home("Batch")
        self._group: TaskGroup | None = None
        self._failure: Exception | None = None
        self._stop: EggError | None = None
        self._is_open = False
        self.begun = 0
        """Items taken from the input."""
        self.ended = 0
        """Items whose outcome is known."""
        self._is_begun = False

    def __del__(self) -> None:
        if not self._is_begun:
            warnings.warn(
                "a batch was made and never run: await it",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def __repr__(self) -> str:
        return f"<Batch {self.ended} ended, {self.begun - self.ended} under way>"

    def _repr_html_(self) -> str:
        from . import _display

        return _display.batch(self.begun, self.ended)

    def __await__(self) -> Generator[Any, Any, Outcomes]:
        return self._all().__await__()

    async def _all(self) -> Outcomes:
        async with self as run:
            outcomes = [outcome async for outcome in run]
        return Outcomes(sorted(outcomes, key=lambda outcome: outcome.index))

    async def __aenter__(self) -> Self:
        if self._is_begun:
            raise RuntimeError("a batch runs once: call map() again")
        self._is_begun = True
        self._arrive()
        self._home.arrive()
        if self._look is not None:  # at files, which would block the loop
            await anyio.to_thread.run_sync(self._look)
        if self._journal is not None:
            await self._journal.open()
        self._send, self._outcomes = anyio.create_memory_object_stream[Outcome](self._in_flight)
        self._places = anyio.Semaphore(self._in_flight)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._feed)
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._group is not None, "the block was entered"
        self._is_open = False
        self._group.cancel_scope.cancel()
        try:
            # The group need not hear of the block's own error: it would only wrap it.
            await self._group.__aexit__(None, None, None)
        finally:
            self._send.close()
            self._outcomes.close()
            if self._journal is not None:
                await self._journal.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        if not self._is_open:
            raise RuntimeError("outcomes come inside the block: async with egg.map(...) as run")
        self._home.arrive()
        with suppress(anyio.EndOfStream):
            return await self._outcomes.receive()
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    async def _feed(self) -> None:
        """Read an item whenever there is a place for it; end the stream after the last."""
        assert self._group is not None
        await self._places.acquire()
        try:
            async with aclosing(_each(self._requests)) as items:
                async for item in items:
                    self._group.start_soon(self._run, self.begun, item)
                    self.begun += 1
                    await self._places.acquire()
                    if self._is_over:
                        break
        except Exception as exc:  # the caller's own iterable: theirs to see, after what was begun
            self._fail(exc)
        for _ in range(self._in_flight - 1):
            await self._places.acquire()
        if self._journal is not None and self._journal.failure is not None:
            self._failure = self._journal.failure
        self._send.close()

    @property
    def _is_over(self) -> bool:
        """True when nothing more may be read."""
        is_unwritten = self._journal is not None and self._journal.failure is not None
        return is_unwritten or self._failure is not None

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error

    async def _run(self, index: int, item: Any) -> None:
        course = self._outcome if self._journal is None else self._journal.outcome
        try:
            await self._tell(await course(index, item, self._check))
        except TheirsError as theirs:
            self._fail(theirs.error)
        self._places.release()

    async def _tell(self, outcome: Outcome) -> None:
        if self._stop is None and isinstance(outcome.error, STOPS):
            self._stop = outcome.error
        self.ended += 1
        await self._send.send(outcome)

    def _check(self) -> None:
        if self._stop is not None:
            raise copy(self._stop)  # each has a traceback of its own

    async def _outcome(self, index: int, item: Any, check: Check) -> Outcome:
        request = result = None
        paths: list[Path] = []
        try:
            request = self._read(item)
            result = await self._make(request, check)
            if self._save is not None:
                paths = await self._save(index, request, result)
        except EggError as error:
            return Outcome(index=index, request=request, result=result, error=error)
        return Outcome(index=index, request=request, result=result, paths=tuple(paths))


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item
