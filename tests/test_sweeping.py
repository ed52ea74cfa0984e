"""Which pages of the list are read, how often, and when the list is left alone: driven by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from eggapi_async import Page, PollPolicy
from eggapi_async._polling import Sweep
from eggapi_async._sweeping import EAGER, SWEEP_PAUSE, SWEEP_PAUSE_MAX, UNREAD, Sweeper
from eggapi_async._watched import Watched
from tests.test_polling import entry
from tests.test_polling import page as page_of

POLICY = PollPolicy()


def open_tasks(number: int, *, since: float = 0.0) -> dict[str, Watched]:
    """So many, all submitted at once, the youngest last."""
    return {
        f"gen_{n}": Watched(
            since=since,
            is_ours=True,
            ripe_at=since + POLICY.first_delay,
            due=math.inf,
            truth_due=math.inf,
            rhythm=POLICY.advice,
        )
        for n in range(number)
    }


def page(ids: Iterable[str], *, number: int = 1, total: int | None = None) -> Page[Any]:
    """A page that shows *ids* as open, of a list as long as *total*."""
    return page_of(*map(entry, ids), number=number, total=total)


def plan(sweeper: Sweeper, tasks: Mapping[str, Watched], now: float) -> list[Sweep]:
    """The pages that are due, for tasks of which none is among the last few."""
    return sweeper.plan(tasks.values(), now=now, is_eager=False)


def a_round(
    sweeper: Sweeper,
    tasks: Mapping[str, Watched],
    shown: Iterable[str] | None,
    *,
    now: float,
    total: int | None = None,
) -> list[Sweep]:
    """One reading of the pages that are due, which all show *shown* (None: none is answered)."""
    asks = plan(sweeper, tasks, now)
    for ask in asks:
        if shown is None:
            sweeper.failed(ask.page, now=now)
        else:
            sweeper.seen(ask.page, page(shown, number=ask.page, total=total), tasks, now=now)
    sweeper.settle(tasks.values(), now=now)
    return asks


# --- how often ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "gap"),
    [(2, 2.5), (3, 5 / 3), (4, 1.25), (9, 5 / 6), (16, 0.625), (25, 0.5), (100, 0.5)],
)
def test_the_more_tasks_are_on_a_page_the_sooner_it_is_read_again(number: int, gap: float) -> None:
    """By their root, never more than one request for each and interval, nor two in a second."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(number)

    assert a_round(sweeper, tasks, tasks, now=3.0) == [Sweep(1)]
    assert sweeper.due(0.0) == pytest.approx(3.0 + gap)


def test_a_page_that_shows_a_part_is_read_less_often() -> None:
    """Of sixteen it shows four, which the others leave alone on it: one look in five seconds."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(16)
    a_round(sweeper, tasks, list(tasks)[:4], now=3.0)

    assert a_round(sweeper, tasks, [], now=3.625) == []
    assert sweeper.due(0.0) == 8.0


def test_a_page_that_shows_more_than_was_expected_is_read_no_more_often() -> None:
    """Two were ripe, two that are not were shown as well."""
    sweeper = Sweeper(POLICY)
    young = {f"young {n}": task for n, task in enumerate(open_tasks(2, since=2.0).values())}
    tasks = {**open_tasks(2), **young}
    a_round(sweeper, tasks, tasks, now=3.0)
    only_old = {task_id: tasks[task_id] for task_id in ("gen_0", "gen_1")}

    assert a_round(sweeper, only_old, only_old, now=5.5) == [Sweep(1)]
    assert sweeper.due(0.0) == 8.0


def test_the_last_few_of_many_are_read_often() -> None:
    """A batch waits for them alone."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(2)
    assert sweeper.plan(tasks.values(), now=3.0, is_eager=True) == [Sweep(1)]
    sweeper.seen(1, page(tasks), tasks, now=3.0)
    sweeper.settle(tasks.values(), now=3.0)

    assert sweeper.due(0.0) == 3.0 + EAGER
    assert sweeper.plan(tasks.values(), now=3.0 + EAGER, is_eager=True) == [Sweep(1)]


def test_what_is_due_in_a_moment_is_read_along() -> None:
    """A fifth of a second is no reason for a round of its own."""
    sweeper = Sweeper(POLICY)
    old = open_tasks(9)
    new = {f"new {n}": task for n, task in enumerate(open_tasks(16, since=0.1).values())}
    tasks = {**old, **new}
    for number, ids in ((1, new), (2, old)):
        sweeper.seen(number, page(ids, number=number, total=150), tasks, now=3.2)

    assert plan(sweeper, tasks, 4.0) == [Sweep(1), Sweep(2)]
    for number, ids in ((1, new), (2, old)):
        sweeper.seen(number, page(ids, number=number, total=150), tasks, now=4.0)
    sweeper.settle(tasks.values(), now=4.0)
    assert sweeper.due(0.0) == 4.625
    assert plan(sweeper, tasks, 4.625) == [Sweep(1), Sweep(2)]


def test_where_nothing_is_to_be_read_nothing_is_planned_for_a_while() -> None:
    """Nor is it planned again at once."""
    sweeper = Sweeper(POLICY)

    assert plan(sweeper, {}, 3.0) == []
    assert sweeper.due(0.0) == 3.0 + POLICY.min_interval


def test_tasks_that_are_ripe_just_now_are_not_younger_than_themselves() -> None:
    """Sixty are on one page, not on two."""
    assert plan(Sweeper(POLICY), open_tasks(60), 3.0) == [Sweep(1)]


@pytest.mark.parametrize(("took", "due"), [(2.0, 5.5), (3.0, 9.0), (7.0, 15.0)])
def test_a_slow_round_is_followed_by_a_rest_as_long(took: float, due: float) -> None:
    """One that takes more than half an interval, that is; and by no longer one than that."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(2)
    plan(sweeper, tasks, 3.0)
    sweeper.seen(1, page(tasks), tasks, now=3.0 + took)
    sweeper.settle(tasks.values(), now=3.0 + took)

    assert sweeper.due(0.0) == due


# --- whether at all ----------------------------------------------------------------------------


def test_one_task_shown_for_each_page_is_worth_it() -> None:
    """However many were expected there."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(8)
    for now in (3.0, 24.0, 44.0, 64.0):
        assert a_round(sweeper, tasks, ["gen_0"], now=now)
        assert not sweeper.is_off(now)


def test_fruitless_rounds_count_only_in_a_row() -> None:
    """A good one between two makes up for the first."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(8)
    for number in range(8):
        now = 3.0 + 20.0 * number
        assert a_round(sweeper, tasks, [] if number % 2 else list(tasks), now=now)
        assert not sweeper.is_off(now)


def test_a_list_that_shows_nothing_is_left_alone_for_longer_and_longer() -> None:
    """Two fruitless rounds end it each time; a good one is a new beginning."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(8)
    now, pauses = 3.0, []
    for _ in range(6):
        for _ in range(2):
            now += 20.0  # hidden tasks are expected again
            assert not sweeper.is_off(now)
            assert a_round(sweeper, tasks, [], now=now)
        pauses.append(_pause(sweeper, now))
        now += pauses[-1]
    a_round(sweeper, tasks, list(tasks), now=now)
    for _ in range(2):
        now += 20.0
        a_round(sweeper, tasks, [], now=now)

    assert pauses == [SWEEP_PAUSE, 60.0, 120.0, 240.0, SWEEP_PAUSE_MAX, SWEEP_PAUSE_MAX]
    assert _pause(sweeper, now) == SWEEP_PAUSE


def _pause(sweeper: Sweeper, now: float) -> float:
    """For how many whole seconds from *now* on the list is not read."""
    seconds = 0.0
    while sweeper.is_off(now + seconds):
        seconds += 1.0
    return seconds


def test_a_list_that_is_never_answered_is_left_alone() -> None:
    """After three rounds: a single page that a limit refused proves nothing."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(8)
    states = []
    for number in range(UNREAD):
        assert a_round(sweeper, tasks, None, now=3.0 + 5 * number)
        states.append(sweeper.is_off(3.0 + 5 * number))

    assert states == [False, False, True]


def test_a_page_that_fails_makes_its_whole_round_prove_nothing() -> None:
    """In whatever order the two are answered: what the broken one would show is not hidden."""
    for order in ((1, 2), (2, 1)):
        sweeper, tasks = Sweeper(POLICY), open_tasks(150)
        assert plan(sweeper, tasks, 3.0) == [Sweep(1), Sweep(2)]
        for number in order:
            if number == 1:
                sweeper.failed(1, now=3.0)
            else:
                sweeper.seen(2, page([], number=2, total=150), tasks, now=3.0)
        sweeper.settle(tasks.values(), now=3.0)
        assert all(task.hidden_until < 3.0 for task in tasks.values())


def test_a_broken_round_does_not_turn_the_order() -> None:
    """Of a long list the other end was tried after a fruitless round; nothing disproves it."""
    sweeper, tasks = Sweeper(POLICY), open_tasks(8)
    assert a_round(sweeper, tasks, [], now=3.0, total=500) == [Sweep(1)]
    assert a_round(sweeper, tasks, None, now=20.0) == [Sweep(5)]

    assert plan(sweeper, tasks, 30.0) == [Sweep(5)]


def test_no_sweeps_are_no_sweeps() -> None:
    """A policy without them is never on."""
    assert Sweeper(PollPolicy(sweep=False)).is_off(1e9)
