"""The limiter: a semaphore before the connections, the rate, one cool-down for all.

Whoever wants to send waits in one of two lines: urgent (submissions, and what a caller waits
for) or polls. Only the heads of the lines compete; `_pacing.Pacer` decides between them. A turn is
taken and given back around one request, and never held while sleeping.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import anyio

from ._apart import Signal
from ._home import Home
from ._pacing import Pacer
from .errors import ConfigurationError

__all__ = ["RateLimiter"]


class RateLimiter:
    """At most *concurrency* requests at once and *per_second* requests per second.

    concurrency   requests under way at the same time (downloads are counted apart)
    per_second    requests per second, spread evenly, the few that are due in a twentieth of a
                  second together; None: no limit. After a 429 the rate falls to what the service
                  took in the second before, and is raised again with care

    One limiter may be given to several clients, so that they share a key's limit. A 429 to any of
    them pauses all (`Retry-After` is honoured). Raises ConfigurationError for impossible numbers.
    """

    def __init__(self, concurrency: int = 32, per_second: float | None = 95.0) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigurationError(f"concurrency: expected 1 or more, got {concurrency!r}")
        if per_second is not None and not (_is_number(per_second) and 0 < per_second < 1e6):
            raise ConfigurationError(f"per_second: expected above 0, or None, got {per_second!r}")
        self.concurrency = concurrency
        self.per_second = per_second
        self._home = Home("RateLimiter")
        self._token: object = None
        self._start_afresh()

    def __repr__(self) -> str:
        rate = "no rate limit" if self.per_second is None else f"{self._pacer.rate:.3g}/s"
        waiting = len(self._urgent) + len(self._polls)
        return f"<RateLimiter {self._busy} of {self.concurrency} busy, {waiting} waiting, {rate}>"

    def _start_afresh(self) -> None:
        self._pacer = Pacer(self.per_second)
        self._urgent: OrderedDict[object, Signal] = OrderedDict()
        self._polls: OrderedDict[object, Signal] = OrderedDict()
        self._busy = 0

    async def acquire(self, *, poll: bool = False, again: bool = False) -> None:
        """Wait for a turn: a free place among *concurrency*, and the rate's permission.

        *poll* joins the line of the polls; *again* goes to the head of the urgent one (a request
        that was refused has waited already). Raises WrongLoopError.
        """
        token = self._home.arrive()
        if token != self._token:  # another event loop: its clock and its waiters are not ours
            self._token = token
            self._start_afresh()
        line, rivals = (self._polls, self._urgent) if poll else (self._urgent, self._polls)
        ticket = object()
        signal = line[ticket] = Signal()
        if again:
            line.move_to_end(ticket, last=False)
        try:
            while (wait := self._wait(line, rivals, ticket, poll=poll)) > 0:
                await _wait_for(signal, wait)
            self._pacer.take(anyio.current_time(), poll=poll, urgent=len(self._urgent))
            self._busy += 1
        finally:
            del line[ticket]
            self._wake_heads()

    def _wait(self, line: _Line, rivals: _Line, ticket: object, *, poll: bool) -> float:
        """Seconds until *ticket* may go: 0 now, infinite when somebody else's move comes first."""
        most = min(self.concurrency, self._pacer.most_under_way)
        if next(iter(line)) is not ticket or self._busy >= most:
            return float("inf")
        return self._pacer.delay(anyio.current_time(), poll=poll, rivals=bool(rivals))

    def release(self) -> None:
        """Give the turn back."""
        self._busy -= 1
        self._wake_heads()

    def _wake_heads(self) -> None:
        for line in (self._urgent, self._polls):
            if line:
                line[next(iter(line))].set()

    def refused(self, *, sent_at: float, retry_after: float | None) -> None:
        """A request sent at *sent_at* (`anyio.current_time()`) was answered 429: all cool down."""
        self._pacer.refused(anyio.current_time(), sent_at=sent_at, retry_after=retry_after)
        self._wake_heads()  # the next turn may now be the other line's

    @property
    def pause(self) -> float:
        """Seconds until the cool-down ends; 0 when there is none."""
        return self._pacer.cooling(anyio.current_time())

    def answered(self, *, sent_at: float) -> None:
        """A request sent at *sent_at* was not refused."""
        self._pacer.answered(anyio.current_time(), sent_at=sent_at)


async def _wait_for(signal: Signal, seconds: float) -> None:
    if seconds == float("inf"):  # the most frequent case does without a scope of its own
        await signal.wait()
        return
    with anyio.move_on_after(seconds):
        await signal.wait()


_Line = OrderedDict[object, Signal]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
