"""Whom to ask about next: the watchlist, driven by hand and against a list made of values."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import attrs
import pytest

from eggapi_async import ConfigurationError, Page, PollPolicy, TaskSnapshot
from eggapi_async._polling import FEW, PEEKS_AT_ONCE, QUIET_MAX, TRUST, Peek, Sweep, Watchlist
from eggapi_async._rhythm import Rhythm, advised
from eggapi_async._sweeping import EAGER

Entry = dict[str, Any]


def watching(*ids: str, now: float = 0.0, since: float | None = 0.0, **policy: Any) -> Watchlist:
    """A watchlist over tasks that were all submitted at *since*."""
    watchlist = Watchlist(PollPolicy(**policy))
    for task_id in ids:
        watchlist.add(task_id, now=now, since=since)
    return watchlist


def page(*items: Entry, number: int = 1, total: int | None = None) -> Page[Mapping[str, Any]]:
    """A list page of 100, as read."""
    size = len(items) if total is None else total
    return Page(
        items=items, page=number, per_page=100, total=size, total_pages=math.ceil(size / 100)
    )


def entry(task_id: str, status: str = "pending", **fields: Any) -> Entry:
    """A list entry."""
    return {"id": task_id, "status": status, **fields}


def done(task_id: str) -> Entry:
    """A list entry that has ended well."""
    return entry(task_id, "completed", output={"url": "https://cdn.test/x.png"})


def ended(task_id: str, took: float = 10.0) -> TaskSnapshot:
    """What a peek shows of a task that ended *took* seconds after its submission."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return TaskSnapshot(
        id=task_id,
        status="completed",
        created_at=start,
        completed_at=start + timedelta(seconds=took),
    )


# --- the policy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("first_delay", -1), ("interval", 0), ("min_interval", "1"), ("interval", True)],
)
def test_an_impossible_policy_is_refused_by_name(field: str, value: Any) -> None:
    """A policy that could become a hot loop cannot be made."""
    with pytest.raises(ConfigurationError, match=field):
        PollPolicy(**{field: value})


# --- one task ----------------------------------------------------------------------------------


def test_one_task_is_asked_for_as_the_service_advises() -> None:
    """The first look at 3 s, then every 5 s, always by name."""
    watchlist = watching("a")
    looks = []
    now = 0.0
    while now < 30:
        now = watchlist.next_due(now)
        assert watchlist.plan(now) == [Peek("a")]
        looks.append(now)
        watchlist.seen(TaskSnapshot(id="a", status="pending"), now=now)

    assert looks[:4] == [3.0, 8.0, 13.0, 18.0]
    assert all(b - a >= 5.0 for a, b in pairwise(looks))


def test_a_task_of_unknown_age_is_asked_for_at_once() -> None:
    """A handle made from an id has no submission to wait for."""
    watchlist = watching("a", now=50.0, since=None)

    assert watchlist.next_due(50.0) == 50.0
    assert watchlist.plan(50.0) == [Peek("a")]


def test_a_submission_in_the_future_is_of_another_clock() -> None:
    """A task that came over from an earlier event loop is asked for at once."""
    watchlist = watching("a", now=5.0, since=900.0)

    assert watchlist.plan(5.0) == [Peek("a")]


def test_a_task_that_is_watched_again_is_not_asked_for_again_at_once() -> None:
    """Whoever stops waiting and starts again does not cause a look more."""
    watchlist = Watchlist(PollPolicy())
    known = watchlist.add("a", now=0.0, since=0.0)
    watchlist.plan(3.0)
    watchlist.remove("a")
    watchlist.add("a", now=4.0, since=0.0, known=known)

    assert watchlist.plan(4.0) == []
    assert watchlist.next_due(4.0) == 8.0


def test_a_task_known_from_a_later_clock_is_asked_for_within_an_interval() -> None:
    """A due time of another event loop, far in the future, cannot delay for ever."""
    watchlist = Watchlist(PollPolicy())
    known = watchlist.add("a", now=9000.0, since=9000.0)
    watchlist.remove("a")
    watchlist.add("a", now=10.0, since=9000.0, known=known)

    assert watchlist.next_due(10.0) <= 15.0


def test_nothing_is_due_when_nothing_is_watched() -> None:
    """An empty watchlist wants no time."""
    watchlist = watching()

    assert watchlist.plan(0.0) == []
    assert watchlist.next_due(0.0) == math.inf
    assert len(watchlist) == 0


def test_a_peek_under_way_is_not_planned_twice() -> None:
    """However long the answer takes."""
    watchlist = watching("a")

    assert watchlist.plan(3.0) == [Peek("a")]
    assert watchlist.plan(60.0) == []
    assert watchlist.next_due(60.0) == math.inf


def test_a_peek_that_was_abandoned_may_be_planned_again() -> None:
    """Its turn is spent all the same."""
    watchlist = watching("a")
    watchlist.plan(3.0)
    watchlist.dropped(Peek("a"))
    watchlist.dropped(Peek("gone"))

    assert watchlist.plan(4.0) == []
    assert watchlist.plan(8.0) == [Peek("a")]


def test_news_of_a_task_that_nobody_watches_is_ignored() -> None:
    """It may come after the last waiter has gone."""
    watchlist = watching("a")
    watchlist.seen(ended("b"), now=3.0)

    assert len(watchlist) == 1


def test_never_more_peeks_are_under_way_than_may_be_answered_soon() -> None:
    """A small budget is not spent on a long queue; answers make room."""
    ids = [f"t{n}" for n in range(PEEKS_AT_ONCE + 10)]
    watchlist = watching(*ids, sweep=False)

    assert len(watchlist.plan(3.0)) == PEEKS_AT_ONCE
    assert watchlist.plan(4.0) == []
    assert watchlist.next_due(4.0) == math.inf
    watchlist.seen(TaskSnapshot(id="t0", status="pending"), now=4.0)
    assert watchlist.next_due(4.0) == 3.0
    assert len(watchlist.plan(4.0)) == 1


# --- sweeps ------------------------------------------------------------------------------------


def test_two_tasks_are_watched_by_one_page() -> None:
    """One request for both, and no more often than one per task every 5 s."""
    watchlist = watching("a", "b")

    assert watchlist.next_due(0.0) == 3.0
    assert watchlist.plan(3.0) == [Sweep(1)]
    assert watchlist.next_due(3.0) == TRUST  # before that only the answer can bring news
    assert watchlist.seen_page(1, page(entry("b"), entry("a")), now=3.1) != []
    assert watchlist.plan(3.1) == []
    assert watchlist.next_due(3.1) == 5.5
    assert watchlist.plan(5.5) == [Sweep(1)]


def test_without_sweeps_every_task_is_asked_for_by_name() -> None:
    """`PollPolicy(sweep=False)` never reads the list."""
    watchlist = watching("a", "b", sweep=False)

    assert watchlist.plan(3.0) == [Peek("a"), Peek("b")]


def test_only_entries_that_changed_are_reported() -> None:
    """Unchanged entries, and other programs' tasks, cost nothing further."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)
    first = watchlist.seen_page(1, page(entry("x"), entry("a"), entry("b")), now=3.0)
    watchlist.plan(5.5)
    second = watchlist.seen_page(1, page(entry("x"), entry("a"), done("b")), now=5.5)

    assert [item["id"] for item in first] == ["a", "b"]
    assert second == [done("b")]


def test_an_end_without_output_is_asked_for_by_name_at_once() -> None:
    """The list may leave the output out; only a GET of the task shows it then."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)

    assert watchlist.seen_page(1, page(entry("a", "completed"), entry("b")), now=3.0) == [
        entry("b")
    ]
    assert watchlist.plan(3.0) == [Peek("a")]


def test_a_failed_entry_needs_no_output() -> None:
    """A failure is complete as the list shows it."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)
    failed = entry("a", "failed", error="no")

    assert failed in watchlist.seen_page(1, page(failed, entry("b")), now=3.0)


def test_what_a_page_does_not_show_is_asked_for_by_name() -> None:
    """And is left to the list again once a page shows it."""
    watchlist = watching("a", "b", "c")
    watchlist.plan(3.0)
    watchlist.seen_page(1, page(entry("a"), entry("b")), now=3.0)

    assert watchlist.plan(3.0) == [Peek("c")]
    watchlist.seen(TaskSnapshot(id="c", status="pending"), now=3.0)
    watchlist.plan(6.0)
    watchlist.seen_page(1, page(entry("a"), entry("b"), entry("c")), now=6.0)
    assert Peek("c") not in watchlist.plan(9.0)


def test_a_task_alone_on_its_page_is_asked_for_by_name() -> None:
    """A page for one task costs as much as a GET, and may miss."""
    watchlist = watching("a", "b", "c")
    watchlist.plan(3.0)
    filler = [entry(f"x{n}") for n in range(97)]
    watchlist.seen_page(1, page(entry("a"), entry("b"), *filler, total=250), now=3.0)
    watchlist.plan(3.0)
    watchlist.seen(TaskSnapshot(id="c", status="pending"), now=3.0)
    watchlist.seen_page(3, page(entry("c"), number=3, total=250), now=3.5)
    asked = watchlist.plan(8.6)

    assert Sweep(1) in asked
    assert Sweep(3) not in asked
    assert Peek("c") in asked


def test_old_stragglers_stretch_the_sweeps() -> None:
    """Tasks long overdue are looked at less often, but never less than every interval."""
    watchlist = watching("a", "b", now=100.0, since=0.0)
    both = page(entry("a"), entry("b"))
    watchlist.plan(100.0)
    watchlist.seen_page(1, both, now=100.0)

    assert watchlist.next_due(100.0) == 105.0


def test_a_long_round_is_followed_by_a_rest() -> None:
    """When the budget is small, the peeks have their turn between two rounds."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)
    watchlist.seen_page(1, page(entry("a"), entry("b")), now=7.0)
    watchlist.plan(7.0)

    assert watchlist.next_due(7.0) == 11.0


def test_an_abandoned_page_ends_its_round() -> None:
    """The leader that read it has gone; the next leader begins a new one."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)
    watchlist.dropped(Sweep(1))

    assert watchlist.plan(3.0 + 2.5) == [Sweep(1)]


def test_a_page_of_an_earlier_round_still_brings_news() -> None:
    """It only no longer counts for the round under way."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)
    watchlist.dropped(Sweep(1))

    assert watchlist.seen_page(1, page(done("a"), entry("b")), now=3.2)[0]["id"] == "a"


def test_a_list_that_lags_for_ever_hides_nothing() -> None:
    """Each task is asked for by name after 30 s, and whenever its age has doubled."""
    watchlist = watching("a", "b")
    stale = page(entry("a"), entry("b"))
    peeks = []
    now = 0.0
    while now < 125:
        now = watchlist.next_due(now)
        for ask in watchlist.plan(now):
            if isinstance(ask, Sweep):
                watchlist.seen_page(ask.page, stale, now=now)
            elif ask == Peek("a"):
                peeks.append(now)
                watchlist.seen(TaskSnapshot(id="a", status="pending"), now=now)
            else:
                watchlist.seen(TaskSnapshot(id="b", status="pending"), now=now)

    assert len(peeks) == 3
    assert peeks[0] == pytest.approx(TRUST, abs=5)
    assert peeks[1] == pytest.approx(2 * TRUST, abs=10)


def test_a_list_that_is_proved_stale_is_given_up() -> None:
    """A peek that shows an end which a later page did not know condemns the list for a while."""
    watchlist = watching("a", "b", "c")
    watchlist.plan(3.0)
    watchlist.seen_page(1, page(entry("a"), entry("b"), entry("c")), now=25.0)
    watchlist.seen(ended("a", took=10.0), now=30.0)
    watchlist.remove("a")

    assert watchlist.plan(30.0) == [Peek("b"), Peek("c")]


def test_a_page_of_another_size_is_understood() -> None:
    """A service that gives smaller pages than asked for is read page by page."""
    ids = [f"t{n}" for n in range(40)]
    watchlist = watching(*ids)
    watchlist.plan(3.0)
    items = tuple(entry(task_id) for task_id in reversed(ids[20:]))
    watchlist.seen_page(1, Page(items=items, page=1, per_page=20, total=40, total_pages=2), now=3.0)
    for ask in watchlist.plan(3.1):
        assert isinstance(ask, Peek)
        watchlist.seen(TaskSnapshot(id=ask.task_id, status="pending"), now=3.1)
    older = tuple(entry(task_id) for task_id in reversed(ids[:20]))
    watchlist.seen_page(2, Page(items=older, page=2, per_page=20, total=40, total_pages=2), now=4.0)

    assert watchlist.plan(9.0)[:2] == [Sweep(1), Sweep(2)]


def test_a_task_submitted_after_the_last_reading_is_expected_by_the_lists_growth() -> None:
    """What grew the list since stands before it, whoever sent that."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)
    watchlist.seen_page(1, page(entry("a"), entry("b"), total=1_000), now=3.0)
    watchlist.plan(5.5)
    watchlist.seen_page(1, page(entry("a"), entry("b"), total=1_100), now=5.5)
    for task_id in ("c", "d"):
        watchlist.add(task_id, now=10.0, since=10.0)
    asked = watchlist.plan(16.0)

    assert Sweep(3) in asked  # 40 entries a second, for 6 s


def test_pages_that_come_a_moment_apart_tell_no_growth() -> None:
    """Two more tasks in the list after half a millisecond are no four thousand in a second."""
    ids = [f"gen_{number}" for number in range(120)]
    watchlist = watching(*ids)
    shown = [entry(task_id) for task_id in reversed(ids)]
    assert watchlist.plan(3.0) == [Sweep(1), Sweep(2)]
    watchlist.seen_page(1, page(*shown[:100], number=1, total=120), now=3.1)
    watchlist.seen_page(2, page(*shown[98:], number=2, total=122), now=3.1005)

    asked = watchlist.plan(3.5)
    while not asked:
        asked = watchlist.plan(watchlist.next_due(3.5))

    assert asked == [Sweep(1), Sweep(2)]


# --- who is looked at alone, and by whose rhythm -----------------------------------------------


def test_the_first_few_have_rhythms_of_their_own() -> None:
    """The fifth is watched by the list anyway: its rhythm is not even asked for."""
    watchlist = Watchlist(PollPolicy())
    asked: list[str] = []

    def rhythm() -> Rhythm:
        asked.append("")
        return Rhythm(7.0, 1.0, 20.0, 5.0)

    watched = [
        watchlist.add(f"{n}", now=100.0, since=99.0, rhythm=rhythm).rhythm.first for n in range(6)
    ]

    assert len(asked) == FEW
    assert watched == [7.0] * FEW + [3.0, 3.0]


def test_a_rhythm_begins_with_the_submission() -> None:
    """Its first look is due at that age; what is known of a task is not learned anew."""
    watchlist = Watchlist(PollPolicy())
    known = watchlist.add("a", now=100.0, since=99.0, rhythm=lambda: Rhythm(7.0, 1.0, 20.0, 5.0))

    assert watchlist.next_due(100.0) == 106.0
    watchlist.remove("a")
    again = watchlist.add("a", now=101.0, since=99.0, known=known, rhythm=lambda: advised(1, 1))
    assert again is known


def test_what_is_not_watched_may_be_removed() -> None:
    """Whoever leaves twice leaves once."""
    watchlist = watching("a")
    watchlist.remove("gone")

    assert len(watchlist) == 1


@pytest.mark.parametrize(
    ("ages", "is_eager"),
    [
        ((3.0,), False),
        ((3.0, 3.0), False),
        ((3.0, 3.0, 3.0), True),
        ((8.0,), False),
        ((9.0,), True),
    ],
)
def test_looks_are_spared_by_the_age_of_what_the_list_showed(
    ages: tuple[float, ...], is_eager: bool
) -> None:
    """One, and one for each interval beyond the first look: more than two make the last eager."""
    ids = [f"{n}" for n in range(len(ages))]
    watchlist = watching("last", *ids, now=100.0, since=100.0)
    for task_id, age in zip(ids, ages, strict=True):
        watchlist.seen_page(1, page(done(task_id)), now=100.0 + age)
        watchlist.remove(task_id)
    assert watchlist.plan(120.0) == [Peek("last")]
    watchlist.seen(TaskSnapshot(id="last", status="pending"), now=120.0)

    assert watchlist.next_due(120.0) == 120.0 + (EAGER if is_eager else 5.0)


def test_tasks_of_others_spare_nothing() -> None:
    """Nobody knows how many looks they would have taken."""
    watchlist = watching("last", now=100.0, since=100.0)
    for task_id in "abcd":
        watchlist.add(task_id, now=100.0, since=None)
        watchlist.seen_page(1, page(done(task_id)), now=110.0)
        watchlist.remove(task_id)
    watchlist.plan(120.0)
    watchlist.seen(TaskSnapshot(id="last", status="pending"), now=120.0)

    assert watchlist.next_due(120.0) == 125.0


# --- when one task makes another plan necessary ------------------------------------------------


def test_of_a_few_each_makes_a_plan_necessary() -> None:
    """One alone does at once; one that is not watched does never."""
    watchlist = watching("a", now=50.0, since=50.0)
    assert watchlist.due_of("a", 50.0) == 50.0
    watchlist.add("b", now=50.0, since=50.0)

    assert watchlist.due_of("gone", 50.0) == math.inf


def test_a_task_that_the_list_shows_is_due_with_its_page() -> None:
    """When it is ripe and the page may be read again; or when it is believed no longer."""
    watchlist = watching("a", "b", now=50.0, since=50.0)
    assert watchlist.due_of("a", 50.0) == 53.0
    watchlist.plan(53.0)
    assert watchlist.due_of("a", 53.0) == 50.0 + TRUST
    watchlist.seen_page(1, page(entry("a"), entry("b")), now=53.1)
    watchlist.plan(53.1)

    assert watchlist.due_of("a", 53.1) == 55.5


def test_a_task_that_is_asked_for_by_name_is_due_by_itself() -> None:
    """Whether all are, or it alone, since no page showed it."""
    by_name = watching("a", "b", "c", now=50.0, since=50.0, sweep=False)
    assert by_name.due_of("a", 50.0) == 53.0
    by_name.plan(53.0)
    assert by_name.due_of("a", 53.0) == 58.0

    hidden = watching("a", "b", "c", now=50.0, since=50.0)
    hidden.plan(53.0)
    hidden.seen_page(1, page(entry("a"), entry("b")), now=53.0)
    assert hidden.plan(53.0) == [Peek("c")]
    assert hidden.due_of("c", 53.0) == 58.0
    assert hidden.due_of("a", 53.0) == pytest.approx(53.0 + 5 / 3)


def test_a_task_that_was_believed_for_long_is_due_then() -> None:
    """Whatever its own looks or its page would say."""
    patient = watching("a", "b", now=50.0, since=50.0, first_delay=100.0, sweep=False)
    assert patient.due_of("a", 50.0) == 50.0 + TRUST
    patient = watching("a", "b", now=50.0, since=50.0, first_delay=100.0)
    assert patient.due_of("a", 50.0) == 50.0 + TRUST


def test_after_a_stale_list_anything_makes_a_plan_necessary() -> None:
    """What was left to the list is to be asked for by name."""
    watchlist = watching("a", "b", "c")
    watchlist.plan(3.0)
    watchlist.seen_page(1, page(entry("a"), entry("b"), entry("c")), now=25.0)
    watchlist.seen(ended("a", took=10.0), now=30.0)

    assert watchlist.due_of("b", 30.0) == 30.0
    assert watchlist.due_of("gone", 30.0) == 30.0


# --- what a look by name proves of the list ----------------------------------------------------


@pytest.mark.parametrize(
    ("since", "shown", "shot"),
    [
        pytest.param(0.0, 12.0, ended("a", took=10.0), id="shown as open by a page on its way"),
        pytest.param(100.0, 104.0, ended("a", took=10.0), id="shown before its end"),
        pytest.param(0.0, 25.0, TaskSnapshot(id="a", status="completed"), id="of unknown times"),
        pytest.param(
            0.0,
            25.0,
            attrs.evolve(ended("a", took=10.0), completed_at=None),
            id="of an unknown end",
        ),
        pytest.param(None, 25.0, ended("a", took=10.0), id="of unknown age"),
    ],
)
def test_an_end_that_a_page_did_not_show_may_prove_nothing(
    since: float | None, shown: float, shot: TaskSnapshot
) -> None:
    """Only one that had come an interval before, by times that are known, condemns the list."""
    watchlist = watching("a", "b", "c", now=since or 0.0, since=since)
    now = watchlist.next_due(since or 0.0)
    assert watchlist.plan(now)[0] == Sweep(1)
    watchlist.seen_page(1, page(entry("a"), entry("b"), entry("c")), now=shown)
    watchlist.seen(shot, now=shown)
    watchlist.remove("a")

    asked: list[Any] = []
    now = shown
    while not asked:
        now = watchlist.next_due(now)
        asked = watchlist.plan(now)
    assert asked == [Sweep(1)]


def test_what_a_look_showed_is_no_news_from_a_page() -> None:
    """The same status from either is told once."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)
    watchlist.seen(TaskSnapshot(id="a", status="processing"), now=3.0)
    shown = watchlist.seen_page(1, page(entry("a", "processing"), entry("b")), now=3.1)

    assert [item["id"] for item in shown] == ["b"]


# --- ends that a webhook will tell -------------------------------------------------------------


def hooked(*ids: str, since: float = 100.0) -> Watchlist:
    """A watchlist of tasks that are looked at once a minute, as long as a webhook is expected."""
    watchlist = Watchlist(PollPolicy())
    for task_id in ids:
        watchlist.add(task_id, now=since, since=since, net=60.0)
    return watchlist


def test_a_task_left_to_a_webhook_is_looked_at_when_its_time_is_up() -> None:
    """From its submission on, and then again as long after each look that finds it open."""
    watchlist = hooked("a")
    assert watchlist.next_due(100.0) == 160.0
    assert watchlist.plan(160.0) == [Peek("a")]
    watchlist.seen(TaskSnapshot(id="a", status="processing"), now=161.0)

    assert watchlist.next_due(161.0) == 221.0


def test_a_page_that_shows_it_open_puts_a_webhooks_task_off() -> None:
    """The page was asked for on behalf of others, too; one that shows it ended does not."""
    watchlist = hooked("a", "b")
    assert watchlist.plan(160.0) == [Sweep(1)]
    watchlist.seen_page(1, page(entry("a"), done("b")), now=161.0)
    watchlist.remove("b")

    assert watchlist.next_due(161.0) == 221.0


def test_a_webhooks_task_that_is_waited_for_again_keeps_its_time() -> None:
    """A second wait, after a look, begins no new minute."""
    watchlist = hooked("a")
    watchlist.plan(160.0)
    watchlist.seen(TaskSnapshot(id="a", status="processing"), now=161.0)
    known = watchlist._tasks["a"]
    watchlist.remove("a")
    watchlist.add("a", now=170.0, since=100.0, known=known, net=60.0)

    assert watchlist.next_due(170.0) == 221.0


def test_where_webhooks_do_not_come_all_are_looked_at_now() -> None:
    """And then as often as any others."""
    watchlist = hooked("a", "b")
    watchlist.hurry(110.0)

    assert watchlist.next_due(110.0) == 110.0
    assert watchlist.plan(110.0) == [Sweep(1)]
    watchlist.seen_page(1, page(entry("a"), entry("b")), now=110.1)
    watchlist.plan(110.1)
    assert watchlist.next_due(110.1) == 112.5


# --- failures ----------------------------------------------------------------------------------


def test_each_failure_in_a_row_makes_it_quiet_for_longer() -> None:
    """One is nothing; then two seconds, twice as long each time, half a minute at most."""
    watchlist = watching("a", sweep=False)
    now, pauses = 3.0, []
    for _ in range(8):
        watchlist.failed(Peek("a"), now=now)
        pauses.append(watchlist._quiet_until - now)
        now = watchlist._quiet_until

    assert pauses == [0.0, 2.0, 4.0, 8.0, 16.0, QUIET_MAX, QUIET_MAX, QUIET_MAX]


@pytest.mark.parametrize("is_page", [True, False], ids=["a page", "a look"])
def test_an_answer_ends_the_row_of_failures(is_page: bool) -> None:
    """The next failure is the first again."""
    watchlist = watching("a", "b")
    now = 3.0
    for _ in range(4):
        watchlist.failed(Peek("a"), now=now)
        now = watchlist._quiet_until
    if is_page:
        watchlist.seen_page(1, page(entry("a")), now=now)
    else:
        watchlist.seen(TaskSnapshot(id="a", status="pending"), now=now)
    watchlist.failed(Peek("a"), now=now)

    assert watchlist._quiet_until == now


def test_one_failed_poll_changes_nothing() -> None:
    """The next look comes at its time."""
    watchlist = watching("a")
    watchlist.plan(3.0)
    watchlist.failed(Peek("a"), now=3.0)

    assert watchlist.next_due(3.0) == 8.0


def test_failure_upon_failure_makes_it_quiet() -> None:
    """An outage is not amplified, and its end is noticed within half a minute."""
    watchlist = watching("a", "b", sweep=False)
    asked = 0
    now = 0.0
    while now < 600:
        now = watchlist.next_due(now)
        asks = watchlist.plan(now)
        asked += len(asks)
        for ask in asks:
            watchlist.failed(ask, now=now)

    assert asked < 600 / QUIET_MAX * 2 + 20
    assert watchlist.plan(now) == []
    watchlist.seen(TaskSnapshot(id="a", status="pending"), now=now)
    assert watchlist.next_due(now) <= now + QUIET_MAX


def test_a_list_that_fails_leaves_its_tasks_to_peeks() -> None:
    """Sweeps are given up after two fruitless rounds, and tried again later."""
    watchlist = watching(*"abcdef")
    sweeps = []
    now = 0.0
    while now < 100:
        now = watchlist.next_due(now)
        for ask in watchlist.plan(now):
            if isinstance(ask, Sweep):
                sweeps.append(now)
                watchlist.failed(ask, now=now)
            else:
                watchlist.seen(TaskSnapshot(id=ask.task_id, status="pending"), now=now)

    assert 2 <= len(sweeps) <= 8


def test_pages_that_a_limit_refused_prove_nothing_about_the_list() -> None:
    """Two refusals in a row neither turn the supposed order of a long list nor end the sweeps."""
    watchlist = watching("a", "b")
    now = 3.0
    assert watchlist.plan(now) == [Sweep(1)]
    watchlist.seen_page(1, page(entry("a"), entry("b"), total=500), now=now)
    for _ in range(2):
        now = watchlist.next_due(now)
        assert watchlist.plan(now) == [Sweep(1)]
        watchlist.failed(Sweep(1), now=now)

    now = watchlist.next_due(now)
    assert watchlist.plan(now) == [Sweep(1)]
    assert [item["id"] for item in watchlist.seen_page(1, page(done("a")), now=now)] == ["a"]


def test_a_page_is_read_the_more_often_the_more_open_tasks_are_on_it() -> None:
    """A hundred new tasks are looked at every half second, three stragglers less often."""
    watchlist = watching(*(f"new {n}" for n in range(100)), now=20.0, since=16.0)
    for n in range(3):
        watchlist.add(f"old {n}", now=20.0, since=0.0)
    newest = page(*(entry(f"new {n}") for n in range(100)), total=200)
    oldest = page(*(entry(f"old {n}") for n in range(3)), number=2, total=200)
    read: dict[int, list[float]] = {1: [], 2: []}
    now = 20.0
    while now < 25:
        for ask in watchlist.plan(now):
            assert isinstance(ask, Sweep)
            read[ask.page].append(now)
            watchlist.seen_page(ask.page, {1: newest, 2: oldest}[ask.page], now=now)
        now = watchlist.next_due(now)

    assert {later - sooner for sooner, later in pairwise(read[1])} == {0.5}
    assert min(later - sooner for sooner, later in pairwise(read[2])) > 1.0


def test_the_last_few_tasks_of_many_are_looked_at_often() -> None:
    """A batch waits for them alone, and the sweeps have spared more looks than those need."""
    ids = [f"{n}" for n in range(50)]
    watchlist = watching(*ids)
    now = 3.0
    watchlist.plan(now)
    watchlist.seen_page(1, page(*map(done, ids[:-1]), entry(ids[-1])), now=now)
    for task_id in ids[:-1]:
        watchlist.remove(task_id)
    looks = []
    while now < 20:
        now = watchlist.next_due(now)
        for ask in watchlist.plan(now):
            looks.append(now)
            watchlist.seen(TaskSnapshot(id=ids[-1], status="pending"), now=now)
            assert ask == Peek(ids[-1])

    assert {round(later - sooner, 6) for sooner, later in pairwise(looks)} == {EAGER}


def test_what_the_sweeps_spared_is_spent_once() -> None:
    """Then the last tasks are looked at as the service advises again."""
    watchlist = watching("a", "b")
    watchlist.plan(3.0)
    watchlist.seen_page(1, page(done("a"), entry("b")), now=3.0)
    watchlist.remove("a")
    looks = []
    now = 3.0
    while now < 40:
        now = watchlist.next_due(now)
        for _ in watchlist.plan(now):
            looks.append(now)
            watchlist.seen(TaskSnapshot(id="b", status="pending"), now=now)

    assert {later - sooner for sooner, later in pairwise(looks)} == {5.0}


# --- whole batches -----------------------------------------------------------------------------


@attrs.define
class Listed:
    """A task of the simulated service."""

    id: str
    created: float
    ends: float

    def entry(self, now: float) -> Entry:
        """As the list shows it."""
        return done(self.id) if now >= self.ends else entry(self.id)


ORDERS: dict[str, Callable[[list[Listed], random.Random, float], list[Listed]]] = {
    "newest first": lambda tasks, dice, now: sorted(tasks, key=lambda t: -t.created),
    "oldest first": lambda tasks, dice, now: sorted(tasks, key=lambda t: t.created),
    "in another order each time": lambda tasks, dice, now: dice.sample(tasks, len(tasks)),
    "last finished first": lambda tasks, dice, now: sorted(
        tasks, key=lambda t: -t.ends if t.ends <= now else math.inf
    ),
}


def simulate(
    number: int, *, order: str, foreign: float = 0.0, past: int = 0, seed: int = 7
) -> tuple[int, list[float]]:
    """Watch *number* tasks to their ends; the requests that took, and each task's lag."""
    dice = random.Random(seed)
    tasks = [Listed(f"old{n}", -n - 1.0, -n) for n in range(past)]
    mine = [
        Listed(f"t{n}", n / 80, n / 80 + dice.lognormvariate(math.log(12), 0.446))
        for n in range(number)
    ]
    others = [Listed(f"x{n}", n / foreign, n / foreign + 12) for n in range(int(foreign * 60))]
    by_id = {task.id: task for task in mine}
    watchlist = Watchlist(PollPolicy())
    lags: list[float] = []
    requests = 0
    now = 0.0
    coming = list(mine)
    while coming or len(watchlist):
        due = min(watchlist.next_due(now), coming[0].created if coming else math.inf)
        assert due < math.inf, "it would wait for ever"
        now = max(now, due)
        while coming and coming[0].created <= now:
            task = coming.pop(0)
            watchlist.add(task.id, now=now, since=task.created)
        for ask in watchlist.plan(now):
            requests += 1
            if isinstance(ask, Sweep):
                there = [task for task in tasks + mine + others if task.created <= now]
                there = ORDERS[order](there, dice, now)
                shown = there[(ask.page - 1) * 100 : ask.page * 100]
                items = tuple(task.entry(now) for task in shown)
                news = watchlist.seen_page(
                    ask.page, page(*items, number=ask.page, total=len(there)), now=now
                )
            else:
                if ask.task_id not in by_id:  # a page of the same moment has shown its end
                    continue
                task = by_id[ask.task_id]
                is_over = now >= task.ends
                shot = ended(task.id, task.ends - task.created)
                watchlist.seen(
                    shot if is_over else TaskSnapshot(id=task.id, status="pending"), now=now
                )
                news = [task.entry(now)]
            for item in news:
                if item["status"] == "completed" and item["id"] in by_id:
                    lags.append(now - by_id.pop(item["id"]).ends)
                    watchlist.remove(item["id"])
    return requests, sorted(lags)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("foreign", [0.0, 10.0], ids=["alone", "with 10 foreign tasks a second"])
@pytest.mark.parametrize("past", [0, 2_000], ids=["on a new key", "on a key with a past"])
def test_every_task_is_seen_to_its_end_in_any_list(order: str, foreign: float, past: int) -> None:
    """Whatever the list is like: every end is seen within 15 s, at no more than the advice."""
    number = 120
    requests, lags = simulate(number, order=order, foreign=foreign, past=past)

    assert len(lags) == number
    assert lags[-1] < 15.0
    assert requests < number * 3.3  # one request per task every 5 s would take about 3.1


@pytest.mark.parametrize(
    ("number", "most_requests", "most_lag"),
    [(10, 3.0, 1.1), (100, 0.65, 0.5), (500, 0.6, 0.5)],
)
def test_many_tasks_cost_next_to_nothing(
    number: int, most_requests: float, most_lag: float
) -> None:
    """The more tasks wait, the less each costs; the median lag stays below half a second."""
    requests, lags = simulate(number, order="newest first")

    assert requests / number <= most_requests
    assert lags[number // 2] <= most_lag


def test_a_big_past_in_the_wrong_order_is_found_from_the_other_end() -> None:
    """Oldest first over 2,000 old tasks: after one fruitless round the list's end is read."""
    newest, _ = simulate(300, order="newest first", past=2_000)
    oldest, _ = simulate(300, order="oldest first", past=2_000)

    assert oldest < 300 * 2
    assert newest < 300
