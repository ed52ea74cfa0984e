"""A scripted HTTP/1.1 server on a real socket, for tests where the wire itself is the point.

The rule: it does byte for byte what its script says, and tells afterwards what it received. One
thread per connection with blocking sockets, so that clients on any event loop can talk to it;
tests that use it are marked `real_time`. It listens on 127.0.0.1 only, on a port of the system's
choice, and at its end every thread and socket is gone. A request beyond the end of the script is
an error of the test and raised at the end of the `with` block.

    with Wire([reset(), answer(202, body=b"{}")]) as server:
        ...  # server.url, server.requests

A script is a sequence with one step for each request, in the order in which the requests were
read, or a function from the request to a step. `accept` maps connection numbers (from 1) to steps
that are played at once, before anything is read.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final, Literal, Self

import anyio
import attrs
import h11

HOST: Final = "127.0.0.1"
_NONE: Final[Mapping[int, Step]] = MappingProxyType({})
_MAX_JOIN_SECONDS: Final = 5.0


@attrs.frozen
class Received:
    """A request that was read to its end."""

    number: int
    """Counted over the whole server, from 1."""
    connection: int
    """Counted in the order of acceptance, from 1."""
    method: str
    path: str
    """The target as it was sent, with its query."""
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    at: float
    """Seconds of `time.monotonic()` when the last byte had been read."""


class Talk:
    """One accepted connection, as the steps of a script see it."""

    def __init__(self, sock: socket.socket, *, number: int, stop: threading.Event) -> None:
        self.number = number
        self.open = True
        self.hung_up = False
        self.idle_seconds: float | None = None
        self._sock = sock
        self._stop = stop
        self._rest = b""
        self._has_read = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send `data`."""
        self._sock.sendall(data)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the server."""
        if self._stop.wait(seconds):
            raise ConnectionAbortedError("the server ends")

    def wait_for_end(self) -> None:
        """Ignore whatever comes until the client hangs up or the server ends."""
        while self._receive():
            pass
        self.open = False

    def take(self, count: int) -> None:
        """Read so many bytes of a request and forget them; fewer if the client hangs up."""
        self._has_read = False
        while count > 0 and (data := self._sock.recv(count)):
            count -= len(data)

    def fin(self) -> None:
        """Close in good order. Unread bytes are drained first: they would make it a reset."""
        with contextlib.suppress(OSError):  # the client has hung up before us
            self._sock.shutdown(socket.SHUT_WR)
        if not self._has_read:
            self.wait_for_end()
        self._close()

    def rst(self) -> None:
        """Close by a TCP reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def abort(self) -> None:
        """Wake the thread that reads from this connection; for another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        self.open = False
        self._sock.close()

    def _receive(self) -> bytes:
        data = self._sock.recv(65536)
        self.hung_up = not data and not self._stop.is_set()
        return data

    def read(self) -> tuple[h11.Request, bytes] | None:
        """The next request and its body; None when the client hung up or was idle too long."""
        parser, body, request = h11.Connection(h11.SERVER), b"", None
        parser.receive_data(self._rest or self._receive_within(self.idle_seconds))
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                parser.receive_data(self._receive())
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:  # the connection was closed between two requests
                return None
        assert request is not None
        self._rest, self._has_read, self.idle_seconds = parser.trailing_data[0], True, None
        return request, body

    def _receive_within(self, seconds: float | None) -> bytes:
        self._sock.settimeout(seconds)
        try:
            return self._receive()
        except TimeoutError:
            return b""
        finally:
            self._sock.settimeout(None)


Step = Callable[[Talk], None]
Script = Sequence[Step] | Callable[[Received], Step]


class Wire:
    """The server: a context manager that serves between enter and exit."""

    def __init__(self, script: Script, *, accept: Mapping[int, Step] = _NONE) -> None:
        self.requests: list[Received] = []
        self._script = script
        self._accept = accept
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failures: list[Exception] = []
        self._talks: list[Talk] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self._start(self._listen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        if self._failures and error is None:
            raise self._failures[0]

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return len(self._talks)

    @property
    def hung_up(self) -> set[int]:
        """Numbers of the connections of which the server saw that the client closed them."""
        return {talk.number for talk in self._talks if talk.hung_up}

    async def wait_for(self, seen: Callable[[Wire], object], *, seconds: float = 5.0) -> None:
        """Return once `seen(server)` is true; `TimeoutError` after so many real seconds."""
        with anyio.fail_after(seconds):
            while not seen(self):
                await anyio.sleep(0.001)

    def _start(self, function: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=function, args=args, name=f"wire:{self.port}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _end(self) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):  # wakes accept(), which nothing else does everywhere
            socket.create_connection((HOST, self.port), timeout=1).close()
        self._threads[0].join(_MAX_JOIN_SECONDS)
        self._listener.close()
        for talk in self._talks:
            talk.abort()
        for thread in self._threads:
            thread.join(_MAX_JOIN_SECONDS)
            assert not thread.is_alive(), "a step of the script does not end"

    def _listen(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._stop.is_set():
                return sock.close()
            talk = Talk(sock, number=len(self._talks) + 1, stop=self._stop)
            self._talks.append(talk)
            self._start(self._serve, talk, sock)

    def _serve(self, talk: Talk, sock: socket.socket) -> None:
        with sock:
            try:
                self._converse(talk)
            except (ConnectionError, h11.RemoteProtocolError):
                return  # the client left, or the server ends
            except Exception as exc:
                self._failures.append(exc)

    def _converse(self, talk: Talk) -> None:
        if greeting := self._accept.get(talk.number):
            greeting(talk)
        while talk.open and (message := talk.read()):
            self._next_step(talk, *message)(talk)

    def _next_step(self, talk: Talk, request: h11.Request, body: bytes) -> Step:
        with self._lock:
            received = Received(
                number=len(self.requests) + 1,
                connection=talk.number,
                method=request.method.decode(),
                path=request.target.decode(),
                headers={name.decode(): value.decode() for name, value in request.headers},
                body=body,
                at=time.monotonic(),
            )
            self.requests.append(received)
        return self._script(received) if callable(self._script) else self._planned(received)

    def _planned(self, received: Received) -> Step:
        assert isinstance(self._script, Sequence)
        if received.number > len(self._script):
            raise AssertionError(f"the script has no step for {received}")
        return self._script[received.number - 1]


def answer(
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    idle_seconds: float | None = None,
) -> Step:
    """A whole answer. The kept connection is closed when idle for `idle_seconds`, if given."""

    def step(talk: Talk) -> None:
        talk.idle_seconds = idle_seconds
        talk.send(_head(status, {"Content-Length": str(len(body)), **(headers or {})}) + body)
        if idle_seconds == 0:
            talk.fin()

    return step


def json_answer(value: object, status: int = 200, **headers: str) -> Step:
    """A whole answer with a JSON body."""
    body = json.dumps(value).encode()
    return answer(status, {"Content-Type": "application/json", **headers}, body)


def html_answer(status: int = 502, text: str = "<html><h1>502 Bad Gateway</h1></html>") -> Step:
    """What a proxy in front of the service says."""
    return answer(status, {"Content-Type": "text/html; charset=utf-8"}, text.encode())


def early_hints(then: Step) -> Step:
    """An informational 103, and then another step."""

    def step(talk: Talk) -> None:
        talk.send(_head(103, {"Link": "</style.css>; rel=preload"}))
        then(talk)

    return step


def midway(count: int, then: Step) -> Step:
    """Read so many bytes of the next request, not all of it, and then another step."""

    def step(talk: Talk) -> None:
        talk.take(count)
        then(talk)

    return step


def both(first: Step, then: Step) -> Step:
    """One step and then another."""

    def step(talk: Talk) -> None:
        first(talk)
        then(talk)

    return step


def flood(count: int, *, every: float) -> Step:
    """So many 103s, one every so many real seconds, and then nothing."""

    def step(talk: Talk) -> None:
        for _ in range(count):
            talk.send(_head(103, {"Link": "</style.css>"}))
            talk.pause(every)
        talk.wait_for_end()

    return step


def later(seconds: float, then: Step) -> Step:
    """Another step, after real `seconds` of silence."""

    def step(talk: Talk) -> None:
        talk.pause(seconds)
        then(talk)

    return step


def close() -> Step:
    """No answer: the connection is closed in good order (FIN)."""
    return Talk.fin


def reset() -> Step:
    """No answer: the connection is reset (RST)."""
    return Talk.rst


def silence() -> Step:
    """No answer, ever; the connection stays open until the client or the server ends."""
    return Talk.wait_for_end


def half_status(then: Step = Talk.fin) -> Step:
    """The first half of a status line and then the end."""
    return raw(b"HTTP/1.1 20", then=then)


def raw(data: bytes, *, then: Step | None = None) -> Step:
    """Exactly these bytes and then another step, if any."""

    def step(talk: Talk) -> None:
        talk.send(data)
        if then:
            then(talk)

    return step


def drip(
    body: bytes,
    *,
    every: float,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    head_too: bool = False,
) -> Step:
    """A whole answer, one byte every so many real seconds; its head at once unless `head_too`."""
    head = _head(status, {"Content-Length": str(len(body)), **(headers or {})})

    def step(talk: Talk) -> None:
        quick, slow = (b"", head + body) if head_too else (head, body)
        talk.send(quick)
        for byte in slow:
            talk.pause(every)
            talk.send(bytes([byte]))

    return step


def cut(
    body: bytes,
    *,
    framing: Literal["length", "chunked", "close"] = "length",
    missing: int = 10,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    then: Step = Talk.fin,
) -> Step:
    """An answer that breaks off after `body`: `missing` bytes short, or a chunk open, or unframed.

    Unframed (`close`), only a reset (`then=reset()`) tells a cut from the end.
    """
    framings = {
        "length": ({"Content-Length": str(len(body) + missing)}, body),
        "chunked": ({"Transfer-Encoding": "chunked"}, b"%x\r\n%b" % (len(body) + missing, body)),
        "close": ({"Connection": "close"}, body),
    }
    framed, data = framings[framing]
    return raw(_head(status, {**framed, **(headers or {})}) + data, then=then)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port on which connecting is refused, for as long as the block lasts."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))  # bound but not listening: nobody else can get it
        yield sock.getsockname()[1]
