"""Whom to ask about next: the waiting for any number of tasks as one small state machine.

A round asks by list pages (`Sweep`, see `_sweeping`) where a page is expected to show at least two
open tasks, and by name (`Peek`) for whatever the list does not show, as often as the service
advises. Planning spends the turn, so a poll that fails half-way needs no clean-up and can never
become a hot loop. No I/O, no clock, no dice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from ._rhythm import PollPolicy, Rhythm
from ._sweeping import EAGER, HIDDEN, Sweeper
from ._watched import Ask, Peek, Sweep, Watched
from .models import FINAL, Page, TaskSnapshot

__all__ = ["Ask", "Peek", "Sweep", "Watched", "Watchlist"]

TRUST: Final = 30.0
"""Seconds for which list entries alone are believed about a task; then it is asked for by name, and
again whenever its age has doubled: a list that lags for ever must not hide a result."""
FEW: Final = 4
"""Tasks up to which each has a rhythm of its own; more are watched by the list anyway."""
PEEKS_AT_ONCE: Final = 64
"""More are not planned before others are answered: a small budget must not be spent on a queue."""
QUIET_MAX: Final = 30.0


@attrs.define
class Watchlist:
    """The open tasks that somebody waits for.

    `plan(now)` says whom to ask now, `next_due()` when to plan again; answers come back by
    `seen_page`, `seen` and `failed`.
    """

    policy: PollPolicy
    _tasks: dict[str, Watched] = attrs.field(init=False, factory=dict)
    _sweeper: Sweeper = attrs.field(init=False)
    _spared: float = attrs.field(init=False, default=0.0)  # advised looks that sweeps made needless
    _failures: int = attrs.field(init=False, default=0)
    _quiet_until: float = attrs.field(init=False, default=-math.inf)
    _needs_plan: bool = attrs.field(init=False, default=False)  # after the next answer, whatever

    def __attrs_post_init__(self) -> None:
        self._start_afresh()

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
        net: float | None = None,
    ) -> Watched:
        """Watch a task that was submitted at *since* (None: not by us, so look at once).

        *rhythm* gives the looks at it while it is alone; among many it is not asked. *known* is
        what an earlier `add` gave for the same task: looks that it owes are not repeated. *net* is
        the time between looks, in seconds, where a webhook is expected to tell the end.
        """
        if not self._tasks:
            self._start_afresh()
        if rhythm is None or len(self._tasks) >= FEW:
            task = known or self._new(now, since, self.policy.advice)
        else:
            task = known or self._new(now, since, rhythm())
        task.is_asked = False
        self._tasks[task_id] = task
        if net is not None and task.is_ours:
            _leave_to_webhook(task, net)
            return task
        _hurry(task, now)
        task.due = min(task.due, now + max(self.policy.interval, task.rhythm.first))
        return task

    def hurry(self, now: float) -> None:
        """Webhooks do not come: watch every task as if there were none."""
        for task in self._tasks.values():
            _hurry(task, now)

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
        self._sweeper = Sweeper(self.policy)
        self._spared, self._failures, self._quiet_until = 0.0, 0, -math.inf

    def remove(self, task_id: str) -> None:
        """Stop watching a task: it has ended, or nobody waits for it any more."""
        task = self._tasks.pop(task_id, None)
        if task is not None and task.is_ours and task.seen_at > task.since:
            age = task.seen_at - task.since - self.policy.first_delay
            self._spared += 1 + max(0.0, age) / self.policy.interval

    @property
    def _is_eager(self) -> bool:
        """True for the last few of many, for which the sweeps have spared looks enough."""
        return len(self._tasks) <= FEW and self._spared > 2 * len(self._tasks)

    # --- planning ----------------------------------------------------------------------------

    def plan(self, now: float) -> list[Ask]:
        """Whom to ask now. Everything in the answer counts as asked."""
        if now < self._quiet_until:
            return []
        self._sweeper.settle(self._tasks.values(), now=now)
        asks = [*self._plan_sweeps(now), *self._plan_peeks(now)]
        self._spared = max(0.0, self._spared - len(asks))
        return asks

    def next_due(self, now: float) -> float:
        """When to plan again, as a time; infinite when only answers can bring news."""
        named = ripe = math.inf
        under_way = 0
        all_by_name = self._are_all_by_name(now)
        for task in self._tasks.values():
            if task.is_asked:
                under_way += 1
                continue
            named = min(named, task.truth_due)
            if all_by_name or task.is_by_name(now):
                named = min(named, task.due)
            else:
                ripe = min(ripe, task.ripe_at)
        self._needs_plan = under_way >= PEEKS_AT_ONCE
        named = math.inf if self._needs_plan else named
        return max(self._quiet_until, min(named, self._sweeper.due(ripe)))

    def due_of(self, task_id: str, now: float) -> float:
        """When one task, new here or just asked for, makes another plan necessary."""
        task = self._tasks.get(task_id)
        if self._needs_plan or len(self._tasks) < 2:
            return now
        if task is None:
            return math.inf
        if self._are_all_by_name(now) or task.is_by_name(now):
            return min(task.due, task.truth_due)
        return min(task.truth_due, self._sweeper.due(task.ripe_at))

    @property
    def is_reading(self) -> bool:
        """True while pages of the list are on their way."""
        return self._sweeper.is_reading

    def _are_all_by_name(self, now: float) -> bool:
        return len(self._tasks) < 2 or self._sweeper.is_off(now)

    def _plan_peeks(self, now: float) -> list[Ask]:
        free = PEEKS_AT_ONCE
        owed: list[tuple[str, Watched]] = []
        all_by_name = self._are_all_by_name(now)
        for task_id, task in self._tasks.items():
            if task.is_asked:
                free -= 1
            elif now < task.due and now < task.truth_due:
                continue
            elif all_by_name or now >= task.truth_due or task.is_by_name(now):
                owed.append((task_id, task))
        for _, task in owed[: max(0, free)]:
            task.is_asked = True
            task.due = now + (EAGER if self._is_eager else task.rhythm.after(now - task.since))
            task.truth_due = now + max(TRUST, now - task.since)
        return [Peek(task_id) for task_id, _ in owed[: max(0, free)]]

    def _plan_sweeps(self, now: float) -> list[Sweep]:
        if self._are_all_by_name(now):
            return []
        return self._sweeper.plan(self._tasks.values(), now=now, is_eager=self._is_eager)

    # --- answers -----------------------------------------------------------------------------

    def seen(self, task: TaskSnapshot, *, now: float) -> None:
        """A peek was answered."""
        self._failures = 0
        watched = self._tasks.get(task.id)
        if watched is None:
            return
        watched.is_asked = False
        watched.status = task.status
        if not task.is_final:
            watched.rest(now)
        if self._was_hidden_by_list(watched, task):
            self._sweeper.give_up(self._tasks.values(), now=now)
            self._needs_plan = True

    def _was_hidden_by_list(self, watched: Watched, task: TaskSnapshot) -> bool:
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
        shown = self._sweeper.seen(number, page, self._tasks, now=now)
        return [item for watched, item in shown if self._show(watched, item, now)]

    def _show(self, watched: Watched, item: Mapping[str, Any], now: float) -> bool:
        if item.get("status") == "completed" and not item.get("output"):
            watched.hidden_until = now + HIDDEN  # ended, but only a GET shows the picture
            watched.due = now
            return False
        watched.due = now + (EAGER if self._is_eager else self.policy.interval)
        if item.get("status") not in FINAL:
            watched.rest(now)
        is_news = watched.status != item.get("status")
        watched.status = item.get("status")
        return is_news

    def failed(self, ask: Ask, *, now: float) -> None:
        """A poll brought nothing usable. When all of them do, be quiet for longer and longer."""
        if isinstance(ask, Sweep):
            self._sweeper.failed(ask.page, now=now)
        else:
            self.dropped(ask)
        if now >= self._quiet_until:
            self._failures += 1
            quiet = 0.0 if self._failures < 2 else 2.0 ** min(self._failures - 1, 10)
            self._quiet_until = now + min(QUIET_MAX, quiet)

    def dropped(self, ask: Ask) -> None:
        """A poll was abandoned on its way: it proves nothing."""
        if isinstance(ask, Sweep):
            self._sweeper.dropped()
        elif ask.task_id in self._tasks:
            self._tasks[ask.task_id].is_asked = False


def _leave_to_webhook(task: Watched, net: float) -> None:
    if task.net is None:
        task.net = net
        task.rest(task.since)


def _hurry(task: Watched, now: float) -> None:
    """No webhook is expected any more: *task* is looked at as others are."""
    if task.net is not None:
        task.net, task.is_alone = None, False
        task.ripe_at, task.due, task.truth_due = now, now, now + TRUST
