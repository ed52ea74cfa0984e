"""What is dialled is an address that was checked: injected names, and a network that only notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpcore
import pytest

from eggapi_async._dialling import Dialling, resolved
from eggapi_async._reach import Reach
from eggapi_async.errors import ConnectionFailedError
from tests.virtual_time import on_both

PUBLIC = Reach.of((), origin="https://api.eggapi.ai")


class Network(httpcore.AsyncNetworkBackend):
    """Notes who is dialled, and when; the addresses in *ends* fail as they say."""

    def __init__(self, **ends: Exception | float) -> None:
        self.dialled: list[tuple[str, int]] = []
        self.at: list[float] = []
        self._ends = ends

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> httpcore.AsyncNetworkStream:
        """Note it, and be as the address is: dead, silent, or there."""
        self.dialled.append((host, port))
        self.at.append(anyio.current_time())
        assert timeout is not None
        end = self._ends.get(host, 0.0)
        if isinstance(end, Exception):
            raise end
        with anyio.move_on_after(timeout) as waiting:
            await anyio.sleep(end)
        if waiting.cancelled_caught:
            raise httpcore.ConnectTimeout
        return httpcore.AsyncMockStream([])


def dialling(network: Network, *addresses: str | Exception | float) -> Dialling:
    """To a host that has these addresses, or none, or none for so many seconds."""

    async def resolve(host: str, port: int) -> list[str]:
        for one in addresses:
            if isinstance(one, Exception):
                raise one
            if isinstance(one, float):
                await anyio.sleep(one)
        return [one for one in addresses if isinstance(one, str)]

    return Dialling(PUBLIC, resolve=resolve, backend=network)


@on_both
async def test_the_checked_address_is_dialled_and_not_the_name() -> None:
    """So that nobody asks for the name a second time."""
    network = Network()
    await dialling(network, "8.8.8.8").connect_tcp("cdn.test", 443, 5.0)
    assert network.dialled == [("8.8.8.8", 443)]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fe80::1%1"])
async def test_a_name_that_leads_inside_is_not_dialled(address: str) -> None:
    """Whoever says so; trying again is no use."""
    network = Network()
    with pytest.raises(ConnectionFailedError, match=f"cdn.test is at {address}, which") as caught:
        await dialling(network, address).connect_tcp("cdn.test", 443, 5.0)
    assert network.dialled == []
    assert not caught.value.is_passing
    assert not caught.value.was_sent


async def test_of_many_addresses_only_those_outside_are_dialled() -> None:
    """A name may have both: inside and outside a company."""
    network = Network(**{"8.8.8.8": httpcore.ConnectError()})
    door = dialling(network, "10.0.0.1", "8.8.8.8", "::1", "8.8.4.4")
    await door.connect_tcp("cdn.test", 443, 5.0)
    assert network.dialled == [("8.8.8.8", 443), ("8.8.4.4", 443)]


async def test_the_older_addresses_go_first() -> None:
    """In their order; where the newer do not work, that is often noticed by silence only."""
    network = Network(**{"8.8.8.8": httpcore.ConnectError(), "1.1.1.1": httpcore.ConnectTimeout()})
    door = dialling(network, "2606:4700::1", "8.8.8.8", "1.1.1.1")
    await door.connect_tcp("cdn.test", 443, 5.0)
    assert [host for host, _ in network.dialled] == ["8.8.8.8", "1.1.1.1", "2606:4700::1"]


async def test_each_gets_its_share_of_the_time() -> None:
    """The first may not use up what the others need, and all together have no more."""
    network = Network(**dict.fromkeys(["1.1.1.1", "8.8.8.8", "9.9.9.9"], 100.0))
    began = anyio.current_time()
    with pytest.raises(httpcore.ConnectTimeout):
        await dialling(network, "1.1.1.1", "8.8.8.8", "9.9.9.9").connect_tcp("cdn.test", 443, 6.0)
    assert [at - began for at in network.at] == [0.0, 2.0, 4.0]
    assert anyio.current_time() - began == pytest.approx(6.0)


async def test_without_a_time_limit_it_is_waited_for() -> None:
    """As httpcore's own backends do."""
    network = Network(**{"8.8.8.8": 1000.0})
    await dialling(network, "8.8.8.8").connect_tcp("cdn.test", 443)
    assert network.dialled == [("8.8.8.8", 443)]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(OSError("Name or service not known"), httpcore.ConnectError, id="no name"),
        pytest.param(100.0, httpcore.ConnectTimeout, id="a resolver that is silent"),
    ],
)
async def test_a_name_without_an_address(
    answer: Exception | float, kind: Callable[..., Exception]
) -> None:
    """Is a connection that was not made: it may be tried again."""
    network = Network()
    with pytest.raises(kind):  # type: ignore[call-overload]
        await dialling(network, answer, "8.8.8.8").connect_tcp("cdn.test", 443, 5.0)
    assert network.dialled == []


@pytest.mark.real_time
async def test_the_system_resolves() -> None:
    """Each address once, not once for each protocol."""
    assert await resolved("127.0.0.1", 443) == ["127.0.0.1"]
