"""The fake service as a process of its own: HTTP/1.1 with keep-alive on a bare asyncio protocol.

`python -m benchmarks.server SCENARIO` prints its port, serves 127.0.0.1 until it is terminated, and
tells at `/_report` when every task ended. Half of the added latency passes before a request is
looked at, half after: an answer is as old as it would be on a real network.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from .dialects import NOT_FOUND, REFUSED, Answer, answer
from .scenario import Scenario
from .world import World

REASONS = {200: "OK", 201: "Created", 202: "Accepted", 404: "Not Found", 429: "Too Many Requests"}


class Connection(asyncio.Protocol):
    """One connection; a client's next request comes after the answer to the last."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self._origin = f"http://{host}:{port}"

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._pending += data
        while (size := _size(self._pending)) and size <= len(self._pending):
            head, self._pending = self._pending[:size], self._pending[size:]
            method, target, _ = head[: head.index(b"\r\n")].decode("latin-1").split(" ", 2)
            self._take(method, target)

    def _take(self, method: str, target: str) -> None:
        if target == "/_report":
            self._send((200, self._world.report()))
            return
        now, latency = time.monotonic(), self._world.scenario.latency
        if not self._world.admits(now + latency / 2):
            reply = REFUSED
        elif target == "/_nothing":
            reply = 200, b"{}"
        else:
            reply = answer(self._world, method, target, origin=self._origin, now=now + latency / 2)
        asyncio.get_running_loop().call_later(latency, self._send, reply)

    def _send(self, reply: Answer) -> None:
        status, body = reply
        pause = "Retry-After: 1\r\n" if status == 429 and self._world.scenario.retry_after else ""
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
            f"{pause}Content-Length: {len(body)}\r\n\r\n"
        )
        if not self._transport.is_closing():
            self._transport.write(head.encode() + body)


def _size(data: bytes) -> int:
    """Bytes of the first request in *data*; 0 while its head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    return end + 4 + length


async def serve(scenario: Scenario) -> None:
    """Serve until terminated; the port is the first line of the output."""
    world = World(scenario, now=time.monotonic(), wall_now=time.time())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(world), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


__all__ = ["NOT_FOUND", "Connection", "serve"]

if __name__ == "__main__":
    asyncio.run(serve(Scenario(**json.loads(sys.argv[1]))))
