"""Tells the caller's `on_event` what happens, and lets nothing that it does break a call.

Of an error only its class and its HTTP status are told: its text may quote a prompt. The same holds
for the log.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable

import attrs

from .client_events import (
    CallRetried,
    ClientEvent,
    SubmissionFailed,
    TaskCompleted,
    TaskFailed,
    TasksPolled,
    Tell,
)
from .errors import ConfigurationError, EggError, TaskFailedError
from .models import TaskSnapshot

log = logging.getLogger("eggapi_async")


def telling(on_event: object) -> Tell | None:
    """*on_event* as it is safe to call; None for None, so that nothing is made to be told.

    Raises ConfigurationError where it cannot be called, or would have to be awaited.
    """
    if on_event is None:
        return None
    is_async = inspect.iscoroutinefunction(on_event) or inspect.iscoroutinefunction(
        getattr(on_event, "__call__", None)  # noqa: B004
    )
    if is_async or not callable(on_event):
        kind = "an async function" if is_async else type(on_event).__name__
        raise ConfigurationError(f"on_event: expected an ordinary callable, got {kind}")
    has_complained = False

    def tell(event: ClientEvent) -> None:
        nonlocal has_complained
        try:
            on_event(event)
        except Exception as exc:
            if not has_complained:  # once: floods must not fill a log
                has_complained = True
                log.error("on_event raised at a %s", type(event).__name__, exc_info=exc)

    return tell


# --- what is told ----------------------------------------------------------------------------


def unsold(model: str, seconds: float, error: EggError) -> SubmissionFailed:
    """A submission ended by *error*."""
    return SubmissionFailed(
        model=model, error=_name(error), status_code=_status(error), seconds=seconds
    )


def polled(
    kind: str, task_ids: Iterable[str], seconds: float, error: EggError | None
) -> TasksPolled:
    """A poll was answered, or ended by *error*."""
    return TasksPolled(
        kind=kind,
        task_ids=tuple(task_ids),
        error=None if error is None else _name(error),
        status_code=_status(error),
        seconds=seconds,
    )


def repeated(kind: str, attempt: int, delay: float, error: EggError) -> CallRetried:
    """A request that ended by *error* goes again."""
    return CallRetried(
        kind=kind, attempt=attempt, error=_name(error), status_code=_status(error), delay=delay
    )


def ended(task: TaskSnapshot, model: str, seconds: float | None) -> TaskCompleted | TaskFailed:
    """A generation has ended."""
    if task.is_completed:
        return TaskCompleted(task_id=task.id, model=model, seconds=seconds, cost=task.cost)
    return TaskFailed(
        task_id=task.id,
        model=model,
        is_moderation=TaskFailedError(task).is_moderation,
        seconds=seconds,
        cost=task.cost,
    )


def fields(event: CallRetried) -> dict[str, object]:
    """*event* for the `extra` of a log record."""
    return {f"egg_{name}": value for name, value in attrs.asdict(event).items()}


def outline(error: EggError) -> str:
    """What went wrong, for a log: without the words of the service, which may quote a prompt."""
    status = _status(error)
    return str(error) if status is None else f"{_name(error)} (HTTP {status})"


def _name(error: EggError) -> str:
    return type(error).__name__


def _status(error: EggError | None) -> int | None:
    return getattr(error, "status_code", None)
