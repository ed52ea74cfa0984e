"""Deliveries and the waits that they end: against the emulator, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import attrs
import pytest

from eggapi_async import (
    AsyncEggClient,
    Budget,
    ConfigurationError,
    GenerationRequest,
    GenerationTask,
    NotFoundError,
    PollPolicy,
    SubmissionUncertainError,
    TaskFailedError,
    WebhookEvent,
    WebhookReceiver,
    sign_webhook,
    verify_webhook,
)
from eggapi_async._hub import EARLY
from eggapi_async.emulator import EggEmulator, Fault, WebhookFault
from eggapi_async.testing import connect
from tests.deliveries import HOOK, SECRET, body_of
from tests.virtual_time import on_both, run_on

Told = list[tuple[str, str]]


@attrs.define
class Place:
    """An emulator that delivers to a receiver, whose client is waiting."""

    emulator: EggEmulator
    egg: AsyncEggClient
    receiver: WebhookReceiver
    told: Told

    async def deliver(self, body: bytes, **options: Any) -> int:
        """A delivery of the service's, made by hand."""
        headers = sign_webhook(body, SECRET, now=anyio.current_time())
        return await self.receiver.handle(body, headers, **options)


@asynccontextmanager
async def place(*, options: dict[str, Any] | None = None, **emulated: Any) -> AsyncIterator[Place]:
    """The client is made with *options*, the emulator with the others."""
    emulator = EggEmulator(clock=anyio.current_time, webhook_secret=SECRET, **emulated)
    told: Told = []
    async with connect(emulator, **{"webhook_url": HOOK, **(options or {})}) as egg:
        receiver = WebhookReceiver(
            SECRET,
            deliver=egg.deliver,
            on_event=lambda event: told.append((event.task_id, event.event)),
            now=anyio.current_time,
        )
        async with emulator.delivering(receiver):
            yield Place(emulator, egg, receiver, told)


async def gathered(*works: Callable[[], Any]) -> list[Any]:
    """What `asyncio.gather` does, on either loop."""
    results: list[Any] = [None] * len(works)

    async def keep(number: int, work: Callable[[], Any]) -> None:
        results[number] = await work()

    async with anyio.create_task_group() as group:
        for number, work in enumerate(works):
            group.start_soon(keep, number, work)
    return results


async def crowd(here: Place, size: int) -> list[float]:
    """*size* generations at once, each awaited; how long after their ends they were known."""

    async def one(number: int) -> float:
        task = await here.egg.generate(f"egg {number}")
        result = await task
        life = here.emulator.task(task.id)
        assert (result.id, result.cost) == (task.id, life.price)
        assert result.url is not None
        assert result.url.endswith(life.output_paths()[0])
        return anyio.current_time() - life.completed_at

    return await gathered(*[partial(one, number) for number in range(size)])


@on_both
async def test_five_hundred_tasks_need_no_polls() -> None:
    """Every waiter is woken by its delivery, and each event has its effect once."""
    async with place(seed=3) as here:
        late = await crowd(here, 500)
        assert here.egg.stats.polls <= 0.05 * 500
        assert max(late) <= 0.1
        assert len(here.told) == len(set(here.told)) == 500
        assert here.egg.stats.delivered == 500
        assert here.egg.unfinished == ()


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param({"lost": 0.2}, id="a fifth is lost"),
        pytest.param({"duplicated": 0.2}, id="a fifth comes three times"),
        pytest.param({"reordered": 0.2}, id="a fifth is overtaken"),
        pytest.param({"forged": 0.2, "cut": 0.2, "late": 0.2}, id="forged, cut and late"),
        pytest.param(
            dict.fromkeys(("lost", "duplicated", "reordered", "forged", "cut", "late"), 0.2),
            id="all of it",
        ),
    ],
)
async def test_whatever_becomes_of_deliveries_all_results_are_right(
    faults: dict[str, float],
) -> None:
    """What is lost costs time, never the result; every event has its effect once."""
    async with place(seed=4, webhook_faults=faults) as here:
        late = await crowd(here, 200)
        with anyio.fail_after(3600):
            while here.emulator.pending_webhooks:
                await anyio.sleep(10)
        assert len(here.told) == len(set(here.told))
        assert len(here.told) == 200 or "lost" in faults
        assert here.egg.stats.polls <= 200
        assert max(late) <= 70


@on_both
async def test_a_failure_is_delivered_too() -> None:
    """With the service's reason."""
    async with place() as here:
        with pytest.raises(TaskFailedError, match="moderation") as caught:
            await here.egg.run("A forbidden egg")
        assert caught.value.task.cost == 0
        assert here.egg.stats.polls == 0


@on_both
async def test_all_who_wait_are_woken_at_once() -> None:
    """The leader of the polls, its followers, and those who watch the changes."""
    async with place() as here:
        task = await here.egg.generate("A cat")

        async def watched() -> list[str]:
            return [snapshot.status async for snapshot in task.updates()]

        *results, seen = await gathered(*[task.result] * 20, watched)
        assert anyio.current_time() == here.emulator.task(task.id).completed_at
        assert len({id(result) for result in results}) == 1
        assert seen == ["pending", "completed"]


@on_both
async def test_a_delivery_that_comes_before_the_submissions_answer_is_kept() -> None:
    """The task's id is not known yet, and nobody is woken in vain."""
    async with place() as here:
        here.emulator.fail_next(Fault.sync(), Fault.slow(20))
        first = await here.egg.run("A cat")
        task = await here.egg.generate("A quick cat")
        assert first.is_completed
        assert here.told
        assert task.done
        assert here.egg.stats.completed == 2
        assert here.egg.stats.polls == 0


@on_both
async def test_an_end_is_kept_for_a_handle_that_is_made_later() -> None:
    """For ten minutes; after that the task is asked for."""
    async with place() as here:
        assert await here.deliver(body_of("gen_soon")) == 204
        assert here.egg.task("gen_soon").done
        assert await here.deliver(body_of("gen_late")) == 204
        await anyio.sleep(EARLY + 1)
        assert await here.deliver(body_of("gen_x")) == 204  # what is too old goes now
        assert not here.egg.task("gen_late").done


@on_both
async def test_what_is_older_does_not_undo_what_is_newer() -> None:
    """A start that comes after the end, and an end that comes twice and differs."""
    async with place() as here:
        task = await here.egg.generate("A cat")
        await here.deliver(body_of(task.id, "task.started", status="processing"))
        assert task.status == "processing"
        await here.deliver(body_of(task.id))
        await here.deliver(body_of(task.id, "task.resumed", status="processing"))
        await here.deliver(body_of(task.id, "task.failed"))
        assert task.status == "completed"
        assert here.egg.stats.completed == 1


@on_both
async def test_an_event_that_tells_nothing_of_a_task_changes_nothing() -> None:
    """It is taken in, and that is all; so is a hint that tells no end."""
    async with place() as here:
        task = await here.egg.generate("A cat")
        assert await here.deliver(body_of(task.id, "egg.cracked", status=None)) == 204
        hint = WebhookEvent(event="x", task_id=task.id, status="processing", is_trusted=False)
        assert await here.egg.deliver(hint) is None
        assert task.status == "pending"
        assert await here.deliver(body_of("gen_foreign", "x", status="processing")) == 204
        assert here.egg.stats.requests == {"submit": 1}


@on_both
async def test_a_stale_delivery_costs_one_request_and_ends_the_wait() -> None:
    """It is authentic, so the service is asked for the truth, once however often it comes."""
    async with place(webhook_refresh=False) as here:
        here.emulator.fail_next_webhooks(WebhookFault.late(400))
        task = await here.egg.generate("A cat", extra={"webhook_url": HOOK})
        life = here.emulator.task(task.id)
        await anyio.sleep(life.completed_at + 399 - anyio.current_time())
        assert not task.done
        await anyio.sleep(2)
        assert task.done
        assert task.snapshot is not None
        assert task.snapshot.completed_at is not None  # the task object tells more than the event
        attempt = here.emulator.deliveries[-1]
        again = await here.receiver.handle(attempt.body, attempt.headers)
        assert (attempt.status, again) == (204, 204)
        assert here.egg.stats.requests == {"submit": 1, "get": 1}


@on_both
async def test_an_event_without_its_output_costs_one_request() -> None:
    """The picture is what the wait is for."""
    async with place() as here:
        task = await here.egg.generate("A cat")
        life = here.emulator.task(task.id)
        await anyio.sleep(life.completed_at - anyio.current_time() - 0.001)
        assert await here.deliver(body_of(task.id, output=None)) == 503  # not there yet
        await anyio.sleep(0.0005)
        assert not task.done
        await anyio.sleep(0.001)
        other = await here.egg.generate("Another cat", extra={"webhook_url": HOOK})
        end = here.emulator.task(other.id).completed_at
        here.emulator.fail_next(Fault.refused(503), on="GET /v1/tasks")
        await anyio.sleep(end - anyio.current_time())
        assert await here.deliver(body_of(other.id, output={})) == 204
        assert other.snapshot is not None
        assert other.snapshot.url is not None


@on_both
async def test_a_delivery_about_a_task_of_another_key_is_no_secret_way_in() -> None:
    """Where it must be asked for, the service knows no such task."""
    async with place() as here:
        assert await here.deliver(body_of("gen_foreign", output=None)) == 503
        event = WebhookEvent(event="task.completed", task_id="gen_foreign", is_trusted=False)
        with pytest.raises(NotFoundError):
            await here.egg.deliver(event)


# --- polling beside webhooks ---------------------------------------------------------------------


@on_both
async def test_a_lost_delivery_costs_time_only() -> None:
    """The safety net looks after a minute, or whenever the policy says."""
    for policy, wait in [(PollPolicy(), 60), (PollPolicy(safety_net=20), 20)]:
        async with place(options={"polling": policy}, seed=4) as here:
            here.emulator.fail_next_webhooks(WebhookFault.lost())
            before = anyio.current_time()
            await here.egg.run("A cat")
            assert anyio.current_time() - before == pytest.approx(wait, abs=1)
            assert here.egg.stats.polls == 1


@on_both
async def test_a_task_that_takes_long_is_looked_at_once_a_minute() -> None:
    """Alone or among others; a delivery still ends the wait at once."""
    async with place(speed=0.1) as here:
        lags = await crowd(here, 1)
        assert max(lags) <= 0.1
        assert here.egg.stats.polls <= anyio.current_time() / 60
        polls, before = here.egg.stats.polls, anyio.current_time()
        lags = await crowd(here, 20)
        assert max(lags) <= 0.1
        assert here.egg.stats.polls - polls <= 20 * (anyio.current_time() - before) / 60


@on_both
async def test_without_the_safety_net_tasks_are_polled_as_ever() -> None:
    """For clients whose deliveries go elsewhere."""
    async with place(options={"polling": PollPolicy(safety_net=None)}) as here:
        here.emulator.fail_next_webhooks(WebhookFault.lost())
        task = await here.egg.generate("A cat")
        await task
        assert anyio.current_time() - here.emulator.task(task.id).completed_at <= 5


@on_both
async def test_deliveries_that_do_not_arrive_are_no_longer_waited_for() -> None:
    """Three ends in a row that polls had to find; the rest is found at once, and later ones too."""
    async with place(webhook_faults={"lost": 1.0}) as here:
        await crowd(here, 30)
        after = anyio.current_time()
        lags = await crowd(here, 5)
        assert after <= 1065
        assert max(lags) <= 5
        with_webhooks = await here.egg.generate("A cat")
        await here.deliver(body_of(with_webhooks.id))  # here is one: they arrive again
        polls = here.egg.stats.polls
        before = anyio.current_time()
        await here.egg.run("A cat")
        assert here.egg.stats.polls == polls + 1
        assert anyio.current_time() - before == pytest.approx(60, abs=1)


@on_both
async def test_a_url_of_the_requests_own_has_to_prove_itself() -> None:
    """Nobody has promised that deliveries come here: the first is polled for, the next are not."""
    async with place(options={"webhook_url": None}, seed=4) as here:
        for most in (3, 0):
            before = here.egg.stats.polls
            await here.egg.run("A cat", webhook_url=f"{HOOK}?bot=1")
            assert here.egg.stats.polls - before <= most
            assert (here.egg.stats.polls > before) is (most > 0)


@on_both
async def test_other_tasks_are_polled_as_ever() -> None:
    """Those that carry no webhook beside those that do."""
    async with place() as here:

        async def one(number: int) -> float:
            extra = {"webhook_url": None} if number % 2 else {}
            task = await here.egg.generate(f"egg {number}", extra=extra)
            await task
            return anyio.current_time() - here.emulator.task(task.id).completed_at

        lags = await gathered(*[partial(one, number) for number in range(60)])
        assert max(lags[1::2]) <= 5
        assert max(lags[::2]) <= 0.6  # by the delivery, or by a page that was read for the others
        assert len(here.told) == 30


@on_both
async def test_who_waits_again_keeps_the_rhythm() -> None:
    """Cancelled waits and new ones cost no looks."""
    async with place(speed=0.1) as here:
        task = await here.egg.generate("A cat")
        for _ in range(50):
            with anyio.move_on_after(1):
                await task
        assert here.egg.stats.polls == 0


@on_both
async def test_an_end_that_is_told_to_a_handle_before_the_answer_counts() -> None:
    """The money is settled, and the task is not unfinished for a day."""
    budget = Budget("1")
    async with place(options={"budget": budget}) as here:
        here.emulator.fail_next(Fault.slow(2.0))
        tasks: list[GenerationTask] = []

        async def buy() -> None:
            tasks.append(await here.egg.generate("A cat"))

        async with anyio.create_task_group() as group:
            group.start_soon(buy)
            await anyio.sleep(1)
            (task_id,) = here.emulator.accepted
            handle = here.egg.task(task_id)
            end = WebhookEvent(
                event="task.completed",
                task_id=task_id,
                status="completed",
                output={"url": "https://cdn.test/egg.png"},
                cost=Decimal("0.01"),
                raw={"cost": "$0.01"},
            )
            await here.egg.deliver(end)
        assert handle.done
        assert here.egg.unfinished == ()
        assert (here.egg.stats.completed, here.egg.stats.cost) == (1, Decimal("0.01"))
        assert (budget.spent, budget.reserved) == (Decimal("0.01"), Decimal(0))


# --- references ----------------------------------------------------------------------------------


@on_both
async def test_the_service_is_given_the_url_with_a_reference_of_its_own() -> None:
    """And calls exactly that; the request shows the URL as the user gave it."""
    async with place(options={"webhook_url": f"{HOOK}?bot=7"}) as here:
        one, two = [await here.egg.generate("A cat") for _ in range(2)]
        urls = [here.emulator.task(task.id).fields["webhook_url"] for task in (one, two)]
        await gathered(one.result, two.result)
        assert one.request == GenerationRequest(prompt="A cat", webhook_url=f"{HOOK}?bot=7")
        assert len(set(urls)) == 2
        assert all(url.startswith(f"{HOOK}?bot=7&egg_ref=") for url in urls)
        assert {attempt.url for attempt in here.emulator.deliveries} == set(urls)


@on_both
async def test_a_url_that_must_not_be_touched_is_not() -> None:
    """The reference is off, or the URL is the request's own."""
    async with place(options={"webhook_reference": False}) as here:
        tasks = [
            await here.egg.generate("A cat"),
            await here.egg.generate("A cat", webhook_url="https://other.test/x?y"),
        ]
        urls = [here.emulator.task(task.id).fields["webhook_url"] for task in tasks]
        assert urls == [HOOK, "https://other.test/x?y"]


@on_both
async def test_a_delivery_names_the_task_of_a_lost_submission() -> None:
    """Exactly, though the list shows many that could be it."""
    async with place(foreign_per_second=1.0) as here:
        await anyio.sleep(60)
        here.emulator.fail_next(Fault.lost())
        with pytest.raises(SubmissionUncertainError) as caught:
            await here.egg.generate("A cat")
        assert len(await caught.value.reconcile()) > 1
        (lost,) = here.emulator.accepted
        await anyio.sleep(here.emulator.task(lost).completed_at - anyio.current_time() + 0.1)
        assert [task.id for task in await caught.value.reconcile()] == [lost]
        assert [task.id for task in await here.egg.reconcile(caught.value)] == [lost]


@on_both
async def test_a_delivery_resolves_a_doubt_before_anybody_is_troubled() -> None:
    """Where it comes before the answer is given up, there is no error at all."""
    async with place(options={"timeout": 30.0}) as here:
        here.emulator.fail_next(Fault.slow(1000))
        task = await here.egg.generate("A cat")
        assert [task.id] == here.emulator.accepted
        assert (await task).is_completed
        assert here.egg.stats.submitted == here.egg.stats.completed == 1
        assert here.egg.stats.polls == 0


@on_both
async def test_verifying_listens_for_deliveries() -> None:
    """Several could be it by the list; the delivery tells which."""
    async with place(foreign_per_second=2.0) as here:
        await anyio.sleep(60)
        here.emulator.fail_next(Fault.lost())
        task = await here.egg.generate("A cat", uncertain="verify")
        assert [task.id] == here.emulator.accepted
        assert anyio.current_time() == here.emulator.task(task.id).completed_at


@on_both
async def test_what_a_delivery_gave_to_one_is_no_candidate_for_another() -> None:
    """Two lost submissions alike: the one that is named leaves the other its own."""
    async with place(speed=10) as here:
        here.emulator.fail_next(Fault.lost(), Fault.lost())
        here.emulator.fail_next_webhooks(WebhookFault.lost())
        errors = []
        for _ in range(2):
            with pytest.raises(SubmissionUncertainError) as caught:
                await here.egg.generate("A cat")
            errors.append(caught.value)
        assert [len(await error.reconcile()) for error in errors] == [2, 2]
        await anyio.sleep(3)
        found = [[task.id for task in await error.reconcile()] for error in errors]
        assert found == [[task_id] for task_id in here.emulator.accepted]


@on_both
async def test_a_name_that_comes_while_the_list_is_read_counts() -> None:
    """Even where verifying could have failed."""
    async with place(foreign_per_second=2.0, latency=5.0) as here:
        await anyio.sleep(60)
        here.emulator.fail_next(Fault.lost())
        with pytest.raises(SubmissionUncertainError) as caught:
            await here.egg.generate("A cat")
        (lost,) = here.emulator.accepted
        end = here.emulator.task(lost).completed_at
        await anyio.sleep(max(0.0, end - anyio.current_time() - 1))
        assert [task.id for task in await caught.value.reconcile()] == [lost]


async def test_a_webhook_url_is_checked_when_the_client_is_made() -> None:
    """Not when the first picture is bought."""
    with pytest.raises(ConfigurationError, match="webhook_url"):
        connect(EggEmulator(), webhook_url="http://bot.test")


# --- other arrangements --------------------------------------------------------------------------


@on_both
async def test_one_receiver_serves_several_clients() -> None:
    """Each takes what is its own; the others keep it for a while, and forget it."""
    emulator = EggEmulator(clock=anyio.current_time, webhook_secret=SECRET)
    async with (
        connect(emulator, webhook_url=HOOK) as one,
        connect(emulator, webhook_url=HOOK) as two,
    ):
        receiver = WebhookReceiver(
            SECRET, deliver=[one.deliver, two.deliver], now=anyio.current_time
        )
        async with emulator.delivering(receiver):
            results = await gathered(partial(one.run, "A cat"), partial(two.run, "Another"))
        assert all(result.is_completed for result in results)
        assert one.stats.polls == two.stats.polls == 0


@on_both
async def test_an_event_may_come_by_any_way() -> None:
    """Verified somewhere else, and carried here."""
    async with place() as here:
        task = await here.egg.generate("A cat")
        body = body_of(task.id)
        headers = sign_webhook(body, SECRET, now=7)
        known = await here.egg.deliver(verify_webhook(body, headers, SECRET, now=7))
        assert known is task.snapshot
        assert (await task).is_completed


@pytest.mark.real_time
async def test_a_delivery_on_another_event_loop_wakes_who_waits_on_this_one() -> None:
    """As where a bot waits in one thread, and a web server listens in another."""
    emulator = EggEmulator()
    async with connect(emulator, webhook_url=HOOK) as egg:
        receiver = WebhookReceiver(SECRET, deliver=egg.deliver)
        task = await egg.generate("A cat")
        unclear = body_of(task.id, output=None)  # so that the service must be asked, on this loop
        body = body_of(task.id)

        async def elsewhere() -> list[int]:
            sent = [(each, sign_webhook(each, SECRET)) for each in (unclear, body)]
            return [await receiver.handle(*each) for each in sent]

        async with anyio.create_task_group() as group:
            statuses: list[int] = []

            async def listen() -> None:
                statuses.extend(await anyio.to_thread.run_sync(anyio.run, elsewhere))

            group.start_soon(listen)
            result = await task.result(timeout=60)
        assert statuses == [503, 204]  # it had not ended yet, then it had
        assert result.url == "https://cdn.test/" + task.id + ".png"
        assert egg.stats.polls == 0


@pytest.mark.parametrize("first", ["asyncio", "trio"])
@pytest.mark.parametrize("second", ["asyncio", "trio"])
def test_what_was_kept_survives_the_event_loop(first: str, second: str) -> None:
    """A delivery that came on one loop ends the wait on the next, whatever its clock shows."""
    emulator = EggEmulator()
    egg = connect(emulator, webhook_url=HOOK)
    event = verify_webhook(body_of(), sign_webhook(body_of(), SECRET, now=1), SECRET, now=1)

    async def submit() -> str:
        await egg.deliver(event)
        return (await egg.generate("A cat")).id

    task_id = run_on(first, submit)
    later = attrs.evolve(event, task_id=task_id)

    async def again() -> tuple[bool, bool]:
        await egg.deliver(later)
        return egg.task("gen_a").done, egg.task(task_id).done

    assert run_on(second, again) == (True, True)
    run_on(second, egg.aclose)
