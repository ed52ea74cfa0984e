"""Runs a command's work on an event loop, and ends it well: at its end, by an error, by a signal.

Ctrl-C and SIGTERM cancel the work. Since nothing can be cancelled at the service, what is
unfinished is named then, with the command that collects it. A second signal ends at once.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import attrs
import click

from ..errors import EggError
from .session import Session
from .trouble import FAILED, complain
from .wording import counted

if TYPE_CHECKING:
    from types import FrameType

    from .. import AsyncEggClient

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[["AsyncEggClient"], Awaitable[int]]

SHOWN_IDS = 10
"""Unfinished ids that are shown in a command; more go to a file."""


def run(
    session: Session, work: Work, *, per_second: float | None = None, folder: Path | None = None
) -> None:
    """Do *work* with a client, and leave with the exit code it gives. Does not return.

    *folder* is where its pictures go, if anywhere: it is made first, before anything is paid.
    """
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        code = attend(session, session.client(per_second=per_second), work, folder=folder)
    except EggError as error:
        code = complain(error)
    except OSError as error:
        if error.errno == errno.EPIPE:  # click knows what to do
            raise
        click.echo(f"error: {error}", err=True)
        code = FAILED
    click.get_current_context().exit(code)


def attend(session: Session, egg: AsyncEggClient, work: Work, *, folder: Path | None = None) -> int:
    """Do *work* with *egg*; the exit code. Says what is unfinished if a signal comes."""
    with _interruptible() as caught:
        try:
            return anyio.run(_closing, egg, work)
        except KeyboardInterrupt:
            _part(session, [task.id for task in egg.unfinished], folder)
            return caught.code
        except BaseExceptionGroup as group:
            raise _first(group) from None


async def _closing(egg: AsyncEggClient, work: Work) -> int:
    async with egg:
        return await work(egg)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def each(
    items: Iterable[T], work: Callable[[T], Awaitable[R]], show: Callable[[T, R | EggError], None]
) -> None:
    """`work(item)` for all *items* at once; *show* is told what came of each, as it comes."""

    async def one(item: T) -> None:
        try:
            result: R | EggError = await work(item)
        except EggError as error:
            result = error
        show(item, result)

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(one, item)


# --- signals -------------------------------------------------------------------------------------


@attrs.define
class Interruption:
    """The exit code that says which signal came."""

    code: int = 128 + signal.SIGINT


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    """SIGTERM does what Ctrl-C does: the work is cancelled, and may clean up."""
    caught = Interruption()

    def terminate(number: int, _: FrameType | None) -> None:
        caught.code = 128 + number
        signal.raise_signal(signal.SIGINT)

    # Shells start background jobs deaf to SIGINT; SIGTERM must end those too.
    previous = [
        (signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)),
        (signal.SIGTERM, signal.signal(signal.SIGTERM, terminate)),
    ]
    try:
        yield caught
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


def _part(session: Session, ids: list[str], folder: Path | None) -> None:
    click.echo("interrupted", err=True)
    if ids and session.is_emulated:
        click.echo(f"{counted(len(ids), 'task')} went with the emulator of this process", err=True)
    elif ids:
        click.echo(
            f"{counted(len(ids), 'task')} not finished yet: the service goes on, and bills what it"
            f" makes. To collect:\n  {to_collect(ids, folder)}",
            err=True,
        )


def to_collect(ids: list[str], folder: Path | None) -> str:
    """The command that collects these tasks; many ids are listed in a file in *folder*."""
    if folder is None:
        return f"eggapi tasks wait {' '.join(ids)}"
    if len(ids) <= SHOWN_IDS:
        return f"eggapi tasks download {' '.join(ids)} -o {folder}"
    listed = folder / "unfinished.txt"
    listed.write_text("\n".join(ids) + "\n", "utf-8")
    return f"eggapi tasks download - -o {folder} < {listed}"
