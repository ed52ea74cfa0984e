"""Ways in which a webhook leaves the emulator: into an application of this process, or over TCP.

Its rule: the URL is called exactly as it was given, and redirects are not followed. Over TCP only
this very machine is called: an emulator must not trouble anybody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from .asgi import Message

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
CONNECTION_SECONDS = 30.0

Sender = Callable[[str, Mapping[str, str], bytes], Awaitable[int | None]]
"""POSTs a body with headers to a URL; the HTTP status, or None where it does not call that URL."""


def to_app(app: Callable[..., Awaitable[None]]) -> Sender:
    """Everything goes to the ASGI application *app*, whatever the host."""

    async def send(url: str, headers: Mapping[str, str], body: bytes) -> int:
        ended = anyio.Event()
        statuses: list[int] = []
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await ended.wait()
            return {"type": "http.disconnect"}

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif not message.get("more_body", False):
                ended.set()

        await app(_scope(url, headers, body), receive, note)
        return statuses[0]

    return send


def _scope(url: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    parts = urlsplit(url)
    sent = {"host": parts.netloc, **headers, "content-length": str(len(body))}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": parts.scheme,
        "path": unquote(parts.path) or "/",
        "raw_path": (parts.path or "/").encode("latin-1", "replace"),
        "query_string": parts.query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        "server": (parts.hostname, parts.port or 443),
        "client": ("127.0.0.1", 1),
    }


async def over_tcp(url: str, headers: Mapping[str, str], body: bytes) -> int | None:
    """To whatever listens on this machine; other hosts are left alone."""
    if urlsplit(url).hostname not in LOOPBACK:
        return None
    post = partial(_post, url, headers, body)
    return await anyio.to_thread.run_sync(post, abandon_on_cancel=True)


def _post(url: str, headers: Mapping[str, str], body: bytes) -> int:
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=CONNECTION_SECONDS)
    try:
        target = url.split(parts.netloc, 1)[1].partition("#")[0]
        connection.request("POST", target if target[:1] == "/" else f"/{target}", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
