"""Whether to try again, and after how long: one pure function over the error and the policy.

Safety is settled before this room is asked: a billing POST whose answer was lost arrives here as
`SubmissionUncertainError`, which is never repeated. No clock, no dice: both come as arguments.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from .errors import (
    APIError,
    ConfigurationError,
    ConnectionFailedError,
    EggError,
    RateLimitedError,
    ServerError,
    UnexpectedResponseError,
)

__all__ = ["RetryPolicy"]

THROTTLED_BASE: Final = 1.0
"""Seconds of the first pause after a 429 that names none: limits are counted per second."""


def _positive(_: object, field: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigurationError(f"{field.name}: expected a number above 0, got {value!r}")


@attrs.frozen
class RetryPolicy:
    """How one call is repeated while that is safe. All times in seconds.

    max_attempts     requests sent for one call at most; refusals by 429 are not counted, since the
                     shared cool-down paces them, but they count in time
    base_delay       the first pause, doubled each time, and drawn between 0 and its whole
    max_delay        no pause is longer
    max_retry_after  a `Retry-After` beyond this raises RateLimitedError at once
    deadline         seconds from a call's first attempt to the start of its last; waiting in line
                     for the first is not counted

    So that an outage is not made worse, all calls of a client (and of those made by `with_options`)
    share a quota of repetitions. What heals gives back what it took, so hiccups are not noticed;
    after about a hundred refusals, or 35 other failures, of which none has healed yet, errors are
    raised the first time, until calls succeed again.
    """

    max_attempts: int = attrs.field(default=5, validator=_positive)
    base_delay: float = attrs.field(default=0.5, validator=_positive)
    max_delay: float = attrs.field(default=20.0, validator=_positive)
    max_retry_after: float = attrs.field(default=120.0, validator=_positive)
    deadline: float = attrs.field(default=120.0, validator=_positive)


@attrs.frozen
class Patience:
    """How hard one call is tried: *timeout* seconds for an attempt, and what *retry* allows."""

    timeout: float = attrs.field(default=30.0, validator=_positive)
    retry: RetryPolicy = RetryPolicy()


def next_delay(
    policy: RetryPolicy, error: EggError, *, attempt: int, spent: float, jitter: float
) -> float | None:
    """Seconds to wait before attempt number *attempt* + 1, or None: the error stands.

    *spent* is the time since the call's first attempt began, *jitter* a throw from 0 to 1.
    """
    delay = _pause(policy, error, attempt, jitter)
    if delay is None or spent + delay > policy.deadline:
        return None
    return delay


def _pause(policy: RetryPolicy, error: EggError, attempt: int, jitter: float) -> float | None:
    if isinstance(error, RateLimitedError):
        return _pause_asked_for(policy, error, attempt)
    if attempt >= policy.max_attempts or not _may_pass(error):
        return None
    return jitter * min(policy.max_delay, policy.base_delay * 2.0 ** min(attempt - 1, 100))


def _pause_asked_for(policy: RetryPolicy, error: RateLimitedError, attempt: int) -> float | None:
    if error.retry_after is None:
        return min(policy.max_delay, THROTTLED_BASE * 2.0 ** min(attempt - 1, 10))
    return error.retry_after if error.retry_after <= policy.max_retry_after else None


def _may_pass(error: EggError) -> bool:
    """True for what time may heal: the network, 5xx, 408, and answers that make no sense."""
    if isinstance(error, ConnectionFailedError):
        return error.is_passing
    if isinstance(error, UnexpectedResponseError):
        return not 300 <= error.status_code < 400
    return isinstance(error, ServerError) or (
        isinstance(error, APIError) and error.status_code == 408
    )
