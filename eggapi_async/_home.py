"""Where a client lives: in one process, on one event loop at a time.

Loops may follow each other. Two that run at once (in two threads), or a process and its fork, would
share connections, waiters and clocks that belong to one of them: answers could cross, and wake-ups
get lost. So whoever comes second is told in words, before anything is sent. Knows neither asyncio
nor trio: what it asks of a loop, it asks of anyio's token.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import Any

import anyio.lowlevel

from .errors import WrongLoopError


class Home:
    """The place of *what*, which its errors name."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._token: Any = None
        self._process = 0
        self._lock = Lock()

    def arrive(self) -> Any:
        """This event loop's token, from now on the home. Raises WrongLoopError."""
        self.check_process()
        token = anyio.lowlevel.current_token()
        if token != self._token:
            with self._lock:
                self._move(token)
        return token

    def _move(self, token: Any) -> None:
        if self._token is not None and _is_running(self._token):
            raise WrongLoopError(
                f"{self._what}: in use on another event loop, which is still running: make one for"
                " each thread, or hand the work over (asyncio.run_coroutine_threadsafe)"
            )
        self._token, self._process = token, os.getpid()

    def check_process(self) -> None:
        """Raises WrongLoopError in a process that was forked from the one that it was used in."""
        if self._process not in (0, os.getpid()):
            raise WrongLoopError(
                f"{self._what}: was in use before this process was forked: make one in each process"
            )


def _is_running(token: Any) -> bool:
    loop = token.native_token
    if hasattr(loop, "is_running"):  # asyncio's
        return bool(loop.is_running())
    try:
        loop.run_sync_soon(_nothing)  # trio's
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    pass
