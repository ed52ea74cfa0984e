"""The nouns of the Egg API, as values.

Every value here is frozen and valid: a request that breaks a documented rule cannot be made, and
what came from the service was checked at the edge (`_protocol`). Nothing here does I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import attrs

from .errors import EggError, InvalidRequestError

__all__ = [
    "DEFAULT_MODEL",
    "GenerationRequest",
    "Outcome",
    "Outcomes",
    "Page",
    "Stats",
    "TaskSnapshot",
    "UsageRecord",
    "UsageSummary",
]

T = TypeVar("T")
DEFAULT_MODEL = "nanobanana"
LONGEST_NAME = 200
"""Bytes of a file's name, folders in it included: systems take 255, and a suffix comes behind."""

FINAL = frozenset({"completed", "failed"})
_FORBIDDEN = frozenset(':*?"<>|\\')
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str | None) -> bool:
    """True for the names of this very machine, the only hosts that plain http is allowed to."""
    return host in _LOOPBACK


def is_safe_url(text: str, *, schemes: tuple[str, ...] = ("https",)) -> bool:
    """True for an absolute URL of one of *schemes*, or of plain http to this machine."""
    if not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        host = parts.hostname
        _ = parts.port  # raises ValueError when it is no number
    except ValueError:
        return False
    is_local = parts.scheme == "http" and is_loopback(host)
    return bool(host) and (parts.scheme in schemes or is_local)


def checked_name(name: object) -> str:
    """*name* if it leads to a file inside its folder, on every system, and to no hidden one.

    Raises InvalidRequestError.
    """
    parts = name.split("/") if isinstance(name, str) and name.isprintable() else [""]
    is_odd = any(part.startswith(".") or part != part.strip(". ") or not part for part in parts)
    if is_odd or set(str(name)) & _FORBIDDEN or len(str(name).encode()) > LONGEST_NAME:
        expected = f"a name of 1 to {LONGEST_NAME} bytes that stays in its folder"
        raise InvalidRequestError("name", name, expected)
    return str(name)


def _refuse(field: str, value: object, expected: str) -> None:
    raise InvalidRequestError(field, value, expected)


def _is_text(value: object) -> bool:
    # A lone surrogate is a str that no service can take: it has no UTF-8 form.
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _text(low: int, high: int) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if not _is_text(value) or not low <= len(value) <= high or (low and value.isspace()):
            _refuse(field.name, value, f"text of {low} to {high} characters")

    return check


def _one_of(*choices: str) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if value not in choices:
            _refuse(field.name, value, f"one of {', '.join(choices)}")

    return check


def _whole(low: int, high: int) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            _refuse(field.name, value, f"a whole number from {low} to {high}")

    return check


def _check_webhook_url(_: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not _is_text(value) or len(value) > 2048 or not is_safe_url(value):
        _refuse(field.name, value, "an https URL of at most 2048 characters")


def _is_web_url(value: object) -> bool:
    return _is_text(value) and is_safe_url(str(value), schemes=("https", "http"))


def _check_image_urls(_: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, tuple) or len(value) > 9 or not all(map(_is_web_url, value)):
        _refuse(field.name, value, "up to 9 URLs (http or https)")


def _check_extra(_: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _refuse(field.name, value, "a mapping of field names to values")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        _refuse(field.name, value, "values that JSON can carry")


def _as_tuple(value: Any) -> Any:
    is_one = isinstance(value, (str, bytes, Mapping))
    return tuple(value) if isinstance(value, Iterable) and not is_one else value


def _as_dict(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


_optional = attrs.validators.optional


@attrs.frozen(kw_only=True)
class GenerationRequest:
    """What `POST /v1/generate` is asked for, with the documented limits checked at once.

    prompt           1 to 2000 characters
    model            `nanobanana`, `nanobanana-pro`, or any other name: models come and go
    negative_prompt  up to 1000 characters
    aspect_ratio     `16:9` or `9:16` (the service's default: `16:9`)
    num_outputs      1 to 4 pictures (default 1); each is billed
    resolution       `1k`, `2k` or `4k`
    image_urls       up to 9 URLs of pictures to edit; makes the task an `image_edit`
    duration         1 to 60 seconds, for video models
    webhook_url      https URL of at most 2048 characters that is told when the task ends
    extra            undocumented fields, sent as they are (and winning over the ones above)

    Raises InvalidRequestError, which names the field.
    """

    prompt: str = attrs.field(validator=_text(1, 2000))
    model: str = attrs.field(default=DEFAULT_MODEL, validator=_text(1, 200))
    negative_prompt: str | None = attrs.field(default=None, validator=_optional(_text(0, 1000)))
    aspect_ratio: str | None = attrs.field(
        default=None, validator=_optional(_one_of("16:9", "9:16"))
    )
    num_outputs: int | None = attrs.field(default=None, validator=_optional(_whole(1, 4)))
    resolution: str | None = attrs.field(
        default=None, validator=_optional(_one_of("1k", "2k", "4k"))
    )
    image_urls: tuple[str, ...] = attrs.field(
        default=(), converter=_as_tuple, validator=_check_image_urls
    )
    duration: int | None = attrs.field(default=None, validator=_optional(_whole(1, 60)))
    webhook_url: str | None = attrs.field(default=None, validator=_optional(_check_webhook_url))
    extra: Mapping[str, Any] = attrs.field(
        factory=dict, converter=_as_dict, validator=_check_extra, hash=False
    )

    @classmethod
    def of(cls, item: object, **defaults: Any) -> GenerationRequest:
        """*item* as a request: a request as it is, a prompt, or a mapping of the fields above.

        *defaults* fill in the fields that a prompt or a mapping leaves open. An unknown field is
        refused by name: it is more often a slip than a wish, and `extra` is there for wishes.
        """
        if isinstance(item, GenerationRequest):
            return item
        if isinstance(item, str):
            return cls(prompt=item, **defaults)
        if not isinstance(item, Mapping):
            raise InvalidRequestError("request", item, "a prompt, a mapping or a GenerationRequest")
        return cls._of_mapping({**defaults, **_present(item)})

    @classmethod
    def _of_mapping(cls, fields: Mapping[Any, Any]) -> GenerationRequest:
        known = attrs.fields_dict(cls)
        for name, value in fields.items():
            if name not in known:
                raise InvalidRequestError(
                    str(name), value, "a documented field (put undocumented ones under 'extra')"
                )
        if "prompt" not in fields:
            raise InvalidRequestError("prompt", None, "text of 1 to 2000 characters")
        return cls(**fields)


def _present(item: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in item.items() if value is not None}


@attrs.frozen(kw_only=True)
class TaskSnapshot:
    """A task as the service showed it at one moment.

    id            `gen_…`
    status        the service's own word: `pending`, `processing`, `completed`, `failed`; an unknown
                  one is kept and is not final
    model, type   `nanobanana`…; `image_generate`, `image_edit`, `video_generate`…
    url, urls     where the output is: the first one, and all of them
    output        the service's `output` object whole, or None
    error         why it failed, in the service's words, or None
    cost          US dollars as Decimal; None where the service sent nothing readable
    created_at, started_at, completed_at    aware datetimes in UTC, or None
    raw           everything that came, unknown fields included
    """

    id: str
    status: str
    model: str = ""
    type: str = ""
    url: str | None = None
    urls: tuple[str, ...] = ()
    output: Mapping[str, Any] | None = attrs.field(default=None, repr=False, hash=False)
    error: str | None = None
    cost: Decimal | None = None
    created_at: datetime | None = attrs.field(default=None, repr=str)
    started_at: datetime | None = attrs.field(default=None, repr=str)
    completed_at: datetime | None = attrs.field(default=None, repr=str)
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)

    @property
    def is_final(self) -> bool:
        """True when the task has ended, well or badly."""
        return self.status in FINAL

    @property
    def is_completed(self) -> bool:
        """True when the task has ended well."""
        return self.status == "completed"

    def _repr_html_(self) -> str:
        from . import _display

        return _display.task(self)


@attrs.frozen(kw_only=True)
class Page(Generic[T]):
    """One page of a list: *items*, and where it stands (`page` of `total_pages`, *total* items)."""

    items: tuple[T, ...]
    page: int
    per_page: int
    total: int
    total_pages: int


@attrs.frozen(kw_only=True)
class UsageSummary:
    """What was used of one model: units, US dollars (None: unreadable), requests."""

    model: str
    total_units: Decimal | None = None
    total_cost: Decimal | None = None
    request_count: int | None = None
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)


@attrs.frozen
class UsageRecord:
    """One usage record. Its fields are not documented: *raw* holds whatever came."""

    raw: Mapping[str, Any] = attrs.field(hash=False)


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one item of a batch: its *result*, or the *error* that took its place.

    index     the item's place in the input, from 0
    request   what was asked for; None where the item was no valid request
    result    the completed task, or None
    error     why there is none, or why its files could not be saved; None when all went well
    paths     the files that were saved
    """

    index: int
    request: GenerationRequest | None
    result: TaskSnapshot | None = None
    error: EggError | None = None
    paths: tuple[Path, ...] = ()

    @property
    def ok(self) -> bool:
        """True when nothing went wrong."""
        return self.error is None

    def unwrap(self) -> TaskSnapshot:
        """The result; raises the error instead where there is one."""
        if self.error is not None:
            raise self.error
        assert self.result is not None, "an outcome without an error has a result"
        return self.result

    def _repr_html_(self) -> str:
        from . import _display

        return _display.outcome(self)


class Outcomes(list[Outcome]):
    """The outcomes of a batch, in input order: a list, which a notebook shows as pictures."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from . import _display

        return _display.grid(self)


def _zero() -> dict[str, int]:
    return {}


@attrs.define(kw_only=True)
class Stats:
    """Counters of one client, from its start; live, so copy what you want to compare.

    requests      sent, by kind: submit, peek (GET of one task), sweep (a list page read for the
                  waiting), list, usage, download
    retries       requests sent again after a failure or a refusal
    rate_limited  answers 429
    submitted, completed, failed    tasks
    delivered     ends that a webhook told before a poll did
    cost          US dollars that completed tasks reported
    """

    requests: dict[str, int] = attrs.field(factory=_zero)
    retries: int = 0
    rate_limited: int = 0
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    delivered: int = 0
    cost: Decimal = Decimal(0)

    @property
    def polls(self) -> int:
        """Requests that only asked whether tasks had ended."""
        return self.requests.get("peek", 0) + self.requests.get("sweep", 0)

    def sent(self, kind: str) -> None:
        """Count a request of *kind*."""
        self.requests[kind] = self.requests.get(kind, 0) + 1

    def ended(self, task: TaskSnapshot) -> None:
        """Count a task's end, and what it cost."""
        if not task.is_completed:
            self.failed += 1
            return
        self.completed += 1
        self.cost += task.cost or 0
