"""The limit on spending: reserved before the POST, settled by what the service reports."""

from __future__ import annotations

import pickle
import time
from contextlib import suppress
from decimal import Decimal
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eggapi_async import (
    AsyncEggClient,
    BadRequestError,
    Budget,
    BudgetExceededError,
    ConfigurationError,
    ConnectionFailedError,
    GenerationRequest,
    InvalidRequestError,
    RateLimiter,
    SubmissionUncertainError,
    TaskFailedError,
    TaskTimeoutError,
)
from eggapi_async.budget import Reservation
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.virtual_time import on_both, run_virtual

EGG = GenerationRequest(prompt="An egg")
PRO_4K = GenerationRequest(prompt="An egg", model="nanobanana-pro", resolution="4k")
VIDEO = GenerationRequest(prompt="An egg", model="veo3.1")


def state(budget: Budget) -> tuple[str, str]:
    """What is spent and what is reserved, in dollars."""
    return f"{budget.spent:.3f}", f"{budget.reserved:.3f}"


# --- the machine ---------------------------------------------------------------------------------


def test_money_is_reserved_then_settled() -> None:
    """What is reserved becomes what was spent, at the reported cost."""
    budget = Budget("5.00")
    reservation = budget.reserve(PRO_4K)
    assert state(budget) == ("0.000", "0.032")
    assert budget.remaining == Decimal("4.968")
    reservation.settle(Decimal("0.030"))
    assert state(budget) == ("0.030", "0.000")
    assert budget.remaining == Decimal("4.970")


def test_its_repr_shows_its_state() -> None:
    """The limit as it was given; spent, reserved and left."""
    budget = Budget("5.00", spent="1.20")
    budget.reserve(EGG)
    assert repr(budget) == "<Budget $5.00: $1.200 spent, $0.010 reserved, $3.790 left>"


@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        pytest.param("0", "$0.000", id="nothing"),
        pytest.param("0E-8", "$0.000", id="nothing, with an exponent"),
        pytest.param("0.0500", "$0.050", id="as the service writes it"),
        pytest.param("0.0126", "$0.0126", id="never less precise than it is"),
        pytest.param("2E+1", "$20.000", id="a large exponent"),
    ],
)
def test_amounts_are_shown_alike(cost: str, shown: str) -> None:
    """Three decimal places whatever the service wrote, and more where there is more."""
    budget = Budget("0.05")
    budget.reserve(EGG).settle(Decimal(cost))
    assert f": {shown} spent, $0.000 reserved," in repr(budget)
    amount = Decimal(cost)
    error = BudgetExceededError(limit=amount, spent=amount, reserved=amount, asked=amount)
    assert f"cover {shown} more: {shown} is spent and {shown} reserved for" in str(error)


def test_the_last_cent_may_be_spent() -> None:
    """The limit itself is within the limit, and nothing beyond is."""
    budget = Budget("0.02")
    budget.reserve(EGG)
    budget.reserve(EGG)
    with pytest.raises(BudgetExceededError) as caught:
        budget.reserve(EGG)
    error = caught.value
    assert (error.limit, error.spent, error.reserved, error.asked) == (
        Decimal("0.02"),
        Decimal(0),
        Decimal("0.02"),
        Decimal("0.01"),
    )
    assert str(error) == (
        "the budget of $0.02 does not cover $0.010 more:"
        " $0.000 is spent and $0.020 reserved for tasks that have not ended"
    )
    assert pickle.loads(pickle.dumps(error)).asked == error.asked
    assert budget.remaining == 0


def test_a_bill_above_the_price_can_pass_the_limit() -> None:
    """It is known only afterwards; then nothing more is allowed, and less than 0 is not left."""
    budget = Budget("0.01")
    budget.reserve(EGG).settle(Decimal("0.5"))
    assert (budget.spent, budget.remaining) == (Decimal("0.5"), Decimal(0))
    with pytest.raises(BudgetExceededError):
        budget.reserve(EGG)


ENDS: dict[str, tuple[Any, tuple[str, str]]] = {
    "released": (lambda it: it.release(), ("0.000", "0.000")),
    "kept": (lambda it: it.keep(), ("0.000", "0.010")),
    "kept, so that it cannot be released": (
        lambda it: (it.keep(), it.release()),
        ("0.000", "0.010"),
    ),
    "kept, then settled": (lambda it: (it.keep(), it.settle(Decimal(1))), ("1.000", "0.000")),
    "settled twice": (lambda it: (it.settle(None), it.settle(Decimal(1))), ("0.010", "0.000")),
    "settled without a known cost": (lambda it: it.settle(None), ("0.010", "0.000")),
    "released, then settled": (lambda it: (it.release(), it.settle(None)), ("0.000", "0.000")),
}


@pytest.mark.parametrize(("end", "left"), ENDS.values(), ids=ENDS)
def test_a_reservation_ends_once(end: Any, left: tuple[str, str]) -> None:
    """Whatever is said to it, and however often."""
    budget = Budget(1)
    end(budget.reserve(EGG))
    assert state(budget) == left


@pytest.mark.parametrize("end", [end for end, _ in ENDS.values()], ids=ENDS)
def test_without_a_budget_there_is_nothing_to_reserve(end: Any) -> None:
    """A client without one does the same, to no effect."""
    assert end(Reservation()) is not Reservation()


@given(
    limit=st.integers(0, 100),
    steps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), max_size=60),
)
def test_the_limit_holds_where_bills_keep_to_the_prices(
    limit: int, steps: list[tuple[int, int]]
) -> None:
    """Spent and reserved together never pass the limit, and refusals change nothing."""
    budget = Budget(Decimal(limit) / 100)
    open_: list[Reservation] = []
    for count, end in steps:
        with suppress(BudgetExceededError):
            open_.append(budget.reserve(GenerationRequest(prompt="An egg", num_outputs=count)))
        for reservation in open_[:end]:
            reservation.settle(reservation.amount if end % 2 else Decimal(0))
        del open_[:end]
        assert budget.spent + budget.reserved + budget.remaining == budget.limit
        assert budget.reserved == sum(reservation.amount for reservation in open_)


def test_an_unknown_price_is_refused() -> None:
    """A request that may cost anything is not sent by guess."""
    budget = Budget("5.00")
    with pytest.raises(InvalidRequestError) as caught:
        budget.reserve(VIDEO)
    assert (caught.value.field, caught.value.value) == ("model", "veo3.1")
    assert "Budget(unknown_price=…)" in str(caught.value)
    assert state(budget) == ("0.000", "0.000")


def test_an_unknown_price_may_be_given() -> None:
    """It is reserved for what has none, and only for that."""
    budget = Budget("5.00", unknown_price="0.80")
    budget.reserve(VIDEO)
    budget.reserve(EGG)
    assert budget.reserved == Decimal("0.810")


@pytest.mark.parametrize(
    ("given", "dollars"),
    [
        pytest.param("5.00", "5.00", id="text"),
        pytest.param(" $5.00 ", "5.00", id="text with the sign"),
        pytest.param(".5", "0.5", id="text without a zero"),
        pytest.param(5, "5", id="a whole number"),
        pytest.param(0, "0", id="nothing at all"),
        pytest.param(Decimal("5.00"), "5.00", id="a decimal"),
        pytest.param(Decimal("5E+1"), "50", id="a decimal with an exponent"),
    ],
)
def test_money_is_exact(given: Any, dollars: str) -> None:
    """Text, whole numbers and decimals."""
    assert Budget(given).limit == Decimal(dollars)


BAD = {
    "a float": 5.0,
    "a truth": True,
    "below 0": "-1",
    "a decimal below 0": Decimal(-1),
    "no number": "five",
    "no finite number": Decimal("Infinity"),
    "not a number": Decimal("NaN"),
    "nothing": None,
    "empty text": "",
    "too many digits": 10**5000,
    "another alphabet's digits": "٥",
    "two numbers": "1 2",
}


@pytest.mark.parametrize("name", ["limit", "unknown_price", "spent"])
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_what_is_no_money_is_refused(name: str, value: Any) -> None:
    """The error names the argument, the value and what was expected."""
    arguments = {"limit": 1, name: value}
    if (name, value) == ("unknown_price", None):
        return
    with pytest.raises(ConfigurationError, match=f"^{name}: expected US dollars .*, got "):
        Budget(**arguments)


def test_a_float_is_told_why() -> None:
    """0.1 is no tenth."""
    with pytest.raises(ConfigurationError, match=r"\(a float is not exact\), got 0\.1"):
        Budget(0.1)  # type: ignore[arg-type]


# --- at a client ---------------------------------------------------------------------------------


def emulated(budget: Any, **options: Any) -> tuple[EggEmulator, AsyncEggClient]:
    """An emulator on virtual time, and a client that spends from *budget*."""
    emulator = EggEmulator(**{"clock": anyio.current_time} | options)
    return emulator, connect(emulator, limiter=RateLimiter(per_second=None), budget=budget)


def posts(emulator: EggEmulator) -> int:
    return emulator.requests["POST /v1/generate"]


@on_both
async def test_nothing_is_sent_beyond_the_budget() -> None:
    """`generate` and `run` are refused alike, before the POST."""
    budget = Budget("0.02")
    emulator, egg = emulated(budget)
    async with egg:
        task = await egg.generate("An egg")
        assert state(budget) == ("0.000", "0.010")
        with pytest.raises(BudgetExceededError):
            await egg.run(PRO_4K)
        await task
        assert state(budget) == ("0.010", "0.000")
        await egg.run("A hen")
        with pytest.raises(BudgetExceededError):
            await egg.generate("A cock")
    assert state(budget) == ("0.020", "0.000")
    assert posts(emulator) == 2


@on_both
async def test_a_failed_task_gives_its_money_back() -> None:
    """It cost nothing, so the next one may have it."""
    budget = Budget("0.01")
    _, egg = emulated(budget)
    async with egg:
        with pytest.raises(TaskFailedError):
            await egg.run("A forbidden egg")
        assert state(budget) == ("0.000", "0.000")
        await egg.run("An egg")
    assert state(budget) == ("0.010", "0.000")


@on_both
async def test_an_answer_that_is_final_settles_at_once() -> None:
    """A task that was completed in the answer to its POST."""
    budget = Budget(1)
    _, egg = emulated(budget, faults={"sync": 1.0})
    async with egg:
        await egg.generate("An egg")
    assert state(budget) == ("0.010", "0.000")


@on_both
async def test_a_refusal_gives_its_money_back() -> None:
    """400 and the like: nothing was bought."""
    budget = Budget(1)
    emulator, egg = emulated(budget)
    emulator.fail_next(Fault.refused(400))
    async with egg:
        with pytest.raises(BadRequestError):
            await egg.generate("An egg")
    assert state(budget) == ("0.000", "0.000")


@on_both
async def test_what_never_left_gives_its_money_back() -> None:
    """Nobody listens: nothing was bought."""

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    budget = Budget(1)
    http = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
    async with http, AsyncEggClient("a-key", http_client=http, budget=budget) as egg:
        with pytest.raises(ConnectionFailedError):
            await egg.generate("An egg")
    assert state(budget) == ("0.000", "0.000")


@on_both
async def test_what_was_cancelled_in_the_queue_gives_its_money_back() -> None:
    """Until its turn has come, nothing is sent."""
    budget = Budget(1)
    emulator = EggEmulator(clock=anyio.current_time)
    limiter = RateLimiter(concurrency=1, per_second=None)
    async with connect(emulator, limiter=limiter, budget=budget) as egg:
        await limiter.acquire()
        with anyio.move_on_after(1):
            await egg.generate("An egg")
        assert state(budget) == ("0.000", "0.000")
        limiter.release()
    assert posts(emulator) == 0


@on_both
async def test_what_was_cancelled_on_its_way_stays_reserved() -> None:
    """Its id was heard, so its end will be, too."""
    budget = Budget(1)
    _, egg = emulated(budget, latency=1.0)
    async with egg:
        with anyio.move_on_after(1.5):
            await egg.generate("An egg")
        assert state(budget) == ("0.000", "0.010")
        await egg.unfinished[0]
    assert state(budget) == ("0.010", "0.000")


@on_both
async def test_an_uncertain_submission_stays_reserved() -> None:
    """It may exist, and cost."""
    budget = Budget(1)
    emulator, egg = emulated(budget)
    emulator.fail_next(Fault.lost())
    async with egg:
        with pytest.raises(SubmissionUncertainError):
            await egg.generate("An egg")
        await anyio.sleep(1000)
    assert state(budget) == ("0.000", "0.010")


@on_both
@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        pytest.param(Fault.lost(), 1, id="a lost task that is found is settled"),
        pytest.param(Fault.html(), 1, id="one that never was is reserved but once"),
    ],
)
async def test_a_verified_submission_is_paid_once(fault: Fault, accepted: int) -> None:
    """`uncertain="verify"` keeps one reservation for one picture."""
    budget = Budget("0.01")
    skew = time.time() - anyio.current_time()  # lost tasks are found by the wall clock
    emulator, egg = emulated(budget, clock=lambda: skew + anyio.current_time())
    emulator.fail_next(fault)
    async with egg:
        task = await egg.generate("An egg", uncertain="verify")
        assert state(budget) == ("0.000", "0.010")
        await task
    assert len(emulator.accepted) == accepted
    assert state(budget) == ("0.010", "0.000")


@on_both
async def test_a_task_that_nobody_waits_for_stays_reserved() -> None:
    """Until its end is seen: a refresh will do."""
    budget = Budget(1)
    _, egg = emulated(budget)
    async with egg:
        task = await egg.generate("An egg")
        with pytest.raises(TaskTimeoutError):
            await task.result(timeout=0)
        await anyio.sleep(1000)
        assert state(budget) == ("0.000", "0.010")
        await task.refresh()
        assert state(budget) == ("0.010", "0.000")


@on_both
async def test_one_budget_for_many() -> None:
    """Clients and tasks share it; together they never pass it."""
    budget = Budget("0.05")
    one, first = emulated(budget)
    two, second = emulated(budget)
    refused = []

    async def buy(egg: AsyncEggClient) -> None:
        try:
            await egg.run("An egg")
        except BudgetExceededError as error:
            refused.append(error)

    async with first, second, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(buy, first)
            group.start_soon(buy, second)
    assert posts(one) + posts(two) == 5
    assert len(refused) == 5
    assert state(budget) == ("0.050", "0.000")


def test_one_budget_for_event_loops_that_follow_each_other() -> None:
    """A second `asyncio.run` goes on where the first ended."""
    budget = Budget("0.02")

    async def buy() -> None:
        _, egg = emulated(budget)
        async with egg:
            await egg.run("An egg")

    run_virtual(buy)
    run_virtual(buy)
    with pytest.raises(BudgetExceededError):
        run_virtual(buy)
    assert state(budget) == ("0.020", "0.000")


@on_both
async def test_a_budget_for_each_user() -> None:
    """`with_options(budget=)` takes the place of the client's own, over the same connections."""
    house, user = Budget(1), Budget("0.01")
    _, egg = emulated(house)
    async with egg:
        theirs = egg.with_options(budget=user)
        await theirs.run("An egg")
        with pytest.raises(BudgetExceededError):
            await theirs.with_options(timeout=5).run("An egg")
        await egg.with_options(timeout=5).run("An egg")
    assert (state(house), state(user)) == (("0.010", "0.000"), ("0.010", "0.000"))


async def test_another_thing_is_no_budget() -> None:
    """An amount is not one: it would start anew with every client."""
    with pytest.raises(ConfigurationError, match="budget: expected a Budget, got str"):
        AsyncEggClient("a-key", budget="5.00")  # type: ignore[arg-type]
    _, egg = emulated(None)
    async with egg:
        with pytest.raises(ConfigurationError, match="budget: expected a Budget, got float"):
            egg.with_options(budget=5.0)  # type: ignore[arg-type]


# --- in a batch ----------------------------------------------------------------------------------


@on_both
async def test_a_batch_stops_at_its_budget() -> None:
    """What was sent is collected; the rest are outcomes with the error, and nothing of it left."""
    budget = Budget("0.05")
    emulator, egg = emulated(budget)
    async with egg:
        outcomes = await egg.map((f"Egg {n}" for n in range(40)), in_flight=10)
    assert [outcome.ok for outcome in outcomes] == [True] * 5 + [False] * 35
    errors = [outcome.error for outcome in outcomes[5:]]
    assert all(isinstance(error, BudgetExceededError) for error in errors)
    assert len({id(error) for error in errors}) == 35
    assert posts(emulator) == 5
    assert state(budget) == ("0.050", "0.000")
    assert outcomes[39].request == GenerationRequest(prompt="Egg 39")


@on_both
async def test_an_unknown_price_stops_no_batch() -> None:
    """Only the item that has none is refused."""
    _, egg = emulated(Budget(1))
    async with egg:
        outcomes = await egg.map([{"prompt": "A", "model": "veo3.1"}, "B"])
    assert [type(outcome.error) for outcome in outcomes] == [InvalidRequestError, type(None)]
