"""A client for tests that talks to an application in this very process."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import httpx
import pytest

from eggapi_async import AsyncEggClient, AuthenticationError, ConfigurationError, RetryPolicy
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.virtual_time import on_both


@on_both
async def test_connect_talks_to_the_application() -> None:
    """Every request of the client is answered by the app."""
    emulator = EggEmulator(clock=anyio.current_time)
    async with connect(emulator) as egg:
        result = await egg.run("A cat")
    assert isinstance(egg, AsyncEggClient)
    assert emulator.accepted == [result.id]


@on_both
async def test_downloads_go_to_the_application_too(tmp_path: Any) -> None:
    """The pictures are the app's own, and it never sees the key with them."""
    emulator = EggEmulator(clock=anyio.current_time)
    async with connect(emulator) as egg:
        task = await egg.generate("A cat")
        [path] = await task.save(tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert emulator.leaks == []


async def test_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the process, whatever the URL says."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a socket was connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    async with connect(EggEmulator(clock=anyio.current_time)) as egg:
        assert (await egg.tasks_page()).items == ()


async def test_the_key_may_be_chosen() -> None:
    """An app that knows keys sees the one that was given, `test-key` otherwise."""
    emulator = EggEmulator(clock=anyio.current_time, api_keys=["mine", "test-key"])
    async with connect(emulator, "mine") as egg:
        await egg.tasks_page()
    async with connect(emulator) as egg:
        await egg.tasks_page()
    async with connect(emulator, api_key="theirs") as egg:
        with pytest.raises(AuthenticationError):
            await egg.tasks_page()


async def test_the_options_are_the_clients() -> None:
    """Model and policies reach the client; what it refuses, is refused here."""
    emulator = EggEmulator(clock=anyio.current_time)
    options: dict[str, Any] = {"model": "nanobanana-pro", "retry": RetryPolicy(max_attempts=1)}
    async with connect(emulator, **options) as egg:
        task = await egg.generate("A cat")
    assert task.request is not None
    assert task.request.model == "nanobanana-pro"
    with pytest.raises(ConfigurationError):
        connect(emulator, timeout=-1)
    with pytest.raises(TypeError):
        connect(emulator, colour="red")


async def test_any_asgi_application_will_do() -> None:
    """Nothing is asked of the app but ASGI; its exceptions are errors of this package."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ConnectionResetError

    async with connect(app, retry=RetryPolicy(max_attempts=1)) as egg:
        with pytest.raises(Exception, match="ConnectionReset") as caught:
            await egg.get_task("gen_1")
    assert not isinstance(caught.value, (OSError, httpx.HTTPError))
