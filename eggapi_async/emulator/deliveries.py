"""Webhooks: told when a task ends, signed, and told again until somebody says 2xx.

Its rule: what is sent is a function of the task and of the time, and all bad luck follows from the
seed. Who carries it is given (`senders`). Nothing is sent while nobody runs it.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal, get_args

import anyio
import attrs

from .. import _signing
from .senders import Sender
from .tasks import Task, shown

RETRIES: Final = 5
LONGEST_BACKOFF: Final = 4 * 3600.0
BACKOFF_FACTOR: Final = 4
TIMEOUT: Final = 30.0
"""Seconds that the receiver of a webhook may take."""
HELD: Final = 10.0
"""Seconds for which a reordered webhook waits for another one to overtake it."""
AHEAD: Final = 0.01
"""Seconds by which a forger is faster."""
AGAIN: Final = 5.0
"""Seconds after which a duplicated webhook comes for the third time."""
LOG_LENGTH: Final = 10_000

Kind = Literal["cut", "duplicated", "forged", "late", "lost", "reordered"]


@attrs.frozen
class WebhookFault:
    """One thing that goes wrong with the webhook of one task; made by the class methods."""

    kind: Kind
    seconds: float = 0.0

    @classmethod
    def lost(cls) -> WebhookFault:
        """It is never sent, though the service thinks so."""
        return cls("lost")

    @classmethod
    def late(cls, seconds: float = 30.0) -> WebhookFault:
        """It is signed when the task ends, and comes that much later."""
        return cls("late", seconds)

    @classmethod
    def duplicated(cls) -> WebhookFault:
        """It comes twice at once, and once more 5 s later."""
        return cls("duplicated")

    @classmethod
    def reordered(cls) -> WebhookFault:
        """It comes after the next one, or after 10 s."""
        return cls("reordered")

    @classmethod
    def forged(cls) -> WebhookFault:
        """Somebody else sends a webhook of the same task first, who does not know the secret."""
        return cls("forged")

    @classmethod
    def cut(cls) -> WebhookFault:
        """The first time only half of the body comes."""
        return cls("cut")


@attrs.frozen
class Attempt:
    """One attempt to deliver: when, what, and what was answered (None: nothing in time)."""

    time: float
    task_id: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    status: int | None
    is_forged: bool = False


@attrs.define(eq=False)
class _Delivery:
    task_id: str
    url: str
    body: bytes
    retries: int = 0
    signed_at: float | None = None
    is_forged: bool = False
    is_cut: bool = False
    is_reordered: bool = False


@attrs.define(kw_only=True)
class Deliveries:
    """The webhooks of one emulator. Times are unix seconds by the emulator's clock."""

    _seed: int
    _secret: str | None
    _backoff: float = attrs.field(validator=attrs.validators.gt(0))
    """Seconds before the first repetition."""
    _is_refreshed: bool
    """Whether a repetition is signed anew, at its own time."""
    _chances: Mapping[str, float]
    log: deque[Attempt] = attrs.field(factory=lambda: deque(maxlen=LOG_LENGTH), init=False)
    _planned: deque[WebhookFault] = attrs.field(factory=deque, init=False)
    _queue: list[tuple[float, int, _Delivery]] = attrs.field(factory=list, init=False)
    _held: list[_Delivery] = attrs.field(factory=list, init=False)
    _number: int = attrs.field(default=0, init=False)
    _under_way: int = attrs.field(default=0, init=False)
    _news: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _dice: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(f"{self._seed}/webhooks")
        for kind, chance in self._chances.items():
            if kind not in get_args(Kind) or not 0 <= chance <= 1:
                known = ", ".join(get_args(Kind))
                raise ValueError(f"expected probabilities of {known}, got {kind}: {chance!r}")

    @property
    def pending(self) -> int:
        """Webhooks that are still to be sent, or being sent."""
        return len({id(entry[2]) for entry in self._queue}) + self._under_way

    def fail_next(self, *faults: WebhookFault) -> None:
        """Let the webhooks of the next tasks meet these faults, one each, in this order."""
        self._planned.extend(faults)

    def schedule(self, task: Task, *, origin: str) -> None:
        """Plan the webhook of a task that asked for one."""
        url = task.fields.get("webhook_url")
        if url is None or math.isinf(task.completed_at):
            return
        delivery = _Delivery(task.id, url, _body(task, origin=origin))
        fault = self._planned.popleft() if self._planned else self._drawn()
        self._plan(delivery, task.completed_at, fault)
        self._news.set()

    def _drawn(self) -> WebhookFault | None:
        hits = [kind for kind in get_args(Kind) if self._dice.random() < self._chances.get(kind, 0)]
        return getattr(WebhookFault, hits[0])() if hits else None

    def _plan(self, delivery: _Delivery, due: float, fault: WebhookFault | None) -> None:
        kind = fault.kind if fault else None
        if kind == "lost":
            return
        if kind == "forged":
            body = delivery.body.replace(b"://", b"://forged.")
            self._push(attrs.evolve(delivery, body=body, is_forged=True), due)
            due += AHEAD
        if kind == "late" and fault:
            delivery.signed_at = due
            due += fault.seconds
        if kind == "duplicated":
            self._push(delivery, due)
            self._push(delivery, due + AGAIN)
        delivery.is_reordered = kind == "reordered"
        delivery.is_cut = kind == "cut"
        self._push(delivery, due)

    def _push(self, delivery: _Delivery, due: float) -> None:
        self._number += 1
        heapq.heappush(self._queue, (due, self._number, delivery))

    # --- sending -------------------------------------------------------------------------------

    async def run(self, send: Sender, *, clock: Callable[[], float]) -> None:
        """Send whatever is due, for ever; slow receivers do not hold up others."""
        self._under_way = 0
        async with anyio.create_task_group() as attempts:
            while True:
                self._news = anyio.Event()
                for delivery in self._take_due(clock()):
                    attempts.start_soon(self._attempt, delivery, send, clock)
                next_due = self._queue[0][0] if self._queue else math.inf
                with anyio.move_on_after(next_due - clock()):
                    await self._news.wait()

    def _take_due(self, now: float) -> list[_Delivery]:
        due = self._popped(now)
        for delivery in [each for each in due if each.is_reordered]:
            delivery.is_reordered = False
            due.remove(delivery)
            self._held.append(delivery)
            self._push(delivery, now + HELD)
        if any(delivery not in self._held for delivery in due):
            due += [held for held in self._held if held not in due]
            self._queue = [entry for entry in self._queue if entry[2] not in self._held]
            heapq.heapify(self._queue)
        self._held = [held for held in self._held if held not in due]
        self._under_way += len(due)
        return due

    def _popped(self, now: float) -> list[_Delivery]:
        due: list[_Delivery] = []
        while self._queue and self._queue[0][0] <= now:
            due.append(heapq.heappop(self._queue)[2])
        return due

    async def _attempt(self, delivery: _Delivery, send: Sender, clock: Callable[[], float]) -> None:
        now = clock()
        body = delivery.body[: len(delivery.body) // 2] if delivery.is_cut else delivery.body
        headers = self._headers(delivery, now)
        status: int | None = None
        is_called = True
        try:
            with anyio.move_on_after(TIMEOUT):
                status = await send(delivery.url, headers, body)
                is_called = status is not None
        except Exception:  # a receiver may break in any way, and it is told again
            status = None
        finally:
            self._under_way -= 1
        self.log.append(
            Attempt(now, delivery.task_id, delivery.url, headers, body, status, delivery.is_forged)
        )
        if is_called and not 200 <= (status or 0) < 300:
            self._repeat(delivery, clock())

    def _headers(self, delivery: _Delivery, now: float) -> dict[str, str]:
        if delivery.signed_at is None or (self._is_refreshed and delivery.retries):
            delivery.signed_at = now
        timestamp = str(int(delivery.signed_at))
        headers = {"Content-Type": "application/json", _signing.TIMESTAMP: timestamp}
        secret = "a guess" if delivery.is_forged else self._secret
        if secret is not None:
            headers[_signing.SIGNATURE] = _signing.sign(
                delivery.body, timestamp=timestamp, secret=secret.encode()
            )
        return headers

    def _repeat(self, delivery: _Delivery, now: float) -> None:
        if delivery.is_forged or delivery.retries == RETRIES:
            return
        pause = min(LONGEST_BACKOFF, self._backoff * BACKOFF_FACTOR**delivery.retries)
        delivery.retries += 1
        delivery.is_cut = False
        self._push(delivery, now + pause)
        self._news.set()


def _body(task: Task, *, origin: str) -> bytes:
    """The documented payload, at the moment of the task's end."""
    view = shown(task, now=task.completed_at, origin=origin)
    told: dict[str, Any] = {
        "event": f"task.{view['status']}",
        "task_id": task.id,
        "status": view["status"],
        "model": task.model,
    }
    if view["status"] == "completed":
        told["output"] = view["output"]
    cost = Decimal(0) if task.error else task.price
    told |= {"error": task.error, "cost": f"{cost:.6f}", "timestamp": int(task.completed_at)}
    return json.dumps(told).encode()
