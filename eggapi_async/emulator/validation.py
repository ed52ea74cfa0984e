"""The documented limits of what callers may send, and the messages that name the field at fault.

Its rule: from bytes or text to checked values, or a `RefusedError`. Unknown fields and models pass,
since the service grows; a field that is null counts as absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .answers import RefusedError
from .senders import LOOPBACK

Check = Callable[[Any], str | None]
"""From a present value to what is wrong with it."""


def generation_fields(body: bytes) -> dict[str, Any]:
    """The checked fields of POST /v1/generate, without those that are null."""
    sent = _json_object(body)
    fields = {name: value for name, value in sent.items() if value is not None}
    for name, check in _CHECKS.items():
        _require(name, _problem(name, fields, check))
    return fields


def page_and_size(query: str) -> tuple[int, int]:
    """`page` (from 1, default 1) and `per_page` (1 to 100, default 20) of a query string."""
    asked = parse_qs(query, keep_blank_values=True)
    page = _number(asked.get("page", ["1"])[-1])
    size = _number(asked.get("per_page", ["20"])[-1])
    _require("page", None if page >= 1 else "must be a whole number of at least 1")
    _require("per_page", None if 1 <= size <= 100 else "must be a whole number from 1 to 100")
    return page, size


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "BAD_REQUEST", "the body is not JSON") from None
    if not isinstance(sent, dict):
        raise RefusedError(400, "BAD_REQUEST", "the body is not a JSON object")
    return sent


def _problem(name: str, fields: dict[str, Any], check: Check) -> str | None:
    if name in fields:
        return check(fields[name])
    return "is required" if name in _REQUIRED else None


def _require(name: str, problem: str | None) -> None:
    if problem is not None:
        raise RefusedError(400, "VALIDATION_ERROR", f"{name} {problem}")


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def _text(*, least: int, most: int) -> Check:
    def check(value: Any) -> str | None:
        fits = isinstance(value, str) and least <= len(value) <= most
        return None if fits else f"must be text of {least} to {most} characters"

    return check


def _model(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "must be the name of a model"


def _choice(*allowed: str) -> Check:
    def check(value: Any) -> str | None:
        return None if value in allowed else f"must be one of {', '.join(allowed)}"

    return check


def _whole(*, least: int, most: int) -> Check:
    def check(value: Any) -> str | None:
        fits = type(value) is int and least <= value <= most
        return None if fits else f"must be a whole number from {least} to {most}"

    return check


def _image_urls(value: Any) -> str | None:
    fits = isinstance(value, list) and len(value) <= 9
    if fits and all(_is_url(item, schemes={"http", "https"}) for item in value):
        return None
    return "must be a list of up to 9 URLs"


def _webhook_url(value: Any) -> str | None:
    is_https = _is_url(value, schemes={"https"})
    is_local = _is_url(value, schemes={"http"}) and urlsplit(value).hostname in LOOPBACK
    if (is_https or is_local) and len(value) <= 2048:
        return None
    return "must be an https URL of up to 2048 characters"


def _is_url(value: Any, *, schemes: Collection[str]) -> bool:
    if not isinstance(value, str) or re.search(r"\s", value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_REQUIRED = frozenset({"model", "prompt"})
_CHECKS: dict[str, Check] = {
    "model": _model,
    "prompt": _text(least=1, most=2000),
    "negative_prompt": _text(least=0, most=1000),
    "aspect_ratio": _choice("16:9", "9:16"),
    "num_outputs": _whole(least=1, most=4),
    "resolution": _choice("1k", "2k", "4k"),
    "image_urls": _image_urls,
    "webhook_url": _webhook_url,
    "duration": _whole(least=1, most=60),
}
