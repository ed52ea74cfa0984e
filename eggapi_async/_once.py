"""A job that is bought once, however often a queue delivers it, and to whichever process.

What is noted of it in a ledger is durable before its POST leaves, and its task's id as soon as it
is known. Another delivery finds the id, and nothing is sent; while the first is at it, it waits;
where an answer was lost, it says so: nothing is bought again unless the caller wants that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from secrets import token_urlsafe
from typing import Final, Literal

import anyio
import attrs

from ._apart import apart
from ._hub import Watch
from ._record import content as content_of
from ._retry import Patience
from ._submission import Submissions
from ._transport import POST_GRACE
from .budget import Budget
from .errors import InvalidRequestError, JournalError
from .ledger import Ledger, LedgerEntry, job_key, known, task_key
from .models import GenerationRequest, TaskSnapshot

log = logging.getLogger("eggapi_async")

InDoubt = Literal["raise", "resubmit"]

LOOK: Final = 0.5
"""Seconds between two looks at a job that another process is at work with."""


class _TakenError(Exception):
    """Another process was faster."""


@attrs.define(eq=False)
class _Entry:
    """One job's place in the ledger while it is being bought: what is there, and what should be."""

    _ledger: Ledger
    _job: str
    _content: str
    _now: Callable[[], datetime]
    _patience: float
    _found: LedgerEntry | None
    _there: LedgerEntry | None = attrs.field(init=False)
    _wanted: LedgerEntry | None = attrs.field(init=False)
    _is_settled: bool = attrs.field(init=False, default=True)
    _is_under_way: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._there = self._wanted = self._found

    @property
    def name(self) -> object:
        """What tells it from other submissions."""
        return id(self._ledger), self._job

    async def declare(self, reference: str | None) -> None:
        """Its POST is about to leave: durable when this returns."""
        now = self._now()
        entry = LedgerEntry(
            content=self._content,
            sent_at=now,
            lost_at=now + timedelta(seconds=self._patience),
            mark=token_urlsafe(9),
            reference=reference,
        )
        before, self._there, self._is_settled = self._there, entry, False  # it may be, from here on
        if not await self._ledger.swap(job_key(self._job), _text(before), entry.text):
            self._is_settled = True
            raise _TakenError
        self._is_under_way = True

    def withdraw(self) -> None:
        """Its POST was not taken, if there is one that nothing was heard of."""
        if self._is_under_way:
            self._note(self._found)

    def accept(self, task: TaskSnapshot) -> None:
        """Its id is known."""
        assert self._there is not None, "what is accepted was declared"
        self._note(attrs.evolve(self._there, task_id=task.id))

    def lose(self, sent_at: datetime, lost_at: datetime) -> None:
        """Its POST's answer was lost."""
        assert self._there is not None, "what is lost was declared"
        self._note(attrs.evolve(self._there, sent_at=sent_at, lost_at=lost_at))

    def _note(self, wanted: LedgerEntry | None) -> None:
        self._wanted, self._is_settled, self._is_under_way = wanted, False, False

    async def settle(self) -> None:
        """Make durable what is known. That it cannot be does not undo what has come."""
        if self._is_settled:
            return
        there, wanted = _text(self._there), _text(self._wanted)
        try:
            is_ours = await self._ledger.swap(job_key(self._job), there, wanted)
            if self._wanted is not None and self._wanted.task_id is not None:
                await self._ledger.swap(task_key(self._wanted.task_id), None, self._job)
            if not is_ours:
                raise JournalError("another process has taken the job over")
        except JournalError as error:
            task = "no task" if self._wanted is None else self._wanted.task_id or "a lost answer"
            log.warning(
                "job %s has come to %s, which could not be noted: %s", self._job, task, error
            )
            return
        self._there, self._is_settled = self._wanted, True


class Jobs:
    """Buys jobs once."""

    def __init__(self, *, submissions: Submissions, now: Callable[[], datetime]) -> None:
        self._submissions = submissions
        self._now = now

    async def submit(
        self,
        job: str,
        request: GenerationRequest,
        patience: Patience,
        uncertain: InDoubt,
        *,
        ledger: Ledger,
        budget: Budget | None,
    ) -> Watch:
        """The task of *job*: the one that was bought for it, or a new one."""
        if not isinstance(job, str) or not job or any("\ud800" <= c <= "\udfff" for c in job):
            raise InvalidRequestError("job", job, "text that names the job")
        if uncertain not in ("raise", "resubmit"):
            raise InvalidRequestError("uncertain", uncertain, "'raise' or 'resubmit'")
        self._submissions.ledgers[id(ledger)] = partial(known, ledger)
        while True:
            found = await self._found(job, request, ledger, patience)
            if found is not None and found.task_id is not None:
                return self._submissions.collect(found.task_id, request)
            entry = _Entry(ledger, job, content_of(request), self._now, patience.timeout, found)
            try:
                return await self._buy(entry, request, patience, uncertain, budget, found)
            except _TakenError:
                continue

    async def _found(
        self, job: str, request: GenerationRequest, ledger: Ledger, patience: Patience
    ) -> LedgerEntry | None:
        """What is noted of *job*, once nobody is at work with it any more."""
        mark, until = "", 0.0
        while True:
            text = (await ledger.read([job_key(job)])).get(job_key(job))
            if text is None:
                return None
            entry = LedgerEntry.of(text)
            if entry.content != content_of(request):
                expected = "the request that it stood for before; a changed one needs a new name"
                raise InvalidRequestError("job", job, expected)
            if (
                entry.mark != mark
            ):  # the other's clock may be hours ahead: no longer than a POST takes
                mark, until = entry.mark, anyio.current_time() + patience.timeout
            left = (entry.lost_at - self._now()).total_seconds()
            left = min(left, until - anyio.current_time())
            if entry.task_id is not None or left <= 0:
                return entry
            await anyio.sleep(min(LOOK, left))

    async def _buy(
        self,
        entry: _Entry,
        request: GenerationRequest,
        patience: Patience,
        uncertain: InDoubt,
        budget: Budget | None,
        found: LedgerEntry | None,
    ) -> Watch:
        lost = None
        if found is not None and uncertain == "raise":
            lost = self._submissions.recall(
                request,
                patience,
                sent_at=found.sent_at,
                lost_at=found.lost_at,
                name=entry.name,
                reference=found.reference,
            )
        try:
            return await self._submissions.submit(
                request, patience, "raise", budget=budget, record=entry, lost=lost
            )
        finally:
            await apart(entry.settle, grace=lambda: POST_GRACE)


def _text(entry: LedgerEntry | None) -> str | None:
    return None if entry is None else entry.text
