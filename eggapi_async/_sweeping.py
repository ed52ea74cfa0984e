"""Which pages of the task list to read now, and whether the list is worth reading at all.

A page is read where at least two open tasks are expected on it, and the more often the more there
are. The order of the list, other programs' tasks in it and pages that shift while they are read
matter only for the cost: what a page does not show is left to be asked for by name. No I/O, no
clock, no dice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any, Final

import attrs

from ._listing import Listing, spot
from ._rhythm import PollPolicy
from ._watched import Sweep, Watched
from .models import Page

PATIENCE: Final = 30.0
"""Seconds of age beyond which the youngest open task of a page stretches its readings."""
EAGER: Final = 1.6
"""Seconds between two looks at the last few tasks of many: a batch waits for them alone."""
HIDDEN: Final = 15.0
"""Seconds for which a task that its page did not show is asked for by name."""
SWEEP_PAUSE: Final = 30.0
SWEEP_PAUSE_MAX: Final = 300.0
UNREAD: Final = 3
"""Rounds in a row with a page unanswered after which the list counts as unusable. One alone, that a
limit refused, proves nothing."""


@attrs.define
class _Round:
    """One reading of the list: when, which pages are still out, how many tasks they showed."""

    at: float
    pages: int
    out: set[int]
    expected: int
    found: int = 0
    ended_at: float = 0.0
    is_broken: bool = False  # a page failed: what it did not show proves nothing


@attrs.define
class Sweeper:
    """Reads the list in rounds: `plan` begins one, `seen` and `failed` answer, `settle` judges."""

    policy: PollPolicy
    _listing: Listing = attrs.field(init=False, factory=Listing)
    _round: _Round | None = attrs.field(init=False, default=None)
    _gap_until: float = attrs.field(init=False, default=-math.inf)
    _yield: float = attrs.field(init=False, default=1.0)  # part of the expected tasks that is shown
    _fruitless: int = attrs.field(init=False, default=0)
    _unread: int = attrs.field(init=False, default=0)
    _off_until: float = attrs.field(init=False, default=-math.inf)
    _off_for: float = attrs.field(init=False, default=SWEEP_PAUSE)

    @property
    def is_reading(self) -> bool:
        """True while pages are on their way."""
        return self._round is not None and bool(self._round.out)

    def is_off(self, now: float) -> bool:
        """True while the list is not read, since it showed too little."""
        return not self.policy.sweep or now < self._off_until

    def due(self, ripe_at: float) -> float:
        """When the next round may begin for a task that is ripe then."""
        return math.inf if self.is_reading else max(self._gap_until, ripe_at)

    def plan(self, tasks: Collection[Watched], *, now: float, is_eager: bool) -> list[Sweep]:
        """The pages to read now, which count as asked for."""
        if now < self._gap_until or self._round is not None:
            return []
        crowds = self._crowds(tasks, now)
        # What is due in a moment is read along: a round is judged as a whole.
        moment = now + self.policy.min_interval / 2
        pages = [page for page in crowds if self._due(crowds[page], now, is_eager) < moment]
        for task in chain.from_iterable(crowds[page] for page in pages):
            task.swept_at = now
        dues = (self._due(crowd, now, is_eager) for crowd in crowds.values())
        self._gap_until = max(now + self.policy.min_interval, min(dues, default=now))
        if pages:
            expected = sum(len(crowds[page]) for page in pages)
            self._round = _Round(now, len(pages), set(pages), expected)
        return [Sweep(page) for page in sorted(pages)]

    def _crowds(self, tasks: Collection[Watched], now: float) -> dict[int, list[Watched]]:
        """The pages worth reading, and the open tasks expected on them."""
        ripe = [task for task in tasks if task.ripe_at <= now and task.hidden_until <= now]
        younger = sum(1 for task in tasks if task.ripe_at > now)
        crowds = self._listing.expected_pages(ripe, younger=younger, now=now)
        for crowd in crowds.values():
            for task in crowd:
                task.is_alone = len(crowd) == 1
        return {page: crowd for page, crowd in crowds.items() if len(crowd) > 1}

    def _due(self, crowd: Collection[Watched], now: float, is_eager: bool) -> float:
        """When the page that shows *crowd* is to be read again."""
        age = now - max(task.since for task in crowd)
        return max(task.swept_at for task in crowd) + self._gap(len(crowd), age, is_eager)

    def _gap(self, tasks: int, age: float, is_eager: bool) -> float:
        """Seconds between two readings of a page with *tasks* open tasks, the youngest of that age.

        Never more requests than one per task and interval, whatever part of them the page shows.
        """
        least, interval = self.policy.min_interval, self.policy.interval
        gap = max(least, interval / (2 * math.sqrt(tasks)))
        if is_eager:
            return max(least, min(EAGER, gap))
        gap = max(gap, interval / max(1.0, tasks * self._yield))
        return max(gap, min(interval, gap * max(1.0, age / PATIENCE)))

    # --- answers -----------------------------------------------------------------------------

    def seen(
        self, number: int, page: Page[Any], tasks: Mapping[str, Watched], *, now: float
    ) -> list[tuple[Watched, Mapping[str, Any]]]:
        """A page was answered: the watched tasks on it, each with its entry."""
        self._listing.note(page, now)
        shown = []
        for offset, item in enumerate(page.items):
            watched = tasks.get(item.get("id", ""))
            if watched is not None:
                watched.spot = spot(page, offset)
                watched.seen_at, watched.hidden_until = now, -math.inf
                shown.append((watched, item))
        self._page_done(number, len(shown), now=now)
        return shown

    def failed(self, number: int, *, now: float) -> None:
        """A page brought nothing usable."""
        self._page_done(number, 0, now=now, is_broken=True)

    def dropped(self) -> None:
        """A page was abandoned on its way: the whole round proves nothing."""
        self._round = None

    def _page_done(self, number: int, shown: int, *, now: float, is_broken: bool = False) -> None:
        if self._round is not None and number in self._round.out:
            self._round.out.discard(number)
            self._round.found += shown
            self._round.ended_at = now
            self._round.is_broken |= is_broken

    def settle(self, tasks: Collection[Watched], *, now: float) -> None:
        """Close the round, if all its pages have been answered, and see what it was worth."""
        past = self._round
        if past is None or past.out:
            return
        self._round = None
        took = past.ended_at - past.at
        if took > self.policy.interval / 2:  # a small budget: rest, so that peeks have their turn
            self._gap_until = max(self._gap_until, now + min(took, self.policy.interval))
        if not past.is_broken:
            self._yield = min(1.0, max(0.1, past.found / past.expected))
            for task in tasks:
                if task.swept_at == past.at and task.seen_at < past.at:
                    task.hidden_until = now + HIDDEN
        self._judge(past, tasks, now)

    def _judge(self, past: _Round, tasks: Collection[Watched], now: float) -> None:
        """Sweeps must find more than asking by name would: else try the other end, then give up."""
        if past.found >= past.pages:
            self._fruitless, self._unread, self._off_for = 0, 0, SWEEP_PAUSE
            return
        if past.is_broken:
            self._unread += 1
        else:
            self._fruitless += 1
        if self._unread >= UNREAD or self._fruitless > 1:
            self.give_up(tasks, now=now)
        elif self._fruitless and not past.is_broken and self._listing.has_more_pages:
            self._listing.turn()
            _forget_list(tasks)

    def give_up(self, tasks: Collection[Watched], *, now: float) -> None:
        """Leave the list alone for a while, and for longer the next time."""
        self._off_until = now + self._off_for
        self._off_for = min(SWEEP_PAUSE_MAX, 2 * self._off_for)
        self._fruitless = self._unread = 0
        _forget_list(tasks)


def _forget_list(tasks: Collection[Watched]) -> None:
    for task in tasks:
        task.forget_list()
