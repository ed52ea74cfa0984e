"""What one run is: how many tasks, under which limit, with which company in the list.

Durations are drawn from a lognormal with a seed, by the number of the submission, so that every
contender waits for the very same tasks.
"""

from __future__ import annotations

import math
from itertools import islice
from random import Random

import attrs

MEDIAN = 12.0
"""Seconds that half of the tasks take at most."""
SIGMA = math.log(25 / 12) / 1.645
"""The spread that puts 95 % of the tasks under 25 s."""
OUR_RATE = 95.0
"""Requests per second that this package's client keeps to by itself."""


@attrs.frozen
class Scenario:
    """One run's circumstances. Times in seconds.

    n             tasks started at once, all awaited
    limit         requests per second that the service takes, in any second; None: all
    retry_after   whether a 429 carries `Retry-After: 1`
    foreign       tasks per second that another program with the same key submits
    latency       added to every answer
    longest       durations above it are drawn again; None: as they come
    concurrency   how many of the tasks are open at once; 0: all of them
    """

    n: int
    limit: float | None = None
    retry_after: bool = False
    foreign: float = 0.0
    latency: float = 0.05
    seed: int = 20240115
    longest: float | None = None
    concurrency: int = 0

    def title(self) -> str:
        """The circumstances in words."""
        words = [f"N = {self.n:,}", "no limit" if self.limit is None else f"{self.limit:g}/s"]
        if self.concurrency:
            words.append(f"{self.concurrency} at a time")
        if self.limit is not None:
            words.append("429 with Retry-After" if self.retry_after else "429 without Retry-After")
        if self.foreign:
            words.append(f"{self.foreign:g} foreign tasks per second in the list")
        if self.longest is not None:
            words.append(f"no task above {self.longest:g} s")
        return ", ".join(words)

    def durations(self, count: int) -> list[float]:
        """How long the first *count* tasks take, in the order of submission."""
        dice = Random(self.seed)
        draws = (dice.lognormvariate(math.log(MEDIAN), SIGMA) for _ in iter(int, 1))
        kept = draws if self.longest is None else (d for d in draws if d <= self.longest)
        return list(islice(kept, count))

    def ideal(self) -> float:
        """Seconds until the last task ends, if nothing but the service took time.

        Without a limit all are submitted at once; with one, submission k leaves at k / limit and
        no other request is ever sent. One at a time (or few) they follow each other.
        """
        ends = [0.0] * (self.concurrency or self.n)
        last = 0.0
        for number, duration in enumerate(self.durations(self.n)):
            place = min(range(len(ends)), key=ends.__getitem__) if self.concurrency else number
            start = max(ends[place], 0.0 if self.limit is None else number / self.limit)
            ends[place] = start + duration
            last = max(last, ends[place])
        return last

    def bound(self) -> float:
        """Seconds after which a run counts as not finished."""
        politely = attrs.evolve(self, limit=min(OUR_RATE, self.limit or OUR_RATE)).ideal()
        return max(150.0, 30.0 + 2.5 * self.ideal(), 30.0 + 1.25 * politely)
