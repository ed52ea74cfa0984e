"""The rate as a state machine: whose turn it is, and how long until then.

Turns are given a few at a time: as many as are due in QUANTUM, so that their requests and answers
share the process's wake-ups; at low rates that is one. In no second more than the rate leave (in
whole quanta, rounded up). Two kinds share the rate: urgent requests (submissions, and what a caller
waits for) go first; polls have a part of it while those wait, the less the more of them wait.

A 429 stops everybody for a while. What the service had taken in the second before tells its limit,
which is not known beforehand: the rate falls below that, and is raised again with care. No clock
and no loop: time comes as an argument.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from typing import Final

import attrs

QUANTUM: Final = 0.05
"""Seconds whose turns are given at once. Each wake-up of an idle process costs as much as a
request; longer would show as lag."""
LATENESS: Final = 0.02
"""Seconds by which a busy event loop may oversleep a turn without losing it: otherwise it would
never reach a high rate. No quantum is shorter than a thirtieth of a second."""
POLL_SHARE: Final = 0.25
"""Part of the rate that polls may take while urgent requests wait."""
LONG_LINE: Final = 2.5
"""Seconds' worth of waiting urgent requests beyond which it is less, as one over the square root. A
poll delays all who wait; what it tells sooner are the few ends since the last. Times to the result
add up to the least where the gaps between polls grow with the root of the line."""
LEAST_POLL_SHARE: Final = 0.08
FLOOR: Final = 0.5
"""Requests per second that refusals never push below."""
TELLING: Final = 3
"""Accepted requests of the second before a refusal from which on they tell the limit."""
CUT: Final = 0.95
"""What a refusal leaves of the rate that was accepted."""
HALF: Final = 0.5
"""What it leaves of the present rate when too little was accepted to tell: somebody else may have
used the limit up."""
SOON: Final = 5.0
"""Seconds after a refusal in which nothing is regained."""
CLIMB: Final = 0.1
"""Part of the rate that is regained per second, up to near the rate that was refused."""
NEAR: Final = 0.9
PATIENCE: Final = 60.0
"""Seconds for which a rate near the one that was refused is kept before more is tried."""
PROBE: Final = 0.005
"""Part of the rate that is then tried per second; more and more, with the square of the time."""
WARM_UP: Final = 1.25
"""Seconds from the first turn in which less than the rate leaves: the first requests make their
connections on the way, and would arrive in one second with those that follow."""
WARM: Final = 0.85
"""The part of it that does."""
FIRST_FEW: Final = 8
"""Requests that may be under way before anything was answered; each answer lets one more."""
REMEMBERED: Final = 5.0
"""Seconds for which accepted requests are remembered: a slow answer, and the second before it."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 20.0


@attrs.define
class Pacer:
    """The rate limit of one key: `per_second` requests (None: no limit).

    `delay` says how long a request must wait, `take` spends a turn, `refused` and `answered` report
    how it went. Times are seconds of one monotonic clock.
    """

    per_second: float | None
    _rate: float = attrs.field(init=False)
    _left: int = attrs.field(init=False, default=0)  # turns of the present quantum
    _until: float = attrs.field(init=False, default=-math.inf)  # the present quantum's end
    _warm_at: float = attrs.field(init=False, default=math.inf)  # when connections are made
    _polls_owe: float = attrs.field(init=False, default=0.0)  # turns, before the next is theirs
    _cool_until: float = attrs.field(init=False, default=-math.inf)
    _cooled_at: float = attrs.field(init=False, default=-math.inf)
    _refusals: int = attrs.field(init=False, default=0)
    _refused_rate: float = attrs.field(init=False, default=math.inf)
    _before: float = attrs.field(init=False, default=math.inf)  # the rate that was refused
    _refused_at: float = attrs.field(init=False, default=-math.inf)  # when that request left
    _is_again: bool = attrs.field(init=False, default=False)  # the refusal followed another
    _climbed_at: float = attrs.field(init=False, default=-math.inf)
    _answers: int = attrs.field(init=False, default=0)  # since the last cool-down began
    _taken: deque[float] = attrs.field(init=False, factory=deque)
    _accepted: deque[float] = attrs.field(init=False, factory=deque)

    def __attrs_post_init__(self) -> None:
        self._rate = self.per_second or math.inf

    @property
    def rate(self) -> float:
        """Requests per second at present: the limit, or less after refusals."""
        return self._rate

    def cooling(self, now: float) -> float:
        """Seconds until the cool-down ends; 0 when there is none."""
        return max(0.0, self._cool_until - now)

    @property
    def most_under_way(self) -> float:
        """Requests that may be under way at once: few until answers show that they are taken."""
        return math.inf if self.per_second is None else FIRST_FEW + self._answers

    # --- turns -------------------------------------------------------------------------------

    def delay(self, now: float, *, poll: bool, rivals: bool) -> float:
        """Seconds until a request may leave; infinite while it is the other kind's turn.

        *rivals*: requests of the other kind are waiting too.
        """
        if rivals and self.per_second is not None and poll != self._is_polls:
            return math.inf
        return max(0.0, max(self._turn(now), self._cool_until) - now)

    @property
    def _is_polls(self) -> bool:
        # Not a question of the time: two that ask one after the other must not each think that it
        # is the other's turn; and in a fleet turns come more slowly than the rate.
        return self._polls_owe <= 0

    def _turn(self, now: float) -> float:
        """When the next turn is to be had, as a time."""
        if self.per_second is None or (self._left > 0 and now < self._until):
            return -math.inf
        rate = self._rate_at(now)
        burst = _burst(rate)
        room = (math.ceil(rate / burst) - 1) * burst  # for others, in the second with this
        if len(self._taken) <= room:
            return self._until
        return max(self._until, self._taken[-1 - room] + 1.0)

    def _rate_at(self, now: float) -> float:
        return self._rate * (WARM if now < self._warm_at else 1.0)

    def take(self, now: float, *, poll: bool, urgent: int = 0) -> None:
        """Spend a turn; *urgent*: how many urgent requests wait."""
        if self.per_second is None:
            return
        self._warm_at = min(self._warm_at, now + WARM_UP)
        if self._left <= 0 or now >= self._until:
            rate = self._rate_at(now)
            self._left = _burst(rate)
            lasts = self._left / rate
            self._until = max(self._until, now - LATENESS) + lasts
        self._left -= 1
        self._taken.append(now)
        _drop_until(self._taken, now - 1.0)
        if poll:  # turns that nobody else wanted are not owed
            self._polls_owe = min(max(self._polls_owe, -0.5), 0.0) + 1.0 / self._poll_share(urgent)
        self._polls_owe -= 1.0

    def _poll_share(self, urgent: int) -> float:
        line = urgent / self._rate
        return max(
            LEAST_POLL_SHARE, POLL_SHARE * min(1.0, math.sqrt(LONG_LINE / (line or LONG_LINE)))
        )

    # --- refusals ----------------------------------------------------------------------------

    def refused(self, now: float, *, sent_at: float, retry_after: float | None) -> None:
        """A 429 came to a request sent at *sent_at*: cool down, and go slower.

        Refusals of requests that had left before the last cool-down began belong to that one.
        """
        if sent_at > self._cooled_at:
            self._refusals += 1
            self._is_again = now < self._cooled_at + SOON
            self._cooled_at, self._answers = now, 0
            self._slow_down(now, sent_at)
        pause = retry_after or self._pause()  # a wish for none could be repeated for ever
        self._cool_until = max(self._cool_until, self._cooled_at + pause, now + (retry_after or 0))

    def _pause(self) -> float:
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 10))

    def _slow_down(self, now: float, sent_at: float) -> None:
        self._climbed_at, self._left = now, 0
        self._before, self._refused_at = self._rate, sent_at
        self._settle()

    def _settle(self) -> None:
        """Go on below what was taken in the second before the refusal."""
        if self.per_second is None:
            return
        accepted = self._most_accepted()
        if self._before >= 1.0 and CUT * self._before <= accepted + 1:
            # All but, maybe, one that crossed the second's edge on its way: the limit is near.
            limit = accepted + 0.5 if self._is_again else self._before
        else:
            limit = accepted if accepted >= (1 if self._is_again else TELLING) else math.inf
        self._refused_rate = min(self._before, limit)
        left = self._refused_rate * (CUT if limit < math.inf else HALF)
        self._rate = max(min(FLOOR, self.per_second), left)

    def _most_accepted(self) -> int:
        """How many were taken of what left in one second that holds the refused request."""
        moments = sorted(self._accepted)
        ends = (self._refused_at, *(m for m in moments if self._refused_at < m <= self._cooled_at))
        return max(bisect_right(moments, end) - bisect_right(moments, end - 1.0) for end in ends)

    def answered(self, now: float, *, sent_at: float) -> None:
        """A request was not refused: forget earlier refusals, and climb back by what time
        allows."""
        self._accepted.append(sent_at)
        _drop_until(self._accepted, now - REMEMBERED)
        if sent_at > self._cooled_at:
            self._refusals = 0
            self._answers += 1
        elif now < self._cooled_at + SOON:
            self._settle()  # it was on its way when another was refused
        if self.per_second is not None and self._rate < self.per_second:
            since = min(1.0, max(0.0, now - max(self._climbed_at, self._cooled_at + SOON)))
            self._rate = min(self.per_second, self._rate * (1.0 + self._pace(now) * since))
            self._climbed_at = now

    def _pace(self, now: float) -> float:
        """Part of the rate to regain per second."""
        if self._rate < NEAR * self._refused_rate:
            return CLIMB
        waited = (now - self._cooled_at) / PATIENCE
        return 0.0 if waited < 1.0 else min(CLIMB, PROBE * waited * waited)


def _burst(rate: float) -> int:
    """How many turns are given at once."""
    return max(1, round(rate * QUANTUM))


def _drop_until(moments: deque[float], horizon: float) -> None:
    while moments and moments[0] <= horizon:
        moments.popleft()
