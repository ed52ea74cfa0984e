"""The door to httpx: one exchange, or one stream, over a shared pool of connections.

A pool is made per event loop on first use, and closed when that loop ends or the client is closed.
It is made of lanes (`_lanes`), so that nothing ever queues in it. A caller's own client (of httpx2
too) is used as it is, and not closed.

Foreign exceptions end here, as `ConnectionFailedError` (`_foreign`). Nothing here knows a path of
the API, decides on a repetition, or keeps the key where a repr, a log or a traceback could show it.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, NoReturn

import anyio
import attrs
import httpx

from ._discretion import be_discreet
from ._foreign import HTTPX, HTTPClient, Library, Trace, library_of, mapped
from ._home import Home
from ._protocol import Answer
from ._reach import Reach
from ._version import __version__
from .errors import ConfigurationError, ConnectionFailedError

MAX_BODY: Final = 8 * 1024 * 1024
"""Bytes of an API answer that are read at most; a page of 100 tasks has about 40,000."""
CONNECT_TIMEOUT: Final = 5.0
STALLED: Final = 30.0
"""Seconds without a byte after which a download's connection is given up."""
SHORTEST_SECRET: Final = 12
"""Characters of a key that are looked for in answers at least."""
_PORTS: Final = {"http": 80, "https": 443}
AGENT: Final = f"eggapi-async/{__version__}"


if TYPE_CHECKING:
    from ._lanes import Lanes


class ApiKey:
    """The key, put on each request at the last moment and shown nowhere."""

    def __init__(self, key: str) -> None:
        if key == "":
            raise ConfigurationError(
                "api_key: there is none; give it as argument or in the environment's EGGAPI_API_KEY"
            )
        is_usable = isinstance(key, str) and key.isascii() and key.isprintable() and " " not in key
        if not is_usable:
            del key  # a traceback that prints locals must not show even a broken key
            raise ConfigurationError(
                "api_key: expected a key, visible ASCII characters without spaces,"
                " as argument or in EGGAPI_API_KEY"
            )
        self._key = key

    def __repr__(self) -> str:
        return "<ApiKey ***>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is not pickled")

    def sign(self, request: httpx.Request) -> None:
        """Add the documented header."""
        request.headers["Authorization"] = f"Bearer {self._key}"

    def __call__(self, request: Any) -> Any:
        """The same, as a caller's client asks for it."""
        self.sign(request)
        return request

    def redact(self, body: bytes) -> bytes:
        """*body* without the key, which a debugging proxy may echo.

        A key so short that it could be part of any answer is a test's, and no secret.
        """
        if len(self._key) < SHORTEST_SECRET:
            return body
        return body.replace(self._key.encode(), b"***")

    def hide(self, text: str) -> str:
        """The same of a header's value."""
        return text if self._key not in text else self.redact(text.encode()).decode()


# --- exchanges -------------------------------------------------------------------------------


@attrs.define
class _Pool:
    """What belongs to one event loop."""

    token: object
    lanes: Lanes
    downloads: Lanes
    ending: AsyncGenerator[None, None]


class Wire:
    """Sends requests over a pool that it makes itself, or over the caller's *http_client*.

    *reach* is where downloads may lead; a caller's own client resolves names by itself, so that
    only their spelling is looked at.
    """

    def __init__(
        self,
        http_client: HTTPClient | None = None,
        *,
        reach: Reach = Reach(),
        home: Home | None = None,
    ) -> None:
        self._library = HTTPX if http_client is None else library_of(http_client)
        if http_client is not None:
            be_discreet()
        self._callers = http_client
        self._reach = reach
        self._home = home or Home("Wire")
        self._pool: _Pool | None = None

    @property
    def is_open(self) -> bool:
        """True while connections of our own may be open."""
        return self._pool is not None

    def arrive(self) -> None:
        """Make sure that this is the place to send from. Raises WrongLoopError."""
        self._home.arrive()

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        key: ApiKey,
        params: Mapping[str, int],
        body: bytes | None,
        timeout: float,
    ) -> Answer:
        """One request, one whole answer, within *timeout* seconds in all its phases.

        Raises ConnectionFailedError, whose `was_sent` is False only where that is proved.
        """
        trace = Trace()
        extensions: dict[str, Any] = {"timeout": self._timeouts(timeout)}
        if method == "POST":
            extensions["trace"] = trace
        with mapped(trace, self._library):
            request = self._request(
                method,
                _url(url, **params),
                content=body,
                headers=_API_HEADERS if body is None else _API_HEADERS_WITH_BODY,
                extensions=extensions,
            )
            with anyio.fail_after(timeout):
                response = await self._send(request, key)
                try:
                    whole = await _read(response)
                finally:
                    await response.aclose()
        headers = {name.lower(): key.hide(value) for name, value in response.headers.items()}
        if whole is None:
            problem = f"an answer of more than {MAX_BODY} bytes"
            raise ConnectionFailedError(problem, was_sent=True)
        return Answer(response.status_code, headers, key.redact(whole))

    @asynccontextmanager
    async def stream(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
        """One GET of a download, its body still to be read.

        Without the key, and without any header, cookie or parameter of a caller's client.
        """
        with mapped(Trace(), self._library):
            request = self._library.request(
                "GET",
                url,
                headers={**_DOWNLOAD_HEADERS, **headers},
                extensions={"timeout": _each_phase(STALLED)},
            )
            port = request.url.port or _PORTS.get(request.url.scheme, 0)
            if refusal := self._reach.refusal(request.url.raw_host.decode("ascii"), port):
                raise ConnectionFailedError(refusal, is_passing=False, was_sent=False)
            response = await self._send(request, None)
        try:
            yield Stream(response, self._library)
        finally:
            await response.aclose()

    def _timeouts(self, seconds: float) -> dict[str, float | None]:
        """On lanes of our own nothing but connecting needs a timer beside that of the whole."""
        phases = _each_phase(seconds)
        return phases if self._callers is not None else {**phases, "read": None, "write": None}

    def _request(self, method: str, url: str | httpx.URL, **parts: Any) -> httpx.Request:
        if self._callers is not None:  # whose own headers go along
            request: httpx.Request = self._callers.build_request(method, str(url), **parts)
            return request
        return httpx.Request(method, url, **parts)

    async def _send(self, request: httpx.Request, key: ApiKey | None) -> httpx.Response:
        """The head of the answer. Our own lanes need none of what a client does per request."""
        if self._callers is None:
            pool = await self._open_pool()
            if key is None:
                return await pool.downloads.handle_async_request(request)
            key.sign(request)
            return await pool.lanes.handle_async_request(request)
        if self._callers.is_closed:
            raise ConfigurationError("http_client: expected an open one, it has been closed")
        response: httpx.Response = await self._callers.send(
            request, auth=key, stream=True, follow_redirects=False
        )
        return response

    async def _open_pool(self) -> _Pool:
        token = self._home.arrive()
        if self._pool is None or self._pool.token != token:
            # Only now, as httpx does: httpcore takes a while to load.
            from ._lanes import Lanes

            lanes, downloads = Lanes(), Lanes(self._reach)
            self._pool = _Pool(token, lanes, downloads, _close_at_the_end(lanes, downloads))
            await anext(self._pool.ending)
        return self._pool

    async def aclose(self) -> None:
        """Close the connections of our own. The caller's client is the caller's."""
        token = self._home.arrive()
        pool, self._pool = self._pool, None
        if pool is not None and pool.token == token:
            await pool.ending.aclose()


class Stream:
    """An answer whose body is still on its way."""

    def __init__(self, response: httpx.Response, library: Library) -> None:
        self._response = response
        self._library = library
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it came, not decoded."""
        with mapped(Trace(has_sent=True), self._library):
            if self._response.is_stream_consumed:  # an answer that a test made from bytes
                yield self._response.content
                return
            async for chunk in self._response.aiter_raw():
                yield chunk


def in_process(app: Any) -> httpx.AsyncClient:
    """A client whose every request goes to the ASGI application *app*, without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), cookies=_no_cookies())


@lru_cache(maxsize=64)
def _url(url: str, **params: int) -> httpx.URL:
    """Parsed once: most requests go to a few addresses."""
    return httpx.URL(url, params=params) if params else httpx.URL(url)


def _each_phase(seconds: float) -> dict[str, float | None]:
    """Time-outs of each phase; nothing ever waits for the pool."""
    connect = min(CONNECT_TIMEOUT, seconds)
    return {"connect": connect, "read": seconds, "write": seconds, "pool": None}


async def _close_at_the_end(*several: Lanes) -> AsyncGenerator[None, None]:
    # Every event loop closes its asynchronous generators before it ends: so does this one close the
    # connections, while their loop can still do it, though nobody closed the client.
    try:
        yield
    finally:
        for lanes in several:
            await lanes.aclose()


def _no_cookies() -> CookieJar:
    """A jar that keeps nothing: cookies would tie requests together, and grow for weeks."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))


# Identity: a compressed answer of a megabyte may be a gigabyte, and the pages are small.
_API_HEADERS = {"User-Agent": AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
_API_HEADERS_WITH_BODY = {**_API_HEADERS, "Content-Type": "application/json"}
_DOWNLOAD_HEADERS = {"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}


async def _read(response: httpx.Response) -> bytes | None:
    """The whole body, decoded where it was compressed in spite of our wish; None: over MAX_BODY.

    Nothing is raised here, where a traceback with locals would show what may echo the key.
    """
    if response.is_stream_consumed:  # an answer that a test made from bytes
        return response.content
    body = bytearray()
    with anyio.CancelScope() as reading:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BODY:
                reading.cancel()  # leaving the loop would leave generators behind, half run
    if len(body) > MAX_BODY:
        return None
    return _inflated(bytes(body), response.headers.get("content-encoding", "identity"))


def _inflated(body: bytes, encoding: str) -> bytes | None:
    if encoding.lower() not in ("gzip", "deflate"):
        return body
    with suppress(zlib.error):
        unpacked = zlib.decompressobj(47).decompress(body, MAX_BODY + 1)
        return unpacked if len(unpacked) <= MAX_BODY else None
    return body
