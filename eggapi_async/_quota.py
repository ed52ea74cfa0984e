"""How many repetitions a client may have outstanding: one bucket of tokens that its calls share.

When a service is down, every call would repeat itself to the end of its policy, and a crowd of them
would hit it many times as hard as in good days. So each repetition takes tokens, and what heals
gives back what it took: hiccups cost nothing, an outage empties the bucket, and from then on an
error is raised the first time. No clock: an empty bucket fills by calls that succeed.
"""

from __future__ import annotations

from typing import Final

import attrs

from ._protocol import is_own_unavailable
from .errors import ConnectionFailedError, EggError, RateLimitedError

CAPACITY: Final = 500
UNSENT: Final = 1
"""Tokens of a repetition of what provably never left: the service was not troubled by it."""
DECLINED: Final = 5
"""Tokens of a repetition of what the service declined: by 429, or by 503 in its own envelope."""
FAILED: Final = 14
"""Tokens of any other repetition: the service may be at its limits."""
EARNED: Final = 1
"""Tokens for an answer that was good at once."""


@attrs.define
class Quota:
    """The tokens that the calls of one client share."""

    tokens: int = CAPACITY

    def draw(self, error: EggError) -> int | None:
        """Take the tokens of a repetition after *error*; None, and none are taken, if too few."""
        cost = _cost(error)
        if cost > self.tokens:
            return None
        self.tokens -= cost
        return cost

    def earn(self, drawn: int) -> None:
        """A call has succeeded that drew so many tokens, or none."""
        self.tokens = min(CAPACITY, self.tokens + (drawn or EARNED))


def _cost(error: EggError) -> int:
    if isinstance(error, RateLimitedError) or is_own_unavailable(error):
        return DECLINED
    if isinstance(error, ConnectionFailedError) and not error.was_sent:
        return UNSENT
    return FAILED
