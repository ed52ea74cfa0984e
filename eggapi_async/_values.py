"""What the service writes, as values: money, times, pauses, tasks.

Lenient where the documents disagree: absent and null are the same, unknown fields stay in `raw`,
and what cannot be read becomes None; only a task without id or status is no task. cattrs does the
structuring. No I/O, no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import MAXYEAR, UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from cattrs import Converter

from .models import TaskSnapshot, UsageSummary

_MONEY = re.compile(r"\$?([0-9]{1,12}(?:\.[0-9]{1,12})?)")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)


def money(value: object) -> Decimal | None:
    """US dollars: `$0.0160`, `$0.00`, `0.016000`, or a JSON number; anything else is None."""
    try:
        text = str(value) if isinstance(value, (str, int, float)) else ""
    except ValueError:  # an int too long to print
        return None
    match = _MONEY.fullmatch(text)
    return Decimal(match[1]) if match else None


def moment(value: object) -> datetime | None:
    """RFC 3339 with Z, an offset or neither (UTC), up to nine fraction digits; otherwise None."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    day, clock, fraction, zone = match.groups("")
    try:
        time = datetime.fromisoformat(f"{day}T{clock}{fraction[:7]}{zone.upper() or 'Z'}")
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _strict_text(value: object, _: type) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected text, got {type(value).__name__}")
    return value


def _lenient_text(value: object, _: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("message") or json.dumps(value)
    return None if value is None else str(value)


def _count(value: object, _: Any) -> int | None:
    return value if type(value) is int else None


def _as_given(value: Any, _: Any) -> Any:
    return value


_converter = Converter()
_converter.register_structure_hook(str, _strict_text)
_converter.register_structure_hook(str | None, _lenient_text)
_converter.register_structure_hook(int | None, _count)
_converter.register_structure_hook(Decimal | None, lambda value, _: money(value))
_converter.register_structure_hook(datetime | None, lambda value, _: moment(value))
_WORDS = ("model", "type")
_AS_GIVEN = (Mapping[str, Any], Mapping[str, Any] | None, tuple[str, ...])
_converter.register_structure_hook_func(lambda kind: kind in _AS_GIVEN, _as_given)


def snapshot(item: Mapping[str, Any]) -> TaskSnapshot:
    """A task object as a value; raises cattrs' BaseValidationError where id or status is
    unusable."""
    output = item.get("output")
    urls = _urls(output)
    return _converter.structure(
        {
            **{name: value for name, value in item.items() if _is_usable(name, value)},
            "output": output if isinstance(output, dict) else None,
            "url": urls[0] if urls else None,
            "urls": urls,
            "raw": item,
        },
        TaskSnapshot,
    )


def _is_usable(name: str, value: object) -> bool:
    """False for what counts as absent: a paid task is not lost over an odd model or type."""
    return bool(value and isinstance(value, str)) if name in _WORDS else value is not None


def _urls(output: object) -> tuple[str, ...]:
    """Where the output is: `urls` where it is given, else `url` alone."""
    if not isinstance(output, dict):
        return ()
    many = output.get("urls")
    urls = [url for url in many if isinstance(url, str) and url] if isinstance(many, list) else []
    first = output.get("url")
    if isinstance(first, str) and first and first not in urls:
        urls.insert(0, first)
    return tuple(urls)


def summary(data: dict[str, Any]) -> UsageSummary:
    """An entry of the usage summary as a value."""
    present = {name: value for name, value in data.items() if value is not None}
    return _converter.structure({**present, "raw": data}, UsageSummary)


def server_time(headers: Mapping[str, str]) -> datetime | None:
    """The service's own clock, from the answer's `Date`; None where it cannot be read."""
    try:
        date = parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    if date.year == MAXYEAR:  # no room to reckon with it
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The asked pause in seconds: `Retry-After` as seconds, with a fraction, or as an HTTP date.

    A date counts from the answer's own `Date`, so that a wrong clock here cannot hurt; nonsense is
    None.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        return float(text)
    until, now = server_time({"date": text}), server_time(headers)
    if until is None or now is None:
        return None
    return max(0.0, (until - now) / timedelta(seconds=1))
