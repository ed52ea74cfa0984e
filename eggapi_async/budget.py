"""`Budget`: a limit on spending, kept before anything is sent.

Money is reserved at the published price before a submission leaves, and settled by what the service
reports when the task has ended. What may have been bought stays reserved until its end is seen, be
it by a wait, a refresh, a webhook or never: a task that nobody waits for goes on counting with its
price, and so does a lost submission until `uncertain="verify"` resolves it. So the sum of what is
spent and reserved passes the limit only where the service bills more than it published.

A machine without I/O: it decides, and whoever submits does what it says.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

import attrs

from .errors import BudgetExceededError, ConfigurationError, InvalidRequestError, dollars, excerpt
from .models import GenerationRequest
from .prices import price

__all__ = ["Budget", "Reservation"]

_DOLLARS: Final = re.compile(r"\s*\$?\s*(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})\s*", re.ASCII)


class Budget:
    """At most *limit* US dollars, for every client that is given this budget.

    limit          US dollars: text (`"5.00"`), a Decimal or a whole number; a float is not exact,
                   and refused
    unknown_price  US dollars to reserve for a request whose price is not published; without it
                   such a request is refused with InvalidRequestError
    spent          what was spent before, elsewhere: a budget counts what its clients submit

    A request that could pass the limit raises BudgetExceededError, and is not sent. One budget may
    be shared by clients, tasks and event loops of one thread. Raises ConfigurationError.
    """

    def __init__(
        self,
        limit: str | int | Decimal,
        *,
        unknown_price: str | int | Decimal | None = None,
        spent: str | int | Decimal = 0,
    ) -> None:
        self._limit = _dollars("limit", limit)
        self._unknown_price = (
            None if unknown_price is None else _dollars("unknown_price", unknown_price)
        )
        self._spent = _dollars("spent", spent)
        self._reserved = Decimal(0)

    def __repr__(self) -> str:
        spent, reserved, left = (
            dollars(amount, places=3) for amount in (self._spent, self._reserved, self.remaining)
        )
        return f"<Budget ${self._limit:f}: {spent} spent, {reserved} reserved, {left} left>"

    @property
    def limit(self) -> Decimal:
        """US dollars that may be spent."""
        return self._limit

    @property
    def spent(self) -> Decimal:
        """US dollars that ended tasks have cost, and what was spent before."""
        return self._spent

    @property
    def reserved(self) -> Decimal:
        """US dollars that submissions whose end is not known may cost."""
        return self._reserved

    @property
    def remaining(self) -> Decimal:
        """US dollars that may still be reserved; never below 0."""
        return max(Decimal(0), self._limit - self._spent - self._reserved)

    def reserve(self, request: GenerationRequest) -> Reservation:
        """Set the price of *request* aside. Raises BudgetExceededError; what submits calls it."""
        amount = self._price(request)
        if self._spent + self._reserved + amount > self._limit:
            raise BudgetExceededError(
                limit=self._limit, spent=self._spent, reserved=self._reserved, asked=amount
            )
        self._reserved += amount
        return Reservation(self, amount)

    def _price(self, request: GenerationRequest) -> Decimal:
        known = price(request)
        known = self._unknown_price if known is None else known
        if known is None:
            raise InvalidRequestError(
                "model",
                request.extra.get("model", request.model),
                "a model and fields with a published price, or Budget(unknown_price=…)",
            )
        return known

    def _settle(self, amount: Decimal, cost: Decimal) -> None:
        self._reserved -= amount
        self._spent += cost


@attrs.define(eq=False)
class Reservation:
    """Money set aside for one submission; without a budget, nothing."""

    _budget: Budget | None = None
    amount: Decimal = Decimal(0)
    _is_open: bool = True
    _is_kept: bool = False

    def keep(self) -> None:
        """It was bought, or may have been: only `settle` gives the money free."""
        self._is_kept = True

    def release(self) -> None:
        """It was not bought; without effect on what is kept."""
        if not self._is_kept:
            self.settle(Decimal(0))

    def settle(self, cost: Decimal | None) -> None:
        """It has ended and cost this much (None: what was reserved). Only the first time counts."""
        if self._budget is not None and self._is_open:
            self._budget._settle(self.amount, self.amount if cost is None else cost)
        self._is_open = False


def _dollars(name: str, value: Any) -> Decimal:
    match = _DOLLARS.fullmatch(_plain(value))
    if match is None:
        why = " (a float is not exact)" if isinstance(value, float) else ""
        raise ConfigurationError(
            f"{name}: expected US dollars from 0 as text, a Decimal or a whole number{why},"
            f" got {excerpt(value)}"
        )
    return Decimal(match[1])


def _plain(value: Any) -> str:
    """*value* as text without an exponent; nothing for what cannot be exact money."""
    if isinstance(value, str):
        return value
    is_exact = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
    return f"{Decimal(value):f}" if is_exact else ""
