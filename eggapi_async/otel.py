"""The door to OpenTelemetry: one span for each generation, from what a client tells.

`AsyncEggClient(on_event=spans())`. A span goes from the call of `generate` to the news of the end,
under whatever span was current at that call. It follows the conventions for generative AI, and
carries neither the prompt nor the key. Only the API package is needed (extra `otel`); nothing else
here loads it. A task that nobody awaits holds its span until the client is closed, and at most
`MOST_OPEN` are held.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import attrs

from ._version import __version__
from .client_events import (
    ClientClosed,
    ClientEvent,
    SubmissionFailed,
    TaskCompleted,
    TaskFailed,
    TasksPolled,
    TaskSubmitted,
)

try:
    from opentelemetry import trace
except ModuleNotFoundError as exc:
    problem = "spans need OpenTelemetry: pip install 'eggapi-async[otel]'"
    raise ModuleNotFoundError(problem, name=exc.name) from None

__all__ = ["spans"]

MOST_OPEN: Final = 10_000
"""Spans under way; beyond, the oldest ends as unfinished."""
OPERATION: Final = "generate_content"


def spans(
    tracer_provider: trace.TracerProvider | None = None,
    *,
    now: Callable[[], int] = time.time_ns,
) -> Callable[[ClientEvent], None]:
    """What makes spans of a client's events, for `AsyncEggClient(on_event=)`.

    tracer_provider    whose spans; otherwise the process's, also one that is set later
    now                the wall clock, in nanoseconds

    A span is called `generate_content {model}`, is of kind CLIENT, and has these attributes:

    | attribute               | value                                                      |
    |-------------------------|------------------------------------------------------------|
    | `gen_ai.provider.name`  | `eggapi`                                                   |
    | `gen_ai.operation.name` | `generate_content`                                         |
    | `gen_ai.request.model`  | the model that was asked for                               |
    | `gen_ai.output.type`    | `image` or `video`, where one was bought                   |
    | `egg.task.id`           | the task, where one was bought                             |
    | `egg.cost`              | US dollars, as a float, where the service told them        |
    | `egg.polls`             | polls that showed the task; one of the list shows many     |
    | `egg.unfinished`        | True where the end was not heard of before the client's    |
    | `error.type`            | the class of the error that awaiting it raises             |

    One may be given to several clients. Tasks taken up from a journal or by their ids have none.
    """
    return _Spans(trace.get_tracer("eggapi_async", __version__, tracer_provider), now)


@attrs.define(eq=False)
class _Open:
    span: trace.Span
    start: int
    polls: int = 0


class _Spans:
    def __init__(self, tracer: trace.Tracer, now: Callable[[], int]) -> None:
        self._tracer = tracer
        self._now = now
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def __call__(self, event: ClientEvent) -> None:
        match event:
            case TaskSubmitted():
                self._submitted(event)
            case SubmissionFailed():
                self._refused(event)
            case TasksPolled():
                self._polled(event)
            case TaskCompleted() | TaskFailed():
                self._ended(event)
            case ClientClosed():
                for task_id in event.task_ids:
                    self._give_up(task_id)

    def _begin(self, model: str, seconds: float) -> _Open:
        start = self._now() - _nanoseconds(seconds)
        attributes = {
            "gen_ai.provider.name": "eggapi",
            "gen_ai.operation.name": OPERATION,
            "gen_ai.request.model": model,
        }
        # The current span is the one of whoever calls `generate`: its context is copied to here.
        span = self._tracer.start_span(
            f"{OPERATION} {model}",
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=start,
        )
        return _Open(span, start)

    def _submitted(self, event: TaskSubmitted) -> None:
        begun = self._open[event.task_id] = self._begin(event.model, event.seconds)
        output = "video" if event.type.startswith("video") else "image"
        begun.span.set_attributes({"egg.task.id": event.task_id, "gen_ai.output.type": output})
        if len(self._open) > MOST_OPEN:
            self._give_up(next(iter(self._open)))

    def _refused(self, event: SubmissionFailed) -> None:
        begun = self._begin(event.model, event.seconds)
        _fail(begun.span, event.error)
        begun.span.end(begun.start + _nanoseconds(event.seconds))

    def _polled(self, event: TasksPolled) -> None:
        for task_id in event.task_ids:
            if task_id in self._open:
                self._open[task_id].polls += 1

    def _ended(self, event: TaskCompleted | TaskFailed) -> None:
        begun = self._open.pop(event.task_id, None)
        if begun is None:
            return
        if isinstance(event, TaskFailed):
            _fail(begun.span, "TaskFailedError")
        _finish(begun, event.cost, event.seconds)

    def _give_up(self, task_id: str) -> None:
        begun = self._open.pop(task_id, None)
        if begun is not None:
            begun.span.set_attribute("egg.unfinished", True)
            _finish(begun, None, None)


def _fail(span: trace.Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(trace.StatusCode.ERROR)  # without words: the service's may quote the prompt


def _finish(begun: _Open, cost: Decimal | None, seconds: float | None) -> None:
    begun.span.set_attribute("egg.polls", begun.polls)
    if cost is not None:
        begun.span.set_attribute("egg.cost", float(cost))
    begun.span.end(None if seconds is None else begun.start + _nanoseconds(seconds))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
