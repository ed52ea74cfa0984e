"""One generation that is to be bought: by what leave, with what money, and where it is noted.

All that take part in a purchase hear of the same moments, in the same order. Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime
from typing import Protocol

import attrs

from ._retry import Patience
from ._transport import Lost
from .budget import Budget, Reservation
from .errors import BudgetExceededError
from .models import GenerationRequest, TaskSnapshot

Known = Callable[[Collection[str]], Awaitable[Collection[str]]]
"""Tells which of some ids belong to submissions that it has a record of."""


class Record(Protocol):
    """Where a submission is written down, so that it outlives this process.

    An intent that is neither accepted nor lost is withdrawn, at the latest when the call ends.
    """

    @property
    def name(self) -> object:
        """What tells it from other submissions, in other processes too."""

    async def declare(self, reference: str | None) -> None:
        """The POST is about to leave, with *reference* in its webhook URL. Raises what stops it."""

    def withdraw(self) -> None:
        """It was provably not taken."""

    def accept(self, task: TaskSnapshot) -> None:
        """The id is known: nothing is lost from here on."""

    def lose(self, sent_at: datetime, lost_at: datetime) -> None:
        """The answer was lost."""

    async def settle(self) -> None:
        """One of these was told: time to make it durable. Raises nothing."""


@attrs.define(eq=False)
class Purchase:
    """One generation that is to be bought.

    *check* raises when nothing more may be sent, *reference* is what its webhook URL carries,
    *began* is when it was asked for, by the event loop's clock.
    """

    request: GenerationRequest
    patience: Patience
    record: Record | None
    budget: Budget | None
    check: Callable[[], None]
    began: float | None = None
    reservation: Reservation = attrs.field(factory=Reservation)
    reference: str | None = None

    def begin(self) -> None:
        """Set the money aside. Raises BudgetExceededError, and what *check* raises."""
        self.check()
        if self.budget is not None:
            self.reservation = self.budget.reserve(self.request)

    async def declare(self) -> None:
        """Its POST is about to leave."""
        self._check_again()
        if self.record is not None:
            await self.record.declare(self.reference)
        self._check_again()

    def _check_again(self) -> None:
        with suppress(BudgetExceededError):  # its own money is set aside
            self.check()

    def withdraw(self) -> None:
        """Its POST was not taken, if there is one that nothing was heard of."""
        if self.record is not None:
            self.record.withdraw()

    def accept(self, task: TaskSnapshot) -> None:
        """Its task is known."""
        self.reservation.keep()
        if self.record is not None:
            self.record.accept(task)

    def lose(self, lost: Lost) -> None:
        """Its answer was lost, and it may cost."""
        self.reservation.keep()
        if self.record is not None:
            self.record.lose(lost.sent_at, lost.lost_at)

    async def settle(self) -> None:
        """What came of it was told."""
        if self.record is not None:
            await self.record.settle()
