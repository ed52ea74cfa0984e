"""The HTTP side of the emulator: a request read to its end, the routes, and the lifespan.

Its rule: what comes from the network is read once, and with a cap. It decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import attrs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 1 << 20
"""Bytes of a request's body; one that is longer is read a little further, so that it shows."""
OUTPUTS_ROUTE = "/outputs"
_METHODS = {
    "/v1/generate": ("POST",),
    "/v1/tasks": ("GET",),
    "/v1/usage": ("GET",),
    "/v1/usage/summary": ("GET",),
}


@attrs.frozen
class Request:
    """One HTTP request; header names are lower case, `now` is the unix second it came at."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    origin: str
    """Scheme and host that the request was sent to."""
    body: bytes
    now: float

    @property
    def label(self) -> str:
        """What faults are matched with: "METHOD /path"."""
        return f"{self.method} {self.path}"

    @property
    def key(self) -> str:
        """The bearer key, or nothing."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""


async def read_request(
    scope: Scope, receive: Receive, *, clock: Callable[[], float]
) -> Request | None:
    """The request of an ASGI call, or None if the caller hung up before its end."""
    body = await _body(receive)
    if body is None:
        return None
    headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
    texts = {name: value.decode("latin-1") for name, value in headers.items()}
    return Request(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        headers=texts,
        origin=f"{scope.get('scheme', 'http')}://{texts.get('host', 'localhost')}",
        body=body,
        now=clock(),
    )


def route_of(path: str) -> tuple[str, tuple[str, ...]]:
    """The name of the route a path belongs to, and its methods; empty if there is no such route."""
    if path in _METHODS:
        return path, _METHODS[path]
    if re.fullmatch("/v1/tasks/[^/]+", path):
        return "/v1/tasks/{id}", ("GET",)
    if path.startswith(OUTPUTS_ROUTE + "/"):
        return OUTPUTS_ROUTE, ("GET", "HEAD")
    return "", ()


async def live(receive: Receive, send: Send) -> None:
    """Agree to start and to shut down, as the lifespan protocol asks."""
    message = await receive()
    await send({"type": f"{message['type']}.complete"})
    if message["type"] == "lifespan.startup":
        await live(receive, send)


async def _body(receive: Receive) -> bytes | None:
    body = b""
    while len(body) <= MAX_BODY:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body
