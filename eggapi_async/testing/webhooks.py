"""Deliveries of the service's webhooks, made and signed in a test, for receivers and whole apps.

Nothing here opens a socket: an ASGI application is called as it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from .._verification import sign_webhook
from ..emulator.senders import to_app

SECRET: Final = "egg-test-secret"


class WebhookSender:
    """Sends what the service would send: the documented event, signed with *secret*.

    *now* is the clock of the timestamps, in unix seconds: a receiver has to have the same one.
    """

    def __init__(self, secret: str = SECRET, *, now: Callable[[], float] = time.time) -> None:
        self.secret = secret
        self._now = now

    def __repr__(self) -> str:
        return "<WebhookSender>"

    def body(self, task_id: str = "gen_test", status: str = "completed", **fields: Any) -> bytes:
        """The body of an event; *fields* take the place of what the service would say."""
        is_completed = status == "completed"
        told = {
            "event": f"task.{status}",
            "task_id": task_id,
            "status": status,
            "model": "nanobanana",
            "output": {"url": f"https://cdn.egg.test/{task_id}.png"} if is_completed else None,
            "error": None if is_completed else "Provider error: all providers are unavailable",
            "cost": "0.010000" if is_completed else "0.000000",
            "timestamp": int(self._now()),
        }
        return json.dumps({**told, **fields}).encode()

    def headers(self, body: bytes) -> dict[str, str]:
        """The headers that make *body* genuine."""
        return {
            "Content-Type": "application/json",
            **sign_webhook(body, self.secret, now=self._now()),
        }

    async def deliver(
        self,
        app: Callable[..., Any],
        task_id: str = "gen_test",
        status: str = "completed",
        *,
        path: str = "/",
        secret: str | None = None,
        **fields: Any,
    ) -> int:
        """POST one event to the ASGI application *app*; the HTTP status of its answer.

        Another *secret* makes it a forgery.
        """
        body = self.body(task_id, status, **fields)
        forger = self if secret is None else WebhookSender(secret, now=self._now)
        status_code = await to_app(app)(f"https://egg.test{path}", forger.headers(body), body)
        assert status_code is not None, "an application of this process is always called"
        return status_code
