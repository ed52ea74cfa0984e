"""A content host in process: plays scripted answers, piece by piece, and tells what it was asked.

The rule: it is a transport of the HTTP client, so a body can pause or break off between any two
pieces in virtual time. Where the framing on the wire is the point, `wire.py` is used instead.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import httpx

from eggapi_async import AsyncEggClient, TaskSnapshot

Piece = bytes | float | Exception
"""Bytes to send, virtual seconds to wait, or an exception to break off with."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(data: bytes) -> bytes:
    """A PNG of the service's kind: what a client need not understand is in it, too."""
    parts = [(b"IHDR", bytes(13)), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def jpeg(data: bytes, small: bytes = b"") -> bytes:
    """A JPEG with a *small* picture inside, an escape and a restart in its *data*."""
    inside = b"\xff\xe1" + (2 + len(small)).to_bytes(2, "big") + small
    scan = b"\xff\xda\x00\x04\x01\x00" + data + b"\xff\x00\xff\xd0"
    return b"\xff\xd8" + inside + scan + b"\xff\xff\xd9"


def webp(data: bytes) -> bytes:
    """A WebP whose header tells its size."""
    return b"RIFF" + (8 + len(data)).to_bytes(4, "little") + b"WEBPVP8 " + data


def gif(data: bytes) -> bytes:
    """A GIF with a table of two colours, an extension, and *data* as that of its picture."""
    blocks = b"".join(bytes([len(data[n:][:9])]) + data[n:][:9] for n in range(0, len(data), 9))
    screen = b"GIF89a" + bytes(4) + b"\x80" + bytes(2) + b"\x3b" * 6
    return screen + b"\x21\xf9\x01\x3b\x00" + b"\x2c" + bytes(9) + b"\x02" + blocks + b"\x00\x3b"


PNG = png(bytes(range(20)))
JPEG = jpeg(bytes(range(20)))
WEBP = webp(bytes(range(40)))
MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(range(40))


@attrs.frozen
class Reply:
    """One answer; without *length* none is stated, and the end of the body is all there is."""

    pieces: Sequence[Piece] = ()
    status: int = 200
    headers: dict[str, str] = attrs.field(factory=dict)
    length: int | None = None

    def response(self) -> httpx.Response:
        """What the HTTP client gets."""
        stated = {} if self.length is None else {"Content-Length": str(self.length)}
        headers = {**stated, **self.headers}
        return httpx.Response(self.status, headers=headers, stream=_Body(self.pieces))


class _Body(httpx.AsyncByteStream):
    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, float):
                await anyio.sleep(piece)
            else:
                yield piece


def whole(content: bytes = PNG, **headers: str) -> Reply:
    """All of *content*, with its length."""
    return Reply([content], headers=_dashed(headers), length=len(content))


def broken(content: bytes, at: int, **headers: str) -> Reply:
    """The first *at* bytes under the length of all, then a reset."""
    return Reply(
        [content[:at], httpx.ReadError("reset")], headers=_dashed(headers), length=len(content)
    )


def part(content: bytes, start: int, **headers: str) -> Reply:
    """206 with what follows *start*."""
    rest, last = content[start:], len(content) - 1
    where = {"Content-Range": f"bytes {start}-{last}/{len(content)}"}
    return Reply([rest], status=206, headers={**where, **_dashed(headers)}, length=len(rest))


def says(status: int, body: bytes = b"", **headers: str) -> Reply:
    """Some other answer."""
    return Reply([body], status=status, headers=_dashed(headers), length=len(body))


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


Play = Callable[[httpx.Request], Reply]


class Host(httpx.AsyncBaseTransport):
    """Plays one answer for each request, or asks a function for each."""

    def __init__(self, *replies: Reply, play: Play | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self._replies = list(replies)
        self._play = play

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The next answer."""
        self.requests.append(request)
        reply = self._play(request) if self._play else self._replies.pop(0)
        return reply.response()

    @property
    def urls(self) -> list[str]:
        """What was asked for."""
        return [str(request.url) for request in self.requests]

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [request.headers.get("range") for request in self.requests]


@asynccontextmanager
async def customer(host: httpx.AsyncBaseTransport, **options: Any) -> AsyncIterator[AsyncEggClient]:
    """A client whose every request goes to *host*."""
    async with httpx.AsyncClient(transport=host) as http:
        async with AsyncEggClient("the-secret-key", http_client=http, **options) as egg:
            yield egg


def finished(*urls: str, task_id: str = "gen_1") -> TaskSnapshot:
    """A completed task with its outputs at *urls*."""
    return TaskSnapshot(
        id=task_id, status="completed", url=urls[0] if urls else None, urls=tuple(urls)
    )
