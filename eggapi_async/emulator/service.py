"""The state of the service: every task of the account, the list, the usage, the balance.

Its rule: what it says is a function of what was submitted and of the time it is told. All keys
belong to one account; other programs of that account submit tasks too, as the clock goes on.
"""

from __future__ import annotations

import random
from bisect import bisect_right, insort
from decimal import Decimal
from typing import Any, Literal, get_args

import attrs

from .answers import RefusedError
from .limits import Purse
from .tasks import End, Task, dollars, new_task, rfc3339

Order = Literal["newest", "oldest", "shuffled", "completed"]


def _created_at(task: Task) -> float:
    return task.created_at


def _completed_at(task: Task) -> float:
    return task.completed_at


@attrs.define(kw_only=True)
class Service:
    """The account. Times are unix seconds, delays seconds, rates tasks per second."""

    _born: float
    _seed: int
    _speed: float = attrs.field(validator=attrs.validators.gt(0))
    _order: Order = attrs.field(validator=attrs.validators.in_(get_args(Order)))
    _foreign_per_second: float
    _list_delay: float
    _get_delay: float
    _purse: Purse | None
    _tasks: list[Task] = attrs.field(factory=list, init=False)
    """In the order of submission."""
    _by_end: list[Task] = attrs.field(factory=list, init=False)
    _by_id: dict[str, Task] = attrs.field(factory=dict, init=False)
    _submitted: int = attrs.field(default=0, init=False)
    _arrived: int = attrs.field(default=0, init=False)
    _dice: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(f"{self._seed}/order")

    def submit(self, fields: dict[str, Any], *, now: float, end: End = "drawn") -> Task:
        """Take a task in, or refuse it if the balance can't cover it."""
        self._let_others_submit(now)
        key = f"{self._seed}/task/{self._submitted}"
        task = new_task(fields, key=key, now=now, speed=self._speed, end=end)
        if self._purse and not self._purse.covers(task.price, now=now):
            raise RefusedError(403, "INSUFFICIENT_BALANCE", "the balance does not cover this task")
        self._submitted += 1
        self._add(task)
        return task

    def find(self, task_id: str, *, now: float) -> Task:
        """The task with this id, as the replica that answers knows it."""
        self._let_others_submit(now)
        task = self._by_id.get(task_id)
        if task is None or now < task.created_at + self._get_delay:
            raise RefusedError(404, "NOT_FOUND", "no such task")
        return task

    def known(self, task_id: str) -> Task:
        """The task with this id, whatever the delays; KeyError if there is none."""
        return self._by_id[task_id]

    def made(self, path: str, *, now: float) -> tuple[Task, int]:
        """The completed task that has an output at this path, and the output's number from 1."""
        task = self._by_id.get("gen_" + path.removeprefix("/outputs/").partition("-")[0])
        if task and task.status(now) == "completed" and path in task.output_paths():
            return task, task.output_paths().index(path) + 1
        raise RefusedError(404, "NOT_FOUND", "there is no such output")

    def listed(self, *, page: int, size: int, now: float) -> tuple[list[Task], int]:
        """One page of the list (pages count from 1) in the order of this service, and the total."""
        self._let_others_submit(now)
        total = bisect_right(self._tasks, now - self._list_delay, key=_created_at)
        first, last = _span(page, size=size, total=total)
        if self._order == "newest":
            return self._tasks[total - last : total - first][::-1], total
        if self._order == "oldest":
            return self._tasks[first:last], total
        if self._order == "shuffled":
            # Every request has an order of its own, so any page is just a handful of tasks.
            return [self._tasks[n] for n in self._dice.sample(range(total), last - first)], total
        return self._finished_first(total, now=now)[first:last], total

    def usage(self, *, page: int, size: int, now: float) -> tuple[list[dict[str, Any]], int]:
        """One page of the records of what was billed, the latest first, and the total."""
        billed = self._billed(now)[::-1]
        first, last = _span(page, size=size, total=len(billed))
        return [_record(task) for task in billed[first:last]], len(billed)

    def summary(self, *, now: float) -> list[dict[str, Any]]:
        """What was billed, by model."""
        by_model: dict[str, list[Task]] = {}
        for task in self._billed(now):
            by_model.setdefault(task.model, []).append(task)
        return [_summed(model, tasks) for model, tasks in sorted(by_model.items())]

    def _finished_first(self, total: int, *, now: float) -> list[Task]:
        ended = [task for task in self._tasks[:total] if task.completed_at <= now]
        still_open = [task for task in self._tasks[:total] if task.completed_at > now]
        return sorted(ended, key=_completed_at, reverse=True) + still_open[::-1]

    def _billed(self, now: float) -> list[Task]:
        self._let_others_submit(now)
        ended = bisect_right(self._by_end, now, key=_completed_at)
        return [task for task in self._by_end[:ended] if task.error is None]

    def _let_others_submit(self, now: float) -> None:
        due = int((now - self._born) * self._foreign_per_second)
        while self._arrived < due:
            self._arrived += 1
            moment = self._born + self._arrived / self._foreign_per_second
            self._add(_foreign_task(self._arrived, seed=self._seed, now=moment, speed=self._speed))

    def _add(self, task: Task) -> None:
        insort(self._tasks, task, key=_created_at)
        insort(self._by_end, task, key=_completed_at)
        self._by_id[task.id] = task
        if self._purse:
            self._purse.hold(task)


def _span(page: int, *, size: int, total: int) -> tuple[int, int]:
    first = min(total, (page - 1) * size)
    return first, min(total, first + size)


def _foreign_task(number: int, *, seed: int, now: float, speed: float) -> Task:
    key = f"{seed}/foreign/{number}"
    dice = random.Random(key + "/fields")
    fields: dict[str, Any] = {
        "model": dice.choice(("nanobanana", "nanobanana-pro")),
        "prompt": "A forbidden egg" if dice.random() < 0.04 else "An egg of somebody else",
    }
    return new_task(fields, key=key, now=now, speed=speed)


def _record(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "model": task.model,
        "type": task.type,
        "units": task.units,
        "cost": dollars(task.price),
        "created_at": rfc3339(task.completed_at),
    }


def _summed(model: str, tasks: list[Task]) -> dict[str, Any]:
    return {
        "model": model,
        "total_units": sum(task.units for task in tasks),
        "total_cost": dollars(sum((task.price for task in tasks), Decimal(0))),
        "request_count": len(tasks),
    }
