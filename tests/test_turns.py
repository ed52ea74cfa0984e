"""Turns of many users: waiting, quotas, cancelling, and nothing left behind."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from eggapi_async import (
    ConfigurationError,
    EggError,
    QuotaExceededError,
    RateLimiter,
    TurnCancelledError,
    Turns,
)
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.virtual_time import on_both, run_virtual


@on_both
async def test_a_user_has_one_turn_at_a_time() -> None:
    """The second waits for the first; another user does not."""
    turns = Turns()
    ended: list[tuple[str, float]] = []
    start = anyio.current_time()

    async def work(user: str) -> None:
        async with turns.turn(user):
            await anyio.sleep(10)
        ended.append((user, anyio.current_time() - start))

    async with anyio.create_task_group() as group:
        for user in ("a", "a", "b"):
            group.start_soon(work, user)
    assert sorted(ended) == [("a", 10), ("a", 20), ("b", 10)]
    assert repr(turns) == "<Turns 0 of 200 under way, 0 waiting>"


@on_both
async def test_one_users_hundred_do_not_stand_before_anothers_one() -> None:
    """Over one client and its limiter: the greedy finish last, the modest nearly at once."""
    emulator = EggEmulator(clock=anyio.current_time, seed=3)
    turns = Turns(concurrency=5, in_flight=10)
    waited: dict[str, list[float]] = {"greedy": [], "modest": []}
    limiter = RateLimiter(per_second=5)
    async with connect(emulator, limiter=limiter) as egg:

        async def ask(user: str, name: str) -> None:
            start = anyio.current_time()
            async with turns.turn(user):
                waited[name].append(anyio.current_time() - start)
                await egg.run("An egg")

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(ask, "greedy", "greedy")
            await anyio.sleep(30)
            for number in range(5):
                group.start_soon(ask, f"user {number}", "modest")
    assert len(emulator.accepted) == 105
    assert max(waited["modest"]) == 0  # five of ten places are never one user's
    assert max(waited["greedy"]) > 100


@on_both
async def test_who_has_had_all_is_refused_at_once() -> None:
    """With the seconds until the next turn; after them it is there."""
    turns = Turns(quota=2, per=60)
    for _ in range(2):
        async with turns.turn("me"):
            await anyio.sleep(10)
    with pytest.raises(QuotaExceededError) as caught:
        async with turns.turn("me"):
            raise AssertionError("it was not to begin")
    error = caught.value
    assert (error.key, error.quota, error.per, error.retry_after) == ("me", 2, 60, 40)
    await anyio.sleep(error.retry_after)
    async with turns.turn("me"):
        pass


@on_both
async def test_who_wants_to_wait_for_the_quota_does() -> None:
    """Without anybody else to wake them."""
    turns = Turns(quota=1, per=60)
    start = anyio.current_time()
    begun = []
    for _ in range(3):
        async with turns.turn("me", wait=True):
            begun.append(anyio.current_time() - start)
    assert begun == [0, 60, 120]


@on_both
async def test_a_turn_may_be_given_back() -> None:
    """What came to nothing does not count; afterwards it is too late."""
    turns = Turns(quota=1, per=60)
    async with turns.turn("me") as turn:
        turn.refund()
    async with turns.turn("me") as turn:
        pass
    turn.refund()
    turns.turn("me").refund()
    with pytest.raises(QuotaExceededError):
        await turns.turn("me").__aenter__()


@on_both
async def test_a_refund_serves_who_waits_for_it() -> None:
    """The second turn of the user begins at that moment."""
    turns = Turns(concurrency=2, quota=1, per=3600)
    start = anyio.current_time()

    async def second() -> None:
        async with turns.turn("me", wait=True):
            assert anyio.current_time() - start == 5

    async with anyio.create_task_group() as group:
        async with turns.turn("me") as turn:
            group.start_soon(second)
            await anyio.sleep(5)
            turn.refund()
            await anyio.sleep(5)


@on_both
async def test_a_position_counts_down() -> None:
    """It can be asked before one waits, and while one does."""
    turns = Turns(in_flight=1)
    seen: list[int] = []

    async def work(user: int) -> None:
        async with turns.turn(user):
            await anyio.sleep(10)

    async with anyio.create_task_group() as group:
        for user in range(3):
            group.start_soon(work, user)
        await anyio.wait_all_tasks_blocked()
        assert turns.position("me") == 3
        mine = turns.turn("me")
        assert mine.position == 0

        async def watch() -> None:
            for _ in range(4):
                await anyio.wait_all_tasks_blocked()
                seen.append(mine.position)
                await anyio.sleep(10)

        group.start_soon(watch)
        async with mine:
            assert repr(mine) == "<Turn of 'me', position 0>"
    assert seen == [3, 2, 1, 0]
    assert turns.position("me") == 0


@on_both
async def test_cancelling_a_user_ends_all_their_turns() -> None:
    """Waiting and under way, by a typed error; other users do not notice."""
    turns = Turns(in_flight=2)
    ends: list[str] = []

    async def work(user: str, name: str) -> None:
        try:
            async with turns.turn(user):
                await anyio.sleep(10)
        except TurnCancelledError as error:
            ends.append(f"{name} of {error.key} cancelled")
        else:
            ends.append(f"{name} done")

    async with anyio.create_task_group() as group:
        group.start_soon(work, "a", "under way")
        await anyio.wait_all_tasks_blocked()
        group.start_soon(work, "a", "waiting")
        group.start_soon(work, "b", "another")
        await anyio.sleep(1)
        assert turns.cancel("a") == 2
        assert turns.cancel("nobody") == 0
    assert sorted(ends) == ["another done", "under way of a cancelled", "waiting of a cancelled"]
    assert turns.position("a") == 0


@on_both
async def test_a_cancelled_turn_loses_no_task() -> None:
    """The submission under way is heard, and its task is among the unfinished."""
    emulator = EggEmulator(clock=anyio.current_time, latency=1.0)
    turns = Turns()
    async with connect(emulator) as egg:

        async def ask() -> None:
            with pytest.raises(TurnCancelledError):
                async with turns.turn("me"):
                    await egg.run("An egg")

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.sleep(0.5)
            turns.cancel("me")
        assert [task.id for task in egg.unfinished] == emulator.accepted


@on_both
async def test_a_turn_that_was_done_anyway_is_not_cancelled() -> None:
    """A block that ends without waiting once more has ended well."""
    turns = Turns()
    async with turns.turn("me"):
        turns.cancel("me")
    async with turns.turn("me"):
        pass


@on_both
async def test_the_block_ends_as_it_does_elsewhere() -> None:
    """What it raises is raised, and the turn is given back; so it is when the caller is
    cancelled."""
    turns = Turns()
    with pytest.raises(ZeroDivisionError):
        async with turns.turn("me"):
            raise ZeroDivisionError
    async with turns.turn("me"):
        with anyio.move_on_after(5) as waiting:
            async with turns.turn("me"):
                raise AssertionError("the first has not ended")
        assert waiting.cancelled_caught
    with anyio.move_on_after(5) as inside:
        async with turns.turn("me"):
            await anyio.sleep(10)
    assert inside.cancelled_caught
    assert turns.position("me") == 0


def test_another_event_loop_starts_afresh() -> None:
    """Turns of a loop that is gone take no places, and their ends do no harm."""
    turns = Turns(quota=1, per=1e6)
    left = turns.turn("me")

    async def first() -> None:
        await left.__aenter__()

    async def second() -> None:
        async with turns.turn("me"):
            turns.leave(left._ticket)  # type: ignore[arg-type]

    run_virtual(first)
    run_virtual(second)


@pytest.mark.parametrize("field", ["concurrency", "quota", "per", "in_flight"])
@pytest.mark.parametrize("value", [0, -1, True, "1", math.nan, math.inf])
def test_impossible_numbers_are_refused(field: str, value: Any) -> None:
    """By name."""
    with pytest.raises(ConfigurationError, match=f"^{field}: expected"):
        Turns(**{field: value})


def test_fractions_of_turns_are_refused() -> None:
    """But not of seconds."""
    Turns(per=0.5)
    with pytest.raises(ConfigurationError):
        Turns(concurrency=1.5)  # type: ignore[arg-type]
    assert issubclass(QuotaExceededError, EggError)
