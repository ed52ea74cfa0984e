"""Who waits for which task: the lead, its passing on, errors, and what is remembered."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio
import pytest

from eggapi_async import (
    APIError,
    AuthenticationError,
    ConnectionFailedError,
    GenerationRequest,
    NotFoundError,
    Page,
    PermissionDeniedError,
    PollPolicy,
    ServerError,
    Stats,
    TaskFailedError,
    TaskSnapshot,
)
from eggapi_async._hub import FORGOTTEN, Hub, Waiter, Watch
from eggapi_async._protocol import Call
from tests.virtual_time import run_on

REQUEST = GenerationRequest(prompt="an egg")


def shot(task_id: str = "gen_a", status: str = "pending", **fields: Any) -> TaskSnapshot:
    """A snapshot."""
    return TaskSnapshot(id=task_id, status=status, **fields)


class Service:
    """Stands in for the transport: answers polls from a function of time, and counts them."""

    def __init__(self, answer: Callable[[str, float], TaskSnapshot | Exception]) -> None:
        self._answer = answer
        self.asked: list[str] = []
        self.under_way = 0
        self.delay = 0.0
        self.list_error: Exception | None = None
        self.tasks: list[str] = []
        self.extra: list[dict[str, Any]] = []

    async def ask(self, call: Call[Any], *, first: bool = False) -> Any:
        """One poll."""
        name = call.path.rpartition("/")[2]
        self.asked.append(name)
        self.under_way += 1
        try:
            await anyio.sleep(self.delay)
        finally:
            self.under_way -= 1
        return self._page() if name == "tasks" else self._one(name)

    def _one(self, task_id: str) -> TaskSnapshot:
        found = self._answer(task_id, anyio.current_time())
        if isinstance(found, Exception):
            raise found
        return found

    def _page(self) -> Page[dict[str, Any]]:
        if self.list_error is not None:
            raise self.list_error
        items = [*self.extra]
        for task_id in self.tasks:
            task = self._one(task_id)
            output = {"url": "https://cdn.test/x.png"} if task.is_completed else None
            items.append({"id": task.id, "status": task.status, "output": output})
        return Page(items=tuple(items), page=1, per_page=100, total=len(items), total_pages=1)


def ends_at(seconds: float, status: str = "completed") -> Callable[[str, float], TaskSnapshot]:
    """Every task ends *seconds* after the virtual clock's start."""

    def answer(task_id: str, now: float) -> TaskSnapshot:
        return shot(task_id, status if now >= 1000.0 + seconds else "processing")

    return answer


def hub_of(service: Service, **policy: Any) -> Hub:
    """A hub that polls *service*."""
    return Hub(transport=service, policy=PollPolicy(**policy), stats=Stats())  # type: ignore[arg-type]


def submitted(hub: Hub, service: Service, *ids: str) -> list[Watch]:
    """Tasks as their submissions' answers leave them."""
    service.tasks += ids
    return [hub.submitted(shot(task_id), REQUEST) for task_id in ids]


async def test_a_lone_task_is_polled_by_its_waiter() -> None:
    """First after 3 s, then every 5 s; the result is there at the first look after the end."""
    service = Service(ends_at(9))
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")

    task = await hub.result(watch)

    assert task.is_completed
    assert service.asked == ["gen_a"] * 3
    assert asyncio.get_running_loop().time() == 1013.0


async def test_nobody_waiting_means_no_request() -> None:
    """There is no background poller."""
    service = Service(ends_at(5))
    hub = hub_of(service)
    submitted(hub, service, "gen_a", "gen_b")

    await anyio.sleep(3600)

    assert service.asked == []
    assert len(hub.unfinished) == 2


async def test_many_waiters_of_one_task_share_one_poll() -> None:
    """Fifty waiters cost what one does."""
    service = Service(ends_at(9))
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")

    tasks = await asyncio.gather(*(hub.result(watch) for _ in range(50)))

    assert {task.status for task in tasks} == {"completed"}
    assert len(service.asked) == 3


async def test_when_the_leader_is_cancelled_another_takes_over_at_once() -> None:
    """The rhythm goes on without a gap, and nothing the leader had under way is left behind."""
    service = Service(ends_at(20))
    service.delay = 1.0
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")
    waiters = [asyncio.ensure_future(hub.result(watch)) for _ in range(3)]

    for waiter in waiters[:2]:
        await anyio.sleep(3.5)  # in the middle of a poll, the second time
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    task = await waiters[2]

    assert task.is_completed
    assert len(service.asked) <= 6
    assert service.under_way == 0


async def test_all_waiters_cancelled_leave_nothing() -> None:
    """No poll under way, nothing watched; the task is still unfinished, and can be awaited."""
    service = Service(ends_at(30))
    service.delay = 1.0
    hub = hub_of(service)
    watches = submitted(hub, service, *(f"gen_{n}" for n in range(20)))
    waiters = [asyncio.ensure_future(hub.result(watch)) for watch in watches]
    await anyio.sleep(3.5)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)

    assert (hub.waited, service.under_way, len(hub.unfinished)) == (0, 0, 20)
    asked = len(service.asked)
    await anyio.sleep(100)
    assert len(service.asked) == asked
    assert (await hub.result(watches[0])).is_completed


async def test_a_leader_with_its_result_does_not_wait_for_the_others() -> None:
    """A poll that hangs delays its leader by half a second at most."""
    service = Service(ends_at(4))
    hub = hub_of(service, sweep=False)
    quick, slow = submitted(hub, service, "gen_a", "gen_b")
    follower = asyncio.ensure_future(hub.result(slow))
    await anyio.sleep(0.5)
    leader = asyncio.ensure_future(hub.result(quick))
    await anyio.sleep(2.6)
    service.delay = 60.0
    await anyio.sleep(5.5)
    hub.show(shot("gen_b", "completed"))
    before = asyncio.get_running_loop().time()
    await follower

    assert asyncio.get_running_loop().time() - before <= 0.5
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)


async def test_a_failed_task_raises_its_own_error() -> None:
    """The service's text comes with it."""
    service = Service(lambda task_id, _: shot(task_id, "failed", error="Content moderation: no"))
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")

    with pytest.raises(TaskFailedError, match="moderation") as caught:
        await hub.result(watch)

    assert caught.value.is_moderation
    assert hub.unfinished == ()


async def test_a_final_snapshot_is_kept() -> None:
    """Awaiting again costs nothing."""
    service = Service(ends_at(1))
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")
    first = await hub.result(watch)

    assert await hub.result(watch) is first
    assert len(service.asked) == 1


def error_of(kind: type[APIError], status: int) -> APIError:
    """An API error as a poll raises it."""
    return kind("no", status_code=status)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailedError("reset"),
        error_of(ServerError, 502),
        error_of(APIError, 418),
    ],
    ids=["the network", "a broken gateway", "nonsense"],
)
async def test_a_failed_poll_does_not_end_the_wait(error: Exception) -> None:
    """It may pass; the next look comes."""
    service = Service(lambda task_id, now: error if now < 1010 else shot(task_id, "completed"))
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")

    assert (await hub.result(watch)).is_completed


@pytest.mark.parametrize(
    "error",
    [error_of(AuthenticationError, 401), error_of(PermissionDeniedError, 403)],
    ids=["a key that is no longer good", "an account that is suspended"],
)
async def test_a_hopeless_error_ends_every_wait(error: APIError) -> None:
    """Each waiter gets an instance of its own; a later wait asks anew."""
    answers: list[TaskSnapshot | Exception] = [error]
    service = Service(lambda task_id, _: answers[-1])
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")

    raised = await asyncio.gather(*(hub.result(watch) for _ in range(3)), return_exceptions=True)
    answers.append(shot("gen_a", "completed"))

    assert [type(each) for each in raised] == [type(error)] * 3
    assert len({id(each) for each in raised}) == 3
    assert (await hub.result(watch)).is_completed


async def test_a_404_right_after_submission_is_a_lagging_replica() -> None:
    """Within 3 s it says nothing, later it must come twice; a snapshot in between forgets it."""
    answers: list[TaskSnapshot | Exception] = []
    not_found = error_of(NotFoundError, 404)

    def answer(task_id: str, now: float) -> TaskSnapshot | Exception:
        answers.append(not_found if now in (1003.0, 1008.0, 1018.0) else shot(task_id))
        return answers[-1] if now < 1030 else shot(task_id, "completed")

    service = Service(answer)
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")

    assert (await hub.result(watch)).is_completed
    assert answers.count(not_found) == 3


async def test_a_lasting_404_ends_the_wait() -> None:
    """The task is not there, and will not come."""
    service = Service(lambda *_: error_of(NotFoundError, 404))
    hub = hub_of(service)
    (own,) = submitted(hub, service, "gen_a")

    with pytest.raises(NotFoundError):
        await hub.result(own)
    assert asyncio.get_running_loop().time() == 1013.0
    with pytest.raises(NotFoundError):
        await hub.result(hub.watch("gen_unknown"))
    assert asyncio.get_running_loop().time() == 1013.0


async def test_errors_of_the_list_end_no_wait() -> None:
    """A key that may not list can still ask by name."""
    service = Service(ends_at(5))
    service.list_error = error_of(PermissionDeniedError, 403)
    hub = hub_of(service)
    watches = submitted(hub, service, *"abcdef")

    tasks = await asyncio.gather(*map(hub.result, watches))

    assert all(task.is_completed for task in tasks)


async def test_a_list_entry_that_makes_no_sense_is_asked_for_by_name() -> None:
    """One bad entry does not spoil the page."""
    service = Service(ends_at(5))
    hub = hub_of(service)
    good, odd = submitted(hub, service, "gen_a", "gen_odd")
    service.tasks.remove("gen_odd")
    service.extra = [{"id": "gen_odd", "status": 7}]

    tasks = await asyncio.gather(hub.result(good), hub.result(odd))

    assert all(task.is_completed for task in tasks)


async def test_older_news_do_not_undo_newer_ones() -> None:
    """A page that was read before may come after; an end stays an end."""
    hub = hub_of(Service(ends_at(0)))
    (watch,) = submitted(hub, Service(ends_at(0)), "gen_a")
    hub.show(shot(status="processing"))
    hub.show(shot(status="pending"))
    seen = [watch.snapshot]
    hub.show(shot(status="brewing"))
    seen.append(watch.snapshot)
    hub.show(shot(status="completed"))
    hub.show(shot(status="failed"))
    seen.append(watch.snapshot)

    assert [task.status for task in seen if task] == ["processing", "brewing", "completed"]


async def test_news_of_a_task_that_nobody_holds_are_dropped() -> None:
    """Nothing grows by deliveries for unknown tasks."""
    hub = hub_of(Service(ends_at(0)))

    hub.show(shot("gen_foreign"))

    assert not hub.knows("gen_foreign")


async def test_all_who_ask_for_a_task_share_what_is_known_of_it() -> None:
    """One record per id, as long as somebody holds it."""
    hub = hub_of(Service(ends_at(0)))
    watch = hub.watch("gen_a")

    assert hub.watch("gen_a") is watch
    assert hub.knows("gen_a")


async def test_an_answer_to_a_submission_may_be_final() -> None:
    """It is never unfinished, and costs no poll."""
    service = Service(ends_at(0))
    hub = hub_of(service)
    watch = hub.submitted(shot(status="completed"), REQUEST)

    assert (await hub.result(watch)).is_completed
    assert (hub.unfinished, service.asked) == ((), [])


async def test_tasks_that_nobody_waits_for_are_forgotten_after_a_day() -> None:
    """A bot that relies on webhooks does not grow for weeks; awaited ones are kept."""
    service = Service(ends_at(10 * FORGOTTEN))
    hub = hub_of(service)
    (awaited,) = submitted(hub, service, "gen_awaited")
    waiter = asyncio.ensure_future(hub.result(awaited))
    await anyio.sleep(1)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    submitted(hub, service, "gen_b", "gen_c")
    await anyio.sleep(FORGOTTEN + 10)
    submitted(hub, service, "gen_d")

    assert [watch.task_id for watch in hub.unfinished] == ["gen_d"]


async def test_a_task_that_is_awaited_is_never_forgotten() -> None:
    """Nor are the younger ones behind it."""
    service = Service(ends_at(10 * FORGOTTEN))
    hub = hub_of(service, interval=3600.0)
    (awaited,) = submitted(hub, service, "gen_awaited")
    waiter = asyncio.ensure_future(hub.result(awaited))
    await anyio.sleep(FORGOTTEN + 10)
    submitted(hub, service, "gen_b")

    assert [watch.task_id for watch in hub.unfinished] == ["gen_awaited", "gen_b"]
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)


async def test_finished_tasks_leave_no_trace() -> None:
    """When their handles are gone, so is everything that was known of them."""
    service = Service(ends_at(5))
    hub = hub_of(service)
    await asyncio.gather(*map(hub.result, submitted(hub, service, *(f"g{n}" for n in range(50)))))
    gc.collect()

    assert not any(hub.knows(f"g{n}") for n in range(50))
    assert (hub.unfinished, hub.waited) == ((), 0)


async def test_a_bug_is_heard_and_not_swallowed() -> None:
    """What is no error of ours ends the leader's wait as it is."""
    service = Service(lambda *_: RuntimeError("a bug"))
    hub = hub_of(service)
    (watch,) = submitted(hub, service, "gen_a")

    with pytest.raises(RuntimeError, match="a bug"):
        await hub.result(watch)


def past(hub: Hub, number: int, took: float) -> None:
    """Let *number* tasks of the same kind have ended after *took* seconds."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for count in range(number):
        watch = hub.submitted(shot(f"past{count}"), REQUEST)
        end = start + timedelta(seconds=took)
        hub.show(shot(watch.task_id, "completed", created_at=start, completed_at=end))


@pytest.mark.parametrize(("learn", "looks"), [(True, [1011.0]), (False, [1003.0, 1008.0, 1013.0])])
async def test_a_lone_task_is_looked_at_where_past_ones_ended(
    learn: bool, looks: list[float]
) -> None:
    """Fewer looks, better placed; `learn=False` keeps to the advised times."""
    times = []

    def answer(task_id: str, now: float) -> TaskSnapshot:
        times.append(now)
        return ends_at(11.0)(task_id, now)

    service = Service(answer)
    hub = hub_of(service, learn=learn)
    past(hub, 40, took=11.0)
    (watch,) = submitted(hub, service, "gen_a")

    await hub.result(watch)

    assert times == pytest.approx(looks, abs=1e-6)


async def test_a_handle_of_an_unknown_request_keeps_to_the_advice() -> None:
    """Nothing is known of its kind, nor of its age."""
    service = Service(ends_at(4))
    hub = hub_of(service)
    past(hub, 40, took=11.0)

    await hub.result(hub.watch("gen_a"))

    assert asyncio.get_running_loop().time() == 1005.0


async def test_a_task_that_joins_is_looked_at_in_time_whenever_the_leader_wakes() -> None:
    """Whether it is due before the leader's next look or long after, and from an unknown age."""
    service = Service(lambda task_id, _: shot(task_id))
    hub = hub_of(service, sweep=False, interval=50.0)
    (first,) = submitted(hub, service, "gen_first")
    waiters = [asyncio.ensure_future(hub.result(first))]
    await anyio.sleep(10)  # the leader sleeps until 1053
    (second,) = submitted(hub, service, "gen_second")
    later = (second, hub.watch("gen_old"))
    waiters += [asyncio.ensure_future(hub.result(watch)) for watch in later]
    await anyio.sleep(0.5)
    early = list(service.asked)
    await anyio.sleep(3)

    assert early == ["gen_first", "gen_old"]
    assert service.asked == ["gen_first", "gen_old", "gen_second"]
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)


async def test_a_revoked_key_ends_every_wait_at_once() -> None:
    """Whether a page or a peek hears of it: no request more is sent with it."""
    service = Service(lambda *_: error_of(AuthenticationError, 401))
    service.list_error = error_of(AuthenticationError, 401)
    hub = hub_of(service)
    watches = submitted(hub, service, *(f"gen_{n}" for n in range(50)))

    raised = await asyncio.gather(*map(hub.result, watches), return_exceptions=True)

    assert {type(error) for error in raised} == {AuthenticationError}
    assert len(service.asked) == 1


async def test_only_tasks_submitted_here_are_counted() -> None:
    """Looking up the same old task again and again costs nothing, and adds nothing up."""
    stats = Stats()
    service = Service(lambda task_id, _: shot(task_id, "completed", cost=Decimal(1)))
    hub = Hub(transport=service, policy=PollPolicy(), stats=stats)  # type: ignore[arg-type]
    for _ in range(3):
        await hub.result(hub.watch("gen_old"))
    hub.submitted(shot("gen_own"), REQUEST)
    await hub.result(hub.watch("gen_own"))

    assert (stats.completed, stats.cost) == (1, Decimal(1))


@pytest.mark.parametrize("first", ["asyncio", "trio"])
@pytest.mark.parametrize("second", ["asyncio", "trio"])
def test_an_event_loop_that_ended_hard_leaves_nothing_behind(first: str, second: str) -> None:
    """Its waiters never go on and its clock is not ours; the next loop waits as ever."""
    service = Service(lambda task_id, _: shot(task_id))
    hub = hub_of(service)
    ghost = Waiter()

    async def stopped_in_the_middle() -> Watch:
        (watch,) = submitted(hub, service, "gen_a")
        hub._join(watch, ghost)
        hub._leader = ghost
        return watch

    watch = run_on(first, stopped_in_the_middle)

    async def again() -> float:
        service._answer = lambda task_id, _: shot(task_id, "completed")
        began = anyio.current_time()
        with anyio.fail_after(60):
            await hub.result(watch)
        hub._step_down(ghost)  # as when the collector ends what was left in the middle
        hub._leave(watch, ghost)
        return anyio.current_time() - began

    assert run_on(second, again) <= 1.0
    assert (hub.unfinished, hub.waited) == ((), 0)
