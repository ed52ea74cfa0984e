"""Whether to try again, and after how long: a table of sentences."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eggapi_async._retry import THROTTLED_BASE, Patience, RetryPolicy, next_delay
from eggapi_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ConfigurationError,
    ConnectionFailedError,
    DownloadError,
    EggError,
    InsufficientBalanceError,
    InvalidRequestError,
    JournalError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    TaskFailedError,
    TaskTimeoutError,
    UnexpectedResponseError,
    WebhookVerificationError,
)
from eggapi_async.models import GenerationRequest, TaskSnapshot

NOW = datetime(2024, 1, 15, tzinfo=UTC)
LOST = SubmissionUncertainError(
    "lost", request=GenerationRequest(prompt="A cat"), sent_at=NOW, lost_at=NOW
)
RESET = ConnectionFailedError("reset")
BROKEN = ServerError("broken", status_code=500)
BUSY = RateLimitedError("slow down")
EXCEEDED = BudgetExceededError(
    limit=Decimal("5.00"), spent=Decimal("4.90"), reserved=Decimal("0.08"), asked=Decimal("0.032")
)
ODD = UnexpectedResponseError("expected JSON", status_code=200)


def delay(error: EggError, *, policy: RetryPolicy = RetryPolicy(), **changes: Any) -> float | None:
    """The delay after a first attempt that took no time, with the longest jitter."""
    return next_delay(policy, error, **{"attempt": 1, "spent": 0.0, "jitter": 1.0, **changes})


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        pytest.param(LOST, None, id="a lost paid post is never repeated"),
        pytest.param(RESET, 0.5, id="a failed connection is tried again"),
        pytest.param(
            ConnectionFailedError("timeout", was_sent=True), 0.5, id="also after it was sent"
        ),
        pytest.param(
            ConnectionFailedError("certificate", is_passing=False),
            None,
            id="a certificate that is not trusted will not be trusted later",
        ),
        pytest.param(BROKEN, 0.5, id="a 500 may pass"),
        pytest.param(ServerError("", status_code=503), 0.5, id="a 503 may pass"),
        pytest.param(ServerError("", status_code=599), 0.5, id="any 5xx may pass"),
        pytest.param(APIError("", status_code=408), 0.5, id="a 408 may pass"),
        pytest.param(ODD, 0.5, id="an answer that makes no sense may pass"),
        pytest.param(
            UnexpectedResponseError("a redirect", status_code=302), None, id="a redirect stays one"
        ),
        pytest.param(
            UnexpectedResponseError("not modified", status_code=300), None, id="so does any 3xx"
        ),
        pytest.param(APIError("", status_code=418), None, id="any other 4xx stays one"),
        pytest.param(BadRequestError("", status_code=400), None, id="a bad request stays bad"),
        pytest.param(AuthenticationError("", status_code=401), None, id="a bad key stays bad"),
        pytest.param(PermissionDeniedError("", status_code=403), None, id="a 403 stands"),
        pytest.param(InsufficientBalanceError("", status_code=403), None, id="no money stands"),
        pytest.param(NotFoundError("", status_code=404), None, id="a 404 stands"),
        pytest.param(BUSY, 1.0, id="a 429 waits a second where it names no pause"),
        pytest.param(
            RateLimitedError("", retry_after=7.5), 7.5, id="a 429 waits as long as it asks"
        ),
        pytest.param(RateLimitedError("", retry_after=0.0), 0.0, id="a 429 may ask for no pause"),
        pytest.param(RateLimitedError("", retry_after=119.9), 119.9, id="a long pause is honoured"),
        pytest.param(RateLimitedError("", retry_after=121.0), None, id="too long a pause is told"),
        pytest.param(ConfigurationError(""), None, id="a wrong setting stays wrong"),
        pytest.param(InvalidRequestError("a", 1, "b"), None, id="a wrong request stays wrong"),
        pytest.param(
            TaskFailedError(TaskSnapshot(id="a", status="failed")), None, id="a failed task failed"
        ),
        pytest.param(
            TaskTimeoutError("a", timeout=1, snapshot=None), None, id="a wait that ended has ended"
        ),
        pytest.param(EXCEEDED, None, id="a spent budget is spent"),
        pytest.param(DownloadError("", url=""), None, id="a download has its own patience"),
        pytest.param(JournalError(""), None, id="a broken journal stays broken"),
        pytest.param(WebhookVerificationError(""), None, id="a forged delivery stays forged"),
        pytest.param(EggError(""), None, id="what is unknown is not repeated"),
    ],
)
def test_which_errors_are_worth_another_try(error: EggError, seconds: float | None) -> None:
    """The first failure of a call: how long to wait, or None for never."""
    assert delay(error) == seconds


@pytest.mark.parametrize(
    ("error", "attempt", "seconds"),
    [
        pytest.param(RESET, 1, 0.5, id="the first pause is the base"),
        pytest.param(RESET, 2, 1.0, id="the second is twice as long"),
        pytest.param(RESET, 4, 4.0, id="the fourth eight times"),
        pytest.param(RESET, 5, None, id="five attempts are enough"),
        pytest.param(RESET, 6, None, id="more than enough is enough"),
        pytest.param(BUSY, 2, 2.0, id="a second 429 waits twice as long"),
        pytest.param(BUSY, 5, 16.0, id="the fifth 429 does not end the call"),
        pytest.param(BUSY, 9, 20.0, id="no pause of a 429 is longer than the longest"),
        pytest.param(BUSY, 100_000, 20.0, id="however often it was refused"),
        pytest.param(
            RateLimitedError("", retry_after=3.0), 99, 3.0, id="a pause asked for does not grow"
        ),
    ],
)
def test_pauses_grow(error: EggError, attempt: int, seconds: float | None) -> None:
    """Each failure waits longer than the one before, up to a limit."""
    assert delay(error, attempt=attempt) == seconds


@pytest.mark.parametrize(
    ("error", "spent", "seconds"),
    [
        pytest.param(RESET, 119.5, 0.5, id="the last attempt may begin on the deadline"),
        pytest.param(RESET, 119.6, None, id="no attempt begins after the deadline"),
        pytest.param(BUSY, 119.5, None, id="refusals end at the deadline too"),
        pytest.param(
            RateLimitedError("", retry_after=60.0), 61.0, None, id="a pause beyond it is not begun"
        ),
        pytest.param(RateLimitedError("", retry_after=60.0), 60.0, 60.0, id="one within it is"),
    ],
)
def test_the_deadline(error: EggError, spent: float, seconds: float | None) -> None:
    """Time runs from the first attempt to the beginning of the last."""
    assert delay(error, spent=spent) == seconds


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 0.0), (0.25, 1.0), (1.0, 4.0)])
def test_jitter_takes_part_of_the_whole_pause(jitter: float, seconds: float) -> None:
    """The dice spread the callers over the pause, from nothing to its whole."""
    assert delay(RESET, attempt=4, jitter=jitter) == seconds


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_dice_do_not_shorten_what_was_asked_for(jitter: float) -> None:
    """After a 429 nobody comes early."""
    assert delay(RateLimitedError("", retry_after=3.0), jitter=jitter) == 3.0
    assert delay(BUSY, jitter=jitter) == THROTTLED_BASE


def test_the_policy_decides() -> None:
    """Every number of the policy is used."""
    policy = RetryPolicy(
        max_attempts=3, base_delay=2.0, max_delay=3.0, max_retry_after=10.0, deadline=50.0
    )
    assert delay(RESET, policy=policy) == 2.0
    assert delay(RESET, policy=policy, attempt=2) == 3.0
    assert delay(RESET, policy=policy, attempt=3) is None
    assert delay(RateLimitedError("", retry_after=10.0), policy=policy) == 10.0
    assert delay(RateLimitedError("", retry_after=10.1), policy=policy) is None
    assert delay(BUSY, policy=policy, attempt=5) == 3.0
    assert delay(BUSY, policy=policy, spent=49.5) is None


def test_a_policy_may_try_for_days() -> None:
    """However many attempts there were, the pause is the longest, and no number too big."""
    policy = RetryPolicy(max_attempts=10**9, deadline=float("inf"))
    for attempt in (1024, 1025, 2000, 10**8):
        assert delay(RESET, policy=policy, attempt=attempt, spent=1e6) == 20.0


@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan"), True, "5", None])
@pytest.mark.parametrize(
    "field", ["max_attempts", "base_delay", "max_delay", "max_retry_after", "deadline"]
)
def test_impossible_policies(field: str, value: Any) -> None:
    """A number of the policy is above 0."""
    with pytest.raises(ConfigurationError, match=f"{field}: expected a number above 0, got "):
        RetryPolicy(**{field: value})


def test_the_policy_of_those_who_have_none() -> None:
    """The documented defaults."""
    assert RetryPolicy() == RetryPolicy(5, 0.5, 20.0, 120.0, 120.0)


def test_patience() -> None:
    """A call is bounded by a timeout for each attempt, and by a policy for all."""
    assert Patience() == Patience(30.0, RetryPolicy())
    with pytest.raises(ConfigurationError, match="timeout: expected a number above 0"):
        Patience(timeout=0)


seconds = st.floats(1e-3, 1e6)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 10**6),
    base_delay=seconds,
    max_delay=seconds,
    max_retry_after=seconds,
    deadline=seconds,
)
problems = st.sampled_from([LOST, RESET, BROKEN, BUSY, ODD]) | st.builds(
    RateLimitedError, st.just(""), retry_after=st.floats(0, 1e12)
)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(
    policy=policies,
    error=problems,
    attempt=st.integers(1, 10**6),
    spent=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)
def test_no_pause_is_beyond_what_the_policy_allows(
    policy: RetryPolicy, error: EggError, attempt: int, spent: float, jitter: float
) -> None:
    """Whatever happened, a pause is finite, bounded, and ends before the deadline."""
    pause = next_delay(policy, error, attempt=attempt, spent=spent, jitter=jitter)
    if pause is not None:
        assert error is not LOST
        assert 0 <= pause <= max(policy.max_delay, policy.max_retry_after)
        assert spent + pause <= policy.deadline
