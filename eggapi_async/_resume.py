"""A batch with a journal: each item goes on where it was left, in this process or another.

What was finished costs nothing, what was submitted is collected by its id, what may have been
bought is not bought again, and everything else is submitted. The journal hears of a submission
before it leaves, and of its id as soon as it is known. When it can no longer be written, nothing
more is submitted; what is under way is still collected.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import attrs

from ._files import kept_in, remove_strays
from ._hub import Watch
from ._journal import Database, checked_path, named_path
from ._reading import Journal
from ._record import (
    FAILED,
    FINISHED,
    INTENT,
    PLANNED,
    SAVED,
    SUBMITTED,
    UNCERTAIN,
    JournalItem,
)
from ._retry import Patience
from ._scribe import Scribe
from ._submission import Submissions, Uncertain
from .budget import Budget
from .errors import (
    APIError,
    AuthenticationError,
    EggError,
    InvalidRequestError,
    JournalError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    TaskFailedError,
)
from .models import GenerationRequest, Outcome, TaskSnapshot

_NOT_ITS_FAULT: Final = (AuthenticationError, PermissionDeniedError, RateLimitedError, ServerError)
"""Refusals that say nothing about the request: it is submitted by the next run."""


@attrs.define(eq=False)
class Entry:
    """One item's place in the journal, while it is under way.

    *patience* is how many seconds its POST may be under way.
    """

    _scribe: Scribe
    item: JournalItem
    _now: Callable[[], datetime]
    _patience: float
    name: object

    def _note(self, **changes: Any) -> None:
        self.item = attrs.evolve(self.item, **changes)
        self._scribe.note(self.item)

    async def declare(self, reference: str | None) -> None:
        """Its POST is about to leave: durable when this returns."""
        now = self._now()
        blank = {"task_id": None, "snapshot": None, "error": None, "paths": (), "ended_at": None}
        lost_at = now + timedelta(seconds=self._patience)
        self._note(state=INTENT, sent_at=now, lost_at=lost_at, reference=reference, **blank)
        await self._scribe.flush()

    def withdraw(self) -> None:
        """Its POST was not taken, if there is one that nothing was heard of."""
        if self.item.state == INTENT:
            self._note(state=PLANNED)

    def accept(self, task: TaskSnapshot) -> None:
        """Its id is known."""
        self._note(state=SUBMITTED, task_id=task.id, snapshot=task)

    def lose(self, sent_at: datetime, lost_at: datetime) -> None:
        """Its POST's answer was lost."""
        self._note(state=UNCERTAIN, sent_at=sent_at, lost_at=lost_at)

    async def settle(self) -> None:
        """The scribe is at it already."""

    async def finish(self, task: TaskSnapshot) -> None:
        """It has ended well."""
        self._note(state=FINISHED, snapshot=task, ended_at=self._now())
        await self._heard()

    async def fail(self, error: EggError) -> None:
        """It has ended badly, and would again."""
        task = error.task if isinstance(error, TaskFailedError) else None
        self._note(state=FAILED, snapshot=task, error=error, ended_at=self._now())
        await self._heard()

    async def keep(self, paths: Collection[Path]) -> None:
        """Its files are saved."""
        self._note(state=SAVED, paths=tuple(paths))
        await self._heard()

    async def _heard(self) -> None:
        """Wait until it is durable. That it cannot be does not undo what has come."""
        try:
            await self._scribe.flush()
        except JournalError:
            return  # the batch hears of it from `Resume.failure`


class Resume:
    """Takes the items of one batch through their course, with a journal."""

    _path: Path  # these two from `open` on
    _scribe: Scribe

    def __init__(
        self,
        path: object,
        *,
        origin: str,
        submissions: Submissions,
        patience: Patience,
        uncertain: Uncertain,
        retry_failed: bool,
        folder: str | None,
        key: Callable[[Any], str] | None,
        now: Callable[[], datetime],
        read: Callable[[Any], GenerationRequest],
        wait: Callable[[Watch], Awaitable[TaskSnapshot]],
        save: Callable[[int, GenerationRequest, TaskSnapshot], Awaitable[list[Path]]],
        budget: Budget | None = None,
    ) -> None:
        self._named = named_path(path)
        self._origin = origin
        self._submissions = submissions
        self._patience = patience
        self._uncertain = uncertain
        self._retry_failed = retry_failed
        self._folder = folder
        self._key = key
        self._now = now
        self._read, self._wait, self._save = read, wait, save
        self._budget = budget
        self._lost: dict[str, SubmissionUncertainError] = {}
        self._busy: dict[str, anyio.Event] = {}

    @property
    def failure(self) -> JournalError | None:
        """Why nothing more may be submitted; None while the journal can be written."""
        return self._scribe.failure

    async def open(self) -> None:
        """Take possession of the journal. Raises InvalidRequestError and JournalError."""
        self._path = await anyio.to_thread.run_sync(checked_path, self._named)
        self._scribe = Scribe(Database(self._path, origin=self._origin))
        doubts = await self._scribe.open()
        try:
            await self._begin(doubts)
        except BaseException:
            await self.aclose()
            raise

    async def _begin(self, doubts: Iterable[JournalItem]) -> None:
        for item in doubts:
            self._lost[item.key] = self._recall(item)
        self._submissions.ledgers[self._path] = partial(known, self._path)
        if self._folder is not None:
            await anyio.to_thread.run_sync(remove_strays, self._folder, partial(_look, self._path))

    async def aclose(self) -> None:
        """Let go of it, with all written that can be."""
        await self._scribe.aclose()

    def _name(self, item: JournalItem) -> object:
        return self._path, item.key

    async def outcome(self, index: int, item: Any, check: Callable[[], None]) -> Outcome:
        """What becomes of an item of the input; nothing of it is sent once *check* raises."""
        request = None
        try:
            request = self._read(item)
            if self._key is None:
                found = await self._scribe.find(index, None, request)
                return await self._through(found, check)
            key = _checked_key(self._key(item))
            async with self._alone(key):
                return await self._through(await self._scribe.find(index, key, request), check)
        except EggError as error:
            return Outcome(index=index, request=request, error=error)

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Two items of one key are one item: the second gets what the first has bought."""
        while key in self._busy:
            await self._busy[key].wait()
        ended = self._busy[key] = anyio.Event()
        try:
            yield
        finally:
            del self._busy[key]
            ended.set()

    async def _through(self, item: JournalItem, check: Callable[[], None]) -> Outcome:
        entry = Entry(self._scribe, item, self._now, self._patience.timeout, self._name(item))
        told = partial(Outcome, index=item.index, request=item.request)
        result = None
        try:
            result = await self._result(entry, check)
            return told(result=result, paths=tuple(await self._paths(entry, result)))
        except EggError as error:
            return told(result=result, error=error)

    async def _result(self, entry: Entry, check: Callable[[], None]) -> TaskSnapshot:
        item = entry.item
        if item.state in (FINISHED, SAVED) and item.snapshot is not None:
            return item.snapshot
        if item.error is not None and item.state == FAILED and not self._retry_failed:
            raise item.error
        watch = await self._watch(entry, check)
        try:
            task = await self._wait(watch)
        except TaskFailedError as error:
            await entry.fail(error)
            raise
        await entry.finish(task)
        return task

    async def _watch(self, entry: Entry, check: Callable[[], None]) -> Watch:
        """The item's task: the one that it has, or a new one."""
        item = entry.item
        if item.state == SUBMITTED and item.task_id is not None:
            return self._submissions.collect(item.task_id, item.request)
        try:
            return await self._submissions.submit(
                item.request,
                self._patience,
                self._uncertain,
                budget=self._budget,
                check=check,
                record=entry,
                lost=self._doubt(item),
            )
        except APIError as error:
            if not isinstance(error, _NOT_ITS_FAULT):
                await entry.fail(error)
            raise

    def _doubt(self, item: JournalItem) -> SubmissionUncertainError | None:
        if item.state != UNCERTAIN:
            return None
        return self._lost.pop(item.key, None) or self._recall(item)

    def _recall(self, item: JournalItem) -> SubmissionUncertainError:
        assert item.sent_at is not None, "what is in doubt was sent"
        assert item.lost_at is not None, "and was lost"
        return self._submissions.recall(
            item.request,
            self._patience,
            sent_at=item.sent_at,
            lost_at=item.lost_at,
            name=self._name(item),
            reference=item.reference,
        )

    async def _paths(self, entry: Entry, task: TaskSnapshot) -> Collection[Path]:
        if self._folder is None:
            return ()
        kept = await anyio.to_thread.run_sync(kept_in, self._folder, entry.item.paths)
        if kept:
            return kept
        paths = await self._save(entry.item.index, entry.item.request, task)
        await entry.keep(paths)
        return paths


async def known(path: Path, task_ids: Collection[str]) -> set[str]:
    """Those of *task_ids* that the journal at *path* has; none where it is gone."""
    return await anyio.to_thread.run_sync(_look, path, task_ids)


def _look(path: Path, task_ids: Collection[str]) -> set[str]:
    if not path.exists():
        return set()
    with Journal(path) as journal:
        return journal.known(task_ids)


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not key or any("\ud800" <= c <= "\udfff" for c in key):
        raise InvalidRequestError("key", key, "text that names the item")
    return key
