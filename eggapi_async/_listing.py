"""Where in the task list open tasks stand: on which pages to look for them.

The order is not documented, newest first is likely. New tasks, other programs' too, push old ones
on: a task's distance from the end stays. What is told here is only a guess, and costs only a
request when it is wrong. No I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, Final, Protocol, TypeVar

import attrs

from .models import Page

APART: Final = 0.25
"""Seconds between two lengths of the list from which its growth is told: the pages of one round
come a moment apart, and one new task in that moment is no thousand in a second."""


@attrs.frozen
class Spot:
    """Where a page showed a task: entries before it, and from it to the list's end."""

    index: int
    place: int


class Placed(Protocol):
    """An open task: when it was submitted, and where it was last shown."""

    since: float
    spot: Spot | None


P = TypeVar("P", bound=Placed)


def spot(page: Page[Any], offset: int) -> Spot:
    """The spot of the entry number *offset* of *page*."""
    index = (page.page - 1) * page.per_page + offset
    return Spot(index, page.total - index)


@attrs.define
class Listing:
    """What the pages that were read tell of the list: its length, its growth, its order."""

    _per_page: int = attrs.field(init=False, default=100)
    _total: int = attrs.field(init=False, default=0)
    _total_at: float = attrs.field(init=False, default=0.0)
    _growth: float = attrs.field(init=False, default=0.0)
    _totals: deque[tuple[float, int]] = attrs.field(init=False, factory=partial(deque, maxlen=120))
    _is_newest_first: bool = attrs.field(init=False, default=True)

    @property
    def has_more_pages(self) -> bool:
        """True when the list is known to be longer than a page."""
        return self._total > self._per_page

    def turn(self) -> None:
        """Look for new tasks at the other end."""
        self._is_newest_first = not self._is_newest_first

    def note(self, page: Page[Any], now: float) -> None:
        """A page was read."""
        self._per_page, self._total, self._total_at = page.per_page, page.total, now
        if self._totals:
            then, total = self._totals[-1]
            if now < then + APART:
                return
            self._growth = max(0.0, (page.total - total) / (now - then))
        self._totals.append((now, page.total))

    def expected_pages(self, tasks: Iterable[P], *, younger: int, now: float) -> dict[int, list[P]]:
        """On which pages *tasks* should be, while *younger* more have come after them all."""
        total = self._total + int(self._growth * (now - self._total_at))
        crowd: dict[int, list[P]] = {}
        for task in sorted(tasks, key=attrgetter("since"), reverse=True):
            if task.spot is None:
                index = self._index_of_unseen(task.since, younger, total)
                younger += 1
            else:
                index = total - task.spot.place if self._is_newest_first else task.spot.index
            crowd.setdefault(max(0, index) // self._per_page + 1, []).append(task)
        return crowd

    def _index_of_unseen(self, since: float, younger: int, total: int) -> int:
        """Where a task that no page has shown yet should be: behind all that came after it."""
        after = max(younger, total - self._total_when(since, total - younger))
        return after if self._is_newest_first else total - 1 - after

    def _total_when(self, moment: float, unknown: int) -> int:
        """How many entries the list had at *moment*; *unknown* where no page has told."""
        if not self._totals or moment < self._totals[0][0]:
            return unknown
        at = bisect_right(self._totals, moment, key=itemgetter(0))
        then, total = self._totals[at - 1]
        growth = self._growth
        if at < len(self._totals):
            later, more = self._totals[at]
            growth = (more - total) / (later - then)
        return total + int(growth * (moment - then))
