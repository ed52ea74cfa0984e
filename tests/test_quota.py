"""The quota of repetitions: what each costs, and how the tokens come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eggapi_async import (
    APIError,
    ConnectionFailedError,
    EggError,
    RateLimitedError,
    ServerError,
    UnexpectedResponseError,
)
from eggapi_async._quota import CAPACITY, Quota

ERRORS: dict[str, tuple[EggError, int]] = {
    "a connection that was refused": (ConnectionFailedError("no"), 1),
    "429": (RateLimitedError("no"), 5),
    "429 with a pause": (RateLimitedError("no", retry_after=3.0), 5),
    "a rate limit in an answer of 200": (RateLimitedError("no", status_code=200), 5),
    "503 in the API's own envelope": (
        ServerError("no", status_code=503, code="SERVICE_UNAVAILABLE"),
        5,
    ),
    "503 of a proxy": (ServerError("no", status_code=503), 14),
    "502": (ServerError("no", status_code=502), 14),
    "408": (APIError("no", status_code=408), 14),
    "an answer that broke off": (ConnectionFailedError("no", was_sent=True), 14),
    "an answer that makes no sense": (UnexpectedResponseError("no", status_code=200), 14),
}


@pytest.mark.parametrize(("error", "cost"), ERRORS.values(), ids=ERRORS)
def test_what_a_repetition_costs(error: EggError, cost: int) -> None:
    """The less the service was troubled, the cheaper."""
    quota = Quota()

    assert quota.draw(error) == cost
    assert quota.tokens == CAPACITY - cost


@pytest.mark.parametrize(("error", "cost"), ERRORS.values(), ids=ERRORS)
def test_an_outage_ends_the_repetitions(error: EggError, cost: int) -> None:
    """Where nothing succeeds there are only so many; what is too dear takes nothing."""
    quota = Quota()

    drawn = [quota.draw(error) for _ in range(1000)]

    assert drawn.count(cost) == CAPACITY // cost
    assert drawn.count(None) == 1000 - CAPACITY // cost
    assert quota.tokens == CAPACITY % cost


def test_a_call_that_heals_gives_back_all_that_it_drew() -> None:
    """However often it was repeated."""
    quota = Quota()
    drawn = [quota.draw(RateLimitedError("no")) or 0 for _ in range(4)]

    quota.earn(sum(drawn))

    assert quota.tokens == CAPACITY


def test_good_answers_fill_an_empty_bucket() -> None:
    """One token each, and never more than it holds."""
    quota = Quota(tokens=0)

    for _ in range(5):
        quota.earn(0)
    assert quota.draw(RateLimitedError("no")) == 5
    for _ in range(2 * CAPACITY):
        quota.earn(0)

    assert quota.tokens == CAPACITY


@given(st.lists(st.sampled_from([*ERRORS.values(), None])))
def test_the_tokens_stay_within_their_bounds(moves: list[tuple[EggError, int] | None]) -> None:
    """Whatever fails and succeeds, in any order."""
    quota = Quota()
    debts: list[int] = []
    for move in moves:
        if move is None:
            quota.earn(debts.pop() if debts else 0)
        elif drawn := quota.draw(move[0]):
            debts.append(drawn)
        assert 0 <= quota.tokens <= CAPACITY
        assert quota.tokens + sum(debts) <= CAPACITY
