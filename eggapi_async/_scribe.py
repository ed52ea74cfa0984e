"""The one thread that writes a journal, for any number of coroutines.

What is put down is in the thread's hands at once, so that no cancellation and no stopping loop can
take it back; whoever must know that it is durable waits for it. While one transaction is being
synced the next ones gather, and go together. After the first error nothing more is promised: what
was put down is kept for a last attempt at the end, on a fresh connection.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import attrs

from ._apart import apart
from ._journal import Database
from ._record import JournalItem
from .errors import InvalidRequestError, JournalError
from .models import GenerationRequest

T = TypeVar("T")

LAST_WORDS: Final = 60.0
"""Seconds that the end of a journal may take after its batch was cancelled."""


@attrs.define(eq=False)
class _Job:
    """Something to do inside a transaction, and what came of it."""

    work: Callable[[], object]
    answer: object = None


class Scribe:
    """Reads and writes one journal on a thread of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eggapi-journal")
        self._jobs: deque[_Job] = deque()
        self._unwritten: list[_Job] = []
        self._put = 0
        self._done = 0
        self._last: Future[None] | None = None
        self._round: anyio.Event | None = None
        self._process = os.getpid()
        self.failure: JournalError | None = None
        """Why nothing more can be recorded; None while all is well."""

    async def open(self) -> list[JournalItem]:
        """Take possession of the journal; the items in doubt. Raises JournalError."""
        try:
            return await _heard(self._thread.submit(self._database.open))
        except BaseException:
            await self.aclose()  # a cancelled opening goes on, and is undone when it has ended
            raise

    def note(self, item: JournalItem) -> None:
        """Write *item* down, as soon as can be; `flush` waits for it."""
        self._submit(partial(self._database.write, item))

    async def find(self, index: int, key: str | None, request: GenerationRequest) -> JournalItem:
        """The item as it is recorded, or a new one. Raises JournalError, InvalidRequestError."""

        def look() -> JournalItem | InvalidRequestError:
            try:
                return self._database.find(index, key, request)
            except InvalidRequestError as error:  # not the journal's fault
                return error

        job = self._submit(look)
        await self.flush()
        if isinstance(job.answer, InvalidRequestError):
            raise job.answer
        assert isinstance(job.answer, JournalItem), "it was looked for"
        return job.answer

    async def flush(self) -> None:
        """Wait until all that was put down so far is durable. Raises JournalError."""
        if os.getpid() != self._process:
            raise JournalError("a journal does not go along with a fork: open it in the child")
        wanted = self._put
        while self._done < wanted:
            if self._round is None:
                await self._wait()
            else:
                await self._round.wait()
        if self.failure is not None:
            raise copy(self.failure)  # each has a traceback of its own

    async def _wait(self) -> None:
        """Wait for the thread, on behalf of all."""
        assert self._last is not None, "something was put down"
        self._round = anyio.Event()
        try:
            await _heard(self._last)
        finally:
            self._round.set()
            self._round = None

    def _submit(self, work: Callable[[], object]) -> _Job:
        job = _Job(work)
        self._put += 1
        self._jobs.append(job)
        self._last = self._thread.submit(self._write)
        return job

    def _write(self) -> None:
        """Do what has gathered in one transaction. Runs on the thread."""
        jobs = [self._jobs.popleft() for _ in range(len(self._jobs))]
        try:
            if jobs:
                self._transact(jobs)
        finally:
            self._done += len(jobs)

    def _transact(self, jobs: list[_Job]) -> None:
        self._unwritten += jobs
        if self.failure is not None:
            return
        try:
            with self._database.transaction():
                for job in jobs:
                    job.answer = job.work()
            self._unwritten.clear()
        except JournalError as error:
            self.failure = error
        except BaseException as error:
            self.failure = JournalError(f"{self._database.path}: {error!r}")
            raise

    async def aclose(self) -> None:
        """Write down what is left, and let go of the journal, whoever is cancelled meanwhile."""
        end = self._thread.submit(self._end)
        self._thread.shutdown(wait=False)
        await apart(partial(_heard, end), grace=lambda: LAST_WORDS)

    def _end(self) -> None:
        try:
            if self._unwritten:
                self._try_again()
        finally:
            self._database.close()

    def _try_again(self) -> None:
        """After an error the file may be writable again; a spoilt connection never is."""
        with suppress(JournalError):
            self._database.connect()
            with self._database.transaction():
                for job in self._unwritten:
                    job.work()


async def _heard(job: Future[T]) -> T:
    return await anyio.to_thread.run_sync(job.result, limiter=anyio.CapacityLimiter(1))
