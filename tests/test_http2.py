"""A caller's client that speaks HTTP/2, whose frames can prove that a request was not processed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import httpx
import httpx2
import pytest

from eggapi_async import AsyncEggClient, SubmissionUncertainError
from tests.scripted import data, task

CODES = h2.errors.ErrorCodes
CLIENTS = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


class Service:
    """Speaks HTTP/2; the first *troubles* requests are ended as *how* says, the others taken."""

    def __init__(self, how: str, troubles: int) -> None:
        self._how = how
        self._troubles = troubles
        self.requests = 0
        self.taken = 0
        self.connections: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.connections.add(asyncio.current_task())
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while received := await reader.read(65_536):
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.StreamEnded):
                    self._end(connection, event.stream_id)
            writer.write(connection.data_to_send())
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def _end(self, connection: Any, stream: int) -> None:
        self.requests += 1
        if self.requests > self._troubles:
            self.taken += 1
            connection.send_headers(stream, [(":status", "202")])
            connection.send_data(stream, json.dumps(data(task())).encode(), end_stream=True)
        elif self._how == "refused":
            connection.reset_stream(stream, CODES.REFUSED_STREAM)
        elif self._how == "broken":
            connection.reset_stream(stream, CODES.INTERNAL_ERROR)
        else:
            last = 0 if self._how == "going away before it" else stream
            connection.close_connection(last_stream_id=last)


@asynccontextmanager
async def service(how: str, troubles: int) -> AsyncIterator[tuple[Service, str]]:
    """One that listens, and where."""
    one = Service(how, troubles)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    yield one, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await asyncio.gather(*filter(None, one.connections))


@CLIENTS
@pytest.mark.parametrize("troubles", [1, 3])
@pytest.mark.parametrize("how", ["refused", "going away before it"])
@pytest.mark.real_time
async def test_what_was_not_processed_is_sent_again(library: Any, how: str, troubles: int) -> None:
    """REFUSED_STREAM, and GOAWAY that names no stream, say that nothing was done."""
    async with service(how, troubles) as (one, url):
        async with library.AsyncClient(http1=False, http2=True, trust_env=False) as http:
            async with AsyncEggClient("http2-key", base_url=url, http_client=http) as egg:
                await egg.generate("An egg")

    assert (one.requests, one.taken) == (troubles + 1, 1)


@CLIENTS
@pytest.mark.parametrize("how", ["broken", "going away after it"])
@pytest.mark.real_time
async def test_what_may_have_been_processed_is_not(library: Any, how: str) -> None:
    """Any other end of a stream leaves a doubt."""
    async with service(how, 1) as (one, url):
        async with library.AsyncClient(http1=False, http2=True, trust_env=False) as http:
            async with AsyncEggClient("http2-key", base_url=url, http_client=http) as egg:
                with pytest.raises(SubmissionUncertainError):
                    await egg.generate("An egg")

    assert one.requests == 1
