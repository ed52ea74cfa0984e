"""The rule of turns: who is next, who is too early, who is forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eggapi_async._fairness import Fairness, Ticket


def rule(each: int = 1, quota: int | None = None, per: float = 60.0, most: int = 10) -> Fairness:
    return Fairness(each, quota, per, most)


def asked(fair: Fairness, keys: str, now: float = 0.0, *, is_patient: bool = True) -> list[Ticket]:
    """One ticket for each letter."""
    tickets = [fair.ask(key, now, is_patient=is_patient) for key in keys]
    return [ticket for ticket in tickets if isinstance(ticket, Ticket)]


def order(fair: Fairness, now: float = 0.0) -> str:
    """The users in the order in which they are served, each turn ending at once."""
    keys = ""
    while served := fair.serve(now):
        for ticket in served:
            keys += str(ticket.key)
            fair.leave(ticket, now)
    return keys


@pytest.mark.parametrize(
    ("asks", "served"),
    [
        pytest.param("aaab", "abaa", id="one request does not wait for somebody's three"),
        pytest.param("aabbcc", "abcabc", id="everybody in turn"),
        pytest.param("abcab", "abcab", id="a round is in the order of coming"),
        pytest.param("", "", id="nobody"),
    ],
)
def test_turns_go_round(asks: str, served: str) -> None:
    """One turn for each user and round."""
    fair = rule(most=1)
    asked(fair, asks)
    assert order(fair) == served


@pytest.mark.parametrize(
    ("asks", "each", "most", "served"),
    [
        pytest.param("aaa", 1, 10, "a", id="one at once for one user"),
        pytest.param("aaab", 2, 10, "aba", id="two at once for each"),
        pytest.param("abcd", 1, 3, "abc", id="three at once for all"),
    ],
)
def test_so_many_at_once(asks: str, each: int, most: int, served: str) -> None:
    """For one user, and for all together."""
    fair = rule(each=each, most=most)
    asked(fair, asks)
    assert "".join(str(ticket.key) for ticket in fair.serve(0)) == served
    assert fair.served == len(served)
    assert fair.waiting == len(asks) - len(served)
    assert fair.serve(0) == []


def test_who_has_had_all_is_told_when_to_come_back() -> None:
    """The quota is of any *per* seconds, not of a calendar's minute; others are not concerned."""
    fair = rule(quota=2, per=60)
    for now in (0.0, 10.0):
        [ticket] = asked(fair, "a", now, is_patient=False)
        fair.serve(now)
        fair.leave(ticket, now)
    assert fair.ask("a", 20.0, is_patient=False) == 40.0
    assert isinstance(fair.ask("b", 20.0, is_patient=False), Ticket)
    assert fair.ask("a", 59.0, is_patient=False) == 1.0
    assert isinstance(fair.ask("a", 60.0, is_patient=False), Ticket)


def test_who_waits_counts_as_begun() -> None:
    """Or a user could ask for any number while the first is under way."""
    fair = rule(quota=2, per=60)
    asked(fair, "aa", 5.0, is_patient=False)
    fair.serve(5.0)
    assert fair.ask("a", 10.0, is_patient=False) == 55.0
    assert rule(quota=1).ask("a", 0.0, is_patient=False) != 0.0


def test_the_patient_wait_for_their_quota() -> None:
    """They are told when to look again, also while another turn of theirs is under way."""
    fair = rule(each=2, quota=1, per=60)
    first, second, third = asked(fair, "aaa", 0.0)
    assert fair.serve(0.0) == [first]
    assert fair.wait(second, 15.0) == fair.wait(third, 15.0) == 45.0
    fair.leave(first, 15.0)
    assert fair.serve(59.9) == []
    assert fair.serve(60.0) == [second]
    assert fair.wait(third, 60.0) == 60.0


def test_a_turn_that_is_refunded_does_not_count() -> None:
    """Once only, and without a quota there is nothing to give back."""
    fair = rule(each=2, quota=2)
    ticket, _ = asked(fair, "aa")
    fair.serve(0)
    fair.refund(ticket)
    fair.refund(ticket)
    assert isinstance(fair.ask("a", 0, is_patient=False), Ticket)
    assert fair.away("a", 0) == 60
    free = rule()
    [ticket] = asked(free, "a")
    free.serve(0)
    free.refund(ticket)


def test_a_turn_that_never_came_does_not_count() -> None:
    """Who gives up waiting has used nothing, and is not served afterwards."""
    fair = rule(quota=2, most=1)
    first, second = asked(fair, "ab")
    fair.serve(0)
    fair.leave(second, 1)
    assert fair.remembered == 1
    fair.leave(first, 1)
    assert fair.serve(1) == []


@pytest.mark.parametrize("quota", [None, 3])
def test_nothing_grows_with_the_users_who_are_gone(quota: int | None) -> None:
    """Of a year of users only those of the last minute are remembered, and without a quota none."""
    fair = rule(quota=quota, per=60)
    for now in range(0, 365 * 24 * 3600, 3600):
        [ticket] = asked(fair, "x", float(now))
        fair.serve(now)
        fair.leave(ticket, now)
    for number in range(1000):
        user = fair.ask(number, 1e9 + number, is_patient=False)
        assert isinstance(user, Ticket)
        fair.serve(1e9 + number)
        fair.leave(user, 1e9 + number)
    assert fair.remembered == (0 if quota is None else 60)


def test_a_user_who_returns_in_time_is_known_again() -> None:
    """Resting is no pardon."""
    fair = rule(quota=1, per=60)
    [ticket] = asked(fair, "a")
    fair.serve(0)
    fair.leave(ticket, 0)
    [patient] = asked(fair, "a", 10)
    assert fair.serve(10) == []
    assert fair.wait(patient, 10) == 50


def test_the_next_position_is_where_one_would_stand() -> None:
    """0 is at once; a user's own turns and quota count."""
    fair = rule(each=1, quota=2, most=2)
    assert fair.next_position("a", 0) == 0
    asked(fair, "aab")
    fair.serve(0)
    assert fair.next_position("a", 0) == 2  # behind the own one that waits
    assert fair.next_position("b", 0) == 2
    assert fair.next_position("c", 0) == 2  # both places are taken, and one waits for them
    free = rule(each=2, quota=1)
    asked(free, "a")
    free.serve(0)
    assert free.next_position("a", 0) == 1  # the quota is used up
    assert free.next_position("b", 0) == 0


@given(
    asks=st.lists(st.sampled_from("abcde"), min_size=1, max_size=40),
    first=st.integers(0, 5),
)
def test_a_position_is_the_number_of_turns_until_it_comes(asks: list[str], first: int) -> None:
    """Whatever the lines are, wherever the round has come to."""
    fair = rule(most=1)
    tickets = asked(fair, "".join(asks))
    for ticket in fair.serve(0)[:1] if first else []:
        fair.leave(ticket, 0)
    expected = [(fair.position(ticket), ticket) for ticket in tickets if ticket.since is None]
    served: list[Ticket] = []
    while now_served := fair.serve(0):
        served += now_served
        fair.leave(now_served[0], 0)
    assert [ticket for _, ticket in sorted(expected, key=lambda pair: pair[0])] == served
    assert sorted(place for place, _ in expected) == list(range(1, len(served) + 1))
    assert {fair.position(ticket) for ticket in served} <= {0}


@given(
    each=st.integers(1, 3),
    quota=st.none() | st.integers(1, 3),
    most=st.integers(1, 5),
    moves=st.lists(
        st.tuples(
            st.sampled_from(["ask", "ask_patiently", "end", "give_up", "refund", "wait"]),
            st.sampled_from("abcd"),
            st.floats(0, 30),
        ),
        max_size=60,
    ),
)
def test_the_limits_hold_whatever_happens(
    each: int, quota: int | None, most: int, moves: list[tuple[str, str, float]]
) -> None:
    """Never more at once than allowed, never more begun in a while; nobody is forgotten."""
    world = World(rule(each, quota, 20.0, most))
    for move, key, seconds in moves:
        getattr(world, move)(key, seconds)
        world.serve()
        served = Counter(ticket.key for ticket in world.open if ticket.since is not None)
        recent = Counter(key for key, moment in world.begun if moment + 20.0 > world.now)
        assert served.total() == world.fair.served <= most
        assert all(number <= each for number in served.values())
        assert quota is None or all(number <= quota for number in recent.values())
        waiting = [ticket for ticket in world.open if ticket.since is None]
        assert world.fair.waiting == len(waiting)
        assert all(world.fair.wait(ticket, world.now) > 0 for ticket in waiting)


@attrs.define
class World:
    """Users who do what they like, and what they were given."""

    fair: Fairness
    now: float = 0.0
    open: list[Ticket] = attrs.field(factory=list)
    begun: list[tuple[Hashable, float]] = attrs.field(factory=list)

    def serve(self) -> None:
        self.begun += [(ticket.key, self.now) for ticket in self.fair.serve(self.now)]

    def mine(self, key: str, *, under_way: bool) -> list[Ticket]:
        """The youngest ticket of this user, if there is one."""
        mine = [ticket for ticket in self.open if ticket.key == key]
        return [ticket for ticket in mine if not under_way or ticket.since is not None][-1:]

    def ask(self, key: str, _: float, *, is_patient: bool = False) -> None:
        ticket = self.fair.ask(key, self.now, is_patient=is_patient)
        if isinstance(ticket, Ticket):
            self.open.append(ticket)
        else:
            assert not is_patient
            assert 0 < ticket <= 20.0

    def ask_patiently(self, key: str, _: float) -> None:
        self.ask(key, 0.0, is_patient=True)

    def end(self, key: str, _: float, *, under_way: bool = True) -> None:
        for ticket in self.mine(key, under_way=under_way):
            self.open.remove(ticket)
            self.fair.leave(ticket, self.now)

    def give_up(self, key: str, _: float) -> None:
        self.end(key, 0.0, under_way=False)

    def refund(self, key: str, _: float) -> None:
        for ticket in self.mine(key, under_way=True):
            self.fair.refund(ticket)
            self.begun = [each for each in self.begun if each != (key, ticket.since)]

    def wait(self, _: str, seconds: float) -> None:
        self.now += seconds
