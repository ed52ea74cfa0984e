"""Runs a command's work on an event loop, and ends it well: at its end, by an error, by a signal.

Ctrl-C, SIGTERM and SIGHUP cancel the work. Since nothing can be cancelled at the service, what is
unfinished is named then, and after any error, with the command that collects it. A second signal
ends at once.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
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

    *folder* is where its pictures go, if anywhere: it is made and tried first, before anything is
    paid.
    """
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            _try_to_write(folder)
        code = attend(session, session.client(per_second=per_second), work, folder=folder)
    except EggError as error:
        code = complain(error)
    except OSError as error:
        if error.errno == errno.EPIPE:  # click knows what to do
            raise
        click.echo(f"error: {error}", err=True)
        code = FAILED
    click.get_current_context().exit(code)


def _try_to_write(folder: Path) -> None:
    """Raises OSError where no file can be made."""
    probe = folder / f".eggapi-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        problem = f"{folder}: nothing can be written here"
        raise OSError(f"{problem} ({error.strerror})") from error


def attend(session: Session, egg: AsyncEggClient, work: Work, *, folder: Path | None = None) -> int:
    """Do *work* with *egg*; the exit code. Says what a signal or an error leaves unfinished."""
    with _interruptible() as caught:
        try:
            with _naming_unfinished(session, egg, folder):
                return anyio.run(_closing, egg, work)
        except KeyboardInterrupt:
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
    """SIGTERM and SIGHUP do what Ctrl-C does: the work is cancelled, and may clean up."""
    caught = Interruption()

    def terminate(number: int, _: FrameType | None) -> None:
        caught.code = 128 + number
        signal.raise_signal(signal.SIGINT)

    # Shells start background jobs deaf to SIGINT; SIGTERM must end those too.
    previous = [
        (signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)),
        (signal.SIGTERM, signal.signal(signal.SIGTERM, terminate)),
    ]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:  # nohup stays nohup
        previous.append((hangup, signal.signal(hangup, terminate)))
    try:
        yield caught
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


@contextmanager
def _naming_unfinished(
    session: Session, egg: AsyncEggClient, folder: Path | None
) -> Iterator[None]:
    """Say what is unfinished when the block is left by a signal or an error."""
    try:
        yield
    except BaseException as error:
        is_signal = isinstance(error, KeyboardInterrupt)
        said = ["interrupted"] if is_signal else []
        if is_signal or not session.is_emulated:
            said += _unfinished(session, [task.id for task in egg.unfinished], folder)
        with suppress(OSError):  # after SIGHUP there may be no terminal
            for text in said:
                click.echo(text, err=True)
        raise


def _unfinished(session: Session, ids: list[str], folder: Path | None) -> list[str]:
    if not ids:
        return []
    if session.is_emulated:
        return [f"{counted(len(ids), 'task')} went with the emulator of this process"]
    return [
        f"{counted(len(ids), 'task')} not finished yet: the service goes on, and bills what it"
        f" makes. To collect:\n  {to_collect(ids, folder)}"
    ]


def to_collect(ids: list[str], folder: Path | None) -> str:
    """The command that collects these tasks; many ids are listed in a file in *folder*, if it can
    be written."""
    if folder is None:
        return f"eggapi tasks wait {' '.join(ids)}"
    if len(ids) > SHOWN_IDS:
        listed = folder / "unfinished.txt"
        with suppress(OSError):
            listed.write_text("\n".join(ids) + "\n", "utf-8")
            return f"eggapi tasks download - -o {folder} < {listed}"
    return f"eggapi tasks download {' '.join(ids)} -o {folder}"
