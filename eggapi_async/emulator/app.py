"""The emulator itself: an ASGI app that routes requests to the service and lets faults happen.

Its rule: a request is read, then all its work is done at one moment of the clock, and only then
does anything wait or get lost. So what is cancelled while it waits has happened, as in the service.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import anyio

from .answers import CODES, Answer, RefusedError, data_answer, error_answer, pagination
from .asgi import (
    MAX_BODY,
    OUTPUTS_ROUTE,
    Receive,
    Request,
    Scope,
    Send,
    live,
    read_request,
    route_of,
)
from .deliveries import Attempt, Deliveries, WebhookFault
from .faults import API, SUBMIT, Fault, FaultPlan, after_work, instead_of_work
from .limits import Buckets, Purse
from .outputs import File, file_answer
from .pictures import VIDEO, picture
from .senders import over_tcp, to_app
from .service import Order, Service
from .tasks import End, Task, shown
from .validation import generation_fields, page_and_size

LOG_LENGTH = 10_000


class EggEmulator:
    """The Egg API as an ASGI app: in process by `httpx.ASGITransport`, or over TCP by any server.

    With the same seed, requests and clock it does the same again. Times are in seconds.

    Arguments:
        clock: tells the unix second; it may be a fake that starts near 0.
        seed: of durations, ids, orders and faults.
        speed: how many times faster than the service tasks end.
        api_keys: the keys that are accepted, None for any; all of them belong to one account.
        latency: how long every answer takes, files excepted.
        per_second: requests per second and key, and their burst; above it the answer is 429.
        retry_after: the Retry-After of a 429; without it there is none, as in the documents.
        order: of the task list. "shuffled": another one at each request. "completed": the last
            to finish come first, open ones last.
        foreign_per_second: tasks that other programs submit to the same account.
        list_delay: how long a new task is missing from the list.
        get_delay: how long a new task is answered with 404.
        balance: US dollars, None for unlimited; open tasks hold their price.
        output_null_fields: absent fields of a task are sent as null.
        faults: probabilities by kind of `Fault`, of the requests it can happen to.
        webhook_secret: what webhooks are signed with; without it they are not signed.
        webhook_backoff: from a webhook that was not answered with 2xx to the next attempt; four
            times longer each time, and hurried by the speed.
        webhook_refresh: repeated webhooks carry the time of their own attempt.
        webhook_faults: probabilities by kind of `WebhookFault`, of the tasks with a webhook.

    Webhooks are sent while `delivering` runs, and by a server that speaks ASGI's lifespan, which
    calls this very machine only.

    For tests it keeps: `requests`, a count by method and route; `refusals`, how many answers were
    429; `accepted`, the ids of tasks submitted by callers, in order; `leaks`, the paths of outputs
    that were asked for with a key; `log`, the last 10,000 requests as (time, method, path);
    `deliveries`, the last 10,000 attempts to deliver a webhook.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        seed: int = 0,
        speed: float = 1.0,
        api_keys: Collection[str] | None = None,
        latency: float = 0.0,
        per_second: float | None = None,
        retry_after: float | None = None,
        order: Order = "newest",
        foreign_per_second: float = 0.0,
        list_delay: float = 0.0,
        get_delay: float = 0.0,
        balance: Decimal | None = None,
        output_null_fields: bool = False,
        faults: Mapping[str, float] | None = None,
        webhook_secret: str | None = None,
        webhook_backoff: float = 30.0,
        webhook_refresh: bool = True,
        webhook_faults: Mapping[str, float] | None = None,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.refusals = 0
        self.accepted: list[str] = []
        self.leaks: list[str] = []
        self.log: deque[tuple[float, str, str]] = deque(maxlen=LOG_LENGTH)
        self._clock = clock
        self._keys = None if api_keys is None else frozenset(api_keys)
        self._latency = latency
        self._buckets = None if per_second is None else Buckets(per_second)
        self._retry_after = retry_after
        self._nulls = output_null_fields
        self._plan = FaultPlan(seed, faults or {})
        self._service = Service(
            born=clock(),
            seed=seed,
            speed=speed,
            order=order,
            foreign_per_second=foreign_per_second,
            list_delay=list_delay,
            get_delay=get_delay,
            purse=None if balance is None else Purse(balance),
        )
        self._webhooks = Deliveries(
            seed=seed,
            secret=webhook_secret,
            backoff=webhook_backoff / speed,
            is_refreshed=webhook_refresh,
            chances=webhook_faults or {},
        )
        self.deliveries: deque[Attempt] = self._webhooks.log
        self._handlers = {
            "/v1/generate": self._generate,
            "/v1/tasks": self._list,
            "/v1/tasks/{id}": self._get,
            "/v1/usage": self._usage,
            "/v1/usage/summary": self._summary,
            OUTPUTS_ROUTE: self._output,
        }

    def __repr__(self) -> str:
        return f"<EggEmulator accepted={len(self.accepted)} requests={self.requests.total()}>"

    def fail_next(self, *faults: Fault, on: str | None = SUBMIT) -> None:
        """Let the next requests that match `on` meet these faults, one each, in this order.

        `on` is "METHOD /path-prefix"; None is any API request, or for faults that can happen in one
        place only, that place. ValueError if a fault can't happen where it should.
        """
        for fault in faults:
            self._plan.queue(fault, on=on)

    def fail_next_webhooks(self, *faults: WebhookFault) -> None:
        """Let the webhooks of the next tasks that ask for one meet these faults, one each."""
        self._webhooks.fail_next(*faults)

    @property
    def pending_webhooks(self) -> int:
        """How many webhooks are still to be sent, now or again."""
        return self._webhooks.pending

    @asynccontextmanager
    async def delivering(
        self, app: Callable[..., Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """Send webhooks while the block runs: all of them to the ASGI application *app*.

        Without it they go over TCP, to this very machine only.
        """
        send = over_tcp if app is None else to_app(app)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(partial(self._webhooks.run, send, clock=self._clock))
                yield
                group.cancel_scope.cancel()
        except BaseExceptionGroup as several:  # what the block raises is the caller's, as it is
            raise several.exceptions[0] from None

    def task(self, task_id: str) -> Task:
        """A task with its whole life, its end included, whatever the clock says; else KeyError."""
        return self._service.known(task_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI call: HTTP or lifespan."""
        if scope["type"] == "lifespan":
            async with self.delivering():
                await live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise NotImplementedError(f"the Egg API speaks HTTP, not {scope['type']}")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(scope, receive, clock=self._clock)
        if request is None:
            return
        answer = await self._answered(request)
        await send(answer.start(self._clock()))
        await send({"type": "http.response.body", "body": answer.body})

    async def _answered(self, request: Request) -> Answer:
        self._note(request)
        fault = self._plan.next(request.label)
        answer = self._work(request, fault=fault)
        self.refusals += answer.status == 429
        await self._wait(request, fault=fault)
        if fault and fault.kind == "lost":
            raise ConnectionResetError("the answer was lost")
        return answer

    def _note(self, request: Request) -> None:
        name, methods = route_of(request.path)
        kind = f"{request.method} {name}" if request.method in methods else "other"
        self.requests[kind] += 1
        self.log.append((request.now, request.method, request.path))
        if name == OUTPUTS_ROUTE and "authorization" in request.headers:
            self.leaks.append(request.path)

    async def _wait(self, request: Request, *, fault: Fault | None) -> None:
        seconds = self._latency if request.path.startswith(API) else 0.0
        seconds += fault.seconds if fault else 0.0
        if seconds > 0:
            await anyio.sleep(seconds)

    def _work(self, request: Request, *, fault: Fault | None) -> Answer:
        if fault is None:
            return self._answer(request, end="drawn")
        instead = instead_of_work(fault, retry_after=self._retry_after)
        return instead or after_work(fault, self._answer(request, end=fault.end))

    def _answer(self, request: Request, *, end: End) -> Answer:
        try:
            return self._routed(request, end=end)
        except RefusedError as refused:
            return error_answer(
                refused.status,
                code=refused.code,
                message=refused.message,
                retry_after=self._retry_after if refused.status == 429 else None,
            )

    def _routed(self, request: Request, *, end: End) -> Answer:
        name, methods = route_of(request.path)
        if not methods:
            raise RefusedError(404, "NOT_FOUND", "there is nothing at this path")
        if request.method not in methods:
            raise RefusedError(405, CODES[405], f"this path takes {' and '.join(methods)}")
        if name != OUTPUTS_ROUTE:
            self._admit(request)
        return self._handlers[name](request, end)

    def _admit(self, request: Request) -> None:
        if not request.key or (self._keys is not None and request.key not in self._keys):
            raise RefusedError(401, "UNAUTHORIZED", "the API key is missing or not valid")
        if self._buckets and not self._buckets.take(request.key, now=request.now):
            raise RefusedError(429, "RATE_LIMITED", "too many requests with this key")

    def _generate(self, request: Request, end: End) -> Answer:
        if len(request.body) > MAX_BODY:
            raise RefusedError(413, CODES[413], f"the body is larger than {MAX_BODY} bytes")
        fields = generation_fields(request.body)
        task = self._service.submit(fields, now=request.now, end=end)
        self.accepted.append(task.id)
        self._webhooks.schedule(task, origin=request.origin)
        return data_answer(self._shown(task, request), status=200 if end == "at once" else 202)

    def _get(self, request: Request, _: End) -> Answer:
        task = self._service.find(request.path.rpartition("/")[2], now=request.now)
        return data_answer(self._shown(task, request))

    def _list(self, request: Request, _: End) -> Answer:
        page, size = page_and_size(request.query)
        tasks, total = self._service.listed(page=page, size=size, now=request.now)
        items = [self._shown(task, request) for task in tasks]
        return data_answer({"items": items, "pagination": pagination(page, size, total)})

    def _usage(self, request: Request, _: End) -> Answer:
        page, size = page_and_size(request.query)
        items, total = self._service.usage(page=page, size=size, now=request.now)
        return data_answer({"items": items, "pagination": pagination(page, size, total)})

    def _summary(self, request: Request, _: End) -> Answer:
        return data_answer(self._service.summary(now=request.now))

    def _output(self, request: Request, _: End) -> Answer:
        task, number = self._service.made(request.path, now=request.now)
        return file_answer(
            _file(task, number),
            method=request.method,
            asked_range=request.headers.get("range"),
            if_range=request.headers.get("if-range"),
        )

    def _shown(self, task: Task, request: Request) -> dict[str, Any]:
        return shown(task, now=request.now, origin=request.origin, nulls=self._nulls)


def _file(task: Task, number: int) -> File:
    if task.is_video:
        return File(VIDEO, "video/mp4")
    shape = task.fields.get("aspect_ratio", "16:9")
    size = task.fields.get("resolution", "1k")
    content = picture(task.fields["prompt"], number, aspect_ratio=shape, resolution=size)
    return File(content, "image/png")
