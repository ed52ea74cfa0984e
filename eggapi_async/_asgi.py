"""The HTTP side of the webhook receiver: what ASGI hands over, read with a cap and a deadline.

Its rule: what can be refused is refused before a byte of the body is read. It decides nothing about
what is genuine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import anyio

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_EARLY: Final = frozenset({400, 401, 408, 413, 415, 503})
"""Statuses that may be answered while the body is still coming: the connection is not kept."""


def refusal(scope: Scope, *, max_body: int) -> int | None:
    """The status that refuses a request by its method and headers alone, or None."""
    if scope["method"] != "POST":
        return 405
    length = _header(scope, b"content-length")
    if length and (not length.isdigit() or len(length) > 15):
        return 400
    if int(length or 0) > max_body:
        return 413
    is_plain = _header(scope, b"content-encoding").lower() in (b"", b"identity")
    return None if is_plain and _is_json(_header(scope, b"content-type")) else 415


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key.lower() == name), b"").strip()


async def read_body(receive: Receive, *, max_body: int, seconds: float) -> bytes | int | None:
    """The whole body; 413 or 408 where it is too long or too slow; None: the caller hung up."""
    body = bytearray()
    with anyio.move_on_after(seconds):
        while len(body) <= max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if not message.get("more_body", False):
                return bytes(body) if len(body) <= max_body else 413
        return 413
    return 408


async def respond(send: Send, status: int) -> None:
    """An answer without a body: strangers learn nothing from it."""
    headers = [] if status == 204 else [(b"content-length", b"0")]
    if status == 405:
        headers.append((b"allow", b"POST"))
    if status in _EARLY:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def live(receive: Receive, send: Send) -> None:
    """Agree to start and to shut down, as the lifespan protocol asks."""
    message = await receive()
    await send({"type": f"{message['type']}.complete"})
    if message["type"] == "lifespan.startup":
        await live(receive, send)
