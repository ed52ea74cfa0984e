"""Reads from a pipe without keeping anybody waiting."""

from __future__ import annotations

import queue
from collections.abc import AsyncGenerator, Iterator
from threading import Thread
from typing import Final, TypeVar

import anyio

T = TypeVar("T")

_LINES_AHEAD: Final = 100
_LOOK: Final = 0.02
"""Seconds between looks at what came from a pipe."""


async def from_pipe(lines: Iterator[T]) -> AsyncGenerator[T, None]:
    """*lines*, read by a thread: a pipe may be silent for long, and nothing else may wait for it.

    The thread is abandoned when nobody wants its lines any more, since no read can be interrupted.
    """
    came: queue.Queue[T | BaseException | None] = queue.Queue(_LINES_AHEAD)
    Thread(target=_read, args=(lines, came), daemon=True).start()
    while True:
        try:
            line = came.get_nowait()
        except queue.Empty:
            await anyio.sleep(_LOOK)
            continue
        if line is None:
            return
        if isinstance(line, BaseException):
            raise line
        yield line


def _read(lines: Iterator[T], came: queue.Queue[T | BaseException | None]) -> None:
    try:
        for line in lines:
            came.put(line)
        came.put(None)
    except Exception as error:  # raised where the lines are wanted
        came.put(error)
