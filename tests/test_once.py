"""A job is bought once: however often it comes, to whichever process, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import anyio
import attrs
import pytest
from redis.asyncio import Redis

from eggapi_async import (
    AsyncEggClient,
    BadRequestError,
    Budget,
    BudgetExceededError,
    InvalidRequestError,
    JournalError,
    Ledger,
    LedgerEntry,
    RedisLedger,
    RetryPolicy,
    SubmissionUncertainError,
    TaskFailedError,
)
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.ledger import job_key, known, resolve
from eggapi_async.testing import connect
from tests.toy_redis import ToyRedis
from tests.virtual_time import on_both


@attrs.define(eq=False, slots=False)
class Shelf:
    """A ledger in this process, with a say in what goes wrong.

    *fails* is told of every write, as (key, old, new), and may raise.
    """

    texts: dict[str, str] = attrs.field(factory=dict)
    fails: Callable[[str, str | None, str | None], None] = lambda *_: None
    takes: float = 0.0

    async def read(self, keys: Collection[str]) -> Mapping[str, str]:
        """What is there."""
        await anyio.sleep(self.takes)
        return {key: self.texts[key] for key in keys if key in self.texts}

    async def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Exchange it."""
        await anyio.sleep(self.takes)
        self.fails(key, old, new)
        if self.texts.get(key) not in (old, new):
            return False
        if new is None:
            self.texts.pop(key, None)
        else:
            self.texts[key] = new
        return True

    def entry(self, job: str = "job") -> LedgerEntry | None:
        """What is noted of a job."""
        text = self.texts.get(job_key(job))
        return None if text is None else LedgerEntry.of(text)


def wall_clock() -> datetime:
    """The virtual time as a date."""
    return datetime.fromtimestamp(anyio.current_time(), UTC)


@asynccontextmanager
async def workers(
    emulator: EggEmulator, number: int = 2, **options: Any
) -> AsyncIterator[list[AsyncEggClient]]:
    """Clients of so many processes."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(number):
            egg = await stack.enter_async_context(connect(emulator, **options))
            egg._engines.jobs._now = wall_clock
            egg._engines.submissions._wall_clock = wall_clock
            egg._engines.transport._wall_clock = wall_clock
            clients.append(egg)
        yield clients


def service(**options: Any) -> EggEmulator:
    """An emulator in virtual time."""
    return EggEmulator(clock=anyio.current_time, **options)


@on_both
async def test_a_job_that_comes_again_is_not_bought_again() -> None:
    """Another process gets the same task, without a submission, and can await it."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator) as (one, other):
        first = await one.once("job", "an egg", ledger=shelf)
        again = await other.once("job", "an egg", ledger=shelf)
        assert first.id == again.id
        assert (await again).is_completed
        assert other.stats.submitted == 0
    assert emulator.accepted == [first.id]
    assert await known(shelf, [first.id, "gen_other"]) == {first.id}


async def test_what_is_noted_holds_no_prompt_and_no_key() -> None:
    """A hash, times, a mark, the id."""
    shelf = Shelf()
    async with workers(service(), 1, api_key="egg-secret-key") as (egg,):
        await egg.once("job", "a most private egg", ledger=shelf)
    assert "private" not in str(shelf.texts)
    assert "secret" not in str(shelf.texts)


async def test_two_at_once_are_one() -> None:
    """The slower one waits for the faster."""
    emulator, shelf = service(latency=2.0), Shelf(takes=0.01)
    async with workers(emulator) as (one, other):
        tasks = await asyncio.gather(
            *(egg.once("job", "an egg", ledger=shelf) for egg in (one, other, one, other))
        )
    assert len({task.id for task in tasks}) == 1
    assert len(emulator.accepted) == 1


async def test_the_intent_is_durable_before_the_post_leaves_and_the_id_right_after() -> None:
    """In this order, and nothing else is written."""
    shelf, seen = Shelf(), []
    emulator = service()

    def look(key: str, old: str | None, new: str | None) -> None:
        entry = None if new is None or key.startswith("task/") else LedgerEntry.of(new)
        seen.append((key[:4], entry and entry.task_id is not None, len(emulator.accepted)))

    shelf.fails = look
    async with workers(emulator, 1) as (egg,):
        await egg.once("job", "an egg", ledger=shelf)
    assert seen == [("job/", False, 0), ("job/", True, 1), ("task", None, 1)]


async def test_another_request_needs_another_name() -> None:
    """The same job cannot stand for two pictures."""
    shelf = Shelf()
    async with workers(service(), 1) as (egg,):
        await egg.once("job", "an egg", ledger=shelf)
        with pytest.raises(InvalidRequestError, match=r"^job: expected the request"):
            await egg.once("job", "two eggs", ledger=shelf)


@pytest.mark.parametrize("job", ["", 7, None, "\ud800"])
async def test_a_job_has_a_name(job: Any) -> None:
    """Text, not empty."""
    async with workers(service(), 1) as (egg,):
        with pytest.raises(InvalidRequestError, match=r"^job: expected text"):
            await egg.once(job, "an egg", ledger=Shelf())
        with pytest.raises(InvalidRequestError, match=r"^uncertain: expected 'raise'"):
            await egg.once("job", "an egg", ledger=Shelf(), uncertain=cast("Any", "guess"))


# --- what was not bought ---------------------------------------------------------------------


async def test_what_was_refused_leaves_nothing_behind() -> None:
    """It is bought when it comes again."""
    emulator, shelf = service(), Shelf()
    emulator.fail_next(Fault.refused(400))
    async with workers(emulator) as (one, other):
        with pytest.raises(BadRequestError):
            await one.once("job", "an egg", ledger=shelf)
        assert shelf.texts == {}
        await other.once("job", "an egg", ledger=shelf)
    assert len(emulator.accepted) == 1


async def test_a_budget_counts() -> None:
    """What it refuses is not noted."""
    shelf = Shelf()
    async with workers(service(), 1, budget=Budget("0.01")) as (egg,):
        await egg.once("job", "an egg", ledger=shelf)
        with pytest.raises(BudgetExceededError):
            await egg.once("other", "an egg", ledger=shelf)
    assert shelf.entry("other") is None


async def test_a_429_is_withdrawn_before_the_pause() -> None:
    """While it waits to be sent again, nobody takes it for lost."""
    emulator, shelf = service(), Shelf()
    emulator.fail_next(Fault.refused(429, retry_after=90), Fault.refused(429, retry_after=90))
    async with workers(emulator, 1, retry=RetryPolicy(max_retry_after=100, deadline=600)) as (egg,):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: egg.once("job", "an egg", ledger=shelf))
            await anyio.sleep(50)
            assert shelf.entry() is None
    assert len(emulator.accepted) == 1
    assert shelf.entry() is not None


async def test_another_may_buy_it_during_the_pause() -> None:
    """And the one that paused gets the other's task."""
    emulator, shelf = service(), Shelf()
    emulator.fail_next(Fault.refused(429, retry_after=90))
    async with workers(emulator) as (one, other):
        async with anyio.create_task_group() as group:
            tasks = []

            async def first() -> None:
                tasks.append(await one.once("job", "an egg", ledger=shelf))

            group.start_soon(first)
            await anyio.sleep(5)
            tasks.append(await other.once("job", "an egg", ledger=shelf))
    assert len({task.id for task in tasks}) == 1
    assert len(emulator.accepted) == 1


@pytest.mark.parametrize("native", [True, False], ids=["natively", "by a scope"])
async def test_cancelled_before_it_leaves_nothing_is_noted(native: bool) -> None:
    """While the ledger is being written, say."""
    emulator, shelf = service(), Shelf(takes=1.0)
    async with workers(emulator, 1) as (egg,):
        if native:
            task = asyncio.ensure_future(egg.once("job", "an egg", ledger=shelf))
            await asyncio.sleep(1.5)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            with anyio.move_on_after(1.5):
                await egg.once("job", "an egg", ledger=shelf)
    assert emulator.accepted == []
    assert shelf.texts == {}


@pytest.mark.parametrize("native", [True, False], ids=["natively", "by a scope"])
async def test_cancelled_under_way_its_id_is_noted(native: bool) -> None:
    """The answer is awaited, and written down, before the cancellation goes on."""
    emulator, shelf = service(latency=2.0), Shelf(takes=0.1)
    async with workers(emulator, 1) as (egg,):
        if native:
            task = asyncio.ensure_future(egg.once("job", "an egg", ledger=shelf))
            await asyncio.sleep(1.0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            with anyio.move_on_after(1.0):
                await egg.once("job", "an egg", ledger=shelf)
    entry = shelf.entry()
    assert entry is not None
    assert [entry.task_id] == emulator.accepted


# --- what is in doubt ------------------------------------------------------------------------


async def lose(emulator: EggEmulator, egg: AsyncEggClient, shelf: Ledger) -> None:
    """A job whose answer is lost, though it was bought."""
    emulator.fail_next(Fault.lost())
    with pytest.raises(SubmissionUncertainError):
        await egg.once("job", "an egg", ledger=shelf)


async def test_a_lost_answer_stays_in_doubt() -> None:
    """Any process says so; what it could be is looked for without those that are known."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator) as (one, other):
        await one.once("before", "an egg", ledger=shelf)
        await lose(emulator, one, shelf)
        await one.once("after", "an egg", ledger=shelf)
        for egg in (other, one):
            with pytest.raises(SubmissionUncertainError) as caught:
                await egg.once("job", "an egg", ledger=shelf)
            found = await caught.value.reconcile()
            assert [task.id for task in found] == [emulator.accepted[1]]
    assert len(emulator.accepted) == 3


async def test_a_process_that_died_leaves_a_doubt() -> None:
    """Another one waits until the POST can be under way no more, and says so then."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator, timeout=30) as (one, other):
        dying = asyncio.ensure_future(one.once("job", "an egg", ledger=shelf))
        while shelf.entry() is None:
            await asyncio.sleep(0)
        died = shelf.texts.copy()
        await dying
        shelf.texts = died  # as if it had not lived to hear the answer
        began = anyio.current_time()
        with pytest.raises(SubmissionUncertainError):
            await other.once("job", "an egg", ledger=shelf)
        assert 29 <= anyio.current_time() - began <= 31
    assert len(emulator.accepted) == 1


async def test_a_clock_that_is_ahead_keeps_nobody_waiting() -> None:
    """No longer than a POST may take."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator, timeout=30) as (one, other):
        one._engines.jobs._now = lambda: wall_clock() + timedelta(hours=1)
        dying = asyncio.ensure_future(one.once("job", "an egg", ledger=shelf))
        while shelf.entry() is None:
            await asyncio.sleep(0)
        died = shelf.texts.copy()
        await dying
        shelf.texts = died
        began = anyio.current_time()
        with pytest.raises(SubmissionUncertainError):
            await other.once("job", "an egg", ledger=shelf)
        assert 29 <= anyio.current_time() - began <= 31


async def test_a_job_that_was_taken_over_says_what_else_was_bought(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By one whose clock is ahead, and who wants to buy again: both tasks are known."""
    emulator, shelf = service(latency=5.0), Shelf()
    async with workers(emulator) as (one, other):
        other._engines.jobs._now = lambda: wall_clock() + timedelta(hours=1)
        slow = asyncio.ensure_future(one.once("job", "an egg", ledger=shelf))
        await asyncio.sleep(1)
        task = await other.once("job", "an egg", ledger=shelf, uncertain="resubmit")
        first = await slow
    assert emulator.accepted == [first.id, task.id]
    assert await known(shelf, emulator.accepted) == {first.id, task.id}
    assert f"come to {first.id}" in caplog.text
    assert "taken the job over" in caplog.text


async def test_who_wants_buys_again() -> None:
    """ "resubmit" is said, not guessed."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator) as (one, other):
        await lose(emulator, one, shelf)
        task = await other.once("job", "an egg", ledger=shelf, uncertain="resubmit")
        again = await one.once("job", "an egg", ledger=shelf)
    assert emulator.accepted[1:] == [task.id] == [again.id]


async def test_a_second_attempt_that_is_refused_leaves_the_doubt() -> None:
    """The first may have been bought all the same."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator) as (one, other):
        await lose(emulator, one, shelf)
        emulator.fail_next(Fault.refused(400))
        with pytest.raises(BadRequestError):
            await other.once("job", "an egg", ledger=shelf, uncertain="resubmit")
        with pytest.raises(SubmissionUncertainError):
            await other.once("job", "an egg", ledger=shelf)
    assert len(emulator.accepted) == 1


async def test_a_doubt_is_resolved_by_a_task() -> None:
    """Whoever has found out says which it was."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator) as (one, other):
        await lose(emulator, one, shelf)
        await resolve(shelf, "job", emulator.accepted[0])
        assert (await other.once("job", "an egg", ledger=shelf)).id == emulator.accepted[0]
        with pytest.raises(InvalidRequestError, match=r"^job: expected one that is in doubt"):
            await resolve(shelf, "job")
    assert await known(shelf, emulator.accepted) == set(emulator.accepted)


async def test_a_doubt_is_resolved_by_nothing() -> None:
    """Then it is bought when it comes again; a job that nobody knows is in no doubt."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator) as (one, other):
        await lose(emulator, one, shelf)
        await resolve(shelf, "job")
        await other.once("job", "an egg", ledger=shelf)
        with pytest.raises(InvalidRequestError, match="in doubt"):
            await resolve(shelf, "unknown")
    assert len(emulator.accepted) == 2


async def test_a_doubt_that_somebody_resolves_meanwhile_is_left_to_them() -> None:
    """Two do not decide."""
    emulator, shelf = service(), Shelf(takes=0.1)
    async with workers(emulator, 1) as (egg,):
        await lose(emulator, egg, shelf)
        read = shelf.read

        async def read_late(keys: Collection[str]) -> Mapping[str, str]:
            texts = await read(keys)
            shelf.texts.clear()  # somebody else was faster
            shelf.texts["job/job"] = "another"
            return texts

        shelf.read = read_late  # type: ignore[method-assign]
        with pytest.raises(InvalidRequestError, match="nobody else"):
            await resolve(shelf, "job", "gen_other")
    assert len(emulator.accepted) == 1


async def test_a_webhook_ends_a_doubt() -> None:
    """A delivery with the reference of the lost submission names its task, for good."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator, webhook_url="https://you.test/hooks") as (one, other):
        await lose(emulator, one, shelf)
        entry = shelf.entry()
        assert entry is not None
        assert entry.reference is not None
        other._engines.submissions.name(entry.reference, emulator.accepted[0])
        assert (await other.once("job", "an egg", ledger=shelf)).id == emulator.accepted[0]
        assert (await one.once("job", "an egg", ledger=shelf)).id == emulator.accepted[0]
    assert len(emulator.accepted) == 1


async def test_a_failed_task_fails_again_and_costs_nothing() -> None:
    """The end of a job is its end."""
    emulator, shelf = service(), Shelf()
    async with workers(emulator) as (one, other):
        for egg in (one, other):
            task = await egg.once("job", "a forbidden egg", ledger=shelf)
            with pytest.raises(TaskFailedError):
                await task
    assert len(emulator.accepted) == 1


# --- a ledger that fails ---------------------------------------------------------------------


async def test_without_the_ledger_nothing_is_bought() -> None:
    """A typed error; when it is back the job is bought, since nothing had left."""
    emulator, server = service(), ToyRedis(is_away=True)
    ledger = RedisLedger(cast("Redis", server))
    async with workers(emulator, 1) as (egg,):
        with pytest.raises(JournalError):
            await egg.once("job", "an egg", ledger=ledger)
        assert emulator.accepted == []
        server.is_away = False
        await egg.once("job", "an egg", ledger=ledger)
    assert len(emulator.accepted) == 1


@pytest.mark.parametrize("written", [True, False], ids=["written all the same", "not written"])
async def test_an_intent_that_may_have_been_written_is_taken_back(written: bool) -> None:
    """The ledger did not answer: nothing was sent, and no doubt stays."""
    emulator, shelf = service(), Shelf()

    def fail(key: str, old: str | None, new: str | None) -> None:
        shelf.fails = lambda *_: None
        if written and new is not None:
            shelf.texts[key] = new
        raise JournalError("no answer")

    shelf.fails = fail
    async with workers(emulator, 1) as (egg,):
        with pytest.raises(JournalError, match="no answer"):
            await egg.once("job", "an egg", ledger=shelf)
        assert shelf.texts == {}
        assert emulator.accepted == []


async def test_an_id_that_cannot_be_noted_is_said_and_given_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is paid for is not lost on the way; later deliveries are in doubt, not bought."""
    emulator, shelf = service(), Shelf()

    def fail(key: str, old: str | None, new: str | None) -> None:
        if old is not None:
            raise JournalError("full")

    shelf.fails = fail
    async with workers(emulator) as (one, other):
        task = await one.once("job", "an egg", ledger=shelf)
        assert task.id in caplog.text
        assert "full" in caplog.text
        assert {record.levelno for record in caplog.records} == {logging.WARNING}
        with pytest.raises(SubmissionUncertainError):
            await other.once("job", "an egg", ledger=shelf)
    assert len(emulator.accepted) == 1


@pytest.mark.parametrize("fault", [Fault.lost(), Fault.refused(400)], ids=["lost", "refused"])
async def test_an_end_that_cannot_be_noted_is_said(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of the submission is raised, not the ledger's."""
    emulator, shelf = service(), Shelf()
    emulator.fail_next(fault)

    def fail(key: str, old: str | None, new: str | None) -> None:
        if old is not None:
            raise JournalError("full")

    shelf.fails = fail
    async with workers(emulator, 1) as (egg,):
        with pytest.raises((SubmissionUncertainError, BadRequestError)):
            await egg.once("job", "an egg", ledger=shelf)
    assert "could not be noted" in caplog.text


@pytest.mark.parametrize("text", ["", "{}", "7", '{"content": "a"}', "no JSON"])
async def test_a_text_that_is_not_ours_is_a_typed_error(text: str) -> None:
    """Nothing is bought on its account."""
    emulator, shelf = service(), Shelf({job_key("job"): text})
    async with workers(emulator, 1) as (egg,):
        with pytest.raises(JournalError, match="no entry"):
            await egg.once("job", "an egg", ledger=shelf)
    assert emulator.accepted == []
