"""What makes a job of a queue be paid for once: a ledger that all workers share.

A ledger is a store of short texts in which one is exchanged for another only if it is still there:
that suffices, and is easily made of any database. What the texts mean is fixed here; neither a
prompt nor the API key is in them. No I/O, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

import attrs

from .errors import InvalidRequestError, JournalError

__all__ = ["Ledger", "LedgerEntry", "known", "resolve"]


class Ledger(Protocol):
    """Where jobs are noted, so that all processes know what was bought for which.

    `RedisLedger` is one; a table with the columns key and text makes another. Both methods raise
    JournalError where the store cannot be reached: nothing is bought then.
    """

    async def read(self, keys: Collection[str]) -> Mapping[str, str]:
        """The texts under those of *keys* that are there."""

    async def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Put *new* in the place of *old*; None is nothing there. Durable when this returns.

        False, and nothing done, where another text is there; True also where *new* is already.
        """


@attrs.frozen(kw_only=True)
class LedgerEntry:
    """What is noted of a job from just before its POST leaves.

    content    tells its request from others (a hash)
    sent_at    when its POST left, lost_at: when its answer was given up, or is to be
    mark       tells this attempt from any other
    reference  what its webhook URL carried, if anything
    task_id    the service's id, once it is known; without it the job is under way, or in doubt
    """

    content: str
    sent_at: datetime
    lost_at: datetime
    mark: str
    reference: str | None = None
    task_id: str | None = None

    @property
    def text(self) -> str:
        """As it is stored."""
        fields = attrs.asdict(self, filter=lambda _, value: value is not None)
        fields |= {name: fields[name].isoformat() for name in ("sent_at", "lost_at")}
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def of(cls, text: str) -> LedgerEntry:
        """The entry of a *text*. Raises JournalError for one that was not written by us."""
        try:
            fields: dict[str, Any] = json.loads(text)
            times = {name: datetime.fromisoformat(fields[name]) for name in ("sent_at", "lost_at")}
            return cls(**fields | times)
        except (ValueError, TypeError, KeyError) as exc:
            raise JournalError(f"the ledger holds what is no entry: {text[:80]!r}") from exc


def job_key(job: str) -> str:
    """Where *job* is noted."""
    return f"job/{job}"


def task_key(task_id: str) -> str:
    """Where it is noted whose task this is."""
    return f"task/{task_id}"


async def known(ledger: Ledger, task_ids: Collection[str]) -> set[str]:
    """Those of *task_ids* that belong to a job of the *ledger*."""
    ids = {task_key(task_id): task_id for task_id in task_ids}
    return {ids[key] for key in await ledger.read(ids)}


async def resolve(ledger: Ledger, job: str, task_id: str | None = None) -> None:
    """End the doubt about *job*, whose answer was lost: this was its task, or (None) there is none.

    Without a task it will be bought when it comes again. Raises InvalidRequestError where the job
    is in no doubt.
    """
    text = (await ledger.read([job_key(job)])).get(job_key(job))
    entry = None if text is None else LedgerEntry.of(text)
    if entry is None or entry.task_id is not None:
        raise InvalidRequestError("job", job, "one that is in doubt")
    new = None if task_id is None else attrs.evolve(entry, task_id=task_id).text
    if not await ledger.swap(job_key(job), text, new):
        raise InvalidRequestError("job", job, "one that nobody else is at work with")
    if task_id is not None:
        await ledger.swap(task_key(task_id), None, job)
