"""The rate as a state machine: fed with times and told what happened, never asked to wait."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eggapi_async._pacing import (
    CLIMB,
    CUT,
    LONGEST_PAUSE,
    POLL_SHARE,
    PROBE,
    SCARCE_POLL_SHARE,
    SOON,
    Pacer,
)

START = 1000.0


@attrs.define
class Road:
    """Requests that leave as soon as the pacer lets them, *late* seconds after their turn.

    The later of two kinds of waiters is asked again at every turn, as the limiter does.
    """

    pacer: Pacer
    now: float = START
    late: Callable[[], float] = lambda: 0.0
    left: list[tuple[float, bool]] = attrs.field(factory=list)

    def wait(self, *, poll: bool) -> float:
        """Let one request leave, while none of the other kind waits; how long it waited."""
        before = self.now
        self._pass(self.pacer.delay(self.now, poll=poll, rivals=False))
        self._go(poll=poll)
        return self.now - before

    def contend(self) -> bool:
        """Both kinds wait: let the one leave whose turn it is; True for a poll."""
        delays = {
            poll: self.pacer.delay(self.now, poll=poll, rivals=True) for poll in (False, True)
        }
        assert sum(delay < math.inf for delay in delays.values()) == 1, "exactly one may go"
        poll = delays[True] < delays[False]
        self._pass(min(delays.values()))
        self._go(poll=poll)
        return poll

    def _pass(self, delay: float) -> None:
        self.now += delay + self.late()

    def _go(self, *, poll: bool) -> None:
        self.pacer.take(self.now, poll=poll)
        self.left.append((self.now, poll))

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.left]


def most_in_a_second(times: list[float]) -> int:
    """The greatest number of *times* in any one second."""
    return max(bisect_left(times, time + 1.0) - index for index, time in enumerate(times))


def polls_among(road: Road, number: int) -> int:
    """How many of the next *number* turns are polls' while both kinds wait."""
    return sum(road.contend() for _ in range(number))


# --- the rate --------------------------------------------------------------------------------


def test_the_first_request_leaves_at_once() -> None:
    """Nobody waits for a rate that was not used."""
    assert Road(Pacer(80.0)).wait(poll=False) == 0.0


def test_requests_are_spaced_evenly() -> None:
    """A burst leaves one by one, a gap apart, from the second on."""
    road = Road(Pacer(10.0))
    waits = [road.wait(poll=False) for _ in range(5)]
    assert waits == pytest.approx([0.0, 0.05, 0.1, 0.1, 0.1])


def test_a_pause_is_not_saved_up() -> None:
    """After an idle hour there is no burst."""
    road = Road(Pacer(10.0))
    road.wait(poll=False)
    road.now += 3600
    assert [road.wait(poll=False) for _ in range(3)] == pytest.approx([0.0, 0.05, 0.1])


def test_who_oversleeps_a_little_loses_no_turn() -> None:
    """A busy event loop wakes 8 ms late, and still sends 80 in a second, never 82."""
    pacer, now, sent = Pacer(80.0), START, []
    while now < START + 10:
        delay = pacer.delay(now, poll=False, rivals=False)
        now += delay + (0.008 if delay and len(sent) % 3 == 0 else 0.0)
        pacer.take(now, poll=False)
        sent.append(now)
    assert len(sent) == pytest.approx(800, abs=2)
    assert max(sum(t <= other < t + 1 for other in sent) for t in sent) <= 81


def test_asking_costs_nothing() -> None:
    """`delay` is a question: only `take` spends a turn."""
    pacer = Pacer(10.0)
    assert [pacer.delay(START, poll=False, rivals=False) for _ in range(3)] == [0.0] * 3


def test_no_rate_means_no_waiting() -> None:
    """Without a limit both kinds leave at once, whoever waits."""
    pacer = Pacer(None)
    for poll in (True, False) * 50:
        assert pacer.delay(START, poll=poll, rivals=True) == 0.0
        pacer.take(START, poll=poll)
    assert pacer.rate == math.inf


@settings(max_examples=80, derandomize=True, deadline=None, database=None)
@given(
    rate=st.integers(1, 100),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["urgent", "poll", "both", "idle", "refused"]), st.floats(0, 0.3)
        ),
        min_size=20,
        max_size=120,
    ),
)
def test_no_second_has_more_than_the_rate_and_one(
    rate: int, steps: list[tuple[str, float]]
) -> None:
    """Whatever comes, pauses, is late or is refused, the rate is kept in every second."""
    road = Road(Pacer(float(rate)))
    for what, seconds in steps:
        road.late = lambda seconds=seconds: seconds / rate  # type: ignore[misc]
        if what == "idle":
            road.now += seconds
        elif what == "both":
            road.contend()
        elif what == "refused":
            road.pacer.refused(road.now, sent_at=road.now, retry_after=seconds)
            road.pacer.answered(road.now + seconds, sent_at=road.now + seconds)
        else:
            road.wait(poll=what == "poll")
    if road.left:
        assert most_in_a_second(road.times) <= rate + 1


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.5, 2.5, 80.0])
def test_the_rate_is_used_up(rate: float) -> None:
    """Those who always wait get the whole rate."""
    road = Road(Pacer(rate))
    for _ in range(200):
        road.wait(poll=False)
    assert 199 / (road.now - START) == pytest.approx(rate, rel=0.01)
    assert most_in_a_second(road.times) <= math.ceil(rate) + 1


# --- two kinds -------------------------------------------------------------------------------


def lateness(times: Iterable[float]) -> Callable[[], float]:
    """The next of *times* at every call, for ever."""
    known = list(times)
    state = iter(range(10**9))
    return lambda: known[next(state) % len(known)]


@pytest.mark.parametrize(
    "late",
    [
        pytest.param([0.0], id="in exact time"),
        pytest.param([0.0001], id="with timers a little late"),
        pytest.param([0.0, 0.0009, 0.0002], id="with timers now and then late"),
        pytest.param([0.0, 0.004, 0.001, 0.0, 0.002], id="with a busy machine"),
    ],
)
@pytest.mark.parametrize(
    ("rate", "share"),
    [(1.0, SCARCE_POLL_SHARE), (19.9, SCARCE_POLL_SHARE), (20.0, POLL_SHARE), (80.0, POLL_SHARE)],
)
def test_polls_have_their_share_while_others_wait(
    rate: float, share: float, late: list[float]
) -> None:
    """A quarter of the rate, less where it is small: neither more of it, nor less."""
    road = Road(Pacer(rate), late=lateness(late))
    assert polls_among(road, 400) == pytest.approx(400 * share, abs=2)


def test_polls_alone_have_the_whole_rate() -> None:
    """Nothing is kept free for those who are not there."""
    road = Road(Pacer(10.0))
    for _ in range(100):
        road.wait(poll=True)
    assert road.now - START == pytest.approx(9.85)


def test_polls_do_not_pay_later_for_having_been_alone() -> None:
    """After an hour of polls alone, they have their quarter as soon as others come."""
    road = Road(Pacer(20.0))
    for _ in range(36_000):
        road.wait(poll=True)
    assert polls_among(road, 40) in (10, 11)


def test_others_do_not_pay_later_either() -> None:
    """After a time without polls, these have no arrears to collect."""
    road = Road(Pacer(20.0))
    for _ in range(1000):
        road.wait(poll=False)
    assert polls_among(road, 40) in (10, 11)


@pytest.mark.parametrize("gap", [0.01, 0.05, 0.2, 1.0])
def test_it_is_always_the_turn_of_exactly_one_kind(gap: float) -> None:
    """Two that look at the clock one after the other never both think it is the other's turn.

    Both would wait for ever: whose turn it is may change by what leaves, never by time alone.
    """
    pacer = Pacer(10.0)
    for step in range(200):
        now = START + step * gap
        early = {poll: pacer.delay(now, poll=poll, rivals=True) for poll in (False, True)}
        late = {poll: pacer.delay(now + 5.0, poll=poll, rivals=True) for poll in (False, True)}
        assert [math.isinf(early[poll]) for poll in early] == [
            math.isinf(late[poll]) for poll in late
        ]
        pacer.take(now, poll=early[True] < early[False])


def test_a_poll_waits_in_line_for_the_cool_down_too() -> None:
    """A cool-down stops both kinds, and the shares hold after it."""
    road = Road(Pacer(80.0))
    polls_among(road, 5)
    road.pacer.refused(road.now, sent_at=road.now, retry_after=3.0)
    before = road.now
    road.contend()
    assert road.now - before == pytest.approx(3.0)
    assert polls_among(road, 40) in (9, 10, 11)


# --- refusals --------------------------------------------------------------------------------


def refused(pacer: Pacer, now: float, retry_after: float | None = None) -> float:
    """Refuse a request that left just now; the cool-down that follows."""
    pacer.refused(now, sent_at=now, retry_after=retry_after)
    return pacer.cooling(now)


def test_no_refusal_no_cool_down() -> None:
    """A fresh pacer is not cooling."""
    assert Pacer(10.0).cooling(START) == 0.0


def test_a_refusal_stops_everybody() -> None:
    """One 429 pauses all requests for as long as it asks."""
    pacer = Pacer(10.0)
    assert refused(pacer, START, 2.5) == 2.5
    assert pacer.delay(START, poll=False, rivals=False) == 2.5
    assert pacer.delay(START + 1, poll=True, rivals=False) == 1.5
    assert pacer.delay(START + 3, poll=True, rivals=False) == 0.0
    assert pacer.cooling(START + 3) == 0.0


@pytest.mark.parametrize("rate", [10.0, None], ids=["with a rate", "without a rate"])
def test_pauses_that_nobody_named_double(rate: float | None) -> None:
    """Refusals in a row wait 1, 2, 4 … seconds, at most 20."""
    pacer, now, pauses = Pacer(rate), START, []
    for _ in range(1200):
        pauses.append(refused(pacer, now))
        now += pauses[-1] + 1.0
    assert pauses[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, 20.0]
    assert set(pauses[6:]) == {LONGEST_PAUSE}


def test_a_success_forgets_the_refusals_before_it() -> None:
    """After an answer the next refusal begins again with a second."""
    pacer = Pacer(10.0)
    refused(pacer, START)
    refused(pacer, START + 10)
    pacer.answered(START + 20, sent_at=START + 19)
    assert refused(pacer, START + 30) == 1.0


def test_an_answer_to_an_older_request_forgets_nothing() -> None:
    """What had left before the refusal says nothing about the limit after it."""
    pacer = Pacer(10.0)
    refused(pacer, START)
    pacer.answered(START + 0.5, sent_at=START - 1)
    assert refused(pacer, START + 10) == 2.0


def test_refusals_of_one_volley_count_once() -> None:
    """Fifty requests under way that are all refused are one refusal."""
    pacer = Pacer(80.0)
    for index in range(50):
        pacer.take(START + index / 80, poll=False)
    for index in range(50):
        pacer.refused(START + 1 + index / 1000, sent_at=START + index / 80, retry_after=None)
    assert pacer.cooling(START + 1) == 1.0
    assert pacer.rate == pytest.approx(CUT * 50, rel=0.05)


def test_the_longest_wish_of_a_volley_counts() -> None:
    """A later refusal of the same volley may ask for more, and never for less."""
    pacer = Pacer(80.0)
    pacer.refused(START, sent_at=START - 1, retry_after=5.0)
    pacer.refused(START + 1, sent_at=START - 1, retry_after=1.0)
    assert pacer.cooling(START) == 5.0
    pacer.refused(START + 1, sent_at=START - 1, retry_after=9.0)
    assert pacer.cooling(START) == 10.0


@pytest.mark.parametrize("rate", [80.0, None], ids=["with a rate", "without a rate"])
def test_a_pause_of_nothing_is_a_pause_that_nobody_named(rate: float | None) -> None:
    """`Retry-After: 0` for ever does not make us ask without a pause."""
    pacer = Pacer(rate)
    assert [refused(pacer, START + second, 0.0) for second in (0, 10, 20)] == [1.0, 2.0, 4.0]


def test_a_refusal_slows_down_to_less_than_was_used() -> None:
    """The limit of a plan is below what was refused, so we go below it."""
    road = Road(Pacer(80.0))
    for _ in range(80):
        road.wait(poll=False)
    refused(road.pacer, road.now)
    assert road.pacer.rate == pytest.approx(CUT * 80, rel=0.02)


@pytest.mark.parametrize("used", [0, 1, 2])
def test_a_refusal_of_few_halves_the_rate(used: int) -> None:
    """Few requests say nothing of the limit: somebody else may have used it up."""
    pacer = Pacer(80.0)
    for number in range(used):
        pacer.take(START - 0.9 + number / 10, poll=False)
    refused(pacer, START)
    assert pacer.rate == 40.0


def test_a_refusal_of_three_in_a_second_tells_the_limit() -> None:
    """From three requests over a second on, what was used is what was too much."""
    pacer = Pacer(80.0)
    for moment in (0.0, 0.4, 0.85):
        pacer.take(START + moment, poll=False)
    refused(pacer, START + 0.9)
    assert pacer.rate == pytest.approx(CUT * 3)


def test_a_refusal_in_a_burst_does_not_cripple_the_rate() -> None:
    """Five requests in the first 60 ms are no five per second; it costs seconds, not minutes."""
    road = Road(Pacer(80.0))
    for _ in range(5):
        road.wait(poll=False)
    refused(road.pacer, road.now)
    assert road.pacer.rate == 40.0
    began = road.now
    while road.pacer.rate < 0.9 * 80.0:
        road.wait(poll=False)
        road.pacer.answered(road.now, sent_at=road.now)
    assert road.now - began < 15.0


def test_refusals_soon_after_one_another_halve_the_rate() -> None:
    """The limit is far below: it is found in a few steps."""
    road = Road(Pacer(80.0))
    rates = []
    for number in (90, 50, 40, 30):
        for _ in range(number):
            road.wait(poll=False)
        road.pacer.refused(road.now, sent_at=road.now, retry_after=0.1)
        rates.append(round(road.pacer.rate))
    assert rates[0] == round(CUT * 80)
    assert all(b <= 0.6 * a for a, b in pairwise(rates))


def test_only_the_last_second_counts_as_used() -> None:
    """What left long before the refusal says nothing of the limit."""
    road = Road(Pacer(80.0))
    for _ in range(80):
        road.wait(poll=False)
    refused(road.pacer, road.now + 1.5)
    assert road.pacer.rate == 40.0


@pytest.mark.parametrize(("rate", "floor"), [(80.0, 0.5), (0.5, 0.5), (0.1, 0.1)])
def test_refusals_leave_a_floor(rate: float, floor: float) -> None:
    """However often it is refused, the rate stays above nothing, and never above its limit."""
    pacer = Pacer(rate)
    for second in range(100):
        refused(pacer, START + second)
    assert pacer.rate == floor


def test_without_a_limit_there_is_no_rate_to_lower() -> None:
    """Without a rate, refusals only pause."""
    pacer = Pacer(None)
    refused(pacer, START)
    pacer.answered(START + 5, sent_at=START + 4)
    assert pacer.rate == math.inf


def test_the_rate_recovers() -> None:
    """After refusals down to the floor, answers bring the whole rate back, and no more."""
    road = Road(Pacer(80.0))
    for second in range(100):
        refused(road.pacer, START + second)
    road.now = START + 200
    slow = road.pacer.rate
    while road.pacer.rate < 80.0:
        road.wait(poll=False)
        road.pacer.answered(road.now, sent_at=road.now)
        assert road.pacer.rate >= slow
        slow = road.pacer.rate
        assert road.now < START + 3600, "within the hour"
    assert road.pacer.rate == 80.0
    assert road.now > START + 600, "and not at once"


def test_many_answers_at_once_do_not_speed_up() -> None:
    """The climb is by time, not by the number of answers, and begins some seconds later."""
    pacer = Pacer(80.0)
    refused(pacer, START)
    for _ in range(1000):
        pacer.answered(START + SOON, sent_at=START + 0.5)
    assert pacer.rate == 40.0
    for _ in range(1000):
        pacer.answered(START + SOON + 1, sent_at=START + 0.5)
    assert pacer.rate == pytest.approx(40.0 * (1 + CLIMB))


def test_near_the_rate_that_was_refused_the_climb_is_slow() -> None:
    """The limit is felt for, not run into."""
    road = Road(Pacer(80.0))
    for _ in range(80):
        road.wait(poll=False)
    refused(road.pacer, road.now)
    road.pacer.answered(road.now + SOON + 1.0, sent_at=road.now + 1)
    near = road.pacer.rate
    road.pacer.answered(road.now + SOON + 2.0, sent_at=road.now + 1)
    assert near >= 0.9 * 80
    assert road.pacer.rate == pytest.approx(near * (1 + PROBE))


def test_a_long_silence_does_not_speed_up() -> None:
    """An hour without requests proves nothing: the climb needs answers."""
    pacer = Pacer(80.0)
    refused(pacer, START)
    pacer.answered(START + 3600, sent_at=START + 3599)
    assert pacer.rate == pytest.approx(40.0 * (1 + CLIMB))
