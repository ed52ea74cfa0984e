"""Which listed tasks could be the one whose submission was lost.

A doubt is a request, and the time in which the service may have taken it. Tasks are compared by
model, kind and the service's own clock; the list says neither prompt nor sender, so tasks of other
programs that use the same key look alike. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import attrs

from .models import GenerationRequest, TaskSnapshot

BEFORE: Final = timedelta(seconds=5)
"""Slack before the sending: the service's `Date` has whole seconds, its machines differ a
little."""
AFTER: Final = timedelta(seconds=30)
"""Slack after the loss: a request that waits in a proxy is taken later."""


@attrs.frozen(eq=False)
class Doubt:
    """A lost submission: *sent_at* and *lost_at* by this machine's clock.

    *reference* is what its webhook URL carried, if anything: a delivery with it names the task.
    """

    request: GenerationRequest
    sent_at: datetime
    lost_at: datetime
    reference: str | None = None

    def rivals(self, other: Doubt) -> bool:
        """True when one listed task could be either's."""
        return (
            self is not other
            and _sent(self.request, "model") == _sent(other.request, "model")
            and _is_edit(self.request) == _is_edit(other.request)
            and self.sent_at - BEFORE <= other.lost_at + AFTER
            and other.sent_at - BEFORE <= self.lost_at + AFTER
        )


@attrs.frozen
class Window:
    """The time in which a lost task must have been created, by the service's clock."""

    start: datetime
    end: datetime


def window(doubt: Doubt, *, here: datetime, there: datetime) -> Window:
    """The doubt's time by the service's clock, given one moment by both (*here* and *there*).

    Only the time that has passed here is used, so that a clock which is hours off cannot hurt.
    """
    return Window(
        there - (here - doubt.sent_at) - BEFORE,
        there - (here - doubt.lost_at) + AFTER,
    )


def candidates(
    doubt: Doubt,
    tasks: Iterable[TaskSnapshot],
    *,
    when: Window,
    is_known: Callable[[str], bool],
) -> tuple[TaskSnapshot, ...]:
    """The *tasks* that could be the lost one, each once: fitting, and not known to be another's."""
    found = {task.id: task for task in tasks if not is_known(task.id) and _fits(doubt, task, when)}
    return tuple(found.values())


def _sent(request: GenerationRequest, name: str) -> Any:
    """The field as it was sent: `extra` wins."""
    return request.extra.get(name, getattr(request, name))


def _is_edit(request: GenerationRequest) -> bool:
    return bool(_sent(request, "image_urls"))


def _fits(doubt: Doubt, task: TaskSnapshot, when: Window) -> bool:
    """False for what the list contradicts; where it is silent, the task could be the lost one."""
    request = doubt.request
    if task.model not in ("", _sent(request, "model")):
        return False
    if task.type == ("image_generate" if _is_edit(request) else "image_edit"):
        return False
    if not _echoes(task.raw.get("prompt"), _sent(request, "prompt")):
        return False
    return task.created_at is None or when.start <= task.created_at <= when.end


def _echoes(shown: object, sent: object) -> bool:
    """True unless *shown* is another text: an echo is not documented, and may be cut."""
    start = " ".join(str(shown or "").split()).rstrip("….")
    return " ".join(str(sent).split()).startswith(start)


def is_past(tasks: Iterable[TaskSnapshot], when: Window) -> bool:
    """True when *tasks*, a list read so far, is newest first and already older than the window."""
    times = [task.created_at for task in tasks]
    known = [time for time in times if time is not None]
    if not known or len(known) < len(times) or known[0] == known[-1]:  # no order to be seen
        return False
    return all(a >= b for a, b in pairwise(known)) and known[-1] < when.start
