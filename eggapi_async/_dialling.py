"""How a download connects: the name is resolved, its addresses are checked, and one is dialled.

What is dialled is the address that was checked, so that a name that leads elsewhere the next time
it is asked for (DNS rebinding) gains nothing; TLS and the request still go by the name. Where a
proxy connects in our place, the proxy resolves, and what it refuses is its own affair.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import anyio
import httpcore

from ._reach import Reach, no_way
from .errors import ConnectionFailedError


async def resolved(host: str, port: int) -> list[str]:
    """The addresses of *host*, each once."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(info[4][0] for info in found))


class Dialling(httpcore.AsyncNetworkBackend):
    """Connects within *reach* only."""

    def __init__(
        self,
        reach: Reach,
        *,
        resolve: Callable[[str, int], Awaitable[list[str]]] = resolved,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._reach = reach
        self._resolve = resolve
        self._backend = httpcore.AnyIOBackend() if backend is None else backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to *host*. Raises ConnectionFailedError where it has no address that may be.

        The older addresses (IPv4) are tried first: where only they work, the others hang.
        """
        ends = anyio.current_time() + (math.inf if timeout is None else timeout)
        addresses = await self._addresses(host, port, timeout)
        admitted = self._reach.admitted(host, port, addresses)
        if not admitted:
            raise ConnectionFailedError(no_way(host, addresses), is_passing=False, was_sent=False)
        admitted.sort(key=lambda address: ":" in address)

        async def dial(address: str, left: int) -> httpcore.AsyncNetworkStream:
            share = max(0.0, ends - anyio.current_time()) / left
            return await self._backend.connect_tcp(
                address, port, share, local_address, socket_options
            )

        for left, address in zip(range(len(admitted), 1, -1), admitted, strict=False):
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await dial(address, left)
        return await dial(admitted[-1], 1)

    async def _addresses(self, host: str, port: int, timeout: float | None) -> list[str]:
        try:
            with anyio.fail_after(timeout):
                return await self._resolve(host, port)
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(f"no address of {host} in time") from exc
        except OSError as exc:
            raise httpcore.ConnectError(str(exc)) from exc
