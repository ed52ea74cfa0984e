"""The rate as a state machine: fed with times and told what happened, never asked to wait."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eggapi_async._pacing import (
    CLIMB,
    CUT,
    FIRST_FEW,
    LEAST_POLL_SHARE,
    LONG_LINE,
    LONGEST_PAUSE,
    POLL_SHARE,
    PROBE,
    QUANTUM,
    SOON,
    WARM,
    WARM_UP,
    Pacer,
)

START = 1000.0


def steady(per_second: float) -> Pacer:
    """A pacer that has been in use for a while: its connections are made."""
    pacer = Pacer(per_second)
    pacer.take(START - 60.0, poll=False)
    return pacer


@attrs.define
class Road:
    """Requests that leave as soon as the pacer lets them, *late* seconds after their turn.

    The later of two kinds of waiters is asked again at every turn, as the limiter does. *urgent* is
    how many submissions wait.
    """

    pacer: Pacer
    now: float = START
    late: Callable[[], float] = lambda: 0.0
    urgent: int = 0
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
        self.pacer.take(self.now, poll=poll, urgent=self.urgent)
        self.left.append((self.now, poll))

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.left]


def most_in_a_second(times: list[float]) -> int:
    """The greatest number of *times* in any one second."""
    return max(bisect_left(times, time + 1.0) - index for index, time in enumerate(times))


def whole_quanta(rate: float) -> int:
    """The rate, rounded up to what is given at once."""
    quantum = max(1, round(rate * QUANTUM))
    return math.ceil(rate / quantum) * quantum


def polls_among(road: Road, number: int) -> int:
    """How many of the next *number* turns are polls' while both kinds wait."""
    return sum(road.contend() for _ in range(number))


# --- the rate --------------------------------------------------------------------------------


def test_the_first_request_leaves_at_once() -> None:
    """Nobody waits for a rate that was not used."""
    assert Road(Pacer(80.0)).wait(poll=False) == 0.0


def test_requests_are_spaced_evenly() -> None:
    """At a low rate they leave one by one, a gap apart, from the second on."""
    road = Road(steady(10.0))
    waits = [road.wait(poll=False) for _ in range(5)]
    assert waits == pytest.approx([0.0, 0.08, 0.1, 0.1, 0.1])


def test_a_pause_is_not_saved_up() -> None:
    """After an idle hour there is no burst."""
    road = Road(Pacer(10.0))
    road.wait(poll=False)
    road.now += 3600
    assert [road.wait(poll=False) for _ in range(3)] == pytest.approx([0.0, 0.08, 0.1])


@pytest.mark.parametrize(("rate", "together"), [(20.0, 1), (40.0, 2), (80.0, 4), (95.0, 5)])
def test_at_higher_rates_a_few_leave_together(rate: float, together: int) -> None:
    """As many as are due in a twentieth of a second share one wake-up."""
    road = Road(steady(rate))
    for _ in range(10 * together):
        road.wait(poll=False)
    moments = Counter(road.times)
    assert set(moments.values()) == {together}
    gaps = [later - earlier for earlier, later in pairwise(sorted(moments))]
    assert gaps[1:] == pytest.approx([together / rate] * 8)


def test_a_little_less_leaves_while_connections_are_made() -> None:
    """What waits for its connection would arrive in one second with what comes after it."""
    road = Road(Pacer(100.0))
    for _ in range(300):
        road.wait(poll=False)
    begins = bisect_left(road.times, START + WARM_UP)
    assert begins == pytest.approx(WARM * 100 * WARM_UP, abs=8)
    later = [time for time in road.times if time >= START + WARM_UP + 0.1]
    assert (len(later) - 1) / (later[-1] - later[0]) == pytest.approx(100, rel=0.03)


def test_turns_of_a_quantum_that_nobody_took_are_gone() -> None:
    """Who comes late in a quantum still has its turns, but not those of the one before."""
    pacer = Pacer(80.0)
    pacer.take(START, poll=False)
    pacer.take(START + 0.01, poll=False)
    assert pacer.delay(START + 0.02, poll=False, rivals=False) == 0.0
    for _ in range(4):
        assert pacer.delay(START + 10.0, poll=False, rivals=False) == 0.0
        pacer.take(START + 10.0, poll=False)
    assert pacer.delay(START + 10.0, poll=False, rivals=False) > 0.0


def test_who_oversleeps_a_little_loses_no_turn() -> None:
    """A busy event loop wakes 8 ms late, and still sends 80 in a second, never 82."""
    pacer, now = steady(80.0), START
    sent: list[float] = []
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
def test_no_second_has_more_than_the_rate(rate: int, steps: list[tuple[str, float]]) -> None:
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
        assert most_in_a_second(road.times) <= whole_quanta(rate)


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.5, 2.5, 33.0, 80.0, 95.0, 99.0])
def test_the_rate_is_used_up(rate: float) -> None:
    """Those who always wait get the whole rate."""
    road = Road(Pacer(rate))
    for _ in range(2000):
        road.wait(poll=False)
    assert 2000 / (road.now - START) == pytest.approx(rate, rel=0.01)
    assert most_in_a_second(road.times) <= whole_quanta(rate)


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
@pytest.mark.parametrize("rate", [1.0, 19.9, 20.0, 80.0, 95.0])
def test_polls_have_their_share_while_others_wait(rate: float, late: list[float]) -> None:
    """A quarter of the rate: neither more of it, nor less."""
    road = Road(Pacer(rate), late=lateness(late))
    assert polls_among(road, 400) == pytest.approx(400 * POLL_SHARE, abs=2)


@pytest.mark.parametrize("rate", [5.0, 95.0])
@pytest.mark.parametrize(
    ("seconds", "share"),
    [
        (LONG_LINE, POLL_SHARE),
        (4 * LONG_LINE, POLL_SHARE / 2),
        (1000.0, LEAST_POLL_SHARE),
    ],
)
def test_polls_have_less_the_longer_the_line_of_submissions_is(
    rate: float, seconds: float, share: float
) -> None:
    """Each poll delays all who wait: the share falls with the root of their time, to a least."""
    road = Road(Pacer(rate), urgent=round(rate * seconds))
    assert polls_among(road, 600) == pytest.approx(600 * share, rel=0.05)


def test_polls_alone_have_the_whole_rate() -> None:
    """Nothing is kept free for those who are not there."""
    road = Road(steady(10.0))
    for _ in range(100):
        road.wait(poll=True)
    assert road.now - START == pytest.approx(9.88)


def test_polls_do_not_pay_later_for_having_been_alone() -> None:
    """After an hour of polls alone, they have their share as soon as others come."""
    road = Road(Pacer(20.0))
    for _ in range(36_000):
        road.wait(poll=True)
    assert [road.contend() for _ in range(4)] == [False, False, False, True]
    assert polls_among(road, 40) == pytest.approx(40 * POLL_SHARE, abs=1)


def test_others_do_not_pay_later_either() -> None:
    """After a time without polls, these have no arrears to collect."""
    road = Road(Pacer(20.0))
    for _ in range(1000):
        road.wait(poll=False)
    assert [road.contend() for _ in range(5)] == [True, False, False, False, True]
    assert polls_among(road, 40) == pytest.approx(40 * POLL_SHARE, abs=1)


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
    assert polls_among(road, 40) == pytest.approx(40 * POLL_SHARE, abs=1)


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


def accepted(pacer: Pacer, moments: Iterable[float]) -> None:
    """Requests that left then were taken."""
    for moment in moments:
        pacer.take(moment, poll=False)
        pacer.answered(moment + 0.05, sent_at=moment)


def test_refusals_of_one_volley_count_once() -> None:
    """Fifty requests under way that are all refused are one refusal."""
    pacer = Pacer(80.0)
    accepted(pacer, [START - 0.5 + index / 80 for index in range(20)])
    for index in range(50):
        pacer.take(START + index / 80, poll=False)
    for index in range(50):
        pacer.refused(START + 1 + index / 1000, sent_at=START + index / 80, retry_after=None)
    assert pacer.cooling(START + 1) == 1.0
    assert pacer.rate == pytest.approx(CUT * 20)


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


@pytest.mark.parametrize("limit", [3, 10, 60])
def test_what_was_taken_in_the_second_before_a_refusal_tells_the_limit(limit: int) -> None:
    """The first refusal comes when the limit is used up: so many it was, and we stay below."""
    pacer = Pacer(80.0)
    accepted(pacer, [START + index / 80 for index in range(limit)])
    sent_at = START + limit / 80
    pacer.refused(sent_at + 0.05, sent_at=sent_at, retry_after=None)
    assert pacer.rate == pytest.approx(CUT * limit)


def test_only_the_second_before_counts() -> None:
    """What was taken earlier belongs to another second of the service."""
    pacer = Pacer(80.0)
    accepted(pacer, [START + index / 10 for index in range(40)])
    pacer.refused(START + 4.05, sent_at=START + 4.0, retry_after=None)
    assert pacer.rate == pytest.approx(CUT * 9)


@pytest.mark.parametrize(
    ("taken", "left"), [(20, CUT * 20), (19, CUT * 20), (18, CUT * 20), (17, CUT * 17)]
)
def test_one_that_crossed_the_edge_of_a_second_costs_nothing(taken: int, left: float) -> None:
    """Where all but one or so were taken of what the rate allowed, the limit is near the rate."""
    pacer = Pacer(20.0)
    accepted(pacer, [START - 0.99 + 0.97 * index / taken for index in range(taken)])
    refused(pacer, START)

    assert pacer.rate == pytest.approx(left)


@pytest.mark.parametrize("rate", [1.0, 1.5])
def test_where_one_is_all_that_a_second_holds_the_limit_is_near(rate: float) -> None:
    """A refusal there costs no more than elsewhere."""
    pacer = Pacer(rate)
    accepted(pacer, [START - 0.9])
    refused(pacer, START)
    assert pacer.rate == pytest.approx(CUT * rate)


@pytest.mark.parametrize(("taken", "left"), [(18, CUT * 18.5), (17, CUT * 17), (1, CUT * 1)])
def test_a_second_refusal_soon_is_believed_more(taken: int, left: float) -> None:
    """Of nineteen, where the first left nineteen: the limit is between what was taken and that."""
    pacer = Pacer(20.0)
    accepted(pacer, [START - 0.99 + 0.97 * index / 20 for index in range(20)])
    refused(pacer, START)
    again = START + 3.0
    accepted(pacer, [again - 0.99 + 0.97 * index / taken for index in range(taken)])
    refused(pacer, again)

    assert pacer.rate == pytest.approx(left)


def test_answers_that_come_after_a_refusal_tell_more_of_the_limit() -> None:
    """They were on their way when it came; those that left after it say nothing of it."""
    pacer = Pacer(80.0)
    accepted(pacer, [START + index / 100 for index in range(10)])
    pacer.refused(START + 0.6, sent_at=START + 0.5, retry_after=None)
    assert pacer.rate == pytest.approx(CUT * 10)
    for index in range(8):
        pacer.answered(START + 0.7, sent_at=START + 0.2 + index / 100)
    assert pacer.rate == pytest.approx(CUT * 18)
    pacer.answered(START + 1.7, sent_at=START + 1.65)

    assert pacer.rate == pytest.approx(CUT * 18)


def test_a_measured_limit_never_speeds_up() -> None:
    """Where two seconds of the service's clock were seen as one, the rate still does not rise."""
    pacer = Pacer(20.0)
    accepted(pacer, [START + index / 50 for index in range(40)])
    pacer.refused(START + 0.85, sent_at=START + 0.8, retry_after=None)
    assert pacer.rate == pytest.approx(CUT * 20)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_refusal_of_few_halves_the_rate(taken: int) -> None:
    """Few requests say nothing of the limit: somebody else may have used it up."""
    pacer = Pacer(80.0)
    accepted(pacer, [START - 0.9 + number / 10 for number in range(taken)])
    refused(pacer, START)
    assert pacer.rate == 40.0


def test_few_are_believed_when_they_are_few_again() -> None:
    """A limit of two per second is found at the second refusal, not after six halvings."""
    pacer = Pacer(80.0)
    for start in (START, START + 1.5):
        accepted(pacer, [start, start + 0.01])
        pacer.refused(start + 0.1, sent_at=start + 0.02, retry_after=None)
    assert pacer.rate == pytest.approx(CUT * 2)


def test_few_long_after_are_not() -> None:
    """Another refusal minutes later is a new one."""
    pacer = Pacer(80.0)
    for start in (START, START + SOON + 1.5):
        accepted(pacer, [start, start + 0.01])
        pacer.refused(start + 0.1, sent_at=start + 0.02, retry_after=None)
    assert pacer.rate > 19.0


def test_an_unlucky_refusal_costs_seconds_not_minutes() -> None:
    """Refused while another program had the limit, a client is soon as fast as before."""
    road = Road(Pacer(80.0))
    refused(road.pacer, road.now)
    assert road.pacer.rate == 40.0
    began = road.now
    while road.pacer.rate < 0.9 * 80.0:
        road.wait(poll=False)
        road.pacer.answered(road.now, sent_at=road.now)
    assert road.now - began < 15.0


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


def unrefused(pacer: Pacer, *, since: float, seconds: int) -> None:
    """Answers come, one every tenth of a second."""
    for step in range(10 * seconds):
        moment = since + step / 10
        pacer.answered(moment, sent_at=moment)


@pytest.mark.parametrize("left", [2, 10, 40])
def test_the_rate_recovers(left: int) -> None:
    """A limit that was lifted is found in minutes, however low it was: not at once, and no more
    than the whole rate comes back."""
    pacer = Pacer(80.0)
    pacer.refused(START - 10, sent_at=START - 10, retry_after=None)
    for start in (START, START + 2.0):
        accepted(pacer, [start + index / 100 for index in range(left)])
        pacer.refused(start + 0.6, sent_at=start + 0.5, retry_after=None)
    assert pacer.rate <= left
    unrefused(pacer, since=START + 3, seconds=120)
    assert pacer.rate < 4 * left
    unrefused(pacer, since=START + 123, seconds=180)
    assert pacer.rate == 80.0


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


def test_a_rate_near_the_limit_is_kept_and_then_left_with_care() -> None:
    """For a minute nothing is tried; then a little, and more and more as nothing is refused."""
    pacer = Pacer(80.0)
    accepted(pacer, [START + index / 40 for index in range(20)])
    pacer.refused(START + 0.6, sent_at=START + 0.5, retry_after=None)
    rates = []
    for minute in range(4):
        unrefused(pacer, since=START + 0.7 + 60 * minute, seconds=60)
        rates.append(pacer.rate)
    assert rates[0] == pytest.approx(CUT * 20, rel=0.001)
    gains = [later / earlier for earlier, later in pairwise(rates)]
    assert gains[0] == pytest.approx(math.exp(60 * PROBE * (2**3 - 1) / 3), rel=0.02)
    assert gains[0] < gains[1]
    accepted(pacer, [START + 300])
    assert pacer.rate == 80.0


def test_a_long_silence_does_not_speed_up() -> None:
    """An hour without requests proves nothing: the climb needs answers."""
    pacer = Pacer(80.0)
    refused(pacer, START)
    pacer.answered(START + 3600, sent_at=START + 3599)
    assert pacer.rate == pytest.approx(40.0 * (1 + CLIMB))


# --- an unknown limit ------------------------------------------------------------------------


@attrs.define
class AnySecond:
    """A service that takes so many in any one second."""

    limit: int
    _taken: list[float] = attrs.field(factory=list)

    def takes(self, now: float) -> bool:
        self._taken = [moment for moment in self._taken if moment > now - 1.0]
        if len(self._taken) >= self.limit:
            return False
        self._taken.append(now)
        return True


@attrs.define
class ClocksSecond:
    """A service that takes so many in each second of its clock, which is not ours."""

    limit: int
    _counts: Counter[int] = attrs.field(factory=Counter)

    def takes(self, now: float) -> bool:
        second = math.floor(now + 0.37)
        self._counts[second] += 1
        return self._counts[second] <= self.limit


@attrs.define
class Bucket:
    """A service with a bucket of so many tokens, refilled in a second."""

    limit: int
    _tokens: float = math.inf
    _at: float = START

    def takes(self, now: float) -> bool:
        self._tokens = min(self.limit, self._tokens + (now - self._at) * self.limit)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


Service = AnySecond | ClocksSecond | Bucket


def settle(pacer: Pacer, service: Service, *, number: int, latency: float) -> tuple[float, float]:
    """Seconds until *number* requests were taken, 32 under way at most, and the part refused."""
    now, taken, refusals = START, 0, 0
    under_way: list[tuple[float, float, bool]] = []
    while taken < number:
        wait = pacer.delay(now, poll=False, rivals=False)
        is_full = len(under_way) >= min(32, pacer.most_under_way)
        if under_way and (is_full or under_way[0][0] <= now + wait):
            answered_at, sent_at, is_taken = heappop(under_way)
            now = max(now, answered_at)
            if is_taken:
                taken += 1
                pacer.answered(now, sent_at=sent_at)
            else:
                refusals += 1
                pacer.refused(now, sent_at=sent_at, retry_after=None)
            continue
        now += wait
        pacer.take(now, poll=False)
        heappush(under_way, (now + latency, now, service.takes(now + latency / 2)))
    return now - START, refusals / (taken + refusals)


@pytest.mark.parametrize("kind", [AnySecond, ClocksSecond, Bucket])
@pytest.mark.parametrize("latency", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("limit", "most_refused"), [(2, 0.06), (5, 0.03), (10, 0.025), (20, 0.02)])
def test_an_unknown_limit_is_found_without_a_storm(
    kind: Callable[[int], Service], latency: float, limit: int, most_refused: float
) -> None:
    """Three minutes' work, by a client that takes the limit for 95 per second: within 15 % of the
    least time, and hardly anything is refused, whatever the kind of limit."""
    number = 180 * limit
    took, refused_part = settle(Pacer(95.0), kind(limit), number=number, latency=latency)
    assert took <= 1.15 * number / limit
    assert refused_part <= most_refused


@pytest.mark.parametrize("kind", [AnySecond, ClocksSecond, Bucket])
@pytest.mark.parametrize(("latency", "lost"), [(0.02, 0.3), (0.05, 0.3), (0.2, 0.5)])
def test_a_rate_that_is_never_refused_is_not_slowed_at_the_start(
    kind: Callable[[int], Service], latency: float, lost: float
) -> None:
    """The first two hundred at 80 per second take hardly longer than at a steady pace."""
    took, refused_part = settle(Pacer(80.0), kind(100), number=200, latency=latency)
    assert refused_part == 0.0
    assert took <= 200 / 80 + latency + lost


def test_few_are_under_way_before_anything_was_answered() -> None:
    """Each answer lets one more; a refusal begins again; without a rate there is no such bound."""
    pacer = Pacer(80.0)
    assert pacer.most_under_way == FIRST_FEW
    accepted(pacer, [START] * 3)
    assert pacer.most_under_way == FIRST_FEW + 3
    refused(pacer, START + 1)
    assert pacer.most_under_way == FIRST_FEW
    assert Pacer(None).most_under_way == math.inf


def test_weeks_of_requests_are_forgotten() -> None:
    """What is remembered is the last seconds, whatever their number: nothing grows for ever."""
    pacer = Pacer(per_second=10.0)
    for number in range(1000):
        now = START + number
        pacer.take(now, poll=False)
        pacer.answered(now, sent_at=now)
    remembered = [
        len(kept) for kept in attrs.astuple(pacer, recurse=False) if hasattr(kept, "popleft")
    ]
    assert len(remembered) == 2
    assert remembered[0] == 1
    assert remembered[1] == 5
