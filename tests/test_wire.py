"""The scripted server does byte for byte what it is told, and leaves nothing behind."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator

import anyio
import httpx
import pytest

from tests.wire import (
    HOST,
    Received,
    Script,
    Step,
    Talk,
    Wire,
    answer,
    close,
    cut,
    drip,
    early_hints,
    half_status,
    html_answer,
    json_answer,
    later,
    raw,
    refusing_port,
    reset,
    silence,
)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """A server leaves no thread behind."""
    yield
    assert [one.name for one in threading.enumerate() if one.name.startswith("wire:")] == []


def plain_get(server: Wire) -> socket.socket:
    """A connection on which a GET has been written and nothing read."""
    sock = socket.create_connection((HOST, server.port), timeout=5)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return sock


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    """One empty context for all: making httpx's own takes longer than a test."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def http(tls: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5, trust_env=False, verify=tls) as client:
        yield client


ANSWERS: dict[str, tuple[Step, int, bytes]] = {
    "a plain answer": (answer(201, {"X-A": "b"}, b"body"), 201, b"body"),
    "an empty answer": (answer(), 200, b""),
    "a JSON answer": (json_answer({"data": None}, 404), 404, b'{"data": null}'),
    "a proxy's page": (html_answer(), 502, b"<html><h1>502 Bad Gateway</h1></html>"),
    "an answer after early hints": (early_hints(answer(body=b"late")), 200, b"late"),
    "an answer after a pause": (later(0.01, answer(body=b"late")), 200, b"late"),
    "a dripping body": (drip(b"drip", every=0.001), 200, b"drip"),
    "a dripping answer": (drip(b"", every=0.0001, head_too=True), 200, b""),
    "a body ended by closing": (cut(b"all", framing="close"), 200, b"all"),
    "bytes of one's own": (raw(b"HTTP/1.1 204 \r\n\r\n"), 204, b""),
}


@pytest.mark.parametrize(("step", "status", "body"), ANSWERS.values(), ids=ANSWERS)
def test_a_step_answers(http: httpx.Client, step: Step, status: int, body: bytes) -> None:
    """A client gets the status and the body of the script."""
    with Wire([step]) as server:
        got = http.get(server.url)
    assert (got.status_code, got.content) == (status, body)


BREAKS: dict[str, tuple[Step, type[Exception], str]] = {
    "closed without an answer": (close(), httpx.RemoteProtocolError, "without sending"),
    "reset without an answer": (reset(), httpx.ReadError, "reset"),
    "half a status line": (half_status(), httpx.RemoteProtocolError, "without sending"),
    "half a status line, reset": (half_status(reset()), httpx.ReadError, "reset"),
    "a body short of its length": (cut(b"abc"), httpx.RemoteProtocolError, "received 3 bytes, exp"),
    "a chunk left open": (cut(b"abc", framing="chunked"), httpx.RemoteProtocolError, "incomplete"),
    "a reset in the body": (
        cut(b"abc", framing="close", then=later(0.02, reset())),
        httpx.ReadError,
        "reset",
    ),
    "silence": (silence(), httpx.ReadTimeout, "timed out"),
}


@pytest.mark.parametrize(("step", "error", "text"), BREAKS.values(), ids=BREAKS)
def test_a_step_breaks(http: httpx.Client, step: Step, error: type[Exception], text: str) -> None:
    """A client sees the break of the script as its own error."""
    http.timeout = httpx.Timeout(0.2)
    with Wire([step]) as server, pytest.raises(error, match=text):
        http.get(server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("step", "end"), [(close(), b""), (reset(), ConnectionResetError)], ids=["FIN", "RST"]
)
def test_a_connection_may_end_before_anything_is_read(
    step: Step, end: bytes | type[Exception]
) -> None:
    """At accept the end is a clean FIN or a RST, even if the client has written already."""
    with Wire([], accept={1: later(0.02, step)}) as server, plain_get(server) as sock:
        try:
            seen: object = sock.recv(10)
        except ConnectionResetError as exc:
            seen = type(exc)
        assert seen == end
    assert (server.connections, server.requests) == (1, [])


def test_a_clean_end_at_accept_is_not_followed_by_a_reset() -> None:
    """After its FIN the server takes in what the client still writes, and drops it."""
    with Wire([], accept={1: close()}) as server, plain_get(server) as sock:
        assert sock.recv(10) == b""
        for _ in range(20):
            sock.sendall(b"more")
            time.sleep(0.001)
        assert sock.recv(10) == b""
    assert server.requests == []


def test_only_the_chosen_connection_is_refused(http: httpx.Client) -> None:
    """`accept` counts connections from one; the others are served."""
    with Wire([answer(body=b"second")], accept={1: reset()}) as server:
        with pytest.raises(httpx.TransportError):
            http.get(server.url)
        assert http.get(server.url).content == b"second"
    assert [request.connection for request in server.requests] == [2]


def test_requests_are_recorded(http: httpx.Client) -> None:
    """Method, target, headers, body, connection and time of every request are kept."""
    begin = time.monotonic()
    with Wire([answer(), answer(202)]) as server:
        http.post(f"{server.url}/v1/a?b=c", content=b"x" * 200_000, headers={"X-Test": "Yes"})
        http.put(f"{server.url}/d", content=iter([b"chun", b"ked"]))
    first, second = server.requests
    assert (first.number, first.connection, first.method) == (1, 1, "POST")
    assert (first.path, first.headers["x-test"]) == ("/v1/a?b=c", "Yes")
    assert first.body == b"x" * 200_000
    assert (second.number, second.connection, second.method) == (2, 1, "PUT")
    assert second.body == b"chunked"
    assert begin <= first.at <= second.at <= time.monotonic()


def test_a_script_may_be_a_function(http: httpx.Client) -> None:
    """A function decides by the request."""

    def script(request: Received) -> Step:
        return answer(200 + request.number, body=request.path.encode())

    with Wire(script) as server:
        got = [http.get(f"{server.url}/{name}") for name in "ab"]
    assert [(one.status_code, one.content) for one in got] == [(201, b"/a"), (202, b"/b")]


@pytest.mark.parametrize("seconds", [0, 0.02], ids=["at once", "after a while"])
def test_an_idle_connection_is_closed(seconds: float) -> None:
    """After its answer a kept connection is closed when it was idle for so long."""
    script = [answer(body=b"ok", idle_seconds=seconds)]
    with Wire(script) as server, plain_get(server) as sock, sock.makefile("rb") as file:
        begin = time.monotonic()
        received = file.read()
        assert time.monotonic() - begin >= seconds
    assert received.endswith(b"\r\n\r\nok")


def test_a_busy_connection_is_not_closed(http: httpx.Client) -> None:
    """The next request in time lifts the limit on idleness."""
    limits: list[float | None] = []

    def watch(talk: Talk) -> None:
        limits.append(talk.idle_seconds)
        answer()(talk)

    with Wire([answer(idle_seconds=30), watch]) as server:
        http.get(server.url)
        http.get(server.url)
    assert [request.connection for request in server.requests] == [1, 1]
    assert limits == [None]


def test_connections_are_served_at_the_same_time(http: httpx.Client) -> None:
    """A silent connection does not hinder another one."""
    with Wire([silence(), answer(body=b"other")]) as server, plain_get(server):
        anyio.run(server.wait_for, lambda server: server.requests)
        assert http.get(server.url).content == b"other"


@pytest.mark.real_time
async def test_a_client_that_hangs_up_is_noticed(tls: ssl.SSLContext) -> None:
    """A silent connection tells when its client has gone; others are not named."""
    with Wire([silence()]) as server:
        async with httpx.AsyncClient(trust_env=False, verify=tls) as http:
            with anyio.move_on_after(0.05):
                await http.get(server.url)
        await server.wait_for(lambda server: server.hung_up)
        assert server.hung_up == {1}
    assert server.hung_up == {1}


def test_a_server_that_ends_was_not_hung_up_on() -> None:
    """The end of the server is not taken for a client's."""
    with Wire([silence()]) as server, plain_get(server):
        anyio.run(server.wait_for, lambda server: server.requests)
        server.__exit__(None, None, None)
        assert server.hung_up == set()


@pytest.mark.real_time
async def test_waiting_for_what_never_comes_is_an_error() -> None:
    """`wait_for` gives up after its timeout."""
    with Wire([]) as server, pytest.raises(TimeoutError):
        await server.wait_for(lambda server: server.requests, seconds=0.01)


SLOW: dict[str, Script] = {
    "silent": [silence()],
    "pausing": [later(60, answer())],
    "dripping": [drip(b"a" * 60, every=1)],
    "idle": [answer(idle_seconds=60)],
}


@pytest.mark.parametrize("script", SLOW.values(), ids=SLOW)
def test_the_server_ends_at_once(script: Script) -> None:
    """Whatever it is doing, its end takes no time."""
    with Wire(script) as server:
        sock = plain_get(server)
        anyio.run(server.wait_for, lambda server: server.requests)
        begin = time.monotonic()
    assert time.monotonic() - begin < 30
    sock.close()


def test_a_request_beyond_the_script_is_an_error(http: httpx.Client) -> None:
    """The test is told at the end that the script was too short."""
    too_short = pytest.raises(AssertionError, match=r"no step for Received\(.*path='/more'")
    closed = pytest.raises(httpx.RemoteProtocolError)
    with too_short, Wire([]) as server, closed:
        http.get(f"{server.url}/more")


def test_the_error_of_the_test_comes_first(http: httpx.Client) -> None:
    """A failure inside the block is not hidden by one of the script."""
    with pytest.raises(httpx.RemoteProtocolError), Wire([]) as server:
        http.get(server.url)


def test_a_port_can_refuse(http: httpx.Client) -> None:
    """Connecting to a refusing port fails at once."""
    with refusing_port() as port, pytest.raises(httpx.ConnectError):
        http.get(f"http://{HOST}:{port}")


def test_nothing_listens_after_the_end(http: httpx.Client) -> None:
    """The port is closed with the server."""
    with Wire([]) as server:
        url = server.url
    with pytest.raises(httpx.ConnectError):
        http.get(url)
