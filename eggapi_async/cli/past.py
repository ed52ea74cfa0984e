"""What earlier runs of a batch have left in its folder, and the command that goes on.

Its rule: it only reads. The journal is written by the library alone.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from .inputs import Line

if TYPE_CHECKING:
    from .. import Journal, JournalItem

NAME: Final = ".eggapi.sqlite3"
"""The journal in a batch's folder."""
_DONE: Final = ("finished", "saved")
_OPEN: Final = ("intent", "submitted", "uncertain")


@attrs.frozen
class Past:
    """What is recorded; nothing where there is no journal yet."""

    _journal: Journal | None = None

    def state(self, line: Line) -> str:
        """How far *line* came: see `JournalItem.state`."""
        if self._journal is None or line.key is None:
            return "planned"
        return self._journal.state(line.key) or "planned"

    def is_done(self, line: Line) -> bool:
        """True when *line* needs nothing more."""
        return self.state(line) in _DONE

    def items(self) -> Iterator[JournalItem]:
        """All that is recorded and may have been bought, in input order."""
        return (item for item in self._journal or () if item.state != "planned")

    def spent(self) -> Decimal:
        """US dollars that all before has cost, or may cost: what is open counts with its price."""
        return sum((_cost(item) for item in self.items()), Decimal(0))

    def words(self, lines: Iterable[Line] | None, *, retries_failed: bool = False) -> str:
        """How far *lines* are (None: all that is recorded); "" for a batch that is new."""
        if self._journal is None:
            return ""
        counts = self._journal.counts() if lines is None else Counter(map(self.state, lines))
        if not sum(counts.values()) - counts["planned"]:
            return ""
        failed = 0 if retries_failed else counts["failed"]
        to_go = {} if lines is None else {"to go": counts["planned"] + counts["failed"] - failed}
        parts = {
            "done": sum(counts[state] for state in _DONE),
            "submitted": counts["submitted"],
            "uncertain": counts["uncertain"] + counts["intent"],
            "failed": failed,
            **to_go,
        }
        shown = {name: n for name, n in parts.items() if n or name in ("done", "to go")}
        return ", ".join(f"{n:,} {name}" for name, n in shown.items())


def _cost(item: JournalItem) -> Decimal:
    from ..prices import price

    if item.state in _OPEN:
        return price(item.request) or Decimal(0)
    return item.cost or Decimal(0)


@contextmanager
def past(folder: Path | None) -> Iterator[Past]:
    """What is recorded in *folder*, if anything. Raises JournalError where it cannot be read."""
    from .. import Journal

    path = None if folder is None else folder / NAME
    if path is None or not path.exists():
        yield Past()
        return
    with Journal(path) as journal:
        yield Past(journal)


def command(words: Iterable[str] | None = None) -> str:
    """The command line that this process was started with, to be typed again."""
    return shlex.join(["eggapi", *(sys.argv[1:] if words is None else words)])


def without_limit(command: str) -> str:
    """*command* with `USD` in place of what may be spent."""
    words = shlex.split(command)
    for at, word in enumerate(words):
        if word.startswith("--max-cost="):
            words[at] = "--max-cost=USD"
        elif words[at - 1] == "--max-cost":
            words[at] = "USD"
    return shlex.join(words)
