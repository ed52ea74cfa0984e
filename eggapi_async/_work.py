"""What a client is doing just now, counted, so that closing can wait for it to end.

A door to the event loop, and no more: it knows nothing of what it counts, and stops nobody.
"""

from __future__ import annotations

from types import TracebackType

import anyio


class Work:
    """Enter it around a piece of work; `ended` waits until nothing is inside."""

    def __init__(self) -> None:
        self._inside = 0
        self._nothing: anyio.Event | None = None

    def __enter__(self) -> None:
        self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside -= 1
        if self._nothing is not None and not self._inside:
            self._nothing.set()

    async def ended(self) -> None:
        """Wait until nothing is inside: not even what the last to leave went on with at once."""
        while self._inside:
            self._nothing = anyio.Event()
            await self._nothing.wait()
