"""What is remembered for a while, and forgotten in time."""

from __future__ import annotations

from eggapi_async._recent import Recent


def test_what_was_put_is_there_until_it_is_too_old() -> None:
    """Its age counts from the last time it was put."""
    kept: Recent[str, int] = Recent(most=10, seconds=5)
    kept.put("a", 1, now=0)
    assert kept.get("a", now=5) == 1
    assert kept.get("a", now=5.1) is None
    kept.put("a", 2, now=6)
    assert kept.get("a", now=11) == 2
    assert kept.get("b", now=0) is None


def test_the_oldest_go_first() -> None:
    """By number and by age, so that nothing grows for ever."""
    kept: Recent[int, int] = Recent(most=3, seconds=5)
    for number in range(5):
        kept.put(number, number, now=number)
    assert [key for key, _ in kept.items()] == [2, 3, 4]
    kept.put(9, 9, now=8.5)
    assert [key for key, _ in kept.items()] == [4, 9]
    assert len(kept) == 2


def test_what_is_taken_out_is_gone() -> None:
    """And may be taken out again, to no effect."""
    kept: Recent[str, int] = Recent(most=3, seconds=5)
    kept.put("a", 1, now=0)
    assert kept.pop("a") == 1
    assert kept.pop("a") is None


def test_another_clock_starts_all_ages_anew() -> None:
    """As when an event loop follows another."""
    kept: Recent[str, int] = Recent(most=3, seconds=5)
    kept.put("a", 1, now=1000)
    kept.restamp(0)
    assert kept.get("a", now=5) == 1
    assert kept.get("a", now=6) is None
