"""What a journal tells: how far a batch is, and what came of each item.

Changes nothing, whoever owns the file; while a batch writes it, a reader sees what is durable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ._journal import checked_path, connect, is_blank, item_of, told
from ._record import PLANNED, STATES, JournalItem
from ._record import content as content_of
from .errors import JournalError
from .models import DEFAULT_MODEL, GenerationRequest

__all__ = ["Journal"]


class Journal:
    """What a batch has recorded, to be read: `with Journal("run.sqlite3") as journal:`.

    Reads whenever you like, also while the batch runs, and changes nothing. It blocks, so in a
    coroutine call it through a worker thread. Raises JournalError where there is no journal, or
    one that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = checked_path(path)
        if not self._path.exists():
            raise JournalError(f"{self._path}: there is no journal")
        with told(self._path, "cannot be read"):
            may_write = all(os.access(p, os.W_OK) for p in (self._path, self._path.parent))
            self._rows = connect(self._path, reading_mode(self._path, may_write=may_write))
            try:
                self._rows.execute("PRAGMA query_only = 1")
                self._is_empty = is_blank(self._rows, self._path)
            except BaseException:
                self._rows.close()
                raise

    def __repr__(self) -> str:
        return f"<Journal {self._path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. Safe to repeat."""
        self._rows.close()

    def counts(self) -> dict[str, int]:
        """How many items there are in each state; see `JournalItem.state`."""
        found = dict(self._read("SELECT state, count(*) FROM items GROUP BY state"))
        return {state: found.get(state, 0) for state in STATES}

    def state(self, key: str) -> str | None:
        """The state of the item with that *key*; None for one that was never tried."""
        found = list(self._read("SELECT state FROM items WHERE key = ?", key))
        return str(found[0][0]) if found else None

    def progress(
        self,
        requests: Iterable[Any],
        *,
        model: str = DEFAULT_MODEL,
        key: Callable[[Any], str] | None = None,
    ) -> dict[str, int]:
        """How many of *requests* are in each state; those that were never tried are `planned`.

        *model* and *key* are what `map` gets. Requests that cannot be sent raise
        InvalidRequestError.
        """
        counts = dict.fromkeys(STATES, 0)
        seen: dict[str, int] = {}
        for item in requests:
            request = GenerationRequest.of(item, model=model)
            content = content_of(request)
            seen[content] = seen.get(content, 0) + 1
            name = f"{content}/{seen[content]}" if key is None else key(item)
            counts[self.state(name) or PLANNED] += 1
        return counts

    def __iter__(self) -> Iterator[JournalItem]:
        for row in self._read("SELECT * FROM items ORDER BY position, key"):
            yield item_of(self._path, row)

    def known(self, task_ids: Collection[str]) -> set[str]:
        """Those of *task_ids* that belong to items of this journal, or once did."""
        return {
            task_id
            for task_id in task_ids
            if list(self._read("SELECT 1 FROM tasks WHERE id = ?", task_id))
        }

    def _read(self, query: str, *values: str) -> Iterator[Any]:
        if self._is_empty:  # made, and not written yet
            return
        with told(self._path, "cannot be read"):
            yield from self._rows.execute(query, values)


def reading_mode(path: Path, *, may_write: bool) -> str:
    """How to read *path*. Only who may write leaves nothing lying about afterwards."""
    if may_write:
        return "rw"
    return "ro" if path.with_name(f"{path.name}-wal").exists() else "ro&immutable=1"
