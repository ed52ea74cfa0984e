"""Whole batches against the benchmarks' fake service, in virtual time: exact, so it is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scenario import Scenario
from benchmarks.simulated import Bucket, FixedWindow, run

ROOT = Path(__file__).parent.parent


def test_a_thousand_callers_settle_at_a_tenth_of_the_rate_they_began_with() -> None:
    """A key of 10 per second, 429 without Retry-After, unknown to a client that starts at 95.

    Other kinds of limits, and longer ways, are asked of the pacer alone (`test_pacing`).
    """
    seen = run(Scenario(1000, limit=10.0))

    assert seen.refused <= 0.05
    assert seen.wall <= 1.15 * seen.ideal


@pytest.mark.parametrize(("latency", "most_wall"), [(0.05, 1.15), (0.5, 1.2)])
def test_five_hundred_on_a_small_key_are_hardly_refused(latency: float, most_wall: float) -> None:
    """5 per second, not known: at most one in fifty is refused, however far the service is.

    Half a second away, requests arrive up to a twentieth earlier or later than they left: near the
    limit some of them meet the second before, and the rate has to leave room.
    """
    seen = run(Scenario(500, limit=5.0, latency=latency))

    assert seen.refused <= 0.02
    assert seen.wall <= most_wall * seen.ideal


def test_under_the_documented_limit_nothing_is_refused_and_little_is_asked() -> None:
    """100 per second: no refusal, at most half a request per task beside its submission."""
    seen = run(Scenario(500, limit=100.0))

    assert seen.refused == 0.0
    assert seen.requests <= 1.5
    assert seen.wall <= 1.05 * seen.ideal
    assert seen.lag_p50 <= 0.35
    assert seen.lag_p95 <= 0.8


def test_a_window_of_the_clock_begins_anew_each_second() -> None:
    """So many in each, wherever they stand in it."""
    gate = FixedWindow(2.0)

    taken = [gate.admits(moment) for moment in (5.8, 5.9, 5.95, 6.0, 6.1, 6.9)]

    assert taken == [True, True, False, True, True, False]


def test_a_bucket_fills_with_time_and_not_beyond() -> None:
    """Two at once after any pause, then one in each half second."""
    gate = Bucket(2.0)

    taken = [gate.admits(moment) for moment in (5.0, 5.0, 5.1, 5.5, 5.6, 60.0, 60.0, 60.0)]

    assert taken == [True, True, False, True, False, True, True, False]


def test_open_tasks_are_small_and_are_cancelled_at_once() -> None:
    """Each keeps four kilobytes beyond what its caller does; none is left behind.

    In a process of its own: what measures coverage keeps things, too.
    """
    program = "import json; from benchmarks import open; print(json.dumps(open.measured(500)))"
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    seen = json.loads(printed)

    assert seen["bytes"] <= 4096
    assert seen["left"] == 0
