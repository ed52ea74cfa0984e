"""What a caller may spend: requests per second, and money.

Its rule: two small machines that get the time as an argument. They refuse nothing themselves, they
say whether it would be too much.
"""

from __future__ import annotations

import heapq
import math
from decimal import Decimal

import attrs

from .tasks import Task


@attrs.define
class Buckets:
    """A token bucket per key: `per_second` requests, and a burst of one second's worth."""

    _per_second: float
    _left: dict[str, tuple[float, float]] = attrs.field(factory=dict, init=False)

    def take(self, key: str, *, now: float) -> bool:
        """Whether a request with this key may pass at unix second `now`; counts it if so."""
        burst = max(1.0, self._per_second)
        tokens, since = self._left.get(key, (burst, now))
        tokens = min(burst, tokens + max(0.0, now - since) * self._per_second)
        # A hair of tolerance: sums of small float steps fall just short of a whole token.
        passed = tokens >= 1.0 - 1e-9
        self._left[key] = (tokens - 1.0 if passed else tokens, now)
        return passed


@attrs.define
class Purse:
    """The balance in US dollars: open tasks hold their price, failed ones give it back."""

    _balance: Decimal
    _held: Decimal = attrs.field(default=Decimal(0), init=False)
    _refunds: list[tuple[float, Decimal]] = attrs.field(factory=list, init=False)

    def covers(self, price: Decimal, *, now: float) -> bool:
        """Whether the balance covers one more task at unix second `now`."""
        while self._refunds and self._refunds[0][0] <= now:
            self._held -= heapq.heappop(self._refunds)[1]
        return self._balance - self._held >= price

    def hold(self, task: Task) -> None:
        """Set the price of a new task aside, until it fails if it does."""
        self._held += task.price
        if task.error and task.completed_at < math.inf:
            heapq.heappush(self._refunds, (task.completed_at, task.price))
