"""What a webhook says, as a value: `WebhookEvent`, read from bytes, and what follows for a task.

Unknown events and fields are kept; what cannot be read becomes None; only an event without a name
or a task is none. The event carries fewer fields than a task, so it is laid over what is known of
the task already. No I/O, no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import attrs

from ._values import money, snapshot
from .models import TaskSnapshot

ENDS: Final[Mapping[str, str]] = {"task.completed": "completed", "task.failed": "failed"}
_TASK_ID = re.compile(r"[A-Za-z0-9_\-.~:]{1,200}")
_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")


@attrs.frozen(kw_only=True)
class WebhookEvent:
    """What the service told by a webhook.

    event       `task.completed`, `task.failed`, or any other name that it may send
    task_id     `gen_…`
    status      the task's status in the service's own word; empty where it sent none
    model       `nanobanana`…; empty where it sent none
    output      the service's `output` object whole, or None
    error       why the task failed, in the service's words, or None
    cost        US dollars as Decimal; None where the service sent nothing readable
    timestamp   when the event was made, an aware datetime in UTC, or None
    reference   what the delivery's URL carried, see `AsyncEggClient`; None without
    is_trusted  True for a signature that is good and fresh. Otherwise this is only a hint:
                `egg.deliver` asks the service for the truth
    raw         everything that came, unknown fields included
    """

    event: str
    task_id: str
    status: str = ""
    model: str = ""
    output: Mapping[str, Any] | None = attrs.field(default=None, repr=False, hash=False)
    error: str | None = None
    cost: Decimal | None = None
    timestamp: datetime | None = attrs.field(default=None, repr=str)
    reference: str | None = attrs.field(default=None, repr=False)
    is_trusted: bool = True
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)

    @property
    def is_final(self) -> bool:
        """True when the event tells of a task's end."""
        return self.event in ENDS or self.status in ENDS.values()


def read_event(body: bytes) -> WebhookEvent:
    """The event that *body* holds. Raises ValueError, which says what is wrong with it."""
    fields = _object(body)
    name, task_id = fields.get("event"), fields.get("task_id")
    if not isinstance(name, str) or not name:
        raise ValueError("$.event: expected text")
    if not isinstance(task_id, str) or not _TASK_ID.fullmatch(task_id) or not task_id.strip("."):
        raise ValueError("$.task_id: expected an id")
    output, error = fields.get("output"), fields.get("error")
    return WebhookEvent(
        event=name,
        task_id=task_id,
        status=_word(fields.get("status")) or ENDS.get(name, ""),
        model=_word(fields.get("model")),
        output=output if isinstance(output, dict) else None,
        error=error if error is None or isinstance(error, str) else json.dumps(error),
        cost=money(fields.get("cost")),
        timestamp=_moment(fields.get("timestamp")),
        raw=fields,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
        value = json.loads(text)
        if _SURROGATE.search(text):  # a lone one would blow up in whoever writes it out
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise ValueError("$: expected JSON") from None
    if not isinstance(value, dict):
        raise ValueError("$: expected an object")
    return value


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _moment(value: object) -> datetime | None:
    if type(value) is not int or not 0 <= value < 10**11:
        return None
    return datetime.fromtimestamp(value, UTC)


def task_fields(event: WebhookEvent) -> dict[str, Any]:
    """The fields of the API's task object that *event* tells; absent where it tells nothing.

    When the task was started and completed is not among them.
    """
    told = {"status": event.status, "model": event.model, "output": event.output}
    told |= {"error": event.error, "cost": event.raw.get("cost")}
    return {"id": event.task_id, **{name: value for name, value in told.items() if value}}


def tells_all(event: WebhookEvent) -> bool:
    """True when nothing but the event is needed to know how the task ended, and what it made."""
    if not event.is_trusted or event.status != ENDS.get(event.event):
        return False
    if event.status == "failed":
        return True
    return event.cost is not None and snapshot(task_fields(event)).url is not None


def confirmed(event: WebhookEvent, task: TaskSnapshot) -> WebhookEvent:
    """*event* as the service itself would tell it now, of a *task* that has ended."""
    return attrs.evolve(
        event,
        event=f"task.{task.status}",
        status=task.status,
        model=task.model,
        output=task.output,
        error=task.error,
        cost=task.cost,
        is_trusted=True,
    )
