"""The public API as a type checker sees it. Never run: mypy --strict and pyright read it.

A line with `type: ignore` must be an error; where it is none, mypy calls the comment unused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, assert_type

import httpx
import httpx2
from redis.asyncio import Redis

from eggapi_async import (
    APIError,
    AsyncEggClient,
    Batch,
    Budget,
    BudgetExceededError,
    ClientEvent,
    DownloadError,
    EggError,
    Estimate,
    GenerationRequest,
    GenerationTask,
    InsufficientBalanceError,
    InvalidRequestError,
    Journal,
    JournalItem,
    Ledger,
    LedgerEntry,
    ModelEstimate,
    Outcome,
    Outcomes,
    Page,
    PollPolicy,
    QuotaExceededError,
    RateLimitedError,
    RateLimiter,
    RedisLedger,
    RedisRateLimiter,
    RetryPolicy,
    Stats,
    SubmissionUncertainError,
    TaskCompleted,
    TaskFailedError,
    TaskSnapshot,
    TasksPolled,
    TaskTimeoutError,
    Turn,
    Turns,
    UnexpectedResponseError,
    UsageRecord,
    UsageSummary,
    WebhookEvent,
    WebhookReceiver,
    __version__,
    estimate,
    sign_webhook,
    verify_webhook,
)
from eggapi_async.ledger import resolve
from eggapi_async.otel import spans
from eggapi_async.testing import connect

VERSION: str = __version__


async def prompts() -> AsyncIterator[str]:
    """Prompts that come one by one."""
    yield "A cat"


async def making_clients(http: httpx.AsyncClient, http2: httpx2.AsyncClient) -> None:
    """Everything is optional, and given by name but for the key."""
    AsyncEggClient()
    AsyncEggClient("key")
    egg = AsyncEggClient(
        api_key="key",
        base_url="https://api.eggapi.ai",
        model="nanobanana-pro",
        limiter=RateLimiter(concurrency=8, per_second=None),
        retry=RetryPolicy(
            max_attempts=3, base_delay=1, max_delay=9, max_retry_after=60, deadline=60
        ),
        polling=PollPolicy(first_delay=3, interval=5, min_interval=0.5, sweep=False),
        timeout=10,
        http_client=http,
        budget=Budget("5.00", unknown_price=Decimal(1), spent=2),
    )
    Budget(5.0)  # type: ignore[arg-type]
    AsyncEggClient(budget="5.00")  # type: ignore[arg-type]
    AsyncEggClient("key", "https://api.eggapi.ai")  # type: ignore[call-arg]
    AsyncEggClient(5)  # type: ignore[arg-type]
    AsyncEggClient(http_client=http2)
    AsyncEggClient(http_client=5)  # type: ignore[arg-type]
    AsyncEggClient(http_client=httpx.Client())  # type: ignore[arg-type]
    async with egg as entered:
        assert_type(entered, AsyncEggClient)
    assert_type(egg.with_options(timeout=5, model="m", retry=RetryPolicy()), AsyncEggClient)
    assert_type(await egg.aclose(), tuple[GenerationTask, ...])
    assert_type(await egg.aclose(drain=10), tuple[GenerationTask, ...])
    assert_type(connect(http, "key", timeout=5), AsyncEggClient)


async def generating(egg: AsyncEggClient) -> None:
    """A prompt or a request, and the documented fields by name."""
    task = await egg.generate(
        "A cat",
        model="nanobanana-pro",
        negative_prompt="dogs",
        aspect_ratio="16:9",
        num_outputs=2,
        resolution="4k",
        image_urls=["https://files.example/a.png"],
        duration=8,
        webhook_url="https://hooks.example/",
        extra={"seed": 7},
        uncertain="verify",
    )
    assert_type(task, GenerationTask)
    assert_type(await egg.generate(GenerationRequest(prompt="A cat"), model=None), GenerationTask)
    assert_type(await egg.run("A cat", timeout=None, num_outputs=1), TaskSnapshot)
    await egg.generate(5)  # type: ignore[arg-type]
    await egg.generate("A cat", num_outputs="2")  # type: ignore[arg-type]
    await egg.generate("A cat", promt="A dog")  # type: ignore[call-arg]
    await egg.generate("A cat", uncertain="guess")  # type: ignore[arg-type]
    tasks = await asyncio.gather(*(egg.generate(prompt) for prompt in ("A cat", "A dog")))
    assert_type(tasks, list[GenerationTask])
    assert_type(await asyncio.gather(*(task.result() for task in tasks)), list[TaskSnapshot])


def money(egg: AsyncEggClient, budget: Budget, refused: BudgetExceededError) -> None:
    """What a list would cost, and what may be spent."""
    found = estimate(["A cat", {"prompt": "A dog"}], model="nanobanana-pro")
    assert_type(found, Estimate)
    assert_type(found.total, Decimal)
    assert_type(found.per_model, tuple[ModelEstimate, ...])
    assert_type(found.unpriced, int)
    assert_type(budget.remaining, Decimal)
    assert_type(refused.asked, Decimal)
    assert_type(egg.with_options(budget=budget), AsyncEggClient)
    estimate(5)  # type: ignore[arg-type]


async def tasks(egg: AsyncEggClient, task: GenerationTask) -> None:
    """A handle is awaited, watched, asked and saved."""
    assert_type(egg.task("gen_1"), GenerationTask)
    assert_type(task.id, str)
    assert_type(task.request, GenerationRequest | None)
    assert_type(task.snapshot, TaskSnapshot | None)
    assert_type(task.status, str | None)
    assert_type(task.done, bool)
    assert_type(await task, TaskSnapshot)
    assert_type(await task.result(), TaskSnapshot)
    assert_type(await task.result(timeout=5.5), TaskSnapshot)
    assert_type(await task.refresh(), TaskSnapshot)
    async for snapshot in task.updates():
        assert_type(snapshot, TaskSnapshot)
    async for snapshot in task.updates(every=2.0):
        assert_type(snapshot, TaskSnapshot)
    assert_type(task.elapsed, float | None)
    assert_type(await task.read(), bytes)
    assert_type(await task.read(1, max_bytes=1000, timeout=None), bytes)
    assert_type(await task.read_all(), list[bytes])
    assert_type(await egg.read("https://cdn.test/a.png"), bytes)
    assert_type(await egg.read_all(await task), list[bytes])
    assert_type(await task.save("out/"), list[Path])
    assert_type(await task.save(Path("out"), overwrite=True), list[Path])
    assert_type(egg.unfinished, tuple[GenerationTask, ...])
    task.id = "gen_2"  # type: ignore[misc]


async def listing(egg: AsyncEggClient) -> None:
    """Lists are pages, or iterators over all of them."""
    assert_type(await egg.get_task("gen_1"), TaskSnapshot)
    async for task in egg.tasks(max_items=5):
        assert_type(task, TaskSnapshot)
    page = await egg.tasks_page(page=2, per_page=50)
    assert_type(page, Page[TaskSnapshot])
    assert_type(page.items, tuple[TaskSnapshot, ...])
    assert_type(page.page + page.per_page + page.total + page.total_pages, int)
    assert_type(await egg.usage_summary(), list[UsageSummary])
    async for record in egg.usage():
        assert_type(record, UsageRecord)


def snapshots(task: TaskSnapshot, usage: UsageSummary) -> None:
    """Money is Decimal, times are datetimes, and both may be missing."""
    assert_type((task.id, task.status, task.model, task.type), tuple[str, str, str, str])
    assert_type(task.url, str | None)
    assert_type(task.urls, tuple[str, ...])
    assert_type(task.error, str | None)
    assert_type(task.cost, Decimal | None)
    assert_type(task.created_at, datetime | None)
    assert_type(task.started_at, datetime | None)
    assert_type(task.completed_at, datetime | None)
    assert_type(task.raw["new"], Any)
    assert_type(task.is_final and task.is_completed, bool)
    assert_type(usage.model, str)
    assert_type(usage.total_cost, Decimal | None)
    assert_type(usage.total_units, Decimal | None)
    assert_type(usage.request_count, int | None)
    task.status = "completed"  # type: ignore[misc]


async def batches(egg: AsyncEggClient) -> None:
    """Any iterable of prompts, mappings and requests, to a list or as they finish."""
    assert_type(egg.map(["A cat"]), Batch)
    outcomes = await egg.map(["A cat", {"prompt": "A dog"}, GenerationRequest(prompt="A cow")])
    assert_type(outcomes, Outcomes)
    batch = egg.map(prompts(), in_flight=9, timeout=60, save_to=Path("out"), uncertain="verify")
    async with batch as run:
        async for outcome in run:
            assert_type(outcome, Outcome)
            assert_type(outcome.index, int)
            assert_type(outcome.request, GenerationRequest | None)
            assert_type(outcome.result, TaskSnapshot | None)
            assert_type(outcome.error, EggError | None)
            assert_type(outcome.paths, tuple[Path, ...])
            assert_type(outcome.ok, bool)
            assert_type(outcome.unwrap(), TaskSnapshot)
    egg.map(5)  # type: ignore[arg-type]


async def journals(egg: AsyncEggClient) -> None:
    """A batch that can be killed, and what it has recorded."""
    egg.map(["A"], journal="run.sqlite3", retry_failed=True, key=lambda item: str(item))
    egg.map(["A"], journal=3)  # type: ignore[arg-type]
    egg.map(["A"], key=lambda _: 3)  # type: ignore[return-value, arg-type]
    with Journal(Path("run.sqlite3")) as journal:
        assert_type(journal, Journal)
        assert_type(journal.counts(), dict[str, int])
        assert_type(journal.progress(["A"], model="m"), dict[str, int])
        for item in journal:
            assert_type(item, JournalItem)
            assert_type(item.index, int)
            assert_type(item.key, str)
            assert_type(item.state, str)
            assert_type(item.request, GenerationRequest)
            assert_type(item.task_id, str | None)
            assert_type(item.snapshot, TaskSnapshot | None)
            assert_type(item.error, EggError | None)
            assert_type(item.paths, tuple[Path, ...])
            assert_type(item.cost, Decimal | None)
            assert_type(item.ended_at, datetime | None)


async def downloads(egg: AsyncEggClient, task: TaskSnapshot) -> None:
    """A task or a URL, to a folder or a file."""
    assert_type(await egg.download(task, "out/"), list[Path])
    url = "https://cdn.eggapi.ai/a.png"
    assert_type(await egg.download(url, Path("a.png"), max_bytes=9, overwrite=True), list[Path])
    await egg.download(5, "out/")  # type: ignore[arg-type]


def counters(egg: AsyncEggClient) -> None:
    """Counters are numbers, cost is money."""
    stats = egg.stats
    assert_type(stats, Stats)
    assert_type(stats.requests, dict[str, int])
    assert_type(stats.polls + stats.retries + stats.rate_limited + stats.submitted, int)
    assert_type(stats.completed + stats.failed, int)
    assert_type(stats.cost, Decimal)


async def errors_of_tasks(egg: AsyncEggClient) -> None:
    """Each error tells what its caller can act on."""
    try:
        await egg.run("A cat")
    except SubmissionUncertainError as error:
        assert_type(error.request, GenerationRequest)
        assert_type((error.sent_at, error.lost_at), tuple[datetime, datetime])
        assert_type(error.candidates, tuple[TaskSnapshot, ...])
        assert_type(await error.reconcile(), tuple[TaskSnapshot, ...])
        assert_type(await egg.reconcile(error), tuple[TaskSnapshot, ...])
    except TaskFailedError as error:
        assert_type(error.task, TaskSnapshot)
        assert_type((error.task_id, error.is_moderation), tuple[str, bool])
    except TaskTimeoutError as error:
        assert_type((error.task_id, error.timeout), tuple[str, float])
        assert_type(error.snapshot, TaskSnapshot | None)


async def errors_of_answers(egg: AsyncEggClient) -> None:
    """What the service said is at hand."""
    try:
        await egg.run("A cat")
    except RateLimitedError as error:
        assert_type(error.retry_after, float | None)
    except InsufficientBalanceError as error:
        assert_type(error.status_code, int)
    except APIError as error:
        assert_type((error.status_code, error.message), tuple[int, str])
        assert_type((error.code, error.request_id), tuple[str | None, str | None])
    except UnexpectedResponseError as error:
        assert_type((error.where, error.status_code, error.body), tuple[str, int, str])


async def errors_of_ours(egg: AsyncEggClient) -> None:
    """So is what was refused before anything was sent."""
    try:
        await egg.run("A cat")
    except InvalidRequestError as error:
        assert_type((error.field, error.expected), tuple[str, str])
        assert_type(error.value, object)
    except DownloadError as error:
        assert_type(error.url, str)
    except EggError as error:
        assert_type(str(error), str)


def requests() -> None:
    """A request is made by name, and any iterable of URLs will do."""
    request = GenerationRequest(prompt="A cat", image_urls=["https://files.example/a.png"])
    assert_type(request.image_urls, tuple[str, ...])
    assert_type(GenerationRequest.of({"prompt": "A cat"}, model="m"), GenerationRequest)
    GenerationRequest("A cat")  # type: ignore[call-arg]
    GenerationRequest()  # type: ignore[call-arg]


async def webhooks(egg: AsyncEggClient, raw: bytes, headers: dict[str, str]) -> None:
    """Verified events, handed on by a receiver or by hand."""
    AsyncEggClient(webhook_url="https://bot.test/hooks", webhook_reference=False)
    PollPolicy(safety_net=None)
    event = verify_webhook(raw, headers, "secret")
    assert_type(event, WebhookEvent)
    assert_type(event.cost, Decimal | None)
    assert_type(event.timestamp, datetime | None)
    assert_type(await egg.deliver(event), TaskSnapshot | None)
    assert_type(sign_webhook(raw, "secret", now=1705314690), dict[str, str])
    verify_webhook(raw, [(b"x-eggapi-timestamp", b"1")], ["new", b"old"], now=1.5, tolerance=60)
    verify_webhook(raw.decode(), headers, "secret")  # type: ignore[arg-type]

    async def on_event(event: WebhookEvent) -> None:
        """Any function of an event."""

    receiver = WebhookReceiver("secret", deliver=egg.deliver, on_event=on_event)
    WebhookReceiver(["new", "old"], deliver=[egg.deliver, print])
    WebhookReceiver(on_event=print, allow_unsigned=True)
    assert_type(await receiver.handle(raw, headers, query="a=1"), int)
    WebhookReceiver(7, deliver=egg.deliver)  # type: ignore[arg-type]


def observing(events: list[ClientEvent]) -> None:
    """An ordinary callable hears of every event, and what it returns does not matter."""

    def on_event(event: ClientEvent) -> None:
        match event:
            case TaskCompleted():
                assert_type(event.seconds, float | None)
                assert_type(event.cost, Decimal | None)
            case TasksPolled():
                assert_type(event.task_ids, tuple[str, ...])
                event.kind = "none"  # type: ignore[misc]

    def narrow(event: TaskCompleted) -> None:
        """Hears of one kind only."""

    AsyncEggClient(on_event=on_event)
    AsyncEggClient(on_event=events.append)
    AsyncEggClient(on_event=print)
    AsyncEggClient(on_event=spans())
    AsyncEggClient(on_event=narrow)  # type: ignore[arg-type]


async def turns_of_users() -> None:
    """Any hashable key; the block knows its turn."""
    turns = Turns(concurrency=1, quota=5, per=300, in_flight=100)
    async with turns.turn(7, wait=True) as turn:
        assert_type(turn, Turn)
        assert_type(turn.position, int)
        turn.refund()
    assert_type(turns.position("a user"), int)
    assert_type(turns.cancel(("guild", 7)), int)
    turns.turn([])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def telling_users(error: EggError, failed: TaskFailedError, quota: QuotaExceededError) -> None:
    """Every error has words for users; some say more."""
    assert_type(error.user_message, str)
    assert_type(failed.kind, Literal["moderation", "prompt", "service"])
    assert_type(quota.retry_after, float)


async def fleets(egg: AsyncEggClient, server: Redis, shelf: Ledger) -> None:
    """Several processes on one key, and jobs that are bought once."""
    limiter = RedisRateLimiter(server, per_second=20, processes=4, concurrency=8, name="a-key")
    AsyncEggClient(limiter=limiter)
    RedisRateLimiter(server, per_second=20)  # type: ignore[call-arg]
    AsyncEggClient(limiter=20)  # type: ignore[arg-type]
    ledger = RedisLedger(server, name="an-account", keep=86_400)
    task = await egg.once("job 7", "A cat", ledger=ledger, uncertain="resubmit", num_outputs=2)
    assert_type(task, GenerationTask)
    await egg.once("job 7", GenerationRequest(prompt="A cat"), ledger=shelf)
    await egg.once("job 7", "A cat")  # type: ignore[call-arg]
    await egg.once("job 7", "A cat", ledger=ledger, uncertain="verify")  # type: ignore[arg-type]
    assert_type(await resolve(ledger, "job 7", "gen_1"), None)
    assert_type(LedgerEntry.of("{}").task_id, str | None)
