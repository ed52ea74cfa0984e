"""For tests of your own: a client that talks to an application in this very process.

Nothing here opens a socket.
"""

from __future__ import annotations

from typing import Any

from ._wire import in_process
from .client import AsyncEggClient

__all__ = ["connect"]


def connect(app: Any, api_key: str = "test-key", **options: Any) -> AsyncEggClient:
    """A client whose requests all go to the ASGI application *app*, such as an `EggEmulator`.

    *options* are those of `AsyncEggClient`.
    """
    return AsyncEggClient(api_key, http_client=in_process(app), **options)
