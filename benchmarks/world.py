"""The fake service's state: tasks that end at a time known when they begin, a list, a limit.

It is told the time with every question and keeps no clock. Which dialect asks is not its business.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from datetime import UTC, datetime, timedelta

import attrs

from .scenario import Scenario


@attrs.define(eq=False)
class Job:
    """One task: when it was created, when work on it starts, when it ends (monotonic seconds)."""

    task_id: str
    created: float
    starts: float
    ends: float
    _shown: tuple[str, bytes] = ("", b"")

    def status(self, now: float) -> str:
        """The Egg API's word for how far it is."""
        if now >= self.ends:
            return "completed"
        return "processing" if now >= self.starts else "pending"

    def shown(self, now: float, wall: datetime) -> bytes:
        """The Egg API's task object; *wall* is the wall clock at 0 of the monotonic one."""
        status = self.status(now)
        if self._shown[0] != status:
            self._shown = status, json.dumps(self._fields(status, wall)).encode()
        return self._shown[1]

    def _fields(self, status: str, wall: datetime) -> dict[str, object]:
        fields: dict[str, object] = {
            "id": self.task_id,
            "status": status,
            "model": "nanobanana",
            "type": "image_generate",
            "cost": "$0.0100" if status == "completed" else "$0.00",
            "created_at": _stamp(wall, self.created),
        }
        if status != "pending":
            fields["started_at"] = _stamp(wall, self.starts)
        if status == "completed":
            fields["completed_at"] = _stamp(wall, self.ends)
            fields["output"] = {"url": f"https://cdn.eggapi.ai/{self.task_id}/0.png"}
        return fields


def _stamp(wall: datetime, moment: float) -> str:
    return (wall + timedelta(seconds=moment)).isoformat().replace("+00:00", "Z")


class World:
    """The tasks of one run, and how often it was asked for what."""

    def __init__(self, scenario: Scenario, *, now: float, wall_now: float) -> None:
        self.scenario = scenario
        self.wall = datetime.fromtimestamp(wall_now - now, UTC)
        self.counts: Counter[str] = Counter()
        self.jobs: dict[str, Job] = {}
        self._list: list[Job] = []
        self._own = 0
        self._foreign = 0
        self._durations = scenario.durations(2 * scenario.n + 10_000)
        self._taken: deque[float] = deque()
        self._began: float | None = None

    def admits(self, now: float) -> bool:
        """Whether the limit lets a request in: so many in any one second, refused ones apart."""
        if self.scenario.limit is None:
            return True
        while self._taken and self._taken[0] <= now - 1.0:
            self._taken.popleft()
        if len(self._taken) >= self.scenario.limit:
            self.counts["refused"] += 1
            return False
        self._taken.append(now)
        return True

    def create(self, now: float) -> Job:
        """A new task of the contender."""
        self._add_foreign(now)
        self._own += 1
        return self._add(f"gen_{self._own:08d}", now)

    def _add(self, task_id: str, now: float) -> Job:
        duration = self._durations[(self._own + self._foreign - 1) % len(self._durations)]
        if task_id.startswith("gen_0"):
            duration = self._durations[(self._own - 1) % len(self._durations)]
        job = Job(task_id, now, now + min(1.0, duration / 5), now + duration)
        self.jobs[task_id] = job
        self._list.append(job)
        return job

    def _add_foreign(self, now: float) -> None:
        if self._began is None:
            self._began = now
        while self._foreign < (now - self._began) * self.scenario.foreign:
            self._foreign += 1
            self._add(
                f"gen_f{self._foreign:07d}", self._began + self._foreign / self.scenario.foreign
            )

    def page(self, number: int, per_page: int, now: float) -> tuple[list[Job], int]:
        """A page of the list, newest first, and how many there are in all."""
        self._add_foreign(now)
        total = len(self._list)
        end = total - (number - 1) * per_page
        return self._list[max(0, end - per_page) : max(0, end)][::-1], total

    def report(self) -> bytes:
        """When each of the contender's tasks ended, and the counts, as JSON."""
        ends = {job.task_id: job.ends for job in self._list if not job.task_id.startswith("gen_f")}
        return json.dumps({"ends": ends, "counts": self.counts}).encode()
