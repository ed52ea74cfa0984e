"""The rate as a state machine: whose turn it is, and how long until then.

Requests are spaced evenly (a generic cell rate algorithm with less than a gap of tolerance, so that
in no second more than the rate and one leave). Two kinds share the rate: urgent requests
(submissions, and what a caller waits for) go first; polls have at most a quarter of it while those
wait. A 429 stops everybody for a while and lowers the rate, which then climbs back slowly: the
limit of a key's plan is not known beforehand. No clock and no loop: time comes as an argument.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs

LATENESS: Final = 0.02
"""Seconds by which a busy event loop may oversleep a turn without losing it, as far as a rate
allows: otherwise it would never reach a high one."""
POLL_SHARE: Final = 0.25
"""Part of the rate that polls may take while urgent requests wait."""
SCARCE: Final = 20.0
SCARCE_POLL_SHARE: Final = 0.15
"""The same below SCARCE requests per second: there a batch waits for its submissions, not for news
of what was submitted."""
FLOOR: Final = 0.5
"""Requests per second that refusals never push below."""
CUT: Final = 0.85
"""What a refusal leaves of the rate that was really used."""
HALF: Final = 0.5
"""The same when it comes soon after another, or when too little was sent to tell what was used."""
SOON: Final = 5.0
"""Seconds after a refusal in which another one counts as soon, and nothing is regained."""
CLIMB: Final = 0.1
"""Part of the rate that is regained per second, up to near the rate that was last refused."""
PROBE: Final = 0.005
"""The same from there on."""
NEAR: Final = 0.9
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
    _due: float = attrs.field(init=False, default=-math.inf)
    _polls_owe: float = attrs.field(init=False, default=0.0)  # turns, before the next is theirs
    _cool_until: float = attrs.field(init=False, default=-math.inf)
    _cooled_at: float = attrs.field(init=False, default=-math.inf)
    _refusals: int = attrs.field(init=False, default=0)
    _refused_rate: float = attrs.field(init=False, default=math.inf)
    _climbed_at: float = attrs.field(init=False, default=-math.inf)
    _taken: deque[float] = attrs.field(init=False, factory=deque)

    def __attrs_post_init__(self) -> None:
        self._rate = self.per_second or math.inf

    @property
    def rate(self) -> float:
        """Requests per second at present: the limit, or less after refusals."""
        return self._rate

    def cooling(self, now: float) -> float:
        """Seconds until the cool-down ends; 0 when there is none."""
        return max(0.0, self._cool_until - now)

    def delay(self, now: float, *, poll: bool, rivals: bool) -> float:
        """Seconds until a request may leave; infinite while it is the other kind's turn.

        *rivals*: requests of the other kind are waiting too.
        """
        turn = max(self._due, self._cool_until)
        if rivals and self.per_second is not None and poll != self._is_polls:
            return math.inf
        return max(0.0, turn - now)

    @property
    def _is_polls(self) -> bool:
        # Not a question of the time: two that ask one after the other must not each think that it
        # is the other's turn; and in a fleet turns come more slowly than the rate.
        return self._polls_owe <= 0

    def take(self, now: float, *, poll: bool) -> None:
        """Spend a turn."""
        self._taken.append(now)
        while self._taken[0] <= now - 1.0:
            self._taken.popleft()
        gap = 1.0 / self._rate
        tolerance = max(gap / 2, min(LATENESS, 0.9 * gap))
        turn = max(self._due, now - tolerance)
        self._due = turn + gap
        if poll:  # turns that nobody else wanted are not owed
            self._polls_owe = min(max(self._polls_owe, -0.5), 0.0) + 1.0 / self._poll_share
        self._polls_owe -= 1.0

    @property
    def _poll_share(self) -> float:
        return POLL_SHARE if self._rate >= SCARCE else SCARCE_POLL_SHARE

    def refused(self, now: float, *, sent_at: float, retry_after: float | None) -> None:
        """A 429 came to a request sent at *sent_at*: cool down, and go slower.

        Refusals of requests that had left before the last cool-down began belong to that one.
        """
        if sent_at > self._cooled_at:
            self._refusals += 1
            self._slow_down(now)
            self._cooled_at = now
        pause = retry_after or self._pause()  # a wish for none could be repeated for ever
        self._cool_until = max(self._cool_until, self._cooled_at + pause, now + (retry_after or 0))

    def _pause(self) -> float:
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 10))

    def _slow_down(self, now: float) -> None:
        self._climbed_at = now
        if self.per_second is None:
            return
        recent = [moment for moment in self._taken if moment > now - 1.0]
        # A burst's beginning, or a few requests, say nothing of the limit.
        is_telling = len(recent) > 2 and recent[0] < now - 0.8
        self._refused_rate = min(self._rate, len(recent)) if is_telling else self._rate
        is_soon = now < self._cooled_at + SOON
        left = self._refused_rate * (CUT if is_telling and not is_soon else HALF)
        self._rate = max(min(FLOOR, self.per_second), left)

    def answered(self, now: float, *, sent_at: float) -> None:
        """A request was not refused: forget earlier refusals, and climb back by what time
        allows."""
        if sent_at > self._cooled_at:
            self._refusals = 0
        if self.per_second is not None and self._rate < self.per_second:
            since = min(1.0, max(0.0, now - max(self._climbed_at, self._cooled_at + SOON)))
            pace = CLIMB if self._rate < NEAR * self._refused_rate else PROBE
            self._rate = min(self.per_second, self._rate * (1.0 + pace * since))
            self._climbed_at = now
