"""What provably never reached the service heals by itself, over real TLS and through a proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from eggapi_async import ConnectionFailedError, RetryPolicy
from eggapi_async._lanes import _tls
from tests.scripted import client_of

QUICK = RetryPolicy(base_delay=0.001)
IN_A_ROW = 3
BODY = b'{"data": {"id": "gen_1", "status": "pending", "model": "m", "type": "t"}}'
ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

Prelude = Callable[[socket.socket, int], Awaitable[bool]]
"""What happens on a connection (counted from 1) before TLS; False: that was all."""


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def reset_in_the_handshake(sock: socket.socket, number: int) -> bool:
    """The first few are reset when their first message has come."""
    if number > IN_A_ROW:
        return True
    await asyncio.get_running_loop().sock_recv(sock, 65536)
    _reset(sock)
    return False


async def refuse_the_tunnel(sock: socket.socket, number: int) -> bool:
    """A proxy that refuses the first few, each in another way, and then makes a tunnel."""
    loop = asyncio.get_running_loop()
    head = b""
    while b"\r\n\r\n" not in head:
        head += await loop.sock_recv(sock, 65536)
    assert head.startswith(b"CONNECT 127.0.0.1:")
    status = {1: b"403 No", 2: b"502 Bad Gateway", 3: b"503 Busy"}.get(number, b"200 OK")
    await loop.sock_sendall(sock, b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
    if number > IN_A_ROW:
        return True
    sock.close()
    return False


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _accept(
    door: socket.socket, context: ssl.SSLContext, prelude: Prelude, serve: Serve
) -> None:
    loop = asyncio.get_running_loop()

    def streams() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

    for number in range(1, 100):
        sock, _ = await loop.sock_accept(door)
        if await prelude(sock, number):
            await loop.connect_accepted_socket(streams, sock, ssl=context)


@asynccontextmanager
async def front(
    context: ssl.SSLContext, prelude: Prelude
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a service behind *prelude*, and the submissions that it took."""
    taken: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            if chunk.startswith(b"POST"):
                taken.append(chunk)
                writer.write(ANSWER)
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        accepting = asyncio.ensure_future(_accept(door, context, prelude, serve))
        try:
            yield door.getsockname()[1], taken
        finally:
            accepting.cancel()
            await asyncio.wait((accepting,))
            while len(asyncio.all_tasks()) > 1:  # connections that are served to their end
                await asyncio.sleep(0.001)


@pytest.mark.real_time
@pytest.mark.parametrize("through_proxy", [False, True], ids=["a handshake", "a tunnel"])
async def test_what_fails_before_the_request_heals(
    through_proxy: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three in a row, and then it is bought exactly once."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _tls.cache_clear()
    try:
        prelude = refuse_the_tunnel if through_proxy else reset_in_the_handshake
        async with front(context, prelude) as (port, taken):
            if through_proxy:
                monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
                monkeypatch.setenv("NO_PROXY", "")
            async with client_of(f"https://127.0.0.1:{port}", retry=QUICK, timeout=30.0) as egg:
                assert (await egg.generate("An egg")).id == "gen_1"
                assert egg.stats.retries == IN_A_ROW
        assert len(taken) == 1
    finally:
        _tls.cache_clear()


@pytest.mark.real_time
async def test_a_service_that_takes_no_connection_was_sent_nothing() -> None:
    """Its queue is full, and connecting is never answered: a failed connection, and no doubt."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as door:
        address = door.getsockname()
        crowd = [socket.socket() for _ in range(8)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(address)
        try:
            once = RetryPolicy(max_attempts=2, base_delay=0.001)
            url = f"http://127.0.0.1:{address[1]}"
            async with client_of(url, retry=once, timeout=0.1) as egg:
                with pytest.raises(ConnectionFailedError) as caught:
                    await egg.generate("An egg")
                assert egg.stats.retries == 1
            assert not caught.value.was_sent
        finally:
            for one in crowd:
                one.close()
