"""For tests of your own: a client that talks to an application in this very process, time that
jumps, and webhooks that are signed.

Nothing here opens a socket. With pytest there are fixtures of all that (`pytest --fixtures`), and
docs/testing.md shows them at work.
"""

from __future__ import annotations

from typing import Any

from .._wire import in_process
from ..client import AsyncEggClient
from .virtual import (
    DeadlockError,
    LeftoverTaskError,
    RealSocketError,
    VirtualLoop,
    pytest_asyncio_loop_factories,
    run_virtual,
    virtual_clock,
)
from .webhooks import WebhookSender

__all__ = [
    "DeadlockError",
    "LeftoverTaskError",
    "RealSocketError",
    "VirtualLoop",
    "WebhookSender",
    "connect",
    "pytest_asyncio_loop_factories",
    "run_virtual",
    "virtual_clock",
]


def connect(app: Any, api_key: str = "test-key", **options: Any) -> AsyncEggClient:
    """A client whose requests all go to the ASGI application *app*, such as an `EggEmulator`.

    *options* are those of `AsyncEggClient`.
    """
    return AsyncEggClient(api_key, http_client=in_process(app), **options)
