"""What a journal holds of one item: as a value, and as the texts of a row.

A row tells enough to go on in another process: what was asked for, how far it came, and the task as
the service showed it last. The API key is in none of it. No I/O, no clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import attrs

from . import errors
from ._values import snapshot
from .errors import APIError, EggError, SubmissionUncertainError, TaskFailedError
from .models import GenerationRequest, TaskSnapshot

PLANNED: Final = "planned"
INTENT: Final = "intent"
SUBMITTED: Final = "submitted"
FINISHED: Final = "finished"
SAVED: Final = "saved"
FAILED: Final = "failed"
UNCERTAIN: Final = "uncertain"
STATES: Final = (PLANNED, INTENT, SUBMITTED, FINISHED, SAVED, FAILED, UNCERTAIN)


@attrs.frozen(kw_only=True)
class JournalItem:
    """One item of a batch as its journal knows it.

    index      its place in the input of the run that wrote it last, from 0
    key        its name: the caller's own, or made from its content
    state      `planned` (nothing was bought), `intent` (its POST is about to leave or under way),
               `submitted`, `finished`, `saved`, `failed`, or `uncertain` (it may have been bought)
    request    what was asked for
    task_id    the service's id, once it is known
    snapshot   the task as it was last recorded, or None
    error      why there is no picture; None where there is one, or may still be
    paths      the files that were saved
    sent_at    when its POST left; lost_at: when its answer was given up, or would have been
    ended_at   when its end was recorded (aware datetimes, this machine's clock)
    """

    index: int
    key: str
    state: str
    request: GenerationRequest
    task_id: str | None = None
    snapshot: TaskSnapshot | None = attrs.field(default=None, repr=False)
    error: EggError | None = None
    paths: tuple[Path, ...] = ()
    sent_at: datetime | None = None
    lost_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def cost(self) -> Decimal | None:
        """US dollars, where the service has told."""
        return None if self.snapshot is None else self.snapshot.cost


# --- identity --------------------------------------------------------------------------------


def content(request: GenerationRequest) -> str:
    """What makes two requests the same: everything but where the end is to be reported."""
    fields = _fields(attrs.evolve(request, webhook_url=None))
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _fields(request: GenerationRequest) -> dict[str, Any]:
    return attrs.asdict(request, recurse=False, filter=lambda _, value: value not in (None, (), {}))


# --- rows ------------------------------------------------------------------------------------

COLUMNS: Final = (
    "key",
    "position",
    "content",
    "state",
    "request",
    "task_id",
    "snapshot",
    "refusal",
    "paths",
    "sent_at",
    "lost_at",
    "ended_at",
)
Row = Mapping[str, Any]


def as_row(item: JournalItem) -> dict[str, Any]:
    """*item* as the columns of its row."""
    times = {name: getattr(item, name) for name in ("sent_at", "lost_at", "ended_at")}
    return {
        "key": item.key,
        "position": item.index,
        "content": content(item.request),
        "state": item.state,
        "request": json.dumps(_fields(item.request)),
        "task_id": item.task_id,
        "snapshot": None if item.snapshot is None else json.dumps(item.snapshot.raw),
        "refusal": _refusal_text(item.error),
        "paths": json.dumps([str(path) for path in item.paths]) if item.paths else None,
        **{name: time and time.isoformat() for name, time in times.items()},
    }


def as_item(row: Row) -> JournalItem:
    """The item of a *row*. Raises ValueError or KeyError where it was never written by us."""
    request = GenerationRequest(**json.loads(row["request"]))
    task = None if row["snapshot"] is None else snapshot(json.loads(row["snapshot"]))
    sent_at, lost_at, ended_at = (_time(row[name]) for name in ("sent_at", "lost_at", "ended_at"))
    item = JournalItem(
        index=row["position"],
        key=row["key"],
        state=row["state"],
        request=request,
        task_id=row["task_id"],
        snapshot=task,
        paths=tuple(map(Path, json.loads(row["paths"] or "[]"))),
        sent_at=sent_at,
        lost_at=lost_at,
        ended_at=ended_at,
    )
    return attrs.evolve(item, error=_error(item, row["refusal"]))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


# --- errors ----------------------------------------------------------------------------------

_REFUSAL: Final = ("message", "status_code", "code", "request_id")


def _refusal_text(error: EggError | None) -> str | None:
    """What is kept of *error*; that of a failed task follows from the task."""
    if not isinstance(error, APIError):
        return None
    fields = {name: getattr(error, name) for name in _REFUSAL}
    return json.dumps({"type": type(error).__name__, **fields})


def _error(item: JournalItem, refusal: str | None) -> EggError | None:
    if item.state == UNCERTAIN and item.sent_at and item.lost_at:
        return SubmissionUncertainError(
            "the submission's answer was lost; the task may exist and be billed",
            request=item.request,
            sent_at=item.sent_at,
            lost_at=item.lost_at,
        )
    if item.state != FAILED:
        return None
    if refusal is None and item.snapshot is not None:
        return TaskFailedError(item.snapshot)
    fields = json.loads(refusal or "{}")
    kind = getattr(errors, fields.pop("type"), APIError)
    return kind(fields.pop("message"), **fields)
