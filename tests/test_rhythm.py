"""When to look at a lone task: the advice, what is learned, and that it never costs more."""

from __future__ import annotations

import random
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eggapi_async._rhythm import ENOUGH, FRESH, KINDS, REMEMBERED, History, Rhythm, advised, learned

ADVICE = advised(3.0, 5.0)


def past_of(number: int, *, seed: int = 1, median: float = 12.0) -> list[float]:
    """Durations like the published ones."""
    dice = random.Random(seed)
    return [dice.lognormvariate(log(median), 0.446) for _ in range(number)]


@pytest.mark.parametrize(
    ("duration", "looks", "lag"),
    [(1.0, 1, 2.0), (3.0, 1, 0.0), (3.1, 2, 4.9), (8.0, 2, 0.0), (12.0, 3, 1.0), (28.0, 6, 0.0)],
)
def test_the_advice_looks_after_3_s_and_then_every_5_s(
    duration: float, looks: int, lag: float
) -> None:
    """What a task of a given duration costs, and how late its end is seen."""
    assert ADVICE.cost(duration) == pytest.approx((looks, lag))


def test_a_rhythm_is_dense_where_ends_are_likely_and_sparse_after() -> None:
    """Looks at 8, 10, 12, then every 5 s."""
    rhythm = Rhythm(first=8.0, gap=2.0, until=11.0, interval=5.0)

    assert rhythm.cost(7.0) == (1, 1.0)
    assert rhythm.cost(9.0) == (2, 1.0)
    assert rhythm.cost(11.5) == (3, 0.5)
    assert rhythm.cost(13.0) == (4, 4.0)
    assert (rhythm.after(8.0), rhythm.after(12.0)) == (2.0, 5.0)


def test_learned_looks_see_ends_sooner_with_no_more_looks() -> None:
    """On tasks that were not learned from, whatever the fifty were: 0.6 of the advice's lag."""
    later = past_of(2_000, seed=999)
    rhythms = [learned(past_of(50, seed=seed), ADVICE) for seed in range(20)]
    ours = [rhythm.cost(duration) for rhythm in rhythms for duration in later]
    advice = [ADVICE.cost(duration) for duration in later] * len(rhythms)

    assert sum(lag for _, lag in ours) < 0.6 * sum(lag for _, lag in advice)
    assert sum(looks for looks, _ in ours) <= sum(looks for looks, _ in advice)


@pytest.mark.parametrize(
    "durations",
    [[12.0] * 30, [0.0] * 30, [4.0] * 15 + [60.0] * 15, [3.0 * n for n in range(30)]],
    ids=["always the same", "at once", "two kinds as one", "anything"],
)
def test_odd_pasts_are_no_reason_to_look_more_or_later(durations: list[float]) -> None:
    """Where durations have another shape than usual, what was learned must hold on them."""
    rhythm = learned(durations, ADVICE)

    looks, lag = map(sum, zip(*map(rhythm.cost, durations), strict=True))
    most_looks, most_lag = map(sum, zip(*map(ADVICE.cost, durations), strict=True))
    assert (looks, lag) <= (most_looks, most_lag)
    assert lag <= most_lag


@given(st.lists(st.floats(0.0, 400.0), min_size=ENOUGH, max_size=REMEMBERED))
def test_whatever_was_learned_never_costs_more_than_the_advice(durations: list[float]) -> None:
    """On its own past: no more looks, no later."""
    rhythm = learned(durations, ADVICE)

    looks, lag = map(sum, zip(*map(rhythm.cost, durations), strict=True))
    most_looks, most_lag = map(sum, zip(*map(ADVICE.cost, durations), strict=True))
    assert looks <= most_looks
    assert lag <= most_lag + 1e-6
    assert rhythm.first >= ADVICE.first


def test_nothing_is_learned_from_little() -> None:
    """The first tasks of a kind are looked at as the service advises."""
    history = History(ADVICE)
    for duration in past_of(ENOUGH - 1):
        history.note("4k", duration)

    assert history.rhythm("4k") == ADVICE
    history.note("4k", 12.0)
    assert history.rhythm("4k") != ADVICE
    assert history.rhythm("1k") == ADVICE


def test_a_rhythm_is_worked_out_again_now_and_then() -> None:
    """Not at every task, but before it is far behind."""
    history = History(ADVICE)
    for duration in past_of(ENOUGH):
        history.note("4k", duration)
    first = history.rhythm("4k")
    for duration in past_of(FRESH - 1, median=60.0):
        history.note("4k", duration)
    second = history.rhythm("4k")
    history.note("4k", 60.0)

    assert second is first
    assert history.rhythm("4k") is not first


def test_the_history_is_bounded() -> None:
    """A bot that runs for weeks keeps the latest durations of the latest kinds."""
    history = History(ADVICE)
    for kind in range(KINDS + 10):
        for duration in past_of(ENOUGH):
            history.note(kind, duration)

    assert history.rhythm(0) == ADVICE
    assert history.rhythm(KINDS + 9) != ADVICE
    assert len(history._past) == KINDS
