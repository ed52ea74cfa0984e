"""What the exceptions of an HTTP library mean: of httpx, or of httpx2 where a caller brings that.

The two have the same names. httpx2 is looked for among the modules that are loaded, and never
imported here: who has a client of it has loaded it. Neither's exceptions get past `mapped`.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

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

    *unsent* come before anything is sent only, whoever raises them, and *early* where httpx does.
    *lasting* come again however often it is tried.
    """

    request: Callable[..., Any]
    foreign: tuple[type[Exception], ...]
    early: tuple[type[Exception], ...]
    unsent: tuple[type[Exception], ...]
    lasting: tuple[type[Exception], ...]
    with_request: type[Exception]

    @classmethod
    def of(cls, module: Any) -> Library:
        """That of *module*, which is httpx or httpx2."""
        # UnicodeError: a host name that cannot be.
        lasting = (module.UnsupportedProtocol, module.InvalidURL, UnicodeError)
        return cls(
            request=module.Request,
            foreign=(module.HTTPError, module.StreamError, *lasting, OSError),
            early=(module.ConnectError, module.ConnectTimeout, module.ProxyError),
            unsent=(module.PoolTimeout, *lasting),
            lasting=(ssl.SSLCertVerificationError, *lasting),
            with_request=module.RequestError,
        )


HTTPX = Library.of(httpx)
REFUSED_STREAM: Final = 7
"""HTTP/2's code of a stream that was ended before anything was done (RFC 9113, 8.7)."""


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

    Not sent is what is proved: any failure of a connection that told of its progress, as long as no
    request headers were reported to leave; and of one that told nothing, an exception that only
    comes before sending, unless it was made of something that may come later as well. What HTTP/2
    says was not processed counts as not sent.
    """
    try:
        yield
    except library.foreign as exc:
        is_early = trace.has_spoken or _is_early(exc, library)
        is_undone = _is_unprocessed(exc.__cause__)
        raise ConnectionFailedError(
            _words(exc),
            is_passing=_is_passing(exc, library),
            was_sent=not is_undone and (trace.has_sent or not is_early),
        ) from _scrubbed(exc, library)


def _is_early(exc: Exception, library: Library) -> bool:
    """True where the class of *exc* proves that nothing was sent.

    Transports that httpx did not make turn other libraries' errors into its own, and not with such
    care: a connection that breaks after sending becomes a ConnectError or a ConnectTimeout.
    """
    if isinstance(exc, library.unsent):
        return True
    chain = _chain(exc)
    is_plain = len(chain) == 1 or chain[-1].__cause__ is exc  # as stand-ins in tests raise it
    return isinstance(exc, library.early) and (is_plain or any(map(_is_of_connecting, chain)))


def _is_unprocessed(cause: BaseException | None) -> bool:
    """True where a frame of HTTP/2 says so: REFUSED_STREAM, or GOAWAY that names no stream."""
    frame = cause.args[0] if cause is not None and cause.args else None
    is_refused = (
        getattr(frame, "stream_id", 0) and getattr(frame, "error_code", 0) == REFUSED_STREAM
    )
    return bool(is_refused) or getattr(frame, "last_stream_id", None) == 0


def _is_of_connecting(exc: BaseException) -> bool:
    return isinstance(exc, (ConnectionRefusedError, socket.gaierror))


def _chain(exc: BaseException) -> list[BaseException]:
    """*exc* and what it came of; each once, since causes may go round."""
    chain: list[BaseException] = []
    following: BaseException | None = exc
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def _words(exc: Exception) -> str:
    if type(exc) is TimeoutError:
        return "no whole answer within the timeout"
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _is_passing(exc: BaseException, library: Library) -> bool:
    """False where trying again cannot help: no trust in the certificate, or an unusable URL."""
    return not any(isinstance(one, library.lasting) for one in _chain(exc))


def _scrubbed(exc: Exception, library: Library) -> Exception:
    """*exc* without what it drags along: the frames of the HTTP library have the key in them."""
    exc.__traceback__ = exc.__cause__ = exc.__context__ = None
    if isinstance(exc, library.with_request):
        exc._request = None  # type: ignore[attr-defined]
    return exc
