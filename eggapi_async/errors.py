"""What can go wrong, named by what the caller can do about it.

EggError
├─ ConfigurationError (ValueError)     no key, bad base URL, plain http to a host that is not
│  │                                   loopback
│  └─ WrongLoopError                   in use on another event loop at once, or before a fork
├─ InvalidRequestError (ValueError)    refused before sending; names the field
├─ APIError                            the service answered, and said no
│  ├─ BadRequestError                  400
│  ├─ AuthenticationError              401
│  ├─ PermissionDeniedError            403
│  │  └─ InsufficientBalanceError      403 INSUFFICIENT_BALANCE
│  ├─ NotFoundError                    404
│  ├─ RateLimitedError                 429
│  └─ ServerError                      5xx
├─ ConnectionFailedError               no usable answer, and nothing was bought: safe to repeat
├─ SubmissionUncertainError            a billing POST left, its answer was lost
├─ UnexpectedResponseError             not the documented shape
├─ TaskFailedError                     the generation itself failed
├─ TaskTimeoutError (TimeoutError)     we stopped waiting; the service did not
├─ BudgetExceededError                 refused before sending: it could cost too much
├─ QuotaExceededError                  one user has had all turns for now
├─ TurnCancelledError                  a user's turn was cancelled by `Turns.cancel`
├─ DownloadError                       a picture could not be fetched or stored whole
├─ JournalError                        the record of a batch cannot be trusted or written
└─ WebhookVerificationError            a delivery that is not provably genuine

`SubmissionUncertainError` is deliberately not a kind of `ConnectionFailedError`: whoever catches
that one to try again would pay twice. Every error can be pickled, and none holds the API key.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from ._events import WebhookEvent
    from .models import GenerationRequest, TaskSnapshot

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "ConfigurationError",
    "ConnectionFailedError",
    "DownloadError",
    "EggError",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "JournalError",
    "NotFoundError",
    "PermissionDeniedError",
    "QuotaExceededError",
    "RateLimitedError",
    "ServerError",
    "SubmissionUncertainError",
    "TaskFailedError",
    "TaskTimeoutError",
    "TurnCancelledError",
    "UnexpectedResponseError",
    "WebhookVerificationError",
    "WrongLoopError",
]

FailureKind = Literal["moderation", "prompt", "service"]

_MODERATION = ("moderation", "prohibited", "content policy", "safety")
_FAILURES: dict[FailureKind, str] = {
    "moderation": "This picture could not be made: the content filter did not like something in it."
    " It can be wrong; please try other words.",
    "prompt": "This could not be drawn as described. Please try other words.",
    "service": "The picture could not be made this time, through no fault of yours."
    " Please try again.",
}

SHOWN = 200
"""Characters of a foreign text (a value, a body) that a message quotes at most."""


def excerpt(value: object) -> str:
    """The start of *value* as a message may quote it."""
    try:
        shown = repr(value)
    except Exception:  # a refused value may be anything: ints can be too long to print
        return f"<{type(value).__name__}>"
    return shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"


def dollars(amount: Decimal, *, places: int = 2) -> str:
    """US dollars with the cents, or *places*, and what there is beyond: `$2.00`, `$0.016`."""
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(places, '0')}"


def failure_kind(text: str) -> FailureKind:
    """What sort of failure a failed task's text tells of."""
    words = text.lower()
    if any(word in words for word in _MODERATION):
        return "moderation"
    return "prompt" if words.startswith("invalid ") or "invalid prompt" in words else "service"


def _span(seconds: float) -> str:
    """*seconds* as people say it, never less than it is."""
    for size, name in ((3600, "hour"), (60, "minute")):
        if seconds > size:
            return _counted(math.ceil(seconds / size), name)
    return _counted(max(1, math.ceil(seconds)), "second")


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


class EggError(Exception):
    """The root of everything that this package raises on purpose. Never raised itself.

    *user_message* is what a bot may show to whoever asked: a plain sentence that blames nobody and
    gives nothing away. The text of the error itself is for logs.
    """

    @property
    def user_message(self) -> str:
        """A sentence for a chat user, in English: what happened, and what helps."""
        return "Something went wrong on our side. Please try again later."

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only constructors defeat the default pickling; private attributes (callables that
        # belong to a live client) stay behind.
        public = {
            name: _portable(value)
            for name, value in vars(self).items()
            if not name.startswith("_") or name == "__notes__"
        }
        return _rebuild, (type(self), self.args, public)


def _rebuild(kind: type[EggError], args: tuple[Any, ...], public: dict[str, Any]) -> EggError:
    error = kind.__new__(kind)
    error.args = args  # OSError, and so TimeoutError, takes them in __init__ only
    vars(error).update(public)
    return error


def _portable(value: object) -> object:
    """*value*, or its text where it cannot be pickled: a refused value may be anything."""
    try:
        pickle.dumps(value)
    except Exception:
        return excerpt(value)
    return value


class ConfigurationError(EggError, ValueError):
    """The client cannot be set up like this: no key, a bad base URL, an impossible limit."""


class WrongLoopError(ConfigurationError):
    """A client, limiter or batch belongs to another event loop that still runs, or to the parent.

    Loops may follow each other; two at once (in two threads), or a process and its fork, cannot
    share one. Nothing was sent. Make one for each thread and process.
    """


class InvalidRequestError(EggError, ValueError):
    """A request was refused before it was sent: *field* holds *value*, *expected* says the rule."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {excerpt(value)}")
        self.field = field
        self.value = value
        self.expected = expected

    @property
    def user_message(self) -> str:
        """Names the field and the rule, not the value."""
        return f"That does not work: {self.field} must be {self.expected}."


class APIError(EggError):
    """The service answered with an error.

    *status_code* is the HTTP status, *code* the service's own word for it (`VALIDATION_ERROR`; None
    where the answer had no envelope), *message* its text, *request_id* its `X-Request-Id` if any.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        head = f"{status_code} {code}" if code else str(status_code)
        tail = f" (request {request_id})" if request_id else ""
        super().__init__(f"{head}: {message}{tail}")
        self.status_code = status_code
        self.code = code
        self.message = message
        self.request_id = request_id


class BadRequestError(APIError):
    """400: malformed request, or a field out of range (the message names it)."""


class AuthenticationError(APIError):
    """401: the key is missing, malformed, inactive or expired."""


class PermissionDeniedError(APIError):
    """403: the account is suspended, or may not do this."""


class InsufficientBalanceError(PermissionDeniedError):
    """403 INSUFFICIENT_BALANCE: the balance cannot cover the result."""


class NotFoundError(APIError):
    """404: no such task."""


class RateLimitedError(APIError):
    """429: more requests than the key's plan or the address may send.

    *retry_after* is the pause in seconds that the service asked for, or None. Raised only when the
    pause is longer than the policy allows, when the refusals outlasted the policy's deadline, or
    when very many are refused at once, see `RetryPolicy`.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int = 429,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status_code=status_code, code=code, request_id=request_id)
        self.retry_after = retry_after

    @property
    def user_message(self) -> str:
        """Asks for patience."""
        return "There is a lot to do just now. Please try again in a few minutes."


class ServerError(APIError):
    """5xx: the service or a proxy before it failed."""


class ConnectionFailedError(EggError):
    """No usable answer came, and nothing was bought: the call is safe to repeat.

    *is_passing* is False where repeating cannot help, as with a certificate that is not trusted.
    *was_sent* is False where it is proved that the request never left.
    """

    def __init__(self, message: str, *, is_passing: bool = True, was_sent: bool = False) -> None:
        super().__init__(message)
        self.is_passing = is_passing
        self.was_sent = was_sent


class SubmissionUncertainError(EggError):
    """A billing POST left and no usable answer came: the task may exist, and may cost.

    It is never sent again by itself, since the API knows no idempotency key. *request* is what was
    sent, *sent_at* and *lost_at* (aware datetimes, this machine's clock) bound the time in which
    the service may have taken it. *candidates* are the listed tasks that could be it, where they
    were looked for already (`uncertain="verify"`); `await error.reconcile()` looks for them now.
    *reference* is what the webhook URL carried, if it was the client's own: a delivery names the
    task by it.
    """

    @property
    def user_message(self) -> str:
        """Does not invite a second order: the first may have been taken."""
        return "We could not tell whether this went through. Please do not ask again yet."

    # What belongs to a live client, and so is missing on a copy.
    _reconcile: Callable[[], Awaitable[tuple[TaskSnapshot, ...]]] | None = None
    _doubt: Any = None  # set and read by whoever submitted

    def __init__(
        self,
        message: str,
        *,
        request: GenerationRequest,
        sent_at: datetime,
        lost_at: datetime,
        candidates: tuple[TaskSnapshot, ...] = (),
        reference: str | None = None,
        reconcile: Callable[[], Awaitable[tuple[TaskSnapshot, ...]]] | None = None,
    ) -> None:
        super().__init__(message)
        self.request = request
        self.sent_at = sent_at
        self.lost_at = lost_at
        self.candidates = candidates
        self.reference = reference
        self._reconcile = reconcile

    async def reconcile(self) -> tuple[TaskSnapshot, ...]:
        """The listed tasks that could be the lost one; reads the task list, buys nothing.

        Exactly the lost one where a webhook has named it by its *reference*. Otherwise those of the
        same model and type, created in the window by the service's own clock, unknown to the client
        that sent it. An empty answer soon after the loss is no proof: the list may lag.
        Raises ConfigurationError on an error that was pickled: it has lost its client;
        `AsyncEggClient.reconcile(error)` takes it.
        """
        if self._reconcile is None:
            raise ConfigurationError("a copied error: use AsyncEggClient.reconcile(error)")
        return await self._reconcile()


class UnexpectedResponseError(EggError):
    """The answer does not have the documented shape.

    *where* is the place (`$.data.status`), *status_code* the HTTP status, *body* the start of what
    came.
    """

    def __init__(self, problem: str, *, where: str = "$", status_code: int, body: str = "") -> None:
        super().__init__(f"{where}: {problem} (HTTP {status_code}, body starts with {body!r})")
        self.where = where
        self.status_code = status_code
        self.body = body


class TaskFailedError(EggError):
    """The generation itself failed; it cost nothing. *task* is the final snapshot."""

    def __init__(self, task: TaskSnapshot) -> None:
        super().__init__(f"{task.id} failed: {task.error or 'the service gave no reason'}")
        self.task = task

    @property
    def task_id(self) -> str:
        """The id of the failed task."""
        return self.task.id

    @property
    def is_moderation(self) -> bool:
        """True when the service refused the content, so that the same prompt will fail again."""
        return self.kind == "moderation"

    @property
    def kind(self) -> FailureKind:
        """What sort of failure: `moderation` (the content was refused), `prompt` (it cannot be
        worked with), or `service` (a fault over there: the same prompt may well succeed).

        Told by the service's text, which is not documented but for moderation.
        """
        return failure_kind(self.task.error or "")

    @property
    def user_message(self) -> str:
        """Kind words for what happened; the service's own text stays in `task.error`."""
        return _FAILURES[self.kind]


class TaskTimeoutError(EggError, TimeoutError):
    """We stopped waiting; the service did not, and the picture may still come (and be billed).

    *task_id* names it, *snapshot* is the last that was seen of it (None: nothing yet). Wait again
    by `await egg.task(error.task_id)`.
    """

    def __init__(self, task_id: str, *, timeout: float, snapshot: TaskSnapshot | None) -> None:
        status = snapshot.status if snapshot else "unknown"
        super().__init__(
            f"{task_id} was not finished after {timeout:g} s (last status: {status});"
            f" it goes on: await egg.task({task_id!r}) waits again"
        )
        self.task_id = task_id
        self.timeout = timeout
        self.snapshot = snapshot

    @property
    def user_message(self) -> str:
        """Does not invite a second order: the first may still come."""
        return "This picture takes longer than usual. It may still come; please do not ask again."


class BudgetExceededError(EggError):
    """Refused before sending, since it could cost more than was allowed.

    All in US dollars: *limit* is what may be spent, *spent* what ended tasks have cost, *reserved*
    what those may cost whose end is not known, *asked* what this one would.
    """

    def __init__(
        self, *, limit: Decimal, spent: Decimal, reserved: Decimal, asked: Decimal
    ) -> None:
        super().__init__(
            f"the budget of ${limit:f} does not cover {dollars(asked, places=3)} more:"
            f" {dollars(spent, places=3)} is spent and {dollars(reserved, places=3)} reserved for"
            " tasks that have not ended"
        )
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.asked = asked

    @property
    def user_message(self) -> str:
        """Tells no amounts."""
        return "The budget for pictures is used up for now."


class QuotaExceededError(EggError):
    """One user has had all turns that `Turns` allows in a while.

    *key* is the user, *quota* the number of turns in *per* seconds, *retry_after* the seconds until
    the next one.
    """

    def __init__(self, key: Hashable, *, quota: int, per: float, retry_after: float) -> None:
        super().__init__(
            f"{excerpt(key)} has had {quota} turns within {per:g} s;"
            f" the next one comes in {retry_after:.0f} s"
        )
        self.key = key
        self.quota = quota
        self.per = per
        self.retry_after = retry_after

    @property
    def user_message(self) -> str:
        """Says when."""
        return f"That was all for now. Please come back in {_span(self.retry_after)}."


class TurnCancelledError(EggError):
    """`Turns.cancel` ended this turn, waiting or under way. *key* is the user."""

    def __init__(self, key: Hashable) -> None:
        super().__init__(f"the turn of {excerpt(key)} was cancelled")
        self.key = key

    @property
    def user_message(self) -> str:
        """Confirms it."""
        return "Stopped."


class DownloadError(EggError):
    """A picture could not be fetched or stored whole; nothing half-written was left.

    *url* is where it was to come from, without its query (which may be a signature) and without a
    user and a password.
    """

    def __init__(self, problem: str, *, url: str) -> None:
        shown = re.sub(r"//[^/]*@", "//", url.partition("?")[0])
        super().__init__(f"{shown}: {problem}")
        self.url = shown


class JournalError(EggError):
    """The record of a batch cannot be trusted or written; nothing more is submitted."""


class WebhookVerificationError(EggError):
    """A delivery that is not provably genuine. The only thing that verification ever raises.

    *reason* is one word: `not_bytes` (the body is not what came over the wire), `no_secret`,
    `misused` (another argument makes no sense), `too_large`, `unsigned`, `malformed` (the headers),
    `forged`, `stale`, `future`, `unreadable` (signed, but no event). *event* is what a stale or
    future delivery says: its signature is good, so the task may have ended; else None.
    """

    def __init__(
        self, message: str, *, reason: str = "malformed", event: WebhookEvent | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.event = event

    @property
    def task_id(self) -> str | None:
        """The task that an authentic, but stale or future delivery is about."""
        return self.event.task_id if self.event else None
