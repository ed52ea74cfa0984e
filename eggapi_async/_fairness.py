"""Whose turn it is among many users: each at most so many at once and so many in a while.

Turns go round: among those who wait, whoever was served longest ago comes next, so that one user's
hundred requests do not stand before another's one. No clock and no loop: time comes as an argument.
A user who is gone is forgotten when nothing depends on them any more.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Hashable

import attrs


@attrs.define(eq=False)
class Ticket:
    """One turn that was asked for: it waits, is served (at *since*), or has ended.

    *counted_at*: when the user's quota was charged for it.
    """

    key: Hashable
    since: float | None = None
    counted_at: float | None = None


@attrs.define
class _Lane:
    """One user: who waits, how many are served, and when the last turns began."""

    waiting: deque[Ticket] = attrs.field(factory=deque)
    served: int = 0
    begun: deque[float] = attrs.field(factory=deque)


@attrs.define
class Fairness:
    """The rule: *each* at once per user, *quota* begun per user in *per* seconds, *most* in all.

    `ask` takes a ticket or says how long to stay away, `serve` says whose turn has come, `leave`
    gives a ticket back. Times are seconds of one monotonic clock.
    """

    each: int
    quota: int | None
    per: float
    most: int
    served: int = attrs.field(default=0, init=False)
    _busy: OrderedDict[Hashable, _Lane] = attrs.field(factory=OrderedDict, init=False)
    """Users who wait or are served; who was served last is at the end."""
    _resting: OrderedDict[Hashable, _Lane] = attrs.field(factory=OrderedDict, init=False)
    """Users of whom only the quota has to be remembered."""

    @property
    def waiting(self) -> int:
        """How many tickets wait."""
        return sum(len(lane.waiting) for lane in self._busy.values())

    @property
    def remembered(self) -> int:
        """How many users anything is known of."""
        return len(self._busy) + len(self._resting)

    def ask(self, key: Hashable, now: float, *, is_patient: bool) -> Ticket | float:
        """A ticket that waits for its turn; or, where the quota is used up and nobody wants to
        wait that long, the seconds until it is not."""
        self._forget(now)
        away = 0.0 if is_patient else self.away(key, now)
        if away > 0:
            return away
        ticket = Ticket(key)
        lane = self._busy.get(key) or self._busy.setdefault(key, self._resting.pop(key, _Lane()))
        lane.waiting.append(ticket)
        return ticket

    def away(self, key: Hashable, now: float) -> float:
        """Seconds for which the quota allows this user no more; those who wait count as begun."""
        lane = self._busy.get(key) or self._resting.get(key)
        if lane is None or self.quota is None:
            return 0.0
        begun = [*self._recent(lane, now), *([now] * len(lane.waiting))]
        return begun[-self.quota] + self.per - now if len(begun) >= self.quota else 0.0

    def _recent(self, lane: _Lane, now: float) -> deque[float]:
        while lane.begun and lane.begun[0] + self.per <= now:
            lane.begun.popleft()
        return lane.begun

    def serve(self, now: float) -> list[Ticket]:
        """The tickets whose turn has come."""
        served: list[Ticket] = []
        while self.served < self.most and (key := self._next(now)) is not None:
            lane = self._busy[key]
            self._busy.move_to_end(key)
            ticket = lane.waiting.popleft()
            ticket.since = now
            lane.served += 1
            self.served += 1
            if self.quota is not None:
                ticket.counted_at = now
                lane.begun.append(now)
            served.append(ticket)
        return served

    def _next(self, now: float) -> Hashable | None:
        may_go = (key for key, lane in self._busy.items() if self._wait(lane, now) == 0)
        return next(may_go, None)

    def _wait(self, lane: _Lane, now: float) -> float:
        """Seconds until this user's next ticket may be served; infinite until something ends."""
        if lane.waiting and self.quota is not None and len(self._recent(lane, now)) >= self.quota:
            return lane.begun[-self.quota] + self.per - now
        return 0.0 if lane.waiting and lane.served < self.each else math.inf

    def wait(self, ticket: Ticket, now: float) -> float:
        """Seconds until time may make it this ticket's turn; infinite until something ends."""
        return self._wait(self._busy[ticket.key], now) or math.inf

    def position(self, ticket: Ticket) -> int:
        """1 for the ticket that comes next, and so on; 0 when it is served, or has ended."""
        lane = self._busy.get(ticket.key)
        if lane is None or ticket not in lane.waiting:
            return 0
        return self._ahead(ticket.key, lane.waiting.index(ticket)) + 1

    def next_position(self, key: Hashable, now: float) -> int:
        """What `position` would be for a ticket asked for now."""
        lane = self._busy.get(key) or _Lane()
        is_free = lane.served < self.each and self.served < self.most and not lane.waiting
        if is_free and self.away(key, now) == 0:
            return 0
        return self._ahead(key, len(lane.waiting)) + 1

    def _ahead(self, key: Hashable, own: int) -> int:
        """Tickets that are served before the one of *key* that has *own* of its own before it."""
        ahead, turns = own, own + 1  # users before this one in the round have a turn more
        for other, lane in self._busy.items():
            if other == key:
                turns = own
            else:
                ahead += min(len(lane.waiting), turns)
        return ahead

    def leave(self, ticket: Ticket, now: float) -> None:
        """The ticket's turn is over, or it no longer waits."""
        lane = self._busy[ticket.key]
        if ticket.since is None:
            lane.waiting.remove(ticket)
        else:
            lane.served -= 1
            self.served -= 1
        if not lane.waiting and not lane.served:
            del self._busy[ticket.key]
            if self._recent(lane, now):
                self._resting[ticket.key] = lane
        self._forget(now)

    def refund(self, ticket: Ticket) -> None:
        """Let the ticket's turn not count."""
        begun, ticket.counted_at = ticket.counted_at, None
        lane = self._busy[ticket.key]
        if begun is not None and begun in lane.begun:
            lane.begun.remove(begun)

    def _forget(self, now: float) -> None:
        while self._resting:
            key, lane = next(iter(self._resting.items()))
            if self._recent(lane, now):
                return
            del self._resting[key]
