"""Many who wait for one task take no more polls than one who waits alone."""

from __future__ import annotations

import pytest

from tests.crowd import Crowd, alone, excess, polls


@pytest.mark.parametrize("part", range(4))
def test_a_crowd_asks_as_often_as_one_alone(part: int) -> None:
    """Up to fifty come and go, are cancelled or time out: at most one poll more, and no trace."""
    for seed in range(25 * part, 25 * (part + 1)):
        assert excess(seed) <= 1, f"python -m tests.crowd --seed {seed}"


def test_crowds_differ_and_are_really_asked_for() -> None:
    """Some are large, some polls are cut short, and one alone is polled by the service's advice."""
    crowds = [Crowd.of(seed) for seed in range(100)]

    assert max(len(crowd.members) for crowd in crowds) > 45
    assert {member.leaves for crowd in crowds for member in crowd.members} == {
        "cancelled",
        "by a scope",
        "in time",
        "at the end",
    }
    slow = next(crowd for crowd in crowds if crowd.takes > 60)
    first, second, *_ = polls(alone(slow))
    assert (first, second) == (3.0, 8.0)
