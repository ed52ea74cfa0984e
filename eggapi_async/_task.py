"""`GenerationTask`: the live handle of a generation, over what the hub knows of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any, Final, Protocol

import anyio

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
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not is_number or not timeout >= 0:  # type: ignore[operator]
        raise InvalidRequestError("timeout", timeout, "seconds from 0, or None")
    return timeout  # type: ignore[return-value]


class Client(Protocol):
    """What a handle needs of the client that made it."""

    async def get_task(self, task_id: str) -> TaskSnapshot:
        """One GET."""

    async def download(
        self, source: TaskSnapshot, destination: str | os.PathLike[str], *, overwrite: bool = False
    ) -> list[Path]:
        """The outputs into files."""


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

    def __await__(self) -> Generator[Any, Any, TaskSnapshot]:
        return self.result().__await__()

    async def result(self, timeout: float | None = WAIT) -> TaskSnapshot:
        """Wait for the end, at most *timeout* seconds (None: for ever); the completed task.

        Raises TaskFailedError when the generation failed, TaskTimeoutError when the time is over:
        the task goes on, and can be awaited again. Passing failures of polls are waited out;
        AuthenticationError, PermissionDeniedError and a lasting NotFoundError end the wait.
        """
        with anyio.move_on_after(checked_timeout(timeout)):
            return await self._hub.result(self._watch)
        if self._watch.is_done:  # it came at the last moment
            return await self._hub.result(self._watch)
        assert timeout is not None, "only a time-out ends the wait without a result"
        raise TaskTimeoutError(self.id, timeout=timeout, snapshot=self.snapshot)

    async def refresh(self) -> TaskSnapshot:
        """Ask for the task once, now (GET /v1/tasks/{id})."""
        task = await self._client.get_task(self.id)
        self._hub.show(task)
        return task

    async def updates(self) -> AsyncIterator[TaskSnapshot]:
        """A snapshot at every change that is seen, beginning with what is known; the last is final.

        A failed task ends the iteration like a completed one, without an error.
        """
        watch, version = self._watch, 0
        while True:
            if watch.version == version:
                await self._hub.change(watch, version)
            version = watch.version
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
