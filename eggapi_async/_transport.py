"""One call: wait for a turn, send, read, and try again while that is safe.

What is safe is not decided here: `_retry` says whether and when, `_protocol` says what an answer
proves. A billing POST is sent again only when the service provably did not take it; otherwise it
ends as `SubmissionUncertainError`. Every attempt runs apart from its caller (`_apart`), so that a
cancellation neither breaks a connection nor loses the id of a task that is paid for.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from itertools import count
from typing import Final, Protocol, TypeVar, runtime_checkable

import anyio
import anyio.lowlevel
import attrs

from ._apart import apart
from ._protocol import Answer, Call, is_refusal
from ._quota import Quota
from ._retry import Patience, next_delay
from ._telling import fields, outline, repeated
from ._values import retry_after
from ._wire import ApiKey, Stream, Wire
from .client_events import CooledDown, Tell
from .errors import ConnectionFailedError, EggError, RateLimitedError
from .models import Stats

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("eggapi_async")
log.addHandler(logging.NullHandler())  # who wants to hear of it says so

POST_GRACE: Final = 5.0
"""Seconds that a POST under way may go on after its caller was cancelled, to hear the task's id."""

LATE: Final = 0.25
"""Seconds by which a repetition's turn may miss the deadline: a pause that ends with it counts."""

LONGEST_COOL_DOWN: Final = 120.0
"""Seconds: a `Retry-After` beyond this stops nobody else for longer."""


def wall_clock() -> datetime:
    """Now, by this machine's clock."""
    return datetime.now(UTC)


@attrs.frozen
class Lost:
    """A billing POST that left and brought no usable answer: why, and when it was under way."""

    problem: str
    sent_at: datetime
    lost_at: datetime


class Intent(Protocol):
    """Told of every POST before it leaves, so that it is known of whatever happens then."""

    async def declare(self) -> None:
        """The POST is about to leave. What this raises is raised by the call; nothing is sent."""

    def withdraw(self) -> None:
        """It was provably not taken."""

    async def settle(self) -> None:
        """What came of it was told: time to make it durable. Raises nothing."""


@runtime_checkable
class Limiter(Protocol):  # pragma: no mutate block
    """Whose turn it is: a `RateLimiter`, or a `RedisRateLimiter` for a fleet."""

    async def acquire(self, *, poll: bool = False, again: bool = False) -> None:
        """Wait for a turn, in the line of the polls or the urgent one, or at the head of either."""

    def release(self) -> None:
        """Give the turn back."""

    def refused(self, *, sent_at: float, retry_after: float | None) -> Awaitable[None] | None:
        """A request sent at *sent_at* was answered 429. What it gives is awaited."""

    def answered(self, *, sent_at: float) -> None:
        """A request sent at *sent_at* was not refused."""


@attrs.define
class _Attempt:
    """One request on its way: when it left, by both clocks; None while it waits for its turn.

    A repetition's turn must come until *latest*, or else *refusal* stands, the error before it.
    """

    latest: float = math.inf
    refusal: EggError | None = None
    left_at: float | None = None
    sent_at: datetime | None = None


def _cannot_lose(lost: Lost) -> EggError:
    raise AssertionError(f"only a billing call can be lost: {lost}")


def _as_it_is(value: T, _: Answer) -> T:
    return value


class Transport:
    """Calls of the API on behalf of one key.

    `call` repeats by the policy, and while the quota that all calls share has tokens; `ask` tries
    once (the polls repeat themselves by their rhythm).
    """

    def __init__(
        self,
        *,
        wire: Wire,
        key: ApiKey,
        origin: str,
        limiter: Limiter,
        stats: Stats,
        poll_patience: Patience,
        dice: Callable[[], float] = random.random,
        wall_clock: Callable[[], datetime] = wall_clock,
        tell: Tell | None = None,
    ) -> None:
        self._wire = wire
        self._key = key
        self._origin = origin
        self._limiter = limiter
        self._stats = stats
        self._poll_patience = poll_patience
        self._dice = dice
        self._wall_clock = wall_clock
        self._tell = tell
        self._quota = Quota()

    async def call(
        self,
        call: Call[T],
        patience: Patience,
        *,
        accept: Callable[[T, Answer], R],
        lose: Callable[[Lost], EggError] = _cannot_lose,
        intent: Intent | None = None,
    ) -> R:
        """Send *call* until an answer is read, and give it to *accept*.

        *accept* runs before anything can be cancelled: what it stores is never lost. *lose* is told
        of a billing POST whose answer was lost, and gives the error to raise; *intent* hears of
        each before it leaves. Otherwise raises what the last attempt raised.
        """
        started: float | None = None
        attempt, drawn = _Attempt(), 0
        for attempts in count(1):
            try:
                value = await self._attempt(
                    call, patience, attempt, accept, lose, intent, again=attempts > 1
                )
            except EggError as error:
                if attempt.left_at is None:
                    raise
                started = attempt.left_at if started is None else started
                delay = next_delay(
                    patience.retry,
                    error,
                    attempt=attempts,
                    spent=anyio.current_time() - started,
                    jitter=self._dice(),
                )
                cost = None if delay is None else self._quota.draw(error)
                if delay is None or cost is None:
                    raise
                drawn += cost
                attempt = _Attempt(started + patience.retry.deadline + LATE, error)
                # After a 429 the limiter's cool-down is the pause.
                is_paced = isinstance(error, RateLimitedError) and error.status_code == 429
                self._note_retry(call, attempts, error, delay)
            else:
                self._quota.earn(drawn)
                return value
            if intent is not None:
                intent.withdraw()
                await intent.settle()
            if not is_paced:
                await anyio.sleep(delay)
        raise AssertionError("counting never ends")

    def arrive(self) -> None:
        """Make sure that this is the place to send from. Raises WrongLoopError."""
        self._wire.arrive()

    async def ask(self, call: Call[T], *, first: bool = False) -> T:
        """Send *call* once, in the line of the polls, or at its head."""
        value = await self._attempt(
            call,
            self._poll_patience,
            _Attempt(),
            _as_it_is,
            _cannot_lose,
            again=first,
            is_poll=True,
        )
        self._quota.earn(0)
        return value

    async def _attempt(
        self,
        call: Call[T],
        patience: Patience,
        attempt: _Attempt,
        accept: Callable[[T, Answer], R],
        lose: Callable[[Lost], EggError],
        intent: Intent | None = None,
        *,
        again: bool = False,
        is_poll: bool = False,
    ) -> R:
        self.arrive()
        await self._turn(attempt, is_poll=is_poll, again=again)

        async def work() -> R:
            try:
                if intent is not None:
                    await intent.declare()
                # The last moment at which a cancellation is known to cost nothing.
                await anyio.lowlevel.checkpoint_if_cancelled()
                answer = await self._send(call, patience, attempt, lose)
            finally:
                self._limiter.release()
            result = accept(self._read(call, answer, attempt, lose), answer)
            if intent is not None:
                await intent.settle()
            return result

        def grace() -> float:
            return POST_GRACE if call.is_billing and attempt.left_at is not None else 0.0

        return await apart(work, grace=grace)

    async def _turn(self, attempt: _Attempt, *, is_poll: bool, again: bool) -> None:
        if attempt.refusal is None:
            await self._limiter.acquire(poll=is_poll, again=again)
            return
        with anyio.CancelScope(deadline=attempt.latest) as waiting:
            await self._limiter.acquire(poll=is_poll, again=again)
        if waiting.cancelled_caught:
            raise attempt.refusal

    async def _send(
        self,
        call: Call[T],
        patience: Patience,
        attempt: _Attempt,
        lose: Callable[[Lost], EggError],
    ) -> Answer:
        attempt.left_at, attempt.sent_at = anyio.current_time(), self._wall_clock()
        self._stats.sent(call.kind)
        try:
            answer = await self._wire.exchange(
                call.method,
                self._origin + call.path,
                key=self._key,
                params=call.query,
                body=call.body,
                timeout=patience.timeout,
            )
        except ConnectionFailedError as error:
            if call.is_billing and error.was_sent:
                raise self._lost(attempt, lose, str(error)) from error.__cause__
            raise
        except anyio.get_cancelled_exc_class():
            if call.is_billing:
                self._lost(attempt, lose, "cancelled before the answer came")
            raise
        if log.isEnabledFor(logging.DEBUG):
            took = anyio.current_time() - attempt.left_at
            extra = {"egg_kind": call.kind, "egg_status_code": answer.status, "egg_seconds": took}
            log.debug("%s %s: HTTP %s", call.method, call.path, answer.status, extra=extra)
        await self._note_limit(answer, attempt.left_at, call.kind)
        return answer

    def _read(
        self, call: Call[T], answer: Answer, attempt: _Attempt, lose: Callable[[Lost], EggError]
    ) -> T:
        try:
            return call.read(answer)
        except EggError as error:
            if call.is_billing and not is_refusal(error):
                raise self._lost(attempt, lose, str(error), outline(error)) from error
            raise

    def _lost(
        self,
        attempt: _Attempt,
        lose: Callable[[Lost], EggError],
        problem: str,
        outlined: str | None = None,
    ) -> EggError:
        assert attempt.sent_at is not None, "what was lost had been sent"
        error = lose(Lost(problem, attempt.sent_at, self._wall_clock()))
        log.warning(
            "a submission's answer was lost (%s): the task may exist and be billed",
            outlined or problem,
            extra={"egg_kind": "submit", "egg_is_lost": True},
        )
        return error

    def _note_retry(self, call: Call[T], attempt: int, error: EggError, delay: float) -> None:
        self._stats.retries += 1
        is_logged = log.isEnabledFor(logging.INFO)
        if self._tell is None and not is_logged:
            return
        again = repeated(call.kind, attempt, delay, error)
        if is_logged:
            text = "%s %s goes again after %s"
            log.info(text, call.method, call.path, outline(error), extra=fields(again))
        if self._tell is not None:
            self._tell(again)

    async def _note_limit(self, answer: Answer, left_at: float, kind: str) -> None:
        if answer.status != 429:
            self._limiter.answered(sent_at=left_at)
            return
        self._stats.rate_limited += 1
        pause = retry_after(answer.headers)
        cool_down = None if pause is None else min(pause, LONGEST_COOL_DOWN)
        told = self._limiter.refused(sent_at=left_at, retry_after=cool_down)
        if self._tell is not None:
            self._tell(CooledDown(kind=kind, retry_after=cool_down))
        if told is not None:
            await told

    def stream(self, url: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Stream]:
        """A GET outside the API, without the key."""
        self.arrive()
        self._stats.sent("download")
        return self._wire.stream(url, headers)
