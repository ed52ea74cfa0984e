"""`GenerationTask`: the live handle of a generation, over what the hub knows of it."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any, Final, Protocol

import anyio

from ._downloads import MAX_BYTES
from ._hub import Hub, Watch
from .errors import InvalidRequestError, TaskTimeoutError
from .models import GenerationRequest, TaskSnapshot

__all__ = ["GenerationTask"]

WAIT: Final = 600.0
"""Seconds: a 4k picture has been seen to take 282."""


def checked_timeout(timeout: object) -> float | None:
    """*timeout* if it is a wait: seconds, or None. Raises InvalidRequestError."""
    if timeout is None:
        return None
    return checked_seconds("timeout", timeout, "seconds from 0, or None")


def checked_seconds(field: str, value: object, expected: str) -> float:
    """*value* if it is a number from 0. Raises InvalidRequestError."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not value >= 0:  # type: ignore[operator]
        raise InvalidRequestError(field, value, expected)
    return value  # type: ignore[return-value]


class Client(Protocol):
    """What a handle needs of the client that made it."""

    async def get_task(self, task_id: str) -> TaskSnapshot:
        """One GET."""

    async def download(
        self, source: TaskSnapshot, destination: str | os.PathLike[str], *, overwrite: bool = False
    ) -> list[Path]:
        """The outputs into files."""

    async def read(self, source: TaskSnapshot, index: int = 0, *, max_bytes: int = ...) -> bytes:
        """One output in memory."""

    async def read_all(self, source: TaskSnapshot, *, max_bytes: int = ...) -> list[bytes]:
        """All outputs in memory."""


class GenerationTask:
    """A generation that was submitted: await it, watch it, save its pictures.

    Any number of coroutines may wait for one task; all waits of a client share one poll. Handles of
    one task are equal.
    """

    __slots__ = ("_client", "_hub", "_watch")

    def __init__(self, watch: Watch, *, hub: Hub, client: Client) -> None:
        self._watch = watch
        self._hub = hub
        self._client = client

    def __repr__(self) -> str:
        return f"<GenerationTask {self.id} {self.status or 'not looked at yet'}>"

    def _repr_html_(self) -> str:
        from . import _display

        prompt = self.request.prompt if self.request else ""
        return _display.handle(self.id, self.snapshot, prompt=prompt)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationTask) and other._watch is self._watch

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """The service's id, `gen_…`; `egg.task(id)` makes a handle from it, in any process."""
        return self._watch.task_id

    @property
    def request(self) -> GenerationRequest | None:
        """What was asked for; None for a handle made from an id."""
        return self._watch.request

    @property
    def snapshot(self) -> TaskSnapshot | None:
        """The task as it was last seen; None for a handle made from an id and never looked at."""
        return self._watch.snapshot

    @property
    def status(self) -> str | None:
        """The last status seen, in the service's word."""
        return self._watch.snapshot.status if self._watch.snapshot else None

    @property
    def done(self) -> bool:
        """True when the task has ended, well or badly, as far as is known."""
        return self._watch.is_done

    @property
    def elapsed(self) -> float | None:
        """Seconds since the service took the task, for "still drawing, 12 s"; once it has ended,
        what it took.

        None where this client did not submit it, and its end is not known either. While it is
        open, only where an event loop runs.
        """
        task, since = self._watch.snapshot, self._watch.since
        if task is not None and task.created_at and task.completed_at:
            return (task.completed_at - task.created_at).total_seconds()
        return None if since is None else max(0.0, anyio.current_time() - since)

    def __await__(self) -> Generator[Any, Any, TaskSnapshot]:
        return self.result().__await__()

    async def result(self, timeout: float | None = WAIT) -> TaskSnapshot:
        """Wait for the end, at most *timeout* seconds (None: for ever); the completed task.

        Raises TaskFailedError when the generation failed, TaskTimeoutError when the time is over:
        the task goes on, and can be awaited again. Passing failures of polls are waited out;
        AuthenticationError, PermissionDeniedError and a lasting NotFoundError end the wait.
        """
        if timeout is None:
            return await self._hub.result(self._watch)
        with anyio.move_on_after(checked_timeout(timeout)):
            return await self._hub.result(self._watch)
        if self._watch.is_done:  # it came at the last moment
            return await self._hub.result(self._watch)
        raise TaskTimeoutError(self.id, timeout=timeout, snapshot=self.snapshot)

    async def refresh(self) -> TaskSnapshot:
        """Ask for the task once, now (GET /v1/tasks/{id})."""
        task = await self._client.get_task(self.id)
        self._hub.show(task)
        return task

    def updates(self, *, every: float = 0.0) -> AsyncIterator[TaskSnapshot]:
        """A snapshot at every change that is seen, beginning with what is known; the last is final.

        At most one comes in *every* seconds, which is what chat platforms allow for edits of a
        message: changes in between are left out. The final one is never left out, and comes at
        once. A failed task ends the iteration like a completed one, without an error. Raises
        InvalidRequestError.
        """
        seconds = checked_seconds("every", every, "seconds from 0")
        return self._updates(seconds)

    async def _updates(self, every: float) -> AsyncIterator[TaskSnapshot]:
        watch, version, due = self._watch, 0, -math.inf
        while True:
            if watch.version == version:
                await self._hub.change(watch, version)
            while not watch.is_done and anyio.current_time() < due:
                with anyio.CancelScope(deadline=due):
                    await self._hub.change(watch, watch.version)
            version, due = watch.version, anyio.current_time() + every
            assert watch.snapshot is not None, "a version beyond the first has a snapshot"
            task = watch.snapshot
            yield task
            if task.is_final:
                return

    async def save(
        self,
        destination: str | os.PathLike[str],
        *,
        timeout: float | None = WAIT,
        overwrite: bool = False,
    ) -> list[Path]:
        """Wait if needed, then download every output; see `AsyncEggClient.download`."""
        task = await self.result(timeout)
        return await self._client.download(task, destination, overwrite=overwrite)

    async def read(
        self, index: int = 0, *, timeout: float | None = WAIT, max_bytes: int = MAX_BYTES
    ) -> bytes:
        """Wait if needed, then fetch one output into memory, the first unless *index* says so.

        For whoever hands pictures on, as a bot does; see `AsyncEggClient.read`.
        """
        task = await self.result(timeout)
        return await self._client.read(task, index, max_bytes=max_bytes)

    async def read_all(
        self, *, timeout: float | None = WAIT, max_bytes: int = MAX_BYTES
    ) -> list[bytes]:
        """Wait if needed, then fetch every output into memory; *max_bytes* bounds each."""
        task = await self.result(timeout)
        return await self._client.read_all(task, max_bytes=max_bytes)
