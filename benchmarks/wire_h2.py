"""A server for the HTTP/2 row of `wire`: every GET is answered `{}`, without TLS.

`python -m benchmarks.wire_h2 LATENCY` prints its port and serves 127.0.0.1 until terminated.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

from .runner import serving
from .scenario import Scenario


def serve_h2(scenario: Scenario) -> AbstractContextManager[str]:
    """The server as a process on a core of its own; gives its origin."""
    return serving(["benchmarks.wire_h2", str(scenario.latency)])


class Connection(asyncio.Protocol):
    """One HTTP/2 connection."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        config = import_module("h2.config").H2Configuration(client_side=False)
        self._h2: Any = import_module("h2.connection").H2Connection(config)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Answer each request whose headers are whole, after the latency."""
        loop = asyncio.get_running_loop()
        for event in self._h2.receive_data(data):
            if type(event).__name__ == "RequestReceived":
                loop.call_later(self._latency, self._answer, event.stream_id)
        self._transport.write(self._h2.data_to_send())

    def _answer(self, stream: int) -> None:
        if self._transport.is_closing():
            return
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
        self._h2.send_data(stream, b"{}", end_stream=True)
        self._transport.write(self._h2.data_to_send())


async def serve(latency: float) -> None:
    """Serve until terminated; the port is the first line of the output."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(latency), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
