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


SLACK: Final = timedelta(hours=3)
"""Slack for what another process lost: the clock may have been set since, or the machine slept."""


@attrs.frozen(eq=False)
class Doubt:
    """A lost submission: *sent_at* and *lost_at* by this machine's clock.

    *slack* is how wrong these may be; *name* is that of its record, None where it has none;
    *reference* is what its webhook URL carried, if anything: a delivery with it names the task.
    """

    request: GenerationRequest
    sent_at: datetime
    lost_at: datetime
    slack: timedelta = timedelta(0)
    name: object = None
    reference: str | None = None

    def rivals(self, other: Doubt) -> bool:
        """True when one listed task could be either's."""
        return (
            self is not other
            and _sent(self.request, "model") == _sent(other.request, "model")
            and _is_edit(self.request) == _is_edit(other.request)
            and self._start <= other._end
            and other._start <= self._end
        )

    @property
    def _start(self) -> datetime:
        return self.sent_at - BEFORE - self.slack

    @property
    def _end(self) -> datetime:
        return self.lost_at + AFTER + self.slack


@attrs.frozen
class Window:
    """The time in which a lost task must have been created, by the service's clock.

    It is wider by *slack* at both ends than it would be if the clocks could be trusted.
    """

    start: datetime
    end: datetime
    slack: timedelta = timedelta(0)


def window(doubt: Doubt, *, here: datetime, there: datetime | None) -> Window:
    """The doubt's time by the service's clock, given one moment by both (*here* and *there*).

    Only the time that has passed here is used, so that a clock which is hours off cannot hurt;
    where the service tells no time, ours may be hours off.
    """
    slack = max(doubt.slack, timedelta(0) if there else SLACK)
    now = there or here
    return Window(
        now - (here - doubt.sent_at) - BEFORE - slack,
        now - (here - doubt.lost_at) + AFTER + slack,
        slack,
    )


def candidates(
    doubt: Doubt,
    tasks: Iterable[TaskSnapshot],
    *,
    when: Window,
    is_known: Callable[[str], bool],
) -> tuple[TaskSnapshot, ...]:
    """The *tasks* that could be the lost one, each once: fitting, and not known to be another's."""
    found = {task.id: task for task in tasks if _fits(doubt, task, when) and not is_known(task.id)}
    return tuple(found.values())


def is_sure(task: TaskSnapshot, when: Window) -> bool:
    """True for a *task* of the very time, not only of the slack."""
    if not when.slack:
        return True
    made = task.created_at
    return made is not None and when.start + when.slack <= made <= when.end - when.slack


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
