"""Wherever a submission breaks on the wire, it is bought once at most, and its end is a sound."""

from __future__ import annotations

import asyncio

import pytest

from tests.fault_points import POINTS, Point, play


def test_there_are_points_enough() -> None:
    """More than forty, before, while and after a request is read."""
    assert len(POINTS) >= 80


@pytest.mark.real_time
@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
async def test_a_submission_that_breaks_is_bought_once_at_most(point: Point) -> None:
    """On a fresh connection and on a used one, over lanes and over a client of the caller's."""
    ends = await asyncio.gather(
        *(
            play(point, reused=reused, own_client=own_client)
            for reused in (False, True)
            for own_client in (False, True)
        )
    )
    if point.read is None:
        usual = "declined" if point.is_declined else "uncertain"
        assert set(ends) == {"bought" if point.is_usable or point.is_refusal else usual}
