"""The pool: connections as "lanes", httpx transports of one connection each.

httpcore's own pool costs time that grows with connections times requests, and loses connections
when requests are cancelled in its queue. Here nothing ever queues: whoever sends holds the
limiter's turn, takes an idle lane or makes one, and gives it back. A lane whose request was
cancelled or failed is thrown away.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import cache
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import anyio
import anyio.to_thread
import attrs
import httpx

from .errors import ConfigurationError

POST_KEEPALIVE: Final = 1.0
"""Seconds: a kept connection that the service has meanwhile closed makes a POST's fate
uncertain."""
KEEPALIVE: Final = 30.0
"""Seconds: longer than the poll interval. A stale connection costs a GET only a repetition."""


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@cache
def _no_tls() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used: the URL is plain http


_Kind = tuple[str, bool]
"""Where a lane leads, since that decides on its proxy too, and whether it is for POSTs: those have
lanes of their own, which are kept alive for a moment only."""


def _kind_of(request: httpx.Request) -> _Kind:
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}", request.method == "POST"


@attrs.define(eq=False)
class _Lane:
    transport: httpx.AsyncBaseTransport
    kind: _Kind
    idle_since: float = 0.0


class Lanes(httpx.AsyncBaseTransport):
    """Connections, each a transport of its own; as many as requests are under way at once."""

    def __init__(self) -> None:
        self._idle: dict[_Kind, deque[_Lane]] = {}
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* on an idle lane or a new one."""
        lane = await self._check_out(request)
        try:
            response = await lane.transport.handle_async_request(request)
        except BaseException:
            await _drop(lane)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _LaneStream(response.stream, lane, self._check_in)
        return response

    async def _check_out(self, request: httpx.Request) -> _Lane:
        kind = _kind_of(request)
        if idle := self._idle.get(kind):
            return idle.pop()
        if request.url.scheme == "https":
            verify = await _trust()
        else:
            verify = _no_tls()
        return _Lane(_one_connection(request, verify), kind)

    async def _check_in(self, lane: _Lane) -> None:
        if self._is_closed:
            await _drop(lane)
            return
        lane.idle_since = anyio.current_time()
        self._idle.setdefault(lane.kind, deque()).append(lane)
        for stale in self._take_stale(lane.idle_since):
            await _drop(stale)

    def _take_stale(self, now: float) -> list[_Lane]:
        """The idle lanes whose connections nobody should use any more; they are idle no longer."""
        stale: list[_Lane] = []
        for kind, idle in list(self._idle.items()):
            while idle and idle[0].idle_since < now - _keepalive(kind):
                stale.append(idle.popleft())
            if not idle:
                del self._idle[kind]
        return stale

    async def aclose(self) -> None:
        """Close every lane that is idle; those in use close as they come back."""
        self._is_closed = True
        for idle in self._idle.values():
            while idle:
                await _drop(idle.pop())


def _keepalive(kind: _Kind) -> float:
    return POST_KEEPALIVE if kind[1] else KEEPALIVE


def _one_connection(request: httpx.Request, verify: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    kept = _keepalive(_kind_of(request))
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=kept)
    address = _proxy(request.url)
    try:
        return httpx.AsyncHTTPTransport(verify=verify, proxy=address, limits=limits)
    except (ImportError, ValueError, httpx.InvalidURL) as exc:
        if address is None:
            raise
        # Not the address itself, nor what quotes it: a password may be in it.
        scheme = address.partition(":")[0]
        reason = "needs the package socksio" if isinstance(exc, ImportError) else "is not usable"
        problem = f"the proxy that the environment names, {scheme}://…, {reason}"
        raise ConfigurationError(problem) from None


def _proxy(url: httpx.URL) -> str | None:
    """The proxy that the environment names for *url* (HTTPS_PROXY, ALL_PROXY, NO_PROXY).

    Plain http never leaves this machine, so there is none for it.
    """
    proxies = getproxies()
    address = proxies.get("https") or proxies.get("all")
    if url.scheme != "https" or not address or proxy_bypass(url.host):
        return None
    return address if "://" in address else f"http://{address}"


async def _trust() -> ssl.SSLContext:
    try:
        return await anyio.to_thread.run_sync(_tls)
    except OSError as exc:
        problem = f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names: {exc.strerror}"
        raise ConfigurationError(problem) from None


async def _drop(lane: _Lane) -> None:
    with anyio.CancelScope(shield=True), suppress(Exception):
        await lane.transport.aclose()


class _LaneStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, lane: _Lane, give_back: Any) -> None:
        self._stream = stream
        self._lane = lane
        self._give_back = give_back
        self._is_open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            await self._stream.aclose()
        except BaseException:
            await _drop(self._lane)
            raise
        await self._give_back(self._lane)
