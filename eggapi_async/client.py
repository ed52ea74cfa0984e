"""The front door: `AsyncEggClient`.

Composition only: what is sent is in `_protocol`, when and how often in `_transport`, waiting in
`_hub`, buying in `_submission`, files in `_downloads`.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

import anyio
import attrs

from . import _protocol
from ._batch import Batch, Check, answer
from ._deliveries import Deliveries
from ._downloads import MAX_BYTES, Downloads
from ._foreign import HTTPClient
from ._home import Home
from ._hooks import Address, Trust
from ._hub import Hub, Watch
from ._once import InDoubt, Jobs
from ._protocol import Call
from ._reach import Reach
from ._retry import Patience, RetryPolicy
from ._rhythm import PollPolicy
from ._submission import Submissions, Uncertain
from ._task import WAIT, GenerationTask, checked_seconds, checked_timeout
from ._telling import telling
from ._transport import Limiter, Transport, wall_clock
from ._wire import ApiKey, Wire
from ._work import Work
from .budget import Budget
from .client_events import ClientClosed, ClientEvent, Tell
from .errors import (
    ConfigurationError,
    InvalidRequestError,
    SubmissionUncertainError,
)
from .ledger import Ledger
from .limiter import RateLimiter
from .models import (
    DEFAULT_MODEL,
    GenerationRequest,
    Page,
    Stats,
    TaskSnapshot,
    UsageRecord,
    UsageSummary,
    is_safe_url,
)

if TYPE_CHECKING:
    from ._events import WebhookEvent

__all__ = ["AsyncEggClient"]

T = TypeVar("T")
Name = Callable[[int, GenerationRequest, TaskSnapshot], str]


class GenerationOptions(TypedDict, total=False):
    """The fields of a `GenerationRequest` that go beside the prompt; None is the same as absent."""

    model: str | None
    negative_prompt: str | None
    aspect_ratio: str | None
    num_outputs: int | None
    resolution: str | None
    image_urls: Iterable[str] | None
    duration: int | None
    webhook_url: str | None
    extra: Mapping[str, Any] | None


@attrs.frozen
class _Engines:
    """What a client and those made from it by `with_options` share."""

    limiter: Limiter
    stats: Stats
    origin: str
    wire: Wire
    transport: Transport
    hub: Hub
    submissions: Submissions
    jobs: Jobs
    downloads: Downloads
    deliveries: Deliveries
    tell: Tell | None
    work: Work


class AsyncEggClient:
    """A client of the Egg API for asyncio (and trio).

    api_key      the key; otherwise the environment's EGGAPI_API_KEY
    base_url     where the API is; otherwise EGGAPI_BASE_URL, otherwise the real service. https, or
                 plain http to this very machine
    model        the model of requests that name none
    limiter      the limits of the key: a `RateLimiter`, also for several clients that share it, or
                 a `RedisRateLimiter` for several processes
    retry        how a call is repeated while that is safe
    polling      how open tasks are watched
    timeout      seconds that one attempt of one call may take in all its phases
    http_client  an `httpx.AsyncClient` or `httpx2.AsyncClient` to send with, yours to close
    budget       what may be spent; give one to several clients that share it
    webhook_url  where the service tells that a task has ended, for requests that name no URL of
                 their own. Giving it is a promise that what comes there is handed to `deliver`, by
                 a `WebhookReceiver(secret, deliver=egg.deliver)`: such tasks are then hardly polled
                 (`PollPolicy.safety_net`), unless their ends turn out to arrive by polls only.
                 Deliveries at other URLs have to arrive before polls rest
    webhook_reference    let that URL's query carry a reference (`egg_ref=…`) that differs for each
                 submission, so that a delivery names the task of a submission whose answer was
                 lost. False: the URL is sent as it is
    on_event     an ordinary callable that hears what happens here, as values of `client_events`:

                 | event            | told when                                              |
                 |------------------|--------------------------------------------------------|
                 | TaskSubmitted    | a generation was bought, and its id is known           |
                 | SubmissionFailed | it was not, or that is not known: `generate` raises    |
                 | TasksPolled      | one task, or a page of the list, was asked for         |
                 | CallRetried      | a request goes again                                   |
                 | CooledDown       | a 429 pauses everything                                |
                 | TaskCompleted    | a generation has ended well                            |
                 | TaskFailed       | it has ended badly                                     |
                 | OutputDownloaded | one output is whole on disk                            |
                 | ClientClosed     | the client was closed                                  |

                 It is called on the event loop, in between everything else, and must be quick. What
                 it raises is logged once, and breaks nothing. No event has a prompt or the key
    private_hosts  where downloads may lead though it is no public address: names, addresses and
                 networks (`["mirror.corp.example", "10.1.0.0/16"]`), else those of the
                 environment's EGGAPI_PRIVATE_HOSTS, with commas between. The API's own host and
                 port always may, and all of this machine where the API is on it

    Repetitions are logged under `eggapi_async` at INFO, requests at DEBUG; EGGAPI_LOG=info or debug
    in the environment shows them on standard error.

    Use it as `async with AsyncEggClient() as egg:`, or call `aclose()`. One client serves any
    number of coroutines, and event loops that follow each other. Raises ConfigurationError, and
    WrongLoopError where it is used on another loop while the first still runs, or after a fork.
    """

    _is_owner = False  # until it is made: what fails half-way has nothing to close

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        model: str = DEFAULT_MODEL,
        limiter: Limiter | None = None,
        retry: RetryPolicy = RetryPolicy(),
        polling: PollPolicy = PollPolicy(),
        timeout: float = 30.0,
        http_client: HTTPClient | None = None,
        budget: Budget | None = None,
        webhook_url: str | None = None,
        webhook_reference: bool = True,
        on_event: Callable[[ClientEvent], object] | None = None,
        private_hosts: Iterable[str] | None = None,
    ) -> None:
        try:
            key = ApiKey(_from_environment("EGGAPI_API_KEY") if api_key is None else api_key)
        finally:
            del api_key  # so that no traceback with locals can show it
        if level := _from_environment("EGGAPI_LOG"):
            from ._console import show  # only here: most programs do without

            show(level)
        limiter = RateLimiter() if limiter is None else limiter
        _check_kinds(
            model=(model, str),
            retry=(retry, RetryPolicy),
            polling=(polling, PollPolicy),
        )
        if not isinstance(limiter, Limiter):
            raise ConfigurationError(
                f"limiter: expected a RateLimiter, got {type(limiter).__name__}"
            )
        _check_budget(budget)
        tell = telling(on_event)
        self._model = model
        self._budget = budget
        self._patience = Patience(timeout, retry)
        address = Address(webhook_url, webhook_reference)
        home = Home(type(self).__name__)
        origin = _origin(base_url or _from_environment("EGGAPI_BASE_URL"))
        reach = Reach.of(_named_hosts() if private_hosts is None else private_hosts, origin=origin)
        stats, wire = Stats(), Wire(http_client, reach=reach, home=home)
        transport = Transport(
            wire=wire,
            key=key,
            origin=origin,
            limiter=limiter,
            stats=stats,
            poll_patience=self._patience,
            dice=random.random,
            wall_clock=wall_clock,
            tell=tell,
        )
        trust, work = Trust(address.url), Work()
        hub = Hub(
            transport=transport,
            policy=polling,
            stats=stats,
            trust=trust,
            tell=tell,
            work=work,
            home=home,
        )
        submissions = Submissions(
            transport=transport, hub=hub, wall_clock=wall_clock, address=address, tell=tell
        )
        downloads = Downloads(transport=transport, dice=random.random, tell=tell)
        deliveries = Deliveries(transport=transport, hub=hub, submissions=submissions, home=home)
        jobs = Jobs(submissions=submissions, now=wall_clock)
        self._engines = _Engines(
            limiter,
            stats,
            origin,
            wire,
            transport,
            hub,
            submissions,
            jobs,
            downloads,
            deliveries,
            tell,
            work,
        )
        self._is_owner = True

    def __repr__(self) -> str:
        if not hasattr(self, "_engines"):  # a traceback with locals shows what was refused, too
            return "<AsyncEggClient not made>"
        hub = self._engines.hub
        return f"<AsyncEggClient {len(hub.unfinished)} unfinished, {hub.waited} awaited>"

    @property
    def base_url(self) -> str:
        """Where the API is that this client talks to; no other host ever gets the key."""
        return self._engines.origin

    # --- life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self, *, drain: float = 0.0) -> tuple[GenerationTask, ...]:
        """Close the connections; the tasks that go on at the service without us: `unfinished`.

        *drain* seconds are allowed for what is being submitted, awaited or fetched to end first:
        give the client no new work then. What is still awaited afterwards is not cancelled here.
        Store the ids that are returned; `egg.task(id)` takes them up again, in any process. Safe
        to repeat. A client made by `with_options` closes nothing.
        """
        checked_seconds("drain", drain, "seconds from 0")
        if self._is_owner:
            self._engines.transport.arrive()
            with anyio.move_on_after(drain):
                await self._engines.work.ended()
            await self._engines.wire.aclose()
            if self._engines.tell is not None:
                open_ids = tuple(task.id for task in self.unfinished)
                self._engines.tell(ClientClosed(task_ids=open_ids))
        return self.unfinished

    def __del__(self) -> None:
        if self._is_owner and self._engines.wire.is_open:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def with_options(
        self,
        *,
        model: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        budget: Budget | None = None,
    ) -> AsyncEggClient:
        """A client with other options over the same connections, limiter, tasks and counters.

        None leaves an option as it is. A *budget* takes the place of this client's own: one for
        each user of a bot, say. Closing it does nothing: the first client owns the connections.
        """
        _check_budget(budget)
        other = object.__new__(AsyncEggClient)
        other._is_owner = False
        other._engines = self._engines
        other._model = self._model if model is None else model
        other._budget = self._budget if budget is None else budget
        other._patience = Patience(
            self._patience.timeout if timeout is None else timeout,
            self._patience.retry if retry is None else retry,
        )
        return other

    # --- generating --------------------------------------------------------------------------

    async def generate(
        self,
        prompt: str | GenerationRequest,
        *,
        uncertain: Uncertain = "raise",
        **options: Unpack[GenerationOptions],
    ) -> GenerationTask:
        """Submit one generation (POST /v1/generate) and return its task, not yet finished.

        *prompt* is a text, or a `GenerationRequest`; *options* are the request's other fields.
        *uncertain* says what to do when the answer is lost and the task may exist: "raise"
        SubmissionUncertainError, or "verify" by the task list, for callers who alone use the key:
        adopt the one task that it must be, submit again when there is none, else raise.

        Raises InvalidRequestError and BudgetExceededError before anything is sent, and the errors
        of `APIError`. When it is cancelled while the POST is under way, the answer is awaited for
        up to 5 s, so that the task is in `unfinished`.
        """
        return await self._submit(self._request(prompt, options), uncertain)

    async def once(
        self,
        job: str,
        prompt: str | GenerationRequest,
        *,
        ledger: Ledger,
        uncertain: InDoubt = "raise",
        **options: Unpack[GenerationOptions],
    ) -> GenerationTask:
        """`generate` for the *job* of a queue: bought once, in whatever process it comes again.

        The *ledger* knows of it before its POST leaves, and its task's id as soon as that is known.
        When the job comes again its task is given back, and nothing is sent; while another process
        is at it, this one waits. Where an answer was lost, or its process died in between,
        *uncertain* says what to do: "raise" SubmissionUncertainError (`eggapi_async.ledger.resolve`
        ends the doubt), or "resubmit": buy it again, since that may be cheaper than to look.

        Raises what `generate` does, InvalidRequestError for another request under the same *job*,
        and JournalError where the ledger cannot be reached: nothing is bought then.
        """
        request = self._request(prompt, options)
        with self._engines.work:
            watch = await self._engines.jobs.submit(
                job, request, self._patience, uncertain, ledger=ledger, budget=self._budget
            )
        return self._handle(watch)

    async def run(
        self,
        prompt: str | GenerationRequest,
        *,
        timeout: float | None = WAIT,
        uncertain: Uncertain = "raise",
        **options: Unpack[GenerationOptions],
    ) -> TaskSnapshot:
        """`generate` and `result` in one: the completed task."""
        checked_timeout(timeout)  # before anything is bought
        task = await self.generate(prompt, uncertain=uncertain, **options)
        return await task.result(timeout=timeout)

    def map(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        *,
        in_flight: int = 200,
        timeout: float | None = WAIT,
        journal: str | os.PathLike[str] | None = None,
        save_to: str | os.PathLike[str] | None = None,
        uncertain: Uncertain = "raise",
        retry_failed: bool = False,
        key: Callable[[Any], str] | None = None,
        name: Name | None = None,
    ) -> Batch:
        """Generate many: prompts, mappings or `GenerationRequest`s from any iterable, read lazily.

        At most *in_flight* are under way at once; each may take *timeout* seconds; *save_to* is a
        folder for the pictures. `await` it for a list of outcomes in input order, or use it as
        `async with egg.map(...) as run: async for outcome in run: ...` for outcomes as they finish.
        Failures are values: see `Outcome`. AuthenticationError, InsufficientBalanceError and
        BudgetExceededError stop all submissions: the items not sent yet get that error too.
        Files are named by their task's id, or by what *name* makes of an item's index, request and
        task: a name without suffix, maybe with folders in it, that stays in *save_to*. What
        *requests*, *key* or *name* raise is raised as it is, after what was begun has ended.

        With *journal*, a file's path, it can be killed at any moment: the same call again goes on.
        Finished items cost no request, submitted ones are collected, missing files are fetched,
        and only what was never submitted is bought. Items are known by their content (of several
        alike, each is one), or by what *key* makes of them; a changed item is a new one, and
        refused under an old key. Failed ones stay failed unless *retry_failed*; where a submission
        may have been taken, the outcome has SubmissionUncertainError, or *uncertain* says "verify".
        Entering the batch raises JournalError where the file is no journal of this service, cannot
        be written, or is in use, and InvalidRequestError where *save_to* is a file or *journal* a
        folder; `Journal` reads it. An option that could not do its work, as *key* without *journal*
        or *name* without *save_to*, is refused at once: InvalidRequestError.
        """
        checked_timeout(timeout)
        _check_callable("key", key, "journal", journal)
        _check_callable("name", name, "save_to", save_to)
        if retry_failed and journal is None:
            raise InvalidRequestError("retry_failed", retry_failed, "journal= beside it")
        folder = None if save_to is None else _as_folder(save_to)

        def read(item: Any) -> GenerationRequest:
            return GenerationRequest.of(item, model=self._model)

        async def make(request: GenerationRequest, check: Check) -> TaskSnapshot:
            task = await self._submit(request, uncertain, check)
            return await task.result(timeout)

        async def wait(watch: Watch) -> TaskSnapshot:
            return await self._handle(watch).result(timeout)

        async def save(index: int, request: GenerationRequest, task: TaskSnapshot) -> list[Path]:
            stem = None if name is None else answer(name, index, request, task)
            return await self._fetch(task, folder or "", stem=stem)

        resume = None
        if journal is not None:
            from ._resume import Resume  # brings the database along

            resume = Resume(
                journal,
                origin=self._engines.origin,
                submissions=self._engines.submissions,
                patience=self._patience,
                uncertain=uncertain,
                retry_failed=retry_failed,
                folder=folder,
                key=None if key is None else partial(answer, key),
                now=wall_clock,
                read=read,
                wait=wait,
                save=save,
                budget=self._budget,
            )
        return Batch(
            requests,
            in_flight=in_flight,
            arrive=self._engines.transport.arrive,
            read=read,
            make=make,
            save=None if folder is None else save,
            journal=resume,
            look=None if save_to is None else partial(_check_folder, save_to),
        )

    def _request(
        self, prompt: str | GenerationRequest, options: GenerationOptions
    ) -> GenerationRequest:
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(prompt, GenerationRequest):
            fields = attrs.asdict(prompt, recurse=False)
            return GenerationRequest.of({**fields, **given}) if given else prompt
        return GenerationRequest.of({"model": self._model, **given, "prompt": prompt})

    async def _submit(
        self, request: GenerationRequest, uncertain: Uncertain, check: Check = lambda: None
    ) -> GenerationTask:
        with self._engines.work:
            watch = await self._engines.submissions.submit(
                request, self._patience, uncertain, budget=self._budget, check=check
            )
        return self._handle(watch)

    def _handle(self, watch: Watch) -> GenerationTask:
        return GenerationTask(watch, hub=self._engines.hub, client=self)

    async def reconcile(self, error: SubmissionUncertainError) -> tuple[TaskSnapshot, ...]:
        """The listed tasks that could be the lost one, for an *error* from any process."""
        return await self._engines.submissions.reconcile(error, self._patience)

    # --- tasks -------------------------------------------------------------------------------

    def task(self, task_id: str) -> GenerationTask:
        """A handle for a known id; makes no request."""
        return self._handle(self._engines.hub.watch(_protocol.checked_task_id(task_id)))

    async def get_task(self, task_id: str) -> TaskSnapshot:
        """The task as it is now (GET /v1/tasks/{id}). Raises NotFoundError."""
        return await self._call(_protocol.get_task(_protocol.checked_task_id(task_id)))

    async def tasks_page(self, page: int = 1, per_page: int = 20) -> Page[TaskSnapshot]:
        """One page of all tasks of the key (GET /v1/tasks); *per_page* at most 100."""
        return await self._call(_protocol.list_tasks(page=page, per_page=per_page))

    async def tasks(self, *, max_items: int | None = None) -> AsyncIterator[TaskSnapshot]:
        """All tasks of the key, in the service's order, each once; *max_items* at most."""
        seen: set[str] = set()
        if max_items is not None and max_items < 1:
            return
        async with aclosing(self._items(_protocol.list_tasks)) as items:
            async for task in items:
                if task.id not in seen:  # new tasks push old ones to the next page
                    seen.add(task.id)
                    yield task
                if len(seen) == max_items:
                    return

    async def usage_summary(self) -> list[UsageSummary]:
        """What was used, by model (GET /v1/usage/summary)."""
        return await self._call(_protocol.usage_summary())

    async def usage(self) -> AsyncIterator[UsageRecord]:
        """All usage records (GET /v1/usage), as they come: their fields are not documented."""
        async with aclosing(self._items(_protocol.usage)) as items:
            async for record in items:
                yield record

    @property
    def unfinished(self) -> tuple[GenerationTask, ...]:
        """The tasks submitted by this client that have not ended, as far as is known.

        What a bot must store when it shuts down; `egg.task(id)` takes them up again. A task that
        nobody has waited for is dropped after a day.
        """
        return tuple(self._handle(watch) for watch in self._engines.hub.unfinished)

    @property
    def stats(self) -> Stats:
        """Counters since the client was made."""
        return self._engines.stats

    # --- webhooks ----------------------------------------------------------------------------

    async def deliver(self, event: WebhookEvent) -> TaskSnapshot | None:
        """Take in what a webhook told: every wait for that task ends at once.

        For a `WebhookReceiver`, or for whatever else brings a verified `WebhookEvent` here, from
        any event loop. What is not trusted (stale, unsigned), or does not tell all of the end, is
        asked for first (one GET). An end is kept for ten minutes where the task is not known yet.
        Returns the task as it is known then; None for an event that tells nothing of one. Raises
        the errors of that GET.
        """
        return await self._engines.deliveries.take(event, self._patience)

    # --- files -------------------------------------------------------------------------------

    async def download(
        self,
        source: TaskSnapshot | str,
        destination: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        overwrite: bool = False,
    ) -> list[Path]:
        """Fetch the outputs of a completed task, or one URL, into files; returns their paths.

        *destination* is a folder, where files are named by the task's id, or a file's name for a
        single output. Files appear whole or not at all; an existing one stays unless *overwrite*,
        but one that an earlier download of the same task left is taken as it is. *max_bytes* bounds
        each file. Raises DownloadError.
        """
        _check_source(source)
        return await self._fetch(source, destination, max_bytes=max_bytes, overwrite=overwrite)

    async def read(
        self, source: TaskSnapshot | str, index: int = 0, *, max_bytes: int = MAX_BYTES
    ) -> bytes:
        """Fetch one output of a completed task, or one URL, into memory, checked as files are.

        *index* counts the outputs from 0. *max_bytes* is the most that is taken. Raises
        DownloadError, and InvalidRequestError where there is no such output.
        """
        return (await self._read(source, index, max_bytes))[0]

    async def read_all(
        self, source: TaskSnapshot | str, *, max_bytes: int = MAX_BYTES
    ) -> list[bytes]:
        """Fetch every output of a completed task into memory; *max_bytes* bounds each."""
        return await self._read(source, None, max_bytes)

    async def _read(
        self, source: TaskSnapshot | str, index: int | None, max_bytes: int
    ) -> list[bytes]:
        _check_source(source)
        with self._engines.work:
            return await self._engines.downloads.read(
                source,
                index=index,
                policy=self._patience.retry,
                max_bytes=max_bytes,
                refresh=self._refresh_of(source),
            )

    async def _fetch(
        self,
        source: TaskSnapshot | str,
        destination: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        overwrite: bool = False,
        stem: str | None = None,
    ) -> list[Path]:
        with self._engines.work:
            return await self._engines.downloads.save(
                source,
                destination,
                policy=self._patience.retry,
                max_bytes=max_bytes,
                overwrite=overwrite,
                refresh=self._refresh_of(source),
                stem=stem,
            )

    def _refresh_of(
        self, source: TaskSnapshot | str
    ) -> Callable[[], Awaitable[TaskSnapshot]] | None:
        """What asks for newer URLs where those of a task have expired."""
        return None if isinstance(source, str) else partial(self._refreshed, source.id)

    async def _refreshed(self, task_id: str) -> TaskSnapshot:
        return await self.task(task_id).refresh()

    async def _call(self, call: Call[T]) -> T:
        return await self._engines.transport.call(
            call, self._patience, accept=lambda value, _: value
        )

    async def _items(self, list_page: Callable[..., Call[Page[T]]]) -> AsyncGenerator[T, None]:
        number, total = 1, 1
        while number <= total:
            page = await self._call(list_page(page=number, per_page=_protocol.PAGE_LIMIT))
            for item in page.items:
                yield item
            number, total = number + 1, page.total_pages if page.items else 0


def _from_environment(name: str) -> str:
    return os.environ.get(name, "").strip()


def _named_hosts() -> list[str]:
    return _from_environment("EGGAPI_PRIVATE_HOSTS").replace(",", " ").split()


def _check_source(source: object) -> None:
    if not isinstance(source, (TaskSnapshot, str)):
        expected = "a TaskSnapshot (what `await task` gives) or a URL"
        raise InvalidRequestError("source", source, expected)


def _as_folder(path: object) -> str:
    """*path* as that of a folder, whatever is there."""
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidRequestError("save_to", path, "a folder")
    return os.path.join(os.fspath(path) or ".", "")


def _check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse *path* where a file stands. Blocks."""
    if os.path.isfile(path):
        raise InvalidRequestError("save_to", path, "a folder")


def _check_callable(field: str, value: object, other: str, beside: object) -> None:
    if value is None:
        return
    if not callable(value):
        raise InvalidRequestError(field, value, "a callable")
    if beside is None:
        raise InvalidRequestError(field, value, f"{other}= beside it")


def _check_kinds(**given: tuple[object, type]) -> None:
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            expected = f"{name}: expected a {kind.__name__}"
            raise ConfigurationError(f"{expected}, got {type(value).__name__}")


def _check_budget(budget: object) -> None:
    if budget is not None:
        _check_kinds(budget=(budget, Budget))


def _origin(base_url: str) -> str:
    """*base_url* without a trailing slash, if it is safe to send a key there."""
    url = base_url or _protocol.DEFAULT_ORIGIN
    if set(str(url)) & set("@?#"):  # checked first and not shown: it may be a secret
        raise ConfigurationError("base_url: expected no user, password, query or fragment in it")
    if not isinstance(url, str) or not is_safe_url(url):
        raise ConfigurationError(
            f"base_url: expected an https URL (plain http only to this machine), got {url!r}"
        )
    return url.rstrip("/")
