"""When to look at a lone task: as the service advises, or where past tasks say that looks pay.

A short history of durations per kind of task lets the first looks fall where ends are likely. On
the history itself the learned looks are never more, on average, than the service's advice; they are
only better placed. No I/O, no clock.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from functools import partial
from statistics import NormalDist, fmean, pstdev
from typing import Any, Final

import attrs

from .errors import ConfigurationError

__all__ = ["PollPolicy"]

ENOUGH: Final = 20
"""Durations of one kind before anything is learned from them."""
REMEMBERED: Final = 60
"""Durations of one kind that are kept, the latest."""
KINDS: Final = 64
"""Kinds that are kept, the latest used."""
FRESH: Final = 10
"""New durations after which a learned rhythm is worked out again."""
GAPS: Final = tuple(1.0 + 0.25 * n for n in range(17))
FIRSTS: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
"""Parts of past tasks that may have ended before the first look."""
LIKELY: Final = 60
"""Durations that stand for what is likely, instead of those that happened to be seen."""
BRIEFEST: Final = 0.5
"""Seconds: times are told in whole ones, and nothing takes none."""
TAIL: Final = 0.98
"""Part of past tasks beyond whose durations the looks go back to the advised interval."""


@attrs.frozen
class Rhythm:
    """Looks at the age of *first*, then every *gap* until the age *until*, then every *interval*.

    All in seconds. The service's advice is the rhythm whose gap is the interval.
    """

    first: float
    gap: float
    until: float
    interval: float

    def after(self, age: float) -> float:
        """Seconds from a look at *age* to the next."""
        return self.gap if age < self.until else self.interval

    def cost(self, duration: float) -> tuple[int, float]:
        """How many looks a task of *duration* takes, and how late its end is seen."""
        if duration <= self.first:
            return 1, self.first - duration
        dense = max(0, math.ceil((min(duration, self.until) - self.first) / self.gap))
        at = self.first + dense * self.gap
        sparse = max(0, math.ceil((duration - at) / self.interval))
        return 1 + dense + sparse, at + sparse * self.interval - duration


def advised(first: float, interval: float) -> Rhythm:
    """The service's advice: a first look, then one every *interval*."""
    return Rhythm(first, interval, 0.0, interval)


def _seconds(low: float, *, or_none: bool = False) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if or_none and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= low:
            raise ConfigurationError(f"{field.name}: expected seconds ≥ {low:g}, got {value!r}")

    return check


@attrs.frozen
class PollPolicy:
    """How open tasks are watched. All times in seconds.

    first_delay   from a task's submission to the first look (the service advises 3 to 5)
    interval      between looks at one task by name (the service advises 5)
    min_interval  between sweeps of the list, however many tasks are open
    sweep         False: never read the list, ask for each task by name
    learn         let a lone task's looks fall where past tasks of its kind ended, once enough have;
                  on average no more looks than the two advised figures give. False: always those
    safety_net    between looks at a task whose end a webhook will tell: one that carries a
                  webhook URL at which deliveries are known to arrive, see `AsyncEggClient`. None:
                  webhooks or not, all tasks are watched alike
    """

    first_delay: float = attrs.field(default=3.0, validator=_seconds(0))
    interval: float = attrs.field(default=5.0, validator=_seconds(0.01))
    min_interval: float = attrs.field(default=0.5, validator=_seconds(0.01))
    sweep: bool = True
    learn: bool = True
    safety_net: float | None = attrs.field(default=60.0, validator=_seconds(0.01, or_none=True))

    @property
    def advice(self) -> Rhythm:
        """The looks at a lone task as far as nothing was learned."""
        return advised(self.first_delay, self.interval)


def learned(durations: Sequence[float], advice: Rhythm) -> Rhythm:
    """The rhythm that would see likely durations end soonest, with no more looks than *advice*.

    Likely are those of a lognormal through *durations*: few of these say little of their own gaps
    and peaks. On themselves, too, it would have been no worse than the advice.
    """
    likely = _likely(durations)
    budget, best_lag = _totals(advice, likely)
    best = advice
    until = likely[int(TAIL * (len(likely) - 1))]
    for part in FIRSTS:
        first = max(advice.first, likely[int(part * len(likely))])
        for gap in GAPS:
            rhythm = Rhythm(first, min(gap, advice.interval), until, advice.interval)
            looks, lag = _totals(rhythm, likely)
            if looks <= budget and lag < best_lag and _is_no_worse(rhythm, advice, durations):
                best, best_lag = rhythm, lag
    return best


def _likely(durations: Sequence[float]) -> list[float]:
    logs = [math.log(max(BRIEFEST, duration)) for duration in durations]
    bell = NormalDist(fmean(logs), pstdev(logs) or 1e-9)
    return [math.exp(bell.inv_cdf((n + 0.5) / LIKELY)) for n in range(LIKELY)]


def _is_no_worse(rhythm: Rhythm, advice: Rhythm, durations: Sequence[float]) -> bool:
    looks, lag = _totals(rhythm, durations)
    most_looks, most_lag = _totals(advice, durations)
    return looks <= most_looks and lag <= most_lag


def _totals(rhythm: Rhythm, durations: Sequence[float]) -> tuple[int, float]:
    costs = [rhythm.cost(duration) for duration in durations]
    return sum(looks for looks, _ in costs), sum(lag for _, lag in costs)


@attrs.define
class _Past:
    durations: deque[float] = attrs.field(factory=partial(deque, maxlen=REMEMBERED))
    unused: int = 0
    rhythm: Rhythm | None = None


@attrs.define
class History:
    """Durations of ended tasks by kind, and the rhythms that follow from them."""

    advice: Rhythm
    _past: OrderedDict[Hashable, _Past] = attrs.field(init=False, factory=OrderedDict)

    def note(self, kind: Hashable, duration: float) -> None:
        """A task of *kind* took *duration* seconds from its submission to its end."""
        past = self._past.setdefault(kind, _Past())
        self._past.move_to_end(kind)
        if len(self._past) > KINDS:
            self._past.popitem(last=False)
        past.durations.append(duration)
        past.unused += 1

    def rhythm(self, kind: Hashable) -> Rhythm:
        """How to look at a task of *kind*."""
        past = self._past.get(kind)
        if past is None or len(past.durations) < ENOUGH:
            return self.advice
        if past.rhythm is None or past.unused >= FRESH:
            past.rhythm, past.unused = learned(past.durations, self.advice), 0
        return past.rhythm
