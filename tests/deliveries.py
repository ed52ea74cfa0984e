"""Deliveries as the service makes them, for tests of whoever receives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from eggapi_async import sign_webhook

SECRET: Final = "whsec_canary_0123456789"
NOW: Final = 1705314690
HOOK: Final = "https://bot.test/hooks/egg"

PUBLISHED_VERIFY: Final = """\
import hashlib
import hmac

def verify(signature, timestamp, raw_body, secret):
    message = f"{timestamp}.{raw_body}".encode("utf-8")
    expected = "sha256=" + hmac.new(
        secret.encode("utf-8"),
        message,
        hashlib.sha256,
    ).hexdigest()
    return hmac.compare_digest(signature, expected)
"""
"""The function that the API's page publishes, as it stands there."""


def published_verify() -> Callable[[str, str, str, str], bool]:
    """The published function, ready to be called."""
    scope: dict[str, Any] = {}
    exec(PUBLISHED_VERIFY, scope)
    verify: Callable[[str, str, str, str], bool] = scope["verify"]
    return verify


def body_of(task_id: str = "gen_a", event: str = "task.completed", **changes: Any) -> bytes:
    """A payload with the documented fields, and these *changes*."""
    status = event.partition(".")[2]
    fields: dict[str, Any] = {
        "event": event,
        "task_id": task_id,
        "status": status,
        "model": "nanobanana",
    }
    fields |= (
        {"output": {"url": f"https://cdn.test/{task_id}.png"}} if status == "completed" else {}
    )
    fields |= {"error": None if status == "completed" else "no", "cost": "0.010000"}
    return json.dumps({**fields, "timestamp": NOW, **changes}).encode()


def delivery(body: bytes | None = None, *, now: float = NOW) -> tuple[bytes, dict[str, str]]:
    """A payload and its headers."""
    body = body_of() if body is None else body
    return body, sign_webhook(body, SECRET, now=now)
