"""What a client tells to `on_event`: every moment once, in order, without a prompt or the key."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, get_args

import anyio
import attrs
import httpx
import pytest

import eggapi_async
from eggapi_async import (
    AsyncEggClient,
    Budget,
    BudgetExceededError,
    CallRetried,
    ClientClosed,
    ClientEvent,
    ConfigurationError,
    CooledDown,
    EggError,
    NotFoundError,
    OutputDownloaded,
    PollPolicy,
    RetryPolicy,
    SubmissionFailed,
    SubmissionUncertainError,
    TaskCompleted,
    TaskFailed,
    TaskFailedError,
    TasksPolled,
    TaskSubmitted,
    WebhookEvent,
)
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.virtual_time import on_both, run_virtual

KEY = "canary-0123456789-abcdefghijkl"
PROMPT = "a forbidden egg, whispered"

Told = list[ClientEvent]


def emulated(*, clock: Callable[[], float] = anyio.current_time, **options: Any) -> Any:
    """An emulator, a client of it, and all that the client tells."""
    told: Told = []
    emulator = EggEmulator(clock=clock)
    return emulator, connect(emulator, KEY, on_event=told.append, **options), told


def names(told: Told) -> list[str]:
    return [type(event).__name__ for event in told]


@on_both
async def test_a_generation_is_told_from_submission_to_file(tmp_path: Path) -> None:
    """In this order: bought, polled until it has ended, on disk, and the client closed."""
    emulator, egg, told = emulated(model="nanobanana-pro")
    async with egg:
        task = await egg.generate("A cat")
        result = await task
        age = anyio.current_time()
        await task.save(tmp_path)
    submitted, *polls, completed, downloaded, closed = told
    assert submitted == TaskSubmitted(
        task_id=task.id, model="nanobanana-pro", type="image_generate", seconds=0.0
    )
    assert polls == [
        TasksPolled(kind="peek", task_ids=(task.id,), seconds=0.0) for _ in range(egg.stats.polls)
    ]
    assert isinstance(completed, TaskCompleted)
    assert (completed.task_id, completed.model) == (task.id, "nanobanana-pro")
    assert completed.cost == result.cost
    assert completed.seconds == pytest.approx(age - emulator.task(task.id).created_at)
    size = (tmp_path / f"{task.id}.png").stat().st_size
    assert isinstance(downloaded, OutputDownloaded)
    assert (downloaded.task_id, downloaded.size) == (task.id, size)
    assert downloaded.seconds >= 0.0
    assert closed == ClientClosed(task_ids=())


async def test_a_sweep_tells_which_awaited_tasks_it_showed() -> None:
    """Of a page, those that somebody here waits for, and no others."""
    emulator, egg, told = emulated()
    async with egg:
        strangers = [await egg.generate(f"not awaited {n}") for n in range(3)]
        tasks = [await egg.generate(f"cat {n}") for n in range(30)]
        await asyncio.gather(*tasks)
    sweeps = [event for event in told if isinstance(event, TasksPolled) and event.kind == "sweep"]
    shown = {task_id for event in sweeps for task_id in event.task_ids}
    assert len(sweeps) == egg.stats.requests["sweep"]
    assert shown <= {task.id for task in tasks}
    assert len(shown) > 20
    assert not shown & {task.id for task in strangers}
    ends = [event for event in told if isinstance(event, TaskCompleted)]
    assert {event.task_id for event in ends} == {task.id for task in tasks}
    assert len(ends) == egg.stats.completed == len(tasks)
    assert told[-1] == ClientClosed(task_ids=tuple(task.id for task in strangers))
    assert emulator.accepted == [task.id for task in strangers + tasks]


async def test_a_failed_generation_is_told() -> None:
    """With whether the service refused the content, and no text."""
    _, egg, told = emulated()
    async with egg:
        task = await egg.generate(PROMPT)
        with pytest.raises(TaskFailedError):
            await task
    [failed] = [event for event in told if isinstance(event, TaskFailed)]
    assert (failed.task_id, failed.model, failed.is_moderation) == (task.id, "nanobanana", True)
    assert failed.cost == 0
    assert failed.seconds is not None
    assert failed.seconds > 0


async def test_a_refusal_tells_of_the_pause_and_the_repetition() -> None:
    """A 429 cools down and goes again, a 503 goes again; the wait is in the submission's time."""
    emulator, egg, told = emulated()
    emulator.fail_next(Fault.refused(429, retry_after=7), Fault.refused(503))
    async with egg:
        await egg.generate("A cat")
    cooled, first, second, submitted = told[:4]
    assert cooled == CooledDown(kind="submit", retry_after=7.0)
    assert isinstance(first, CallRetried)
    assert (first.kind, first.attempt, first.error) == ("submit", 1, "RateLimitedError")
    assert (first.status_code, first.delay) == (429, 7.0)
    assert isinstance(second, CallRetried)
    assert (second.attempt, second.error, second.status_code) == (2, "ServerError", 503)
    assert isinstance(submitted, TaskSubmitted)
    assert submitted.seconds >= 7


async def test_a_pause_that_the_service_does_not_name() -> None:
    """The limiter has its own; the event says that none was named."""

    def refuse(_: httpx.Request) -> httpx.Response:
        error = {"code": "RATE_LIMITED", "message": "slow down"}
        return httpx.Response(429, json={"data": None, "error": error})

    told: Told = []
    http = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
    once = RetryPolicy(deadline=0.1)
    egg = AsyncEggClient(KEY, http_client=http, on_event=told.append, retry=once)
    with pytest.raises(EggError):
        await egg.usage_summary()
    assert told == [CooledDown(kind="usage", retry_after=None)]


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault.lost(), "SubmissionUncertainError", None),
        (Fault.refused(401), "AuthenticationError", 401),
    ],
    ids=["lost", "refused"],
)
async def test_a_submission_that_ends_in_an_error_is_told(
    fault: Fault, error: str, status: int | None
) -> None:
    """By the class of what is raised and its status, never by its text."""
    emulator, egg, told = emulated()
    emulator.fail_next(fault)
    async with egg:
        with pytest.raises(EggError) as caught:
            await egg.generate("A cat")
    assert type(caught.value).__name__ == error
    failed = SubmissionFailed(model="nanobanana", error=error, status_code=status, seconds=0.0)
    assert told[0] == attrs.evolve(failed, seconds=told[0].seconds)
    assert told[-1] == ClientClosed(task_ids=())
    assert len(told) == 2


async def test_a_submission_over_budget_is_told() -> None:
    """Nothing left, and the caller is told why."""
    _, egg, told = emulated(budget=Budget("0.000001"))
    async with egg:
        with pytest.raises(BudgetExceededError):
            await egg.generate("A cat")
    assert names(told) == ["SubmissionFailed", "ClientClosed"]


async def test_a_lost_submission_that_is_resolved_is_a_submission() -> None:
    """What was adopted was bought, and no failure is told; the looking is in its time."""
    emulator, egg, told = emulated()
    emulator.fail_next(Fault.lost())
    async with egg:
        task = await egg.generate("A cat", uncertain="verify")
    assert names(told) == ["TaskSubmitted", "ClientClosed"]
    assert told[0].task_id == task.id
    assert told[0].seconds >= 2


async def test_polls_that_fail_are_told() -> None:
    """A peek names the task that it asked for, a sweep shows none."""
    emulator, egg, told = emulated()
    async with egg:
        task = await egg.generate("A cat")
        emulator.fail_next(Fault.refused(503), on="GET /v1/tasks/")
        await task
        with pytest.raises(NotFoundError):
            await egg.task("gen_unknown")
        tasks = [await egg.generate(f"cat {n}") for n in range(30)]
        emulator.fail_next(*[Fault.html(502)] * 30, on="GET /v1/tasks")
        await asyncio.gather(*tasks)
    polls = [event for event in told if isinstance(event, TasksPolled) and event.error]
    seen = [(event.kind, event.task_ids, event.error, event.status_code) for event in polls]
    assert seen[:2] == [
        ("peek", (task.id,), "ServerError", 503),
        ("peek", ("gen_unknown",), "NotFoundError", 404),
    ]
    assert {poll for poll in seen if poll[0] == "sweep"} == {("sweep", (), "ServerError", 502)}


async def test_a_download_that_goes_again_is_told(tmp_path: Path) -> None:
    """Under the kind of downloads; a picture by its URL belongs to no task."""
    emulator, egg, told = emulated()
    async with egg:
        result = await egg.run("A cat")
        del told[:]
        emulator.fail_next(Fault.refused(503), on="GET /outputs")
        await egg.download(str(result.url), tmp_path)
        await egg.download(str(result.url), tmp_path / "again.png")
        await egg.download(result, tmp_path)
        assert names(told) == ["CallRetried", *["OutputDownloaded"] * 3]
        await egg.download(result, tmp_path)
    assert (told[0].kind, told[0].attempt, told[0].error) == (
        "download",
        1,
        "ConnectionFailedError",
    )
    assert [event.task_id for event in told[1:4]] == [None, None, result.id]
    assert names(told[4:]) == ["ClientClosed"]


async def test_an_end_that_a_webhook_tells_is_told_once() -> None:
    """However many tell it, there is one end."""
    _, egg, told = emulated(polling=PollPolicy(first_delay=1000))
    async with egg:
        task = await egg.generate("A cat")
        output = {"url": "https://cdn.test/1"}
        delivered = WebhookEvent(
            event="task.completed",
            task_id=task.id,
            status="completed",
            output=output,
            cost=Decimal("0.01"),
            raw={"cost": "0.01", "output": output},
        )
        await egg.deliver(delivered)
        await egg.deliver(delivered)
        await task
    assert names(told) == ["TaskSubmitted", "TaskCompleted", "ClientClosed"]
    assert told[1].cost == Decimal("0.01")


def test_an_end_on_another_event_loop_has_no_duration() -> None:
    """The clock of an earlier loop says nothing about now."""
    times = [0.0]
    _, egg, told = emulated(clock=lambda: times[0])
    task = run_virtual(partial(egg.generate, "A cat"))
    times[0] = 1000.0

    async def collect() -> None:
        async with egg:
            assert (await task).is_completed

    run_virtual(collect)
    [end] = [event for event in told if isinstance(event, TaskCompleted)]
    assert (end.task_id, end.seconds) == (task.id, None)


async def test_options_share_what_is_told() -> None:
    """A client made by `with_options` tells the same callable; closing it is no end."""
    _, egg, told = emulated()
    async with egg:
        other = egg.with_options(model="nanobanana-pro")
        async with other:
            task = await other.generate("A cat")
        assert [event.model for event in told] == ["nanobanana-pro"]
    assert told[0].task_id == task.id
    assert told[1:] == [ClientClosed(task_ids=(task.id,))]


async def test_a_callable_that_raises_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, with its traceback, and called again all the same."""
    calls: list[ClientEvent] = []

    def broken(event: ClientEvent) -> None:
        calls.append(event)
        raise ValueError("a bug in the caller's code")

    async with connect(EggEmulator(clock=anyio.current_time), on_event=broken) as egg:
        assert (await egg.run("A cat")).is_completed
    assert len(calls) > 2
    [record] = [record for record in caplog.records if record.name == "eggapi_async"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "on_event raised at a TaskSubmitted"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def _async(event: ClientEvent) -> None:
    """Would have to be awaited."""


class _AsyncCallable:
    async def __call__(self, event: ClientEvent) -> None:
        """Would have to be awaited too."""


@pytest.mark.parametrize(
    ("on_event", "got"),
    [
        ("print", "str"),
        (7, "int"),
        (_async, "an async function"),
        (partial(_async), "an async function"),
        (_AsyncCallable(), "an async function"),
    ],
    ids=["text", "a number", "async", "partly async", "an object that is async"],
)
def test_what_cannot_be_told_is_refused(on_event: Any, got: str) -> None:
    """At once, by name, since a call without an await would do nothing."""
    with pytest.raises(ConfigurationError) as caught:
        AsyncEggClient(KEY, on_event=on_event)
    assert str(caught.value) == f"on_event: expected an ordinary callable, got {got}"


async def test_nothing_is_made_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `on_event` no event is built at all."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("an event was made")

    for kind in get_args(ClientEvent):
        monkeypatch.setattr(kind, "__init__", never)
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.refused(429, retry_after=1))
    async with connect(emulator) as egg:
        assert (await egg.run("A cat")).is_completed


async def test_no_event_has_the_prompt_or_the_key(tmp_path: Path) -> None:
    """Neither in its fields nor pickled, whatever happens."""
    emulator, egg, told = emulated()
    emulator.fail_next(Fault.refused(429, retry_after=1), Fault.refused(503))
    async with egg:
        await egg.map(
            [PROMPT, "whispered too"], save_to=tmp_path, name=lambda i, r, t: f"{i}-{r.prompt}"
        )
        emulator.fail_next(Fault.lost())
        with pytest.raises(SubmissionUncertainError):
            await egg.generate(PROMPT)
    kinds = set(get_args(ClientEvent))
    assert {type(event) for event in told} == kinds
    for event in told:
        shown = repr(event) + repr(attrs.asdict(event)) + repr(pickle.dumps(event))
        assert "whispered" not in shown
        assert KEY not in shown


@pytest.mark.parametrize("kind", get_args(ClientEvent))
def test_every_event_is_a_frozen_value(kind: type) -> None:
    """Exported, documented, by name only, and not to be changed."""
    assert getattr(eggapi_async, kind.__name__) is kind
    assert kind.__doc__
    with pytest.raises(TypeError):
        kind(1)
    assert all(field.kw_only for field in attrs.fields(kind))
    assert f"| {kind.__name__} " in (AsyncEggClient.__doc__ or "")
