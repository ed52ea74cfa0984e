"""Whom to ask about next: the waiting for any number of tasks as one small state machine.

A round asks by list pages (`Sweep`) where a page is expected to show at least two open tasks, and
by name (`Peek`) for whatever the list does not show. The order of the list, other programs' tasks
in it and pages that shift while they are read matter only for the cost: a task that no page shows
is asked for by name, as often as the service advises. Planning spends the turn, so a poll that
fails half-way needs no clean-up and can never become a hot loop. No I/O, no clock, no dice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from ._listing import Listing, Spot, spot
from ._rhythm import PollPolicy, Rhythm
from .models import Page, TaskSnapshot

PATIENCE: Final = 20.0
"""Seconds of age beyond which the youngest open task stretches the sweeps."""
TRUST: Final = 30.0
"""Seconds for which list entries alone are believed about a task; then it is asked for by name, and
again whenever its age has doubled: a list that lags for ever must not hide a result."""
FEW: Final = 4
"""Tasks up to which each has a rhythm of its own; more are watched by the list anyway."""
PEEKS_AT_ONCE: Final = 64
"""More are not planned before others are answered: a small budget must not be spent on a queue."""
HIDDEN: Final = 15.0
"""Seconds for which a task that its page did not show is asked for by name."""
SWEEP_PAUSE: Final = 30.0
SWEEP_PAUSE_MAX: Final = 300.0
QUIET_MAX: Final = 30.0


@attrs.frozen
class Peek:
    """Ask for one task by name."""

    task_id: str


@attrs.frozen
class Sweep:
    """Read one page of the list."""

    page: int


Ask = Peek | Sweep


@attrs.define(eq=False)
class Watched:
    """What is known of one open task."""

    since: float  # when it was submitted; when it was first watched, if that is not known
    is_ours: bool  # whether *since* is its real age
    ripe_at: float  # when the first look is owed
    due: float  # when the next look by name is owed
    truth_due: float  # until when list entries alone are believed
    rhythm: Rhythm  # of the looks by name
    spot: Spot | None = None  # where a page has shown it
    status: str | None = None  # as last shown
    seen_at: float = -math.inf  # when a list page showed it
    hidden_until: float = -math.inf  # the list did not show it where it was expected
    is_alone: bool = False  # no other open task is expected on its page
    is_asked: bool = False  # a peek is under way


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
class Watchlist:
    """The open tasks that somebody waits for.

    `plan(now)` says whom to ask now, `next_due()` when to plan again; answers come back by
    `seen_page`, `seen` and `failed`.
    """

    policy: PollPolicy
    _tasks: dict[str, Watched] = attrs.field(init=False, factory=dict)
    _listing: Listing = attrs.field(init=False, factory=Listing)
    _round: _Round | None = attrs.field(init=False, default=None)
    _gap_until: float = attrs.field(init=False, default=-math.inf)
    _yield: float = attrs.field(init=False, default=1.0)
    _fruitless: int = attrs.field(init=False, default=0)
    _off_until: float = attrs.field(init=False, default=-math.inf)
    _off_for: float = attrs.field(init=False, default=SWEEP_PAUSE)
    _failures: int = attrs.field(init=False, default=0)
    _quiet_until: float = attrs.field(init=False, default=-math.inf)

    def __len__(self) -> int:
        return len(self._tasks)

    def add(
        self,
        task_id: str,
        *,
        now: float,
        since: float | None,
        known: Watched | None = None,
        rhythm: Callable[[], Rhythm] | None = None,
    ) -> Watched:
        """Watch a task that was submitted at *since* (None: not by us, so look at once).

        *rhythm* gives the looks at it while it is alone; among many it is not asked. *known* is
        what an earlier `add` gave for the same task: looks that it owes are not repeated.
        """
        if not self._tasks:
            self._start_afresh()
        if rhythm is None or len(self._tasks) >= FEW:
            task = known or self._new(now, since, self.policy.advice)
        else:
            task = known or self._new(now, since, rhythm())
        task.is_asked = False
        task.due = min(task.due, now + max(self.policy.interval, task.rhythm.first))
        self._tasks[task_id] = task
        return task

    def _new(self, now: float, since: float | None, rhythm: Rhythm) -> Watched:
        is_ours = since is not None and since <= now
        since = since if since is not None and is_ours else now
        ripe_at = since + self.policy.first_delay if is_ours else now
        return Watched(
            since=since,
            is_ours=is_ours,
            ripe_at=ripe_at,
            due=max(since + rhythm.first, now) if is_ours else now,
            truth_due=now + TRUST,
            rhythm=rhythm,
        )

    def _start_afresh(self) -> None:
        """Forget the times of an earlier batch: they may come from another event loop's clock."""
        self._listing, self._round, self._yield = Listing(), None, 1.0
        self._gap_until = self._off_until = self._quiet_until = -math.inf
        self._failures = self._fruitless = 0
        self._off_for = SWEEP_PAUSE

    def remove(self, task_id: str) -> None:
        """Stop watching a task: it has ended, or nobody waits for it any more."""
        self._tasks.pop(task_id, None)

    # --- planning ----------------------------------------------------------------------------

    def plan(self, now: float) -> list[Ask]:
        """Whom to ask now. Everything in the answer counts as asked."""
        if now < self._quiet_until:
            return []
        self._settle(now)
        return [*self._plan_sweeps(now), *self._plan_peeks(now)]

    def next_due(self, now: float) -> float:
        """When to plan again, as a time; infinite when only answers can bring news."""
        waiting = [task for task in self._tasks.values() if not task.is_asked]
        if len(self._tasks) - len(waiting) >= PEEKS_AT_ONCE:
            return max(self._quiet_until, self._sweep_due(waiting, now))
        named = [task for task in waiting if self._is_by_name(task, now)]
        times = [task.due for task in named]
        times += [task.truth_due for task in waiting]
        times.append(self._sweep_due(waiting, now))
        return max(self._quiet_until, min(times))

    def _sweep_due(self, waiting: list[Watched], now: float) -> float:
        if self._round is not None and self._round.out:
            return math.inf
        listed = [task.ripe_at for task in waiting if not self._is_by_name(task, now)]
        return max(self._gap_until, min(listed, default=math.inf))

    def _is_by_name(self, task: Watched, now: float) -> bool:
        if now < max(task.hidden_until, self._off_until) or task.is_alone:
            return True
        return not self.policy.sweep or len(self._tasks) < 2

    def _plan_peeks(self, now: float) -> list[Ask]:
        under_way = sum(task.is_asked for task in self._tasks.values())
        asks: list[Ask] = []
        for task_id, task in self._tasks.items():
            if under_way + len(asks) >= PEEKS_AT_ONCE:
                break
            if task.is_asked or now < min(task.due, task.truth_due):
                continue
            if now >= task.truth_due or self._is_by_name(task, now):
                task.is_asked = True
                task.due = now + task.rhythm.after(now - task.since)
                task.truth_due = now + max(TRUST, now - task.since)
                asks.append(Peek(task_id))
        return asks

    def _plan_sweeps(self, now: float) -> list[Ask]:
        if not self.policy.sweep or len(self._tasks) < 2:
            return []
        if now < max(self._gap_until, self._off_until) or self._round is not None:
            return []
        listed = [
            task
            for task in self._tasks.values()
            if task.ripe_at <= now and task.hidden_until <= now
        ]
        unripe = sum(1 for task in self._tasks.values() if task.ripe_at > now)
        crowd = self._listing.expected_pages(listed, younger=unripe, now=now)
        pages = sorted(page for page, tasks in crowd.items() if len(tasks) > 1)
        for tasks in crowd.values():
            for task in tasks:
                task.is_alone = len(tasks) == 1
        expected = sum(len(crowd[page]) for page in pages)
        if not expected:
            self._gap_until = now + self.policy.min_interval
            return []
        youngest = now - max(task.since for page in pages for task in crowd[page])
        self._gap_until = now + self._gap(expected, len(pages), youngest)
        self._round = _Round(now, len(pages), set(pages), expected)
        return [Sweep(page) for page in pages]

    def _gap(self, tasks: int, pages: int, youngest: float) -> float:
        """Seconds between two rounds over *tasks* open tasks expected on *pages* pages.

        Never more requests than one per task and interval, whatever part of them the pages show.
        """
        interval = self.policy.interval
        advice = interval * pages / max(1.0, tasks * self._yield)
        gap = max(self.policy.min_interval, interval / (2 * math.sqrt(tasks)), advice)
        return max(gap, min(interval, gap * max(1.0, youngest / PATIENCE)))

    # --- answers -----------------------------------------------------------------------------

    def seen(self, task: TaskSnapshot, *, now: float) -> None:
        """A peek was answered."""
        self._failures = 0
        watched = self._tasks.get(task.id)
        if watched is None:
            return
        watched.is_asked = False
        watched.status = task.status
        if self._was_hidden_by_list(watched, task, now):
            self._give_up_sweeps(now)

    def _was_hidden_by_list(self, watched: Watched, task: TaskSnapshot, now: float) -> bool:
        """True when a page showed the task as open though it had ended well before."""
        if not (watched.is_ours and task.is_final and task.completed_at and task.created_at):
            return False
        took = (task.completed_at - task.created_at).total_seconds()
        return watched.seen_at > watched.since + took + self.policy.interval

    def seen_page(
        self, number: int, page: Page[Mapping[str, Any]], *, now: float
    ) -> list[Mapping[str, Any]]:
        """A page was answered: the entries of watched tasks that changed, as they came."""
        self._failures = 0
        self._listing.note(page, now)
        changed = []
        shown = 0
        for offset, item in enumerate(page.items):
            watched = self._tasks.get(item.get("id", ""))
            if watched is None:
                continue
            shown += 1
            watched.spot = spot(page, offset)
            if self._show(watched, item, now):
                changed.append(item)
        self._page_done(number, shown, now=now)
        return changed

    def _show(self, watched: Watched, item: Mapping[str, Any], now: float) -> bool:
        watched.seen_at = now
        watched.hidden_until = -math.inf
        if item.get("status") == "completed" and not item.get("output"):
            watched.hidden_until = now + HIDDEN  # ended, but only a GET shows the picture
            watched.due = now
            return False
        watched.due = now + self.policy.interval
        is_news = watched.status != item.get("status")
        watched.status = item.get("status")
        return is_news

    def failed(self, ask: Ask, *, now: float) -> None:
        """A poll brought nothing usable. When all of them do, be quiet for longer and longer."""
        if isinstance(ask, Sweep):
            self._page_done(ask.page, 0, now=now, is_broken=True)
        else:
            self.dropped(ask)
        if now >= self._quiet_until:
            self._failures += 1
            quiet = 0.0 if self._failures < 2 else 2.0 ** min(self._failures - 1, 10)
            self._quiet_until = now + min(QUIET_MAX, quiet)

    def dropped(self, ask: Ask) -> None:
        """A poll was abandoned on its way: it proves nothing."""
        if isinstance(ask, Sweep):
            self._round = None
        elif ask.task_id in self._tasks:
            self._tasks[ask.task_id].is_asked = False

    def _page_done(self, page: int, shown: int, *, now: float, is_broken: bool = False) -> None:
        if self._round is not None and page in self._round.out:
            self._round.out.discard(page)
            self._round.found += shown
            self._round.ended_at = now
            self._round.is_broken |= is_broken

    def _settle(self, now: float) -> None:
        """Close the round that has been answered, or that takes too long to wait for."""
        past = self._round
        if past is None or past.out:
            return
        self._round = None
        took = past.ended_at - past.at
        if took > self.policy.interval / 2:  # a small budget: rest, so that peeks have their turn
            self._gap_until = max(self._gap_until, now + min(took, self.policy.interval))
        shown = () if past.is_broken else self._tasks.values()
        for task in shown:
            if task.ripe_at <= past.at and task.seen_at < past.at and not task.is_alone:
                task.hidden_until = now + HIDDEN
        self._yield = min(1.0, max(0.1, past.found / past.expected))
        self._judge(past, now)

    def _judge(self, past: _Round, now: float) -> None:
        """Sweeps must find more than asking by name would: else try the other end, then give up."""
        if past.found >= past.pages:
            self._fruitless, self._off_for = 0, SWEEP_PAUSE
            return
        self._fruitless += 1
        if self._fruitless == 1 and self._listing.has_more_pages:
            self._listing.turn()
            self._unhide()
        elif self._fruitless > 1:
            self._give_up_sweeps(now)

    def _give_up_sweeps(self, now: float) -> None:
        self._off_until = now + self._off_for
        self._off_for = min(SWEEP_PAUSE_MAX, 2 * self._off_for)
        self._fruitless = 0
        self._unhide()

    def _unhide(self) -> None:
        for task in self._tasks.values():
            task.is_alone = False
            task.hidden_until = -math.inf
            task.spot = None
