"""What is remembered for a while, and forgotten in time."""

from __future__ import annotations

import pytest

from eggapi_async._recent import SIZE, Marks, Recent, _mark


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


def test_marks_remember_the_latest_texts() -> None:
    """Each costs eight bytes, however long it is."""
    marks = Marks(most=1000)
    for number in range(1500):
        marks.add(f"gen_{number}" * 20)
    assert len(marks) == 1000
    assert len(marks._marks) == 8000
    known = [number for number in range(3000) if f"gen_{number}" * 20 in marks]
    assert known == list(range(500, 1500))


@pytest.mark.parametrize("offset", range(SIZE))
def test_a_mark_across_two_others_is_none(offset: int) -> None:
    """Only what was added as a whole is found, behind such an accident too."""
    marks, mark = Marks(most=10), _mark("an egg")
    marks._marks += bytes(offset) + mark + bytes(SIZE - offset if offset else 0)
    assert ("an egg" in marks) is (offset == 0)
    marks.add("an egg")
    assert "an egg" in marks
    assert "another" not in marks
