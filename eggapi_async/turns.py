"""Turns of many users over one client: the door of `_fairness` to the event loop.

A turn is an `async with` block: the user's place is taken when it is entered and given back when it
is left, however it is left. There is no background task: who waits wakes up by itself, or is woken
by who leaves. It buys nothing and knows no client.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel

from ._fairness import Fairness, Ticket
from .errors import ConfigurationError, QuotaExceededError, TurnCancelledError

__all__ = ["Turn", "Turns"]


class Turns:
    """Fair turns for the users of a bot, by any key: `async with turns.turn(user_id):`.

    concurrency  turns that one user may have at once; more of theirs wait
    quota        turns that one user may begin in *per* seconds; None: any number
    per          seconds
    in_flight    turns under way at once, of all users; who waits for one is served in rounds, one
                 turn per user and round

    Users who are gone are forgotten. One of these serves any number of coroutines of one event
    loop; it starts afresh on another. Raises ConfigurationError.
    """

    def __init__(
        self,
        concurrency: int = 1,
        *,
        quota: int | None = None,
        per: float = 60.0,
        in_flight: int = 200,
    ) -> None:
        _check_number("concurrency", concurrency, whole=True)
        _check_number("in_flight", in_flight, whole=True)
        _check_number("per", per)
        if quota is not None:
            _check_number("quota", quota, whole=True)
        self.concurrency = concurrency
        self.quota = quota
        self.per = per
        self.in_flight = in_flight
        self._token: object = None
        self._start_afresh()

    def __repr__(self) -> str:
        rule = self._rule
        return f"<Turns {rule.served} of {self.in_flight} under way, {rule.waiting} waiting>"

    def _start_afresh(self) -> None:
        self._rule = Fairness(self.concurrency, self.quota, self.per, self.in_flight)
        self._open: dict[Ticket, Turn] = {}

    def _arrive(self) -> float:
        """Now. On another event loop its clock and its turns are not ours."""
        token = anyio.lowlevel.current_token()
        if token != self._token:
            self._token = token
            self._start_afresh()
        return anyio.current_time()

    def turn(self, key: Hashable, *, wait: bool = False) -> Turn:
        """A turn of this user, to be entered once: `async with turns.turn(user_id) as turn:`.

        Entering waits until it comes. It raises QuotaExceededError at once where the user's quota
        is used up, unless *wait* says to wait for that too; and TurnCancelledError, as leaving
        does, when `cancel` ended it.
        """
        return Turn(self, key, wait=wait)

    def position(self, key: Hashable) -> int:
        """Where a turn of this user would stand that is asked for now: 0 is at once, 1 next."""
        now = self._arrive()
        return self._rule.next_position(key, now)

    def cancel(self, key: Hashable) -> int:
        """Cancel all turns of this user, waiting or under way; how many there were.

        A submission that is under way is heard to its end first, so that no paid task is lost.
        """
        self._arrive()
        turns = [turn for ticket, turn in self._open.items() if ticket.key == key]
        for turn in turns:
            turn.scope.cancel()
        return len(turns)

    # --- for Turn ----------------------------------------------------------------------------

    def join(self, turn: Turn, key: Hashable, *, wait: bool) -> Ticket:
        """A ticket for *turn*, which is served at once if it may be."""
        now = self._arrive()
        ticket = self._rule.ask(key, now, is_patient=wait)
        if not isinstance(ticket, Ticket):
            raise QuotaExceededError(key, quota=self.quota or 0, per=self.per, retry_after=ticket)
        self._open[ticket] = turn
        self.serve()
        return ticket

    def serve(self) -> None:
        """Wake everybody whose turn has come."""
        for ticket in self._rule.serve(anyio.current_time()):
            self._open[ticket].news.set()

    def pause(self, ticket: Ticket) -> float:
        """Seconds after which *ticket* should look by itself."""
        return self._rule.wait(ticket, anyio.current_time())

    def place(self, ticket: Ticket) -> int:
        """The position of *ticket*."""
        return self._rule.position(ticket)

    def refund(self, ticket: Ticket) -> None:
        """Let the turn of *ticket* not count."""
        if ticket in self._open:
            self._rule.refund(ticket)
            self.serve()

    def leave(self, ticket: Ticket) -> None:
        """Give *ticket* back, and serve who comes next."""
        if self._open.pop(ticket, None) is not None:  # else of an event loop that is gone
            self._rule.leave(ticket, anyio.current_time())
            self.serve()


class Turn:
    """One turn of one user; made by `Turns.turn`, entered once."""

    def __init__(self, turns: Turns, key: Hashable, *, wait: bool) -> None:
        self.key = key
        self.news: anyio.Event
        self.scope: anyio.CancelScope
        self._turns = turns
        self._wait = wait
        self._ticket: Ticket | None = None

    def __repr__(self) -> str:
        return f"<Turn of {self.key!r}, position {self.position}>"

    @property
    def position(self) -> int:
        """1 when it comes next, and so on; 0 when it has come, or was not asked for."""
        return 0 if self._ticket is None else self._turns.place(self._ticket)

    def refund(self) -> None:
        """Do not count this turn, where nothing came of it: to be called inside the block."""
        if self._ticket is not None:
            self._turns.refund(self._ticket)

    async def __aenter__(self) -> Self:
        self.news, self.scope = anyio.Event(), anyio.CancelScope()
        self._ticket = self._turns.join(self, self.key, wait=self._wait)
        self.scope.__enter__()
        try:
            await self._come(self._ticket)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def _come(self, ticket: Ticket) -> None:
        while ticket.since is None:
            with anyio.move_on_after(self._turns.pause(ticket)):
                await self.news.wait()
            self._turns.serve()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._ticket is not None, "left before it was entered"
        self._turns.leave(self._ticket)
        self.scope.__exit__(kind, error, trace)
        if self.scope.cancelled_caught:
            raise TurnCancelledError(self.key) from None


def _check_number(name: str, value: Any, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        expected = "1 or more" if whole else "seconds above 0"
        raise ConfigurationError(f"{name}: expected {expected}, got {value!r}")
