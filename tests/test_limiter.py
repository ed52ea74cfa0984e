"""The limiter: how many at once, how many a second, who goes first, and that no turn is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eggapi_async import ConfigurationError, RateLimiter
from eggapi_async._pacing import POLL_SHARE
from tests.virtual_time import on_both, run_virtual, run_virtual_trio


@attrs.define
class Desk:
    """People who take turns of a limiter, and a log of who was served when."""

    limiter: RateLimiter
    under_way: int = 0
    most_under_way: int = 0
    served: list[tuple[float, str]] = attrs.field(factory=list)

    async def ask(self, name: str = "", *, takes: float = 0.0, **how: bool) -> None:
        """Take a turn, hold it for so many seconds, and give it back."""
        await self.limiter.acquire(**how)
        try:
            self.served.append((anyio.current_time(), name))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            await anyio.sleep(takes)
        finally:
            self.under_way -= 1
            self.limiter.release()

    async def all(self, *asks: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let all of them ask at once, in this order."""
        async with anyio.create_task_group() as group:
            for ask in asks:
                group.start_soon(ask)
                await anyio.sleep(0)

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.served]

    @property
    def times(self) -> list[float]:
        return [moment for moment, _ in self.served]


def desk(concurrency: int = 1, per_second: float | None = None) -> Desk:
    return Desk(RateLimiter(concurrency, per_second))


def busiest_second(times: list[float]) -> int:
    """The most requests in any window of one second (open at its end)."""
    return max(sum(1 for t in times if start <= t < start + 1.0 - 1e-9) for start in times)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param({"concurrency": 0}, "concurrency", id="nobody at once"),
        pytest.param({"concurrency": -1}, "concurrency", id="fewer than nobody"),
        pytest.param({"concurrency": 2.0}, "concurrency", id="a fraction of a request"),
        pytest.param({"concurrency": True}, "concurrency", id="a truth in the place of a number"),
        pytest.param({"per_second": 0}, "per_second", id="no requests in a second"),
        pytest.param({"per_second": -3.0}, "per_second", id="a negative rate"),
        pytest.param({"per_second": float("nan")}, "per_second", id="a rate that is no number"),
        pytest.param({"per_second": float("inf")}, "per_second", id="an infinite rate"),
        pytest.param({"per_second": "80"}, "per_second", id="a rate in letters"),
        pytest.param({"per_second": True}, "per_second", id="a truth in the place of a rate"),
    ],
)
def test_impossible_numbers_are_refused(arguments: dict[str, Any], named: str) -> None:
    """Limits that make no sense are a ConfigurationError that names the argument."""
    with pytest.raises(ConfigurationError, match=f"^{named}: expected"):
        RateLimiter(**arguments)


async def test_the_repr_shows_the_state() -> None:
    """Who is under way, who waits, and how fast it goes."""
    limiter = RateLimiter(2, per_second=10)
    await limiter.acquire()
    assert repr(limiter) == "<RateLimiter 1 of 2 busy, 0 waiting, 10/s>"
    assert repr(RateLimiter(3, None)) == "<RateLimiter 0 of 3 busy, 0 waiting, no rate limit>"


@on_both
async def test_no_more_than_the_concurrency_are_under_way() -> None:
    """The third of three has to wait when two places are taken."""
    people = desk(2)
    await people.all(*[lambda: people.ask(takes=1)] * 7)
    assert people.most_under_way == 2
    assert [t - people.times[0] for t in people.times] == [0, 0, 1, 1, 2, 2, 3]


@on_both
async def test_no_second_has_more_than_the_rate() -> None:
    """However many come at once, they leave evenly."""
    people = desk(100, per_second=10)
    await people.all(*[people.ask] * 60)
    assert busiest_second(people.times) <= 10
    assert people.times[-1] - people.times[0] == pytest.approx(6.07, abs=0.01)


@on_both
async def test_few_are_under_way_until_answers_come() -> None:
    """Eight at first; each that is answered lets two more go."""
    people = desk(50, per_second=95)

    async def answered() -> None:
        await people.limiter.acquire()
        began = anyio.current_time()
        people.served.append((began, ""))
        await anyio.sleep(1)
        people.limiter.answered(sent_at=began)
        people.limiter.release()

    await people.all(*[answered] * 50)
    waited = [int(moment - people.times[0]) for moment in people.times]
    assert waited == [0] * 8 + [1] * 16 + [2] * 26


@on_both
async def test_without_a_rate_only_the_places_count() -> None:
    """per_second=None lets all who have a place go at once."""
    people = desk(50)
    await people.all(*[people.ask] * 50)
    assert len(set(people.times)) == 1


@on_both
async def test_a_line_is_served_in_its_order() -> None:
    """Who comes first goes first."""
    people = desk(1, per_second=100)
    await people.all(*[lambda n=n: people.ask(str(n), takes=0.1) for n in range(9)])
    assert people.names == list("012345678")


@on_both
async def test_who_was_refused_goes_to_the_head_of_the_line() -> None:
    """`again` has waited already."""
    people = desk(1)
    await people.all(
        lambda: people.ask("first", takes=1),
        lambda: people.ask("second", takes=1),
        lambda: people.ask("again", takes=1, again=True),
    )
    assert people.names == ["first", "again", "second"]


@on_both
async def test_a_poll_may_go_to_the_head_of_the_polls() -> None:
    """The head of the polls is not the head of the submissions."""
    people = desk(1, per_second=2)
    await people.all(
        lambda: people.ask("first", takes=1),
        lambda: people.ask("poll", poll=True),
        lambda: people.ask("first poll", poll=True, again=True),
    )
    assert people.names == ["first", "first poll", "poll"]


@on_both
async def test_submissions_go_before_polls_that_came_earlier() -> None:
    """Polls have their share of the turns while submissions wait, and all of them afterwards."""
    people = desk(100, per_second=20)
    await people.all(
        lambda: people.ask("first"),
        *[lambda: people.ask("poll", poll=True)] * 40,
        *[lambda: people.ask("submit")] * 40,
    )
    last_submission = max(n for n, name in enumerate(people.names) if name == "submit")
    meanwhile = people.names[:last_submission]
    assert meanwhile.count("poll") / len(meanwhile) == pytest.approx(POLL_SHARE, abs=0.05)
    assert set(people.names[last_submission + 1 :]) == {"poll"}
    assert busiest_second(people.times) <= 20


@on_both
async def test_a_refusal_stops_everybody() -> None:
    """After a 429 nobody leaves before the time that it asks for, of neither line."""
    people = desk(5, per_second=10)
    await people.ask("refused")
    now = anyio.current_time()
    people.limiter.refused(sent_at=now, retry_after=30)
    await people.all(*[people.ask, lambda: people.ask(poll=True)] * 3)
    assert min(people.times[1:]) >= now + 30


@on_both
async def test_a_refusal_also_stops_those_who_wait_for_the_rate() -> None:
    """Who had a time already gets a later one."""
    people = desk(5, per_second=0.5)

    async def refuse() -> None:
        await anyio.sleep(0.5)
        people.limiter.refused(sent_at=anyio.current_time(), retry_after=60)

    await people.all(people.ask, people.ask, refuse, lambda: people.ask(poll=True))
    assert [t - people.times[0] for t in people.times][1] == 60.5
    assert len(people.times) == 3


@on_both
async def test_a_refusal_that_turns_the_order_round_loses_nobody() -> None:
    """When the next turn becomes the polls', their head is woken: it had no time to wait for."""
    people = desk(5, per_second=1)

    async def refuse() -> None:
        await anyio.sleep(0.1)
        people.limiter.refused(sent_at=anyio.current_time(), retry_after=60)

    with anyio.fail_after(600):
        await people.all(
            lambda: people.ask("poll", poll=True),
            lambda: people.ask("submit"),
            lambda: people.ask("later poll", poll=True),
            refuse,
        )
    assert sorted(people.names) == ["later poll", "poll", "submit"]


@on_both
async def test_the_rate_falls_with_a_refusal_and_climbs_back() -> None:
    """A refusal costs speed, answers bring it back."""
    limiter = RateLimiter(5, per_second=10)
    limiter.refused(sent_at=anyio.current_time(), retry_after=None)
    slow = limiter._pacer.rate
    assert slow < 10
    await anyio.sleep(10)
    limiter.answered(sent_at=anyio.current_time())
    assert slow < limiter._pacer.rate <= 10


@on_both
async def test_a_cancelled_wait_leaves_the_line() -> None:
    """The next one moves up."""
    people = desk(1)

    async def give_up() -> None:
        with anyio.move_on_after(1):
            await people.ask("impatient")

    await people.all(lambda: people.ask("long", takes=5), give_up, lambda: people.ask("next"))
    assert people.names == ["long", "next"]


async def test_who_is_cancelled_on_being_woken_passes_the_turn_on() -> None:
    """A native cancellation in the very step in which the turn came loses no turn."""
    people = desk(1)
    await people.limiter.acquire()
    first, second = (asyncio.ensure_future(people.ask(name)) for name in ("first", "second"))
    await asyncio.sleep(1)
    people.limiter.release()
    first.cancel()
    await asyncio.wait((first, second), timeout=5)
    assert first.cancelled()
    assert people.names == ["second"]
    assert people.limiter._busy == 0


def test_another_event_loop_begins_afresh() -> None:
    """Waiters and times of a loop that has ended are forgotten; the numbers stay."""
    people = desk(1, per_second=1)

    async def leave_it_taken() -> None:
        await people.limiter.acquire()
        people.limiter.refused(sent_at=anyio.current_time(), retry_after=3600)

    async def ask() -> float:
        began = anyio.current_time()
        await people.ask()
        return anyio.current_time() - began

    run_virtual(leave_it_taken)
    assert run_virtual(ask) == 0
    assert run_virtual_trio(ask) == 0
    assert people.limiter._busy == 0


@attrs.frozen
class Move:
    """What one of a crowd does: when, in which line, for how long, and when it loses patience."""

    at: float
    poll: bool
    again: bool
    takes: float
    patience: float
    is_refused: bool


moves = st.builds(
    Move,
    at=st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.5, 1.0, 3.0]),
    poll=st.booleans(),
    again=st.booleans(),
    takes=st.sampled_from([0.0, 0.05, 0.3, 2.0]),
    patience=st.sampled_from([0.0, 0.05, 0.25, 1.0, 600.0, 600.0]),
    is_refused=st.sampled_from([False] * 9 + [True]),
)


@settings(max_examples=150, deadline=None)
@given(
    crowd=st.lists(moves, min_size=1, max_size=30),
    concurrency=st.integers(1, 4),
    per_second=st.sampled_from([None, 2.0, 10.0]),
    native=st.booleans(),
    on_trio=st.booleans(),
)
def test_no_crowd_breaks_the_limits_or_loses_a_turn(
    crowd: list[Move], concurrency: int, per_second: float | None, native: bool, on_trio: bool
) -> None:
    """Never more at once or in a second than allowed, and all turns are free at the end."""
    people = desk(concurrency, per_second)

    async def act(move: Move) -> None:
        await anyio.sleep(move.at)
        began = anyio.current_time()
        await people.ask(takes=move.takes, poll=move.poll, again=move.again)
        if move.is_refused:
            people.limiter.refused(sent_at=began, retry_after=None)

    async def impatient(move: Move) -> None:
        if native and not on_trio:
            await asyncio.wait((task := asyncio.ensure_future(act(move)),), timeout=move.patience)
            task.cancel()
            await asyncio.wait((task,))
        else:
            with anyio.move_on_after(move.patience):
                await act(move)

    async def program() -> float:
        async with anyio.create_task_group() as group:
            for move in crowd:
                group.start_soon(impatient, move)
        people.limiter._pacer._cool_until = 0.0
        began = anyio.current_time()
        await people.all(*[people.ask] * concurrency)
        return anyio.current_time() - began

    last = (run_virtual_trio if on_trio else run_virtual)(program)
    assert last <= concurrency * 2.1
    assert people.most_under_way <= concurrency
    assert (people.limiter._busy, people.under_way) == (0, 0)
    assert not people.limiter._urgent
    assert not people.limiter._polls
    if per_second is not None:
        assert busiest_second(people.times) <= per_second


def test_a_thousand_seeded_callers_are_all_served_or_gone() -> None:
    """A large crowd with random patience: who stayed was served, and nobody is left."""
    people = desk(8, per_second=200)
    dice = random.Random(8)
    stayed: list[int] = []

    async def caller(number: int) -> None:
        with anyio.move_on_after(dice.choice([0.5, 2.0, 600.0])) as scope:
            await people.ask(str(number), takes=dice.random() * 0.1, poll=dice.random() < 0.5)
        if not scope.cancelled_caught:
            stayed.append(number)

    async def program() -> None:
        async with anyio.create_task_group() as group:
            for number in range(1000):
                group.start_soon(caller, number)

    run_virtual(program)
    assert set(map(str, stayed)) <= set(people.names)
    assert repr(people.limiter).startswith("<RateLimiter 0 of 8 busy, 0 waiting")
    assert people.most_under_way <= 8
