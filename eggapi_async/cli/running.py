"""Runs a command's work on an event loop, and ends it well: at its end, by an error, by a signal.

Ctrl-C, SIGTERM and SIGHUP cancel the work: nothing more is sent, and what is being submitted may
end, so that its id is known. Since nothing can be cancelled at the service, what is unfinished is
named then, and after any error, with the command that collects it. A second signal ends at once.
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
    session: Session,
    work: Work,
    *,
    per_second: float | None = None,
    folder: Path | None = None,
    again: str | None = None,
) -> None:
    """Do *work* with a client, and leave with the exit code it gives. Does not return.

    *folder* is where its pictures go, if anywhere: it is made and tried first, before anything is
    paid. *again* is the command that goes on where this one was ended, if there is one.
    """
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            _try_to_write(folder)
        egg = session.client(per_second=per_second)
        code = attend(session, egg, work, folder=folder, again=again)
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


def attend(
    session: Session,
    egg: AsyncEggClient,
    work: Work,
    *,
    folder: Path | None = None,
    again: str | None = None,
    leave: Callable[[int], object] = os._exit,
) -> int:
    """Do *work* with *egg*; the exit code. Says what a signal or an error leaves unfinished.

    *leave* ends the process when a second signal comes.
    """
    with _interruptible(leave) as caught:
        try:
            with _naming_unfinished(session, egg, folder, again):
                return anyio.run(_closing, egg, work, caught)
        except KeyboardInterrupt:
            return caught.code
        except BaseExceptionGroup as group:
            raise _first(group) from None


async def _closing(egg: AsyncEggClient, work: Work, caught: Interruption) -> int:
    with _counting(caught):
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


SHOW_CURSOR = b"\x1b[?25h"
"""What a terminal needs to hear where the live line has hidden its cursor."""


@attrs.define
class Interruption:
    """The exit code that says which signal came last, and how often one came."""

    leave: Callable[[int], object]
    code: int = 128 + signal.SIGINT
    times: int = 0

    def again(self) -> None:
        """One more; the second ends the process, whatever is under way."""
        self.times += 1
        if self.times > 1:
            with suppress(OSError):  # without Python's buffers: they may be in use
                os.write(2, SHOW_CURSOR * os.isatty(2) + b"left at once\n")
            self.leave(self.code)


@contextmanager
def _counting(caught: Interruption) -> Iterator[None]:
    """Count the signals that come while the event loop handles them."""
    cancel = signal.getsignal(signal.SIGINT)
    assert callable(cancel), "the loop hears Ctrl-C"

    def interrupt(number: int, frame: FrameType | None) -> None:
        caught.again()
        cancel(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, cancel)


@contextmanager
def _interruptible(leave: Callable[[int], object]) -> Iterator[Interruption]:
    """SIGTERM and SIGHUP do what Ctrl-C does: the work is cancelled, and may clean up."""
    caught = Interruption(leave)

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
    session: Session, egg: AsyncEggClient, folder: Path | None, again: str | None
) -> Iterator[None]:
    """Say what is unfinished when the block is left by a signal or an error."""
    try:
        yield
    except BaseException as error:
        is_signal = isinstance(error, KeyboardInterrupt)
        said = ["interrupted"] if is_signal else []
        if is_signal or not session.is_emulated:
            ids = [task.id for task in egg.unfinished]
            if again is None:
                said += _unfinished(session, ids, folder)
            elif is_signal or ids:
                said += _to_go_on(ids, again)
        with suppress(OSError):  # after SIGHUP there may be no terminal
            for text in said:
                click.echo(text, err=True)
        raise


def _to_go_on(ids: list[str], again: str) -> list[str]:
    open_ = f"{counted(len(ids), 'task')} not finished yet: the service goes on. " if ids else ""
    return [f"{open_}Nothing is lost; to go on:\n  {again}"]


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
