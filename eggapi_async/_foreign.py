"""What the exceptions of an HTTP library mean: of httpx, or of httpx2 where a caller brings that.

The two have the same names. httpx2 is looked for among the modules that are loaded, and never
imported here: who has a client of it has loaded it. Neither's exceptions get past `mapped`.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import attrs
import httpx

from .errors import ConfigurationError, ConnectionFailedError


class HTTPClient(Protocol):
    """An `httpx.AsyncClient`, or an `httpx2.AsyncClient`: what is used of either."""

    @property
    def build_request(self) -> Callable[..., Any]:
        """Makes a request that has the client's own headers."""

    @property
    def send(self) -> Callable[..., Awaitable[Any]]:
        """Sends it."""

    @property
    def is_closed(self) -> bool:
        """True when it can send no more."""


@attrs.frozen
class Library:
    """An HTTP library: how it makes a request, and the kinds of its exceptions.

    *early* come before anything is sent only, *lasting* come again however often it is tried.
    """

    request: Callable[..., Any]
    foreign: tuple[type[Exception], ...]
    early: tuple[type[Exception], ...]
    lasting: tuple[type[Exception], ...]
    with_request: type[Exception]

    @classmethod
    def of(cls, module: Any) -> Library:
        """That of *module*, which is httpx or httpx2."""
        # UnicodeError: a host name that cannot be.
        lasting = (module.UnsupportedProtocol, module.InvalidURL, UnicodeError)
        early = (module.ConnectError, module.ConnectTimeout, module.PoolTimeout, module.ProxyError)
        return cls(
            request=module.Request,
            foreign=(module.HTTPError, module.StreamError, *lasting, OSError),
            early=early + lasting,
            lasting=(ssl.SSLCertVerificationError, *lasting),
            with_request=module.RequestError,
        )


HTTPX = Library.of(httpx)


def library_of(client: object) -> Library:
    """The library that *client* is of. Raises ConfigurationError where it is of neither."""
    for name in ("httpx", "httpx2"):
        module: Any = sys.modules.get(name)
        if module is not None and isinstance(client, module.AsyncClient):
            return Library.of(module)
    kind = type(client).__name__
    raise ConfigurationError(
        f"http_client: expected an httpx.AsyncClient or an httpx2.AsyncClient, got {kind}"
    )


@attrs.define
class Trace:
    """What httpcore told of a request's progress: the proof that it was never sent."""

    has_spoken: bool = False
    has_sent: bool = False

    async def __call__(self, name: str, info: Mapping[str, Any]) -> None:
        """Note an event; a CONNECT to a proxy is not yet the request itself."""
        self.has_spoken = True
        if name.endswith("send_request_headers.started"):
            self.has_sent |= info["request"].method != b"CONNECT"


@contextmanager
def mapped(trace: Trace, library: Library = HTTPX) -> Iterator[None]:
    """Turn every exception of the network into ConnectionFailedError.

    Not sent is what is proved: an exception that only comes before sending, or any failure of a
    connection that told of its progress, as long as no request headers were reported to leave.
    """
    try:
        yield
    except library.foreign as exc:
        is_early = isinstance(exc, library.early) or trace.has_spoken
        raise ConnectionFailedError(
            _words(exc),
            is_passing=_is_passing(exc, library),
            was_sent=trace.has_sent or not is_early,
        ) from _scrubbed(exc, library)


def _words(exc: Exception) -> str:
    if type(exc) is TimeoutError:
        return "no whole answer within the timeout"
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _is_passing(exc: BaseException | None, library: Library) -> bool:
    """False where trying again cannot help: no trust in the certificate, or an unusable URL."""
    while exc is not None:
        if isinstance(exc, library.lasting):
            return False
        exc = exc.__cause__ or exc.__context__
    return True


def _scrubbed(exc: Exception, library: Library) -> Exception:
    """*exc* without what it drags along: the frames of the HTTP library have the key in them."""
    exc.__traceback__ = exc.__cause__ = exc.__context__ = None
    if isinstance(exc, library.with_request):
        exc._request = None  # type: ignore[attr-defined]
    return exc
