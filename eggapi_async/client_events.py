"""What a client tells of its own doings, as values, to `AsyncEggClient(on_event=)`.

None of them carries a prompt, a file's name or the key: ids, models, kinds of calls, seconds,
attempts, status codes, names of errors, and costs. What the service tells by webhooks is something
else: `WebhookEvent`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import attrs

__all__ = [
    "CallRetried",
    "ClientClosed",
    "ClientEvent",
    "CooledDown",
    "OutputDownloaded",
    "SubmissionFailed",
    "TaskCompleted",
    "TaskFailed",
    "TaskSubmitted",
    "TasksPolled",
]


@attrs.frozen(kw_only=True)
class TaskSubmitted:
    """A generation was bought, and its id is known.

    type       `image_generate`, `image_edit`, `video_generate`…; empty where the service told none
    seconds    since `generate` was called: the wait for a turn and repetitions are in it
    """

    task_id: str
    model: str
    type: str = ""
    seconds: float


@attrs.frozen(kw_only=True)
class SubmissionFailed:
    """A generation was not bought, or it is not known whether: `generate` raises.

    error        the class of what it raises: `SubmissionUncertainError`, `BudgetExceededError`…
    status_code  the HTTP status, where the service refused
    seconds      since `generate` was called
    """

    model: str
    error: str
    status_code: int | None
    seconds: float


@attrs.frozen(kw_only=True)
class TasksPolled:
    """Somebody waits, and so the service was asked.

    kind         peek (one task by its id) or sweep (a page of the list)
    task_ids     the awaited tasks that the answer showed; for a peek that failed, the one asked for
    error        the class of the error where there was no answer, otherwise None
    status_code  the HTTP status of a refusal, otherwise None
    seconds      since the poll was due: the wait for a turn is in it
    """

    kind: str
    task_ids: tuple[str, ...]
    error: str | None = None
    status_code: int | None = None
    seconds: float


@attrs.frozen(kw_only=True)
class CallRetried:
    """A request failed in a way that may pass, and goes again.

    kind         submit, get, list, usage or download; polls are not repeated, but go on
    attempt      which attempt failed, from 1
    error        the class of what went wrong
    status_code  the HTTP status, where there was one
    delay        seconds of the pause before the next
    """

    kind: str
    attempt: int
    error: str
    status_code: int | None
    delay: float


@attrs.frozen(kw_only=True)
class CooledDown:
    """An answer 429: everything that shares the limiter pauses.

    kind         of the call that was refused: submit, peek, sweep, get, list or usage
    retry_after  seconds that the service asked for, as they are honoured; None: it named none
    """

    kind: str
    retry_after: float | None


@attrs.frozen(kw_only=True)
class TaskCompleted:
    """A generation of this client has ended well, as far as a poll, a webhook or a look told.

    seconds    from the call of `generate` to the news; None for a task taken up from a journal, or
               from an earlier event loop
    cost       US dollars; None where the service told none
    """

    task_id: str
    model: str
    seconds: float | None
    cost: Decimal | None


@attrs.frozen(kw_only=True)
class TaskFailed:
    """A generation of this client has ended badly.

    is_moderation    the service refused the content
    seconds, cost    as of `TaskCompleted`
    """

    task_id: str
    model: str
    is_moderation: bool
    seconds: float | None
    cost: Decimal | None


@attrs.frozen(kw_only=True)
class OutputDownloaded:
    """One output is whole on disk. One that was there already is not told of.

    task_id    None for a download by URL
    size       bytes
    seconds    with waiting for a turn, repetitions and writing
    """

    task_id: str | None
    size: int
    seconds: float


@attrs.frozen(kw_only=True)
class ClientClosed:
    """`aclose`, or the end of `async with`.

    task_ids    tasks that had not ended, as far as was known: `unfinished`
    """

    task_ids: tuple[str, ...]


ClientEvent = (
    TaskSubmitted
    | SubmissionFailed
    | TasksPolled
    | CallRetried
    | CooledDown
    | TaskCompleted
    | TaskFailed
    | OutputDownloaded
    | ClientClosed
)
"""Any of them; `match` tells them apart."""

Tell = Callable[[ClientEvent], None]
