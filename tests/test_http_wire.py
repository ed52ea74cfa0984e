"""The door to httpx: one exchange, its lanes, its proxies, and what its failures prove."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import pickle
import socket
import ssl
import warnings
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import anyio
import httpcore
import httpx
import pytest

from eggapi_async import ConfigurationError, ConnectionFailedError
from eggapi_async._foreign import Trace, mapped
from eggapi_async._lanes import (
    POST_KEEPALIVE,
    Lanes,
    _keepalive,
    _kind_of,
    _Lane,
    _proxy,
    _tls,
    _transport,
)
from eggapi_async._protocol import Answer
from eggapi_async._reach import Reach
from eggapi_async._wire import MAX_BODY, ApiKey, Wire, in_process
from eggapi_async.emulator import EggEmulator
from tests.scripted import KEY
from tests.virtual_time import on_both
from tests.wire import Wire as Server
from tests.wire import answer, close, cut, json_answer, refusing_port, silence

URL = "https://egg.test/v1/tasks"


async def exchange(wire: Wire, url: str = URL, *, method: str = "GET", key: str = KEY) -> Answer:
    body = b"{}" if method == "POST" else None
    return await wire.exchange(method, url, key=ApiKey(key), params={}, body=body, timeout=5.0)


def mocked(answer: httpx.Response | Exception) -> Wire:
    """A wire whose every request has this end, without a network and without progress reports."""

    def serve(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Wire(httpx.AsyncClient(transport=httpx.MockTransport(serve)))


# --- the key ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        *(" ", "a key", None, 7, b"key"),
        pytest.param("key\n", id="a line's end"),
        pytest.param("key\r\nX-Evil: 1", id="a header more"),
        pytest.param("schlüssel", id="a letter beyond ASCII"),
        pytest.param("tab\there", id="a tab"),
    ],
    ids=repr,
)
def test_a_key_that_no_header_can_carry_is_refused(key: Any) -> None:
    """It is a ConfigurationError that does not quote it."""
    with pytest.raises(ConfigurationError) as caught:
        ApiKey(key)
    assert str(caught.value).startswith("api_key: expected a key, visible ASCII characters")
    assert "Evil" not in str(caught.value)


def test_where_there_is_no_key_it_says_where_one_is_looked_for() -> None:
    """Not what a key has to look like."""
    with pytest.raises(ConfigurationError, match=r"^api_key: there is none; .* EGGAPI_API_KEY$"):
        ApiKey("")


def test_a_key_is_neither_shown_nor_pickled() -> None:
    """The object that holds the key keeps it to itself."""
    assert KEY not in repr(ApiKey(KEY)) + str(ApiKey(KEY))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(ApiKey(KEY))


def test_the_key_is_taken_out_of_what_echoes_it() -> None:
    """A debugging proxy may send back what it got."""
    assert ApiKey(KEY).redact(f"got Bearer {KEY}!".encode()) == b"got Bearer ***!"


def test_a_key_as_short_as_a_word_garbles_no_answer() -> None:
    """A test's key such as "id" would else be taken out of the middle of every answer."""
    assert ApiKey("id").redact(b'{"data": {"id": "gen_1"}}') == b'{"data": {"id": "gen_1"}}'


# --- one exchange ----------------------------------------------------------------------------


async def test_an_answer_is_status_headers_and_body() -> None:
    """Header names are lower case, the body is whole."""
    got = await exchange(mocked(httpx.Response(418, headers={"X-Tea": "Pot"}, content=b"tea")))
    assert (got.status, got.headers["x-tea"], got.body) == (418, "Pot", b"tea")


@pytest.mark.real_time
async def test_what_is_sent() -> None:
    """The key as a bearer token, JSON both ways, no compression, nothing else about us."""
    with Server([json_answer({}), json_answer({})]) as server:
        wire = Wire()
        await exchange(wire, server.url + "/v1/generate", method="POST")
        await exchange(wire, server.url + "/v1/tasks")
        await wire.aclose()
    post, get = server.requests
    assert post.headers["authorization"] == get.headers["authorization"] == f"Bearer {KEY}"
    assert post.headers["content-type"] == "application/json"
    assert post.headers["accept"] == "application/json"
    assert post.headers["accept-encoding"] == "identity"
    assert post.headers["user-agent"].startswith("eggapi-async/")
    assert "content-type" not in get.headers
    assert post.body == b"{}"


@pytest.mark.real_time
async def test_no_cookies_are_kept() -> None:
    """What a service sets is not sent back."""
    cookie = {"Set-Cookie": "session=1; Path=/"}
    with Server([answer(200, cookie), answer(200, cookie)]) as server:
        wire = Wire()
        for _ in range(2):
            await exchange(wire, server.url)
        await wire.aclose()
    assert all("cookie" not in request.headers for request in server.requests)


@pytest.mark.real_time
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """The key goes to the API's origin and no further."""
    with Server([]) as elsewhere, Server([answer(status, {"Location": elsewhere.url})]) as server:
        wire = Wire()
        got = await exchange(wire, server.url, method="POST")
        await wire.aclose()
    assert got.status == status
    assert elsewhere.requests == []


async def test_a_client_of_the_callers_own_is_used_and_not_closed() -> None:
    """Whoever brings a client closes it; its redirects are not followed either."""
    http = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda _: httpx.Response(302, headers={"Location": "/x"})),
        follow_redirects=True,
        auth=("somebody", "else"),
    )
    wire = Wire(http)
    assert (await exchange(wire)).status == 302
    assert not wire.is_open
    await wire.aclose()
    assert not http.is_closed
    await http.aclose()


def test_a_client_of_another_kind_is_refused() -> None:
    """A blocking client, or none at all, is a ConfigurationError that names what came."""
    with pytest.raises(ConfigurationError, match=r"an httpx\.AsyncClient or .*, got Client"):
        Wire(httpx.Client(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))  # type: ignore[arg-type]


# --- bodies ----------------------------------------------------------------------------------


def streamed(body: bytes, encoding: str = "identity") -> httpx.Response:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    return httpx.Response(200, headers={"Content-Encoding": encoding}, content=chunks())


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"an egg")),
        ("GZIP", gzip.compress(b"an egg")),
        ("deflate", zlib.compress(b"an egg")),
        ("identity", b"an egg"),
        ("br", b"an egg"),
        ("gzip", b"an egg"),
    ],
    ids=["gzip", "its name in capitals", "deflate", "as it is", "unknown", "gzip that is none"],
)
async def test_a_body_compressed_against_our_wish_is_unpacked(encoding: str, body: bytes) -> None:
    """What cannot be unpacked stays as it came; reading it will say what is wrong."""
    assert (await exchange(mocked(streamed(body, encoding)))).body == b"an egg"


@pytest.mark.parametrize("over", [0, 1], ids=["at the cap", "one byte over"])
async def test_a_body_is_read_up_to_the_cap(over: int) -> None:
    """Eight megabytes are read, one more byte is not."""
    wire = mocked(streamed(b" " * (MAX_BODY + over)))
    if not over:
        assert len((await exchange(wire)).body) == MAX_BODY
        return
    with pytest.raises(ConnectionFailedError, match="more than 8388608 bytes") as caught:
        await exchange(wire)
    assert caught.value.was_sent


async def test_a_bomb_is_not_unpacked_beyond_the_cap() -> None:
    """A few bytes that would become a gigabyte are given up."""
    with pytest.raises(ConnectionFailedError, match="more than 8388608 bytes") as caught:
        await exchange(mocked(streamed(gzip.compress(b" " * (MAX_BODY + 1)), "gzip")))
    assert caught.value.was_sent


# --- failures, and what they prove -----------------------------------------------------------

UNSENT: list[Exception] = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("no answer to SYN"),
    httpx.PoolTimeout(""),
    httpx.ProxyError("CONNECT was refused"),
    httpx.UnsupportedProtocol("gopher"),
    httpx.InvalidURL("no host"),
]
MAYBE_SENT: list[Exception] = [
    httpx.ReadError("reset"),
    httpx.ReadTimeout(""),
    httpx.WriteError("broken pipe"),
    httpx.WriteTimeout(""),
    httpx.CloseError(""),
    httpx.RemoteProtocolError("half a line"),
    httpx.LocalProtocolError("ours"),
    httpx.DecodingError("no gzip"),
    httpx.TooManyRedirects("round"),
    httpx.StreamClosed(),
    ConnectionResetError("by peer"),
    TimeoutError(),
    ssl.SSLError("broken"),
]


@pytest.mark.parametrize("exc", UNSENT, ids=lambda exc: type(exc).__name__)
async def test_what_comes_before_sending_only_proves_that_nothing_was_sent(exc: Exception) -> None:
    """These classes are enough, even from a transport that reports no progress."""
    with pytest.raises(ConnectionFailedError) as caught:
        await exchange(mocked(exc), method="POST")
    assert not caught.value.was_sent


@pytest.mark.parametrize("exc", MAYBE_SENT, ids=lambda exc: type(exc).__name__)
async def test_no_other_failure_proves_anything(exc: Exception) -> None:
    """A transport that reports no progress leaves all others in doubt."""
    with pytest.raises(ConnectionFailedError) as caught:
        await exchange(mocked(exc), method="POST")
    assert caught.value.was_sent
    assert caught.value.is_passing


@pytest.mark.parametrize("exc", [*UNSENT, *MAYBE_SENT], ids=lambda exc: type(exc).__name__)
async def test_headers_that_left_outweigh_the_class_of_the_failure(exc: Exception) -> None:
    """Whatever comes after `send_request_headers.started` may have been taken."""
    trace = Trace()
    await trace("http11.send_request_headers.started", {"request": httpcore_request(b"POST")})
    with pytest.raises(ConnectionFailedError) as caught, mapped(trace):
        raise exc
    assert caught.value.was_sent


@pytest.mark.parametrize("exc", MAYBE_SENT, ids=lambda exc: type(exc).__name__)
async def test_progress_without_headers_proves_that_nothing_was_sent(exc: Exception) -> None:
    """A real connection that failed before the headers left, as in a TLS handshake."""
    trace = Trace()
    await trace("connection.connect_tcp.started", {})
    with pytest.raises(ConnectionFailedError) as caught, mapped(trace):
        raise exc
    assert not caught.value.was_sent


async def test_a_connect_to_a_proxy_is_not_the_request() -> None:
    """What a proxy refuses has not reached the service."""
    trace = Trace()
    await trace("http11.send_request_headers.started", {"request": httpcore_request(b"CONNECT")})
    assert (trace.has_spoken, trace.has_sent) == (True, False)


def httpcore_request(method: bytes) -> Any:
    return httpcore.Request(method, "https://egg.test/")


def test_a_url_that_cannot_work_is_not_tried_again() -> None:
    """Neither is what comes of it in a roundabout way."""
    cause = httpx.UnsupportedProtocol("gopher")
    outer = httpx.ConnectError("failed")
    outer.__cause__ = cause
    with pytest.raises(ConnectionFailedError) as caught, mapped(Trace()):
        raise outer
    assert not caught.value.is_passing


def test_the_cause_is_kept_without_what_it_drags_along() -> None:
    """The original error is there to be read, without its frames and its request."""
    request = httpx.Request("POST", URL, headers={"Authorization": f"Bearer {KEY}"})
    with pytest.raises(ConnectionFailedError) as caught, mapped(Trace()):
        raise httpx.ReadTimeout("slow", request=request) from ValueError(KEY)
    cause = caught.value.__cause__
    assert isinstance(cause, httpx.ReadTimeout)
    assert cause._request is None
    assert (cause.__traceback__, cause.__cause__, cause.__context__) == (None, None, None)
    assert str(caught.value) == "ReadTimeout: slow"


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (TimeoutError(), "no whole answer within the timeout"),
        (httpx.PoolTimeout(""), "PoolTimeout"),
        (httpx.ReadError("reset"), "ReadError: reset"),
    ],
    ids=["our own timeout", "a failure without words", "a failure with words"],
)
def test_a_failure_is_named(exc: Exception, words: str) -> None:
    """The message says what happened, even where the library says nothing."""
    with pytest.raises(ConnectionFailedError) as caught, mapped(Trace()):
        raise exc
    assert str(caught.value) == words


@pytest.mark.real_time
async def test_over_real_sockets_a_refused_connection_was_not_sent() -> None:
    """Nor does the lane that failed stay."""
    wire = Wire()
    with refusing_port() as port, pytest.raises(ConnectionFailedError) as caught:
        await exchange(wire, f"http://127.0.0.1:{port}", method="POST")
    await wire.aclose()
    assert not caught.value.was_sent


@pytest.mark.real_time
async def test_over_real_sockets_a_connection_that_closes_at_once_was_perhaps_sent() -> None:
    """A service that hung up without reading cannot be told from one that took it."""
    wire = Wire()
    with Server([], accept={1: close()}) as server, pytest.raises(ConnectionFailedError) as caught:
        await exchange(wire, server.url, method="POST")
    await wire.aclose()
    assert caught.value.was_sent


# --- lanes -----------------------------------------------------------------------------------


class Slow(httpx.AsyncBaseTransport):
    """A lane's transport whose connection takes a while to close."""

    def __init__(self, seconds: float = 1.0, error: Exception | None = None) -> None:
        self.is_closed = False
        self._seconds = seconds
        self._error = error

    async def aclose(self) -> None:
        await anyio.sleep(self._seconds)
        self.is_closed = True
        if self._error:
            raise self._error


GET = httpx.Request("GET", "http://127.0.0.1:1/")
POST = httpx.Request("POST", "http://127.0.0.1:1/")
KIND = ("http://127.0.0.1:1", False)


@on_both
async def test_a_stale_lane_may_be_closed_while_another_is_taken() -> None:
    """Whoever gives a lane back closes the stale ones, and minds that others go on meanwhile."""
    lanes, old = Lanes(), Slow()
    lanes._idle[KIND] = deque([_Lane(old, KIND)])
    await anyio.sleep(31)
    used = _Lane(Slow(), KIND)
    async with anyio.create_task_group() as group:
        group.start_soon(lanes._check_in, used)
        await anyio.sleep(0.5)
        assert await lanes._check_out(GET) is used
    assert old.is_closed


@on_both
async def test_lanes_of_every_kind_are_closed_when_nobody_needs_them() -> None:
    """A burst of POSTs leaves no sockets behind for as long as there are polls."""
    lanes, post = Lanes(), Slow()
    kind = (KIND[0], True)
    lanes._idle[kind] = deque([_Lane(post, kind)])
    await anyio.sleep(1.1)
    await lanes._check_in(_Lane(Slow(), KIND))
    assert post.is_closed
    assert list(lanes._idle) == [KIND]


@on_both
async def test_a_lane_that_fails_to_close_is_gone_all_the_same() -> None:
    """Closing is the end of it, well or badly."""
    lanes = Lanes()
    lanes._idle[KIND] = deque([_Lane(Slow(error=OSError("gone")), KIND)])
    await lanes.aclose()
    assert not lanes._idle[KIND]


@on_both
async def test_a_lane_in_use_is_closed_when_it_comes_back_after_the_end() -> None:
    """Closing the client does not cut off who is under way."""
    lanes, transport = Lanes(), Slow()
    await lanes.aclose()
    await lanes._check_in(_Lane(transport, KIND))
    assert transport.is_closed


async def test_a_lane_leads_to_one_origin() -> None:
    """Another host may need another proxy, and would cost the connection."""
    lanes = Lanes()
    lane = _Lane(Slow(), KIND)
    await lanes._check_in(lane)
    elsewhere = await lanes._check_out(httpx.Request("GET", "http://127.0.0.1:2/"))
    assert elsewhere is not lane
    assert await lanes._check_out(POST) is not lane
    assert await lanes._check_out(GET) is lane


def test_posts_are_kept_alive_for_a_second_at_most() -> None:
    """A kept connection that the service has closed is the commonest cause of doubt."""
    assert _keepalive(_kind_of(POST)) <= POST_KEEPALIVE <= 0.1
    assert _keepalive(_kind_of(GET)) > 5.0


@pytest.mark.real_time
async def test_a_lane_whose_request_was_cancelled_is_replaced() -> None:
    """The connection is closed, the next request has another."""
    with Server([silence(), answer(200)]) as server:
        wire = Wire()
        async with anyio.create_task_group() as group:
            group.start_soon(exchange, wire, server.url)
            await server.wait_for(lambda it: it.requests)
            group.cancel_scope.cancel()
        assert (await exchange(wire, server.url)).status == 200
        await server.wait_for(lambda it: 1 in it.hung_up)
        await wire.aclose()
    assert [request.connection for request in server.requests] == [1, 2]


class Unclosable(httpx.AsyncByteStream):
    """A body whose connection breaks on being closed."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"egg"

    async def aclose(self) -> None:
        raise httpx.ReadError("broken")


class Breaking(Slow):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Unclosable())


async def test_a_lane_whose_body_does_not_close_is_dropped() -> None:
    """It is not lent to anybody else."""
    lanes, transport = Lanes(), Breaking(0)
    lanes._idle[KIND] = deque([_Lane(transport, KIND, anyio.current_time())])
    response = await lanes.handle_async_request(GET)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    with pytest.raises(httpx.ReadError):
        await response.stream.aclose()
    await response.stream.aclose()
    assert transport.is_closed
    assert not lanes._idle[KIND]


# --- proxies of the environment --------------------------------------------------------------

PROXIES = {
    "HTTPS_PROXY is for https": ({"HTTPS_PROXY": "http://p:1"}, URL, "http://p:1"),
    "ALL_PROXY is for the rest": ({"ALL_PROXY": "http://p:1"}, URL, "http://p:1"),
    "a scheme may be missing": ({"HTTPS_PROXY": "p:1"}, URL, "http://p:1"),
    "lower case works": ({"https_proxy": "http://p:1"}, URL, "http://p:1"),
    "NO_PROXY names the host": ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "egg.test"}, URL, None),
    "NO_PROXY names its domain": ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".test"}, URL, None),
    "NO_PROXY names another": (
        {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "cdn.test"},
        URL,
        "http://p:1",
    ),
    "nothing is set": ({}, URL, None),
    "plain http stays on this machine": (
        {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"},
        "http://127.0.0.1:8000/",
        None,
    ),
}


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(("environment", "url", "expected"), PROXIES.values(), ids=PROXIES)
def test_the_environment_names_the_proxy(
    environment: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY, ALL_PROXY and NO_PROXY mean what they mean elsewhere."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _proxy(httpx.URL(url)) == expected


@pytest.mark.real_time
@pytest.mark.usefixtures("no_proxies")
async def test_a_proxy_is_asked_for_a_tunnel_without_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it refuses was not sent, and it has not seen the key."""
    with Server([answer(403)]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        wire = Wire()
        with pytest.raises(ConnectionFailedError) as caught:
            await exchange(wire, "https://egg.test/v1/generate", method="POST")
        await wire.aclose()
    (request,) = proxy.requests
    assert (request.method, request.path) == ("CONNECT", "egg.test:443")
    assert KEY not in repr(request)
    assert not caught.value.was_sent


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("socks5://user:secret@proxy:1", "socks5://…, needs the package socksio"),
        ("gopher://user:secret@proxy:1", "gopher://…, is not usable"),
        ("http://user:secret@proxy:no", "http://…, is not usable"),
    ],
    ids=["of a kind that needs a package", "of an unknown kind", "that is no URL"],
)
def test_a_proxy_that_cannot_be_used_is_a_matter_of_configuration(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what is wrong, without the password that is in the address."""
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ConfigurationError) as caught:
        _transport(httpx.URL(URL), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), 1.0)
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)


# --- streams, and life -----------------------------------------------------------------------


@pytest.mark.real_time
async def test_a_stream_is_read_as_it_comes_and_without_the_key() -> None:
    """A download is a GET of which nobody knows whose it is."""
    with Server([answer(200, {"ETag": '"1"'}, b"an egg")]) as server:
        wire = Wire(reach=Reach.of((), origin=server.url))
        async with wire.stream(server.url, {"Range": "bytes=0-"}) as stream:
            assert (stream.status, stream.headers["etag"]) == (200, '"1"')
            assert b"".join([chunk async for chunk in stream.chunks()]) == b"an egg"
        await wire.aclose()
    (request,) = server.requests
    assert "authorization" not in request.headers
    assert request.headers["range"] == "bytes=0-"


@pytest.mark.real_time
async def test_a_stream_that_breaks_off_is_a_failed_connection() -> None:
    """No exception of httpx leaves the door."""
    with Server([cut(b"an egg")]) as server:
        wire = Wire(reach=Reach.of((), origin=server.url))
        with pytest.raises(ConnectionFailedError):
            await _read_to_its_end(wire, server.url)
        await wire.aclose()


async def _read_to_its_end(wire: Wire, url: str) -> None:
    async with wire.stream(url, {}) as stream:
        async for _ in stream.chunks():
            pass


async def test_a_stream_that_cannot_begin_is_a_failed_connection() -> None:
    """Neither at its beginning."""
    with pytest.raises(ConnectionFailedError):
        async with mocked(httpx.ConnectError("refused")).stream(URL, {}):
            pass


async def test_a_stream_may_have_been_made_from_bytes() -> None:
    """An answer that a test made has no stream, and can be read like one."""
    async with mocked(httpx.Response(200, content=b"egg")).stream(URL, {}) as stream:
        assert [chunk async for chunk in stream.chunks()] == [b"egg"]


async def test_an_application_in_this_process_is_reached_without_a_network() -> None:
    """`in_process` needs no socket; virtual time would refuse one."""
    async with in_process(EggEmulator(clock=anyio.current_time)) as http:
        assert (await exchange(Wire(http))).status == 200


@pytest.mark.real_time
async def test_a_closed_wire_opens_again_when_it_is_used() -> None:
    """Closing twice is fine, and so is going on afterwards."""
    with Server([answer(200), answer(200)]) as server:
        wire = Wire()
        assert not wire.is_open
        await exchange(wire, server.url)
        assert wire.is_open
        await wire.aclose()
        await wire.aclose()
        assert not wire.is_open
        await exchange(wire, server.url)
        await wire.aclose()
    assert [request.connection for request in server.requests] == [1, 2]


@pytest.mark.real_time
def test_a_pool_belongs_to_its_event_loop() -> None:
    """Closing from another loop leaves the connections to their own, which has ended."""
    with Server([answer(200)]) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        wire = Wire()
        asyncio.run(_exchange_and_leave(wire, server.url))
        asyncio.run(wire.aclose())
        assert not wire.is_open


async def _exchange_and_leave(wire: Wire, url: str) -> None:
    await exchange(wire, url)


async def test_a_callers_client_that_was_closed_is_refused_in_words() -> None:
    """httpx would raise a bare RuntimeError."""
    http = httpx.AsyncClient()
    await http.aclose()

    with pytest.raises(ConfigurationError, match="closed"):
        await exchange(Wire(http))


async def test_certificates_that_cannot_be_read_are_a_matter_of_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was connected, let alone sent: no submission is in doubt for it."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    _tls.cache_clear()
    wire = Wire()
    try:
        with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
            await exchange(wire, method="POST")
    finally:
        _tls.cache_clear()
        await wire.aclose()


# --- transports that others made -------------------------------------------------------------


def raised(outer: Exception, *inner: Exception) -> Exception:
    """*outer* as it is caught: raised from the first of the *inner*, that from the next."""
    for exc, cause in itertools.pairwise((outer, *inner)):
        exc.__cause__ = cause
    return outer


LOOSELY_MAPPED: dict[str, Callable[[], Exception]] = {
    "a reset as a ConnectError": lambda: raised(
        httpx.ConnectError("reset"), aiohttp.ClientOSError(104, "reset"), ConnectionResetError()
    ),
    "a hang-up as a ConnectTimeout": lambda: raised(
        httpx.ConnectTimeout("gone"), aiohttp.ServerDisconnectedError()
    ),
    "a proxy's answer as a ProxyError": lambda: raised(
        httpx.ProxyError("no"), RuntimeError("who knows")
    ),
}


@pytest.mark.parametrize("make", LOOSELY_MAPPED.values(), ids=LOOSELY_MAPPED)
async def test_a_transport_of_others_may_call_anything_a_failed_connection(
    make: Callable[[], Exception],
) -> None:
    """httpx-aiohttp calls a reset after the request so: it is no proof that nothing was sent."""
    with pytest.raises(ConnectionFailedError) as caught:
        await exchange(mocked(make()), method="POST")
    assert caught.value.was_sent


OF_CONNECTING: dict[str, Callable[[], Exception]] = {
    "refused": lambda: raised(
        httpx.ConnectError("refused"), ConnectionRefusedError(111, "refused")
    ),
    "no such name": lambda: raised(
        httpx.ConnectTimeout("?"), aiohttp.ClientError(), socket.gaierror(-2, "unknown")
    ),
    "no connection free, of whatever it came": lambda: raised(
        httpx.PoolTimeout(""), RuntimeError("busy")
    ),
    "a URL that cannot be, of whatever it came": lambda: raised(
        httpx.InvalidURL("?"), RuntimeError()
    ),
    "what a stand-in re-raises from itself": lambda: raised(
        round_trip := httpx.ConnectError("mocked"), RuntimeError("side effect"), round_trip
    ),
}


@pytest.mark.parametrize("make", OF_CONNECTING.values(), ids=OF_CONNECTING)
async def test_a_transport_of_others_may_prove_that_nothing_was_sent(
    make: Callable[[], Exception],
) -> None:
    """By what the system said when it was to connect; causes that go round are read once."""
    with pytest.raises(ConnectionFailedError) as caught:
        await exchange(mocked(make()), method="POST")
    assert not caught.value.was_sent
