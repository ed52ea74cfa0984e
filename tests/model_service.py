"""A small model of the service, and a wire to it on which everything goes wrong that can.

The model keeps the truth: what was taken, how it ends, what it costs. What a client gets to see of
it comes through `Wire`, an httpx transport that draws a fault for each request: it fails before
sending, or after the service took the request, answers late, in part, with pages or nonsense; its
replicas lag, its list is in any order and shifts while it is read, and other programs use the key.

All chance comes from one dice, all time from the event loop: the same seed gives the same history.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any, Final

import anyio
import attrs
import httpx

from tests.scripted import data, error

EPOCH: Final = datetime(2025, 1, 1, tzinfo=UTC)
PRICE: Final = Decimal("0.010")
MODEL: Final = "nanobanana"
PROXYS_PAGE: Final = "<html><h1>504 Gateway Time-out</h1></html>"

UNSENT: Final = ("refused", "no name", "no route", "broken handshake", "no place", "proxy says no")
"""Faults that prove that a request never left."""
DECLINED: Final = ("429", "429 for a while", "503")
"""Answers that prove that it was not taken."""
REJECTED: Final = ("400", "403")
UNTAKEN: Final = ("reset", "page", "500", "silence")
"""The service did nothing, but the client cannot know."""
TAKEN: Final = ("lost", "closed", "too late", "cut", "short", "page after", "500 after", "nonsense")
"""It did, and the client does not hear how."""
POST_FAULTS: Final = (*UNSENT, *DECLINED, *UNTAKEN, *TAKEN, "400", "slow")
GET_FAULTS: Final = (*UNSENT, *DECLINED, *UNTAKEN, *TAKEN, "stale", "slow", "another's")


def now() -> datetime:
    """The service's clock."""
    return EPOCH + timedelta(seconds=anyio.current_time())


@attrs.define
class Job:
    """One task at the service."""

    task_id: str
    prompt: str
    made_at: datetime
    takes: float
    is_failing: bool
    webhook_url: str | None = None
    is_ours: bool = True

    def ended(self, at: datetime) -> bool:
        """True when it has ended by then."""
        return at >= self.made_at + timedelta(seconds=self.takes)

    @property
    def status(self) -> str:
        """How it ends."""
        return "failed" if self.is_failing else "completed"

    @property
    def cost(self) -> Decimal:
        """What it costs in the end."""
        return Decimal(0) if self.is_failing else PRICE

    def view(self, at: datetime) -> dict[str, Any]:
        """The task object as a replica shows it that is as old as *at*."""
        view: dict[str, Any] = {"id": self.task_id, "status": "pending", "model": MODEL}
        view |= {"type": "image_generate", "created_at": self.made_at.isoformat()}
        if at >= self.made_at + timedelta(seconds=1):
            view["status"] = "processing"
        if self.ended(at):
            end = self.made_at + timedelta(seconds=self.takes)
            view |= {"status": self.status, "completed_at": end.isoformat()}
            view["cost"] = f"${self.cost:.4f}"
            view |= {"error": "no"} if self.is_failing else {"output": {"url": self.url}}
        return view

    @property
    def url(self) -> str:
        """Where its picture is."""
        return f"https://cdn.test/{self.task_id}.png"


@attrs.define
class Service:
    """The truth, and how it is shown. *trouble* is the chance that a request meets a fault."""

    dice: random.Random
    trouble: float = 0.0
    order: str = "newest"
    lag: float = 0.0
    foreign: float = 0.0
    jobs: dict[str, Job] = attrs.field(factory=dict)
    accepted: Counter[str] = attrs.field(factory=Counter)
    trace: list[str] = attrs.field(factory=list)
    forced: list[str] = attrs.field(factory=list)

    def tell(self, line: str) -> None:
        """Note what happened, and when."""
        self.trace.append(f"{anyio.current_time():.6f} {line}")

    def take(self, prompt: str, webhook_url: str | None, *, is_ours: bool = True) -> Job:
        """Take a generation."""
        job = Job(
            f"gen_{len(self.jobs)}",
            prompt,
            now(),
            self.dice.uniform(0.5, 60.0),
            self.dice.random() < 0.1,
            webhook_url,
            is_ours,
        )
        self.jobs[job.task_id] = job
        self.accepted[prompt] += is_ours
        return job

    def draw(self, method: str) -> str:
        """What befalls the next request."""
        if self.forced and method == "POST":
            return self.forced.pop(0)
        if self.dice.random() >= self.trouble:
            return "fine"
        return self.dice.choice(POST_FAULTS if method == "POST" else GET_FAULTS)

    # --- answers -----------------------------------------------------------------------------

    def answer(self, request: httpx.Request, *, is_stale: bool = False) -> httpx.Response:
        """What the service does and says, if nothing comes between."""
        if request.method == "POST":
            fields = json.loads(request.content)
            job = self.take(fields["prompt"], fields.get("webhook_url"))
            return _said(202, data(job.view(now())))
        at = now() - timedelta(seconds=self.lag if is_stale else 0.0)
        name = request.url.path.rpartition("/")[2]
        if name == "tasks":
            return _said(200, data(self._page(request, at)))
        job = self.jobs[name]
        if job.made_at > at:
            return _said(404, error("NOT_FOUND"))
        return _said(200, data(job.view(at)))

    def _page(self, request: httpx.Request, at: datetime) -> dict[str, Any]:
        number, size = int(request.url.params["page"]), int(request.url.params["per_page"])
        shown = [job for job in self.jobs.values() if job.made_at <= at]
        if self.order == "newest":
            shown.reverse()
        elif self.order == "shuffled":
            self.dice.shuffle(shown)
        items = [job.view(at) for job in shown[(number - 1) * size : number * size]]
        if self.dice.random() < self.foreign:  # others come while pages are read
            self.take("Another's", None, is_ours=False)
        place = {"page": number, "per_page": size, "total": len(shown)}
        return {"items": items, "pagination": {**place, "total_pages": -(-len(shown) // size)}}


def _said(status: int, body: Any, **headers: str) -> httpx.Response:
    date = format_datetime(now(), usegmt=True)
    return httpx.Response(status, json=body, headers={"Date": date, **headers})


class Wire(httpx.AsyncBaseTransport):
    """The wire of one process to the service, until it is `dead`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.is_dead = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request through whatever befalls it."""
        service, dice = self._service, self._service.dice
        fault = "refused" if self.is_dead else service.draw(request.method)
        service.tell(f"{request.method} {_what(request)}: {fault}")
        if fault in UNSENT:
            await self._fail_early(request, fault)
        await _speak(request, "http11.send_request_headers.started")
        await anyio.sleep(dice.uniform(0.01, 0.3))
        if self.is_dead:
            raise httpx.ReadError("the process is gone", request=request)
        return await self._answer(request, fault)

    async def _fail_early(self, request: httpx.Request, fault: str) -> None:
        if fault not in ("no place", "proxy says no"):
            await _speak(request, "connection.connect_tcp.started")
        await anyio.sleep(self._service.dice.uniform(0.001, 2.0))
        raise {
            "refused": httpx.ConnectError,
            "no name": httpx.ConnectError,
            "no route": httpx.ConnectTimeout,
            "broken handshake": httpx.ReadError if _has_trace(request) else httpx.ConnectError,
            "no place": httpx.PoolTimeout,
            "proxy says no": httpx.ProxyError,
        }[fault](fault, request=request)

    async def _answer(self, request: httpx.Request, fault: str) -> httpx.Response:
        if make := _INSTEAD.get(fault):
            return make(self._service.dice)
        if fault == "reset":
            raise httpx.ReadError(fault, request=request)
        if fault == "silence":
            await anyio.sleep(3600)
        answer = self._service.answer(request, is_stale=fault == "stale")
        await anyio.sleep(self._service.dice.uniform(0.01, 0.3))
        if fault == "slow":
            await anyio.sleep(self._service.dice.uniform(1.0, 25.0))
        if fault == "too late":
            await anyio.sleep(3600)
        if fault in ("lost", "closed"):
            kind = httpx.ReadError if fault == "lost" else httpx.RemoteProtocolError
            raise kind(fault, request=request)
        spoil = _SPOILT.get(fault)
        return spoil(answer, self._service.dice) if spoil else answer


def _what(request: httpx.Request) -> str:
    if request.method == "POST":
        return str(json.loads(request.content)["prompt"])
    return request.url.raw_path.decode()


def _has_trace(request: httpx.Request) -> bool:
    return "trace" in request.extensions


async def _speak(request: httpx.Request, event: str) -> None:
    """Tell of progress as httpcore does."""
    if _has_trace(request):
        of = SimpleNamespace(method=request.method.encode())
        await request.extensions["trace"](event, {"request": of})


def _page(_: Any) -> httpx.Response:
    return httpx.Response(502, text=PROXYS_PAGE)


def _wait_a_while(dice: random.Random) -> httpx.Response:
    wish = dice.choice(["0", "1", "2.5", "7", "soon", "-1", format_datetime(now(), usegmt=True)])
    return _said(429, error("RATE_LIMITED"), **{"Retry-After": wish})


_INSTEAD: Final[dict[str, Callable[[random.Random], httpx.Response]]] = {
    "429": lambda _: _said(429, error("RATE_LIMITED")),
    "429 for a while": _wait_a_while,
    "503": lambda _: _said(503, error("SERVICE_UNAVAILABLE")),
    "400": lambda _: _said(400, error("VALIDATION_ERROR")),
    "403": lambda _: _said(403, error("FORBIDDEN")),
    "page": _page,
    "500": lambda _: _said(500, error("INTERNAL_ERROR")),
}


class _Cut(httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body
        raise httpx.RemoteProtocolError("cut")


def _cut(answer: httpx.Response, dice: random.Random) -> httpx.Response:
    return httpx.Response(answer.status_code, stream=_Cut(_short_body(answer, dice)))


def _short_body(answer: httpx.Response, dice: random.Random) -> bytes:
    return answer.content[: dice.randrange(len(answer.content))]


def _short(answer: httpx.Response, dice: random.Random) -> httpx.Response:
    return httpx.Response(answer.status_code, content=_short_body(answer, dice))


NONSENSE: Final = (
    b"",
    b"[]",
    b"{}",
    b'{"data": NaN}',
    b'{"data": {"id": null}}',
    b'{"data": {"id": 7, "status": "pending"}}',
    b'{"data": [], "error": null}',
    b'{"data": null, "error": {"code": "INTERNAL_ERROR", "message": "oh"}}',
    b"\xff\xfe\x00",
    b"[" * 50_000,
)


def _nonsense(answer: httpx.Response, dice: random.Random) -> httpx.Response:
    return httpx.Response(answer.status_code, content=dice.choice(NONSENSE))


def _anothers(answer: httpx.Response, _: random.Random) -> httpx.Response:
    body = answer.json()
    if isinstance(body["data"], dict) and "id" in body["data"]:
        body["data"]["id"] = "gen_of_somebody"
    return httpx.Response(answer.status_code, json=body)


_SPOILT: Final[dict[str, Callable[[httpx.Response, random.Random], httpx.Response]]] = {
    "cut": _cut,
    "short": _short,
    "nonsense": _nonsense,
    "another's": _anothers,
    "page after": lambda *_: httpx.Response(504, text=PROXYS_PAGE),
    "500 after": lambda *_: httpx.Response(500, json=error("INTERNAL_ERROR")),
}
