"""The pool: an httpx transport of "lanes", each one connection of httpx's own engine, httpcore.

httpcore's pool costs time that grows with connections times requests, and loses connections when
requests are cancelled in its queue. Here nothing ever queues: whoever sends holds the limiter's
turn, takes an idle lane or makes one, and gives it back. A lane whose request was cancelled or
failed is thrown away.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import anyio
import anyio.to_thread
import attrs
import httpcore
import httpx

from ._dialling import Dialling
from ._reach import Reach
from .errors import ConfigurationError

POST_KEEPALIVE: Final = 0.1
"""Seconds: a kept connection that the service has meanwhile closed makes a POST's fate uncertain.
Enough for those that follow each other closely, and less than services and proxies wait that hang
up early: a quarter of a second, at a round trip of 80 ms."""
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


class _Noting(httpcore.AsyncNetworkBackend):
    """Connects, and keeps the stream: httpcore forgets it where a TLS handshake is cancelled."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        self._stream = await self._backend.connect_tcp(*args, **options)
        return self._stream

    async def aclose(self) -> None:
        """Close the stream, if it is not closed already."""
        if self._stream is not None:
            await self._stream.aclose()


class _Connection(httpx.AsyncBaseTransport):
    """One connection to one origin; even a pool of one would cost more than the request itself."""

    def __init__(
        self,
        url: httpx.URL,
        verify: ssl.SSLContext,
        keepalive: float,
        dialling: Dialling | None = None,
    ) -> None:
        origin = httpcore.Origin(url.raw_scheme, url.raw_host, _port(url))
        self._network = _Noting(dialling or httpcore.AnyIOBackend())
        self._inner = httpcore.AsyncHTTPConnection(
            origin, verify, keepalive, network_backend=self._network
        )

    @property
    def is_alive(self) -> bool:
        """False when the service has hung up, or its last answer said that it would."""
        return self._inner.is_available() and not self._inner.has_expired()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=_port(url), target=url.raw_path
        )
        with _translated():
            response = await self._inner.handle_async_request(
                httpcore.Request(
                    request.method,
                    target,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            await self._network.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._inner:
                yield chunk

    async def aclose(self) -> None:
        with _translated():
            await self._inner.aclose()


def _port(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


@contextmanager
def _translated() -> Iterator[None]:
    """httpcore's exceptions as those of httpx, which have the same names."""
    try:
        yield
    except _CORE_ERRORS as exc:
        raise getattr(httpx, type(exc).__name__, httpx.TransportError)(str(exc)) from exc


_CORE_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)


@attrs.define(eq=False)
class _Lane:
    transport: httpx.AsyncBaseTransport
    kind: _Kind
    idle_since: float = 0.0

    @property
    def is_alive(self) -> bool:
        """False when its connection is known to be of no more use."""
        return not isinstance(self.transport, _Connection) or self.transport.is_alive


class Lanes(httpx.AsyncBaseTransport):
    """Connections, each a transport of its own; as many as requests are under way at once.

    With *reach* they lead nowhere else, except by way of a proxy.
    """

    def __init__(self, reach: Reach | None = None) -> None:
        self._dialling = None if reach is None else Dialling(reach)
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
        while idle := self._idle.get(kind):
            if (lane := idle.pop()).is_alive:
                return lane
            await _drop(lane)
        if request.url.scheme == "https":
            verify = await _trust()
        else:
            verify = _no_tls()
        transport = _transport(request.url, verify, _keepalive(kind), self._dialling)
        return _Lane(transport, kind)

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


def _transport(
    url: httpx.URL, verify: ssl.SSLContext, keepalive: float, dialling: Dialling | None = None
) -> httpx.AsyncBaseTransport:
    address = _proxy(url)
    if address is None:
        return _Connection(url, verify, keepalive, dialling)
    limits = httpx.Limits(
        max_connections=1, max_keepalive_connections=1, keepalive_expiry=keepalive
    )
    try:
        return httpx.AsyncHTTPTransport(verify=verify, proxy=address, limits=limits)
    except (ImportError, ValueError, httpx.InvalidURL) as exc:
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
