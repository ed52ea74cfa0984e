"""Work that runs apart from its caller, on asyncio and on trio: who is cancelled, when, and how."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest
import trio

from eggapi_async._apart import Signal, apart
from tests.virtual_time import VirtualLoop, on_both


class Job:
    """Work of so many seconds that notes how it ended; `stop` answers what cancels it."""

    def __init__(self, seconds: float = 1.0, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.log: list[str] = []

    async def __call__(self) -> str:
        self.log.append("began")
        try:
            await anyio.sleep(self.seconds)
        except anyio.get_cancelled_exc_class():
            self.log.append("cancelled")
            raise
        self.log.append("ended")
        if self.error:
            raise self.error
        return "done"


@on_both
async def test_the_answer_is_handed_on() -> None:
    """What the work returns, the caller gets."""
    assert await apart(Job()) == "done"


@on_both
async def test_the_error_is_handed_on_as_it_is() -> None:
    """What the work raises, the caller gets: the same object, in no group."""
    error = LookupError("nowhere")
    with pytest.raises(LookupError) as caught:
        await apart(Job(error=error))
    assert caught.value is error


@on_both
async def test_without_grace_the_work_is_cancelled_at_once() -> None:
    """A caller's scope that ends cancels the work, and the caller goes on after it."""
    job, began = Job(60), anyio.current_time()
    with anyio.move_on_after(2) as scope:
        await apart(job)
    assert scope.cancelled_caught
    assert job.log == ["began", "cancelled"]
    assert anyio.current_time() - began == 2


@on_both
async def test_with_grace_the_work_may_end_and_the_cancellation_goes_on_then() -> None:
    """Work that ends within the grace ends by itself; its caller is cancelled all the same."""
    job, began = Job(4), anyio.current_time()
    with anyio.move_on_after(1) as scope:
        await apart(job, grace=lambda: 5.0)
    assert scope.cancelled_caught
    assert job.log == ["began", "ended"]
    assert anyio.current_time() - began == 4


@on_both
async def test_the_grace_is_bounded() -> None:
    """Work that does not end within the grace is cancelled."""
    job, began = Job(60), anyio.current_time()
    with anyio.move_on_after(1) as scope:
        await apart(job, grace=lambda: 5.0)
    assert scope.cancelled_caught
    assert job.log == ["began", "cancelled"]
    assert anyio.current_time() - began == 6


@on_both
async def test_an_error_after_the_cancellation_does_not_replace_it() -> None:
    """A failure of the work during the grace is not the caller's any more."""
    with anyio.move_on_after(1) as scope:
        await apart(Job(2, error=LookupError("too late")), grace=lambda: 5.0)
    gc.collect()
    assert scope.cancelled_caught


@on_both
async def test_a_caller_that_is_cancelled_already_lets_nothing_begin_to_wait() -> None:
    """Under a scope that has ended the work gets no further than its first pause."""
    job, began = Job(60), anyio.current_time()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await apart(job)
    assert scope.cancelled_caught
    assert "ended" not in job.log
    assert anyio.current_time() == began


@on_both
async def test_the_grace_is_asked_for_when_it_is_needed() -> None:
    """The grace is what it is at the moment of the cancellation."""
    graces = [0.0]

    async def work() -> None:
        await anyio.sleep(1)
        graces[0] = 5.0
        await anyio.sleep(3)
        graces[0] = -1.0

    for moment, expected in ((0.5, 0.0), (2.0, -1.0)):
        graces[0] = 0.0
        with anyio.move_on_after(moment):
            await apart(work, grace=lambda: graces[0])
        assert graces[0] == expected


async def cancelled_after(job: Job, *moments: float, grace: float = 0.0) -> asyncio.Task[str]:
    """A task that awaits the job apart, natively cancelled at these moments, and has ended."""
    task = asyncio.ensure_future(apart(job, grace=lambda: grace))
    for moment in moments:
        await asyncio.sleep(moment)
        task.cancel()
    await asyncio.wait((task,))
    return task


async def test_a_native_cancellation_is_translated() -> None:
    """`task.cancel()` reaches the work as a scope's cancellation, and then the caller."""
    job = Job(60)
    task = await cancelled_after(job, 1)
    assert task.cancelled()
    assert job.log == ["began", "cancelled"]


async def test_a_native_cancellation_before_the_first_step_begins_nothing() -> None:
    """A task that is cancelled before it ran at all does no work."""
    job = Job()
    task = asyncio.ensure_future(apart(job))
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert job.log == []


async def test_any_number_of_native_cancellations_cannot_cut_the_grace_short() -> None:
    """Cancelled again and again, the caller still waits for its work."""
    job, began = Job(4), anyio.current_time()
    task = await cancelled_after(job, 1, 0.5, 0.5, 0.5, grace=5)
    assert task.cancelled()
    assert job.log == ["began", "ended"]
    assert anyio.current_time() - began == 4


async def test_the_work_is_never_cancelled_natively() -> None:
    """The task that does the work has no cancellation request of its own: only its scope has."""
    requests: list[int] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await anyio.sleep(60)
        finally:
            requests.append(task.cancelling())
            with anyio.CancelScope(shield=True):  # a scope's cancellation respects this
                await anyio.sleep(1)
            requests.append(task.cancelling())

    began = anyio.current_time()
    task = asyncio.ensure_future(apart(work))
    await asyncio.sleep(2)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert len(requests) == 2, "the shielded part went on to its end"
    assert anyio.current_time() - began == 3


async def test_work_that_somebody_else_cancels_cancels_its_caller() -> None:
    """A loop that cancels all its tasks at its end finds nobody who hangs."""
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(apart(Job(60)))
    await asyncio.sleep(1)
    for one in asyncio.all_tasks() - before:
        one.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_work_that_somebody_else_cancels_during_the_grace_ends_the_wait() -> None:
    """Neither does a caller hang that is cancelled already."""
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(apart(Job(60), grace=lambda: 5.0))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    (work,) = asyncio.all_tasks() - before - {task}
    work.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_a_timeout_of_asyncio_ends_as_a_timeout() -> None:
    """`asyncio.timeout` around it is not confused by the wait for the work."""
    job = Job(4)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await apart(job, grace=lambda: 5.0)
    assert job.log == ["began", "ended"]


async def test_a_failing_sibling_of_a_task_group_lets_the_work_end() -> None:
    """A task group that fails waits for the grace, and then raises its failure."""
    job = Job(4)

    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError("a sibling")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - both must run in the group
        async with asyncio.TaskGroup() as group:
            group.create_task(apart(job, grace=lambda: 5.0))
            group.create_task(fail())
    assert [type(one) for one in caught.value.exceptions] == [LookupError]
    assert job.log == ["began", "ended"]


async def test_a_cancellation_in_the_very_moment_of_the_end_goes_on() -> None:
    """Work that has ended in the loop's same step does not swallow the cancellation."""
    ended = asyncio.Event()

    async def work() -> str:
        await ended.wait()
        asyncio.get_running_loop().call_soon(task.cancel)
        return "done"

    task = asyncio.ensure_future(apart(work))
    await asyncio.sleep(1)
    ended.set()
    await asyncio.wait((task,))
    assert task.cancelled()


def test_trio_as_the_guest_of_asyncio_is_trio() -> None:
    """In trio's guest mode an asyncio loop is running too, and is not taken for the caller's."""
    outcomes: list[Any] = []

    async def in_trio() -> str:
        with trio.move_on_after(0.01):
            await apart(Job(60))
        return await apart(Job(0))

    async def host() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def end(outcome: Any) -> None:
            outcomes.append(outcome)
            done.set()

        trio.lowlevel.start_guest_run(
            in_trio, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=end
        )
        await done.wait()

    asyncio.run(host())
    assert outcomes[0].unwrap() == "done"


def test_no_failure_is_reported_as_never_retrieved() -> None:
    """asyncio's handler of forgotten errors has nothing to say."""
    told: list[dict[str, Any]] = []

    async def program() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
        await cancelled_after(Job(2, error=LookupError("late")), 1, grace=5)
        gc.collect()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(program())
    gc.collect()
    assert told == []


@on_both
async def test_a_signal_wakes_who_waits_and_who_comes_later() -> None:
    """Set before or during a wait, it ends that one wait, and only that."""
    signal, woken = Signal(), list[float]()

    async def sleep_thrice() -> None:
        for _ in range(3):
            await signal.wait()
            woken.append(anyio.current_time() - began)

    began = anyio.current_time()
    signal.set()
    signal.set()
    async with anyio.create_task_group() as group:
        group.start_soon(sleep_thrice)
        await anyio.sleep(1)
        signal.set()
        signal.set()
        await anyio.sleep(1)
        signal.set()
    assert woken == [0, 1, 2]


@on_both
async def test_a_wait_for_a_signal_that_was_cancelled_leaves_it_usable() -> None:
    """The next wait is woken as if there had been none before."""
    signal = Signal()
    with anyio.move_on_after(1):
        await signal.wait()
    signal.set()
    with anyio.fail_after(1):
        await signal.wait()
