"""How far it is, on stderr: one live line at a terminal, a plain line now and then elsewhere.

It only looks: what it shows is asked of a function whenever there is something to draw.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from threading import Event, Thread
from typing import TYPE_CHECKING

import attrs
import click

from ..errors import dollars
from .wording import clock

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from .session import Session

PAUSE = 10.0
"""Seconds between plain lines."""
BAR_WIDTH = 28
"""Columns; a narrow terminal gets a bar twice as wide, above the words."""


@attrs.frozen(kw_only=True)
class Tally:
    """How things stand: items by what became of them, and since when, in seconds.

    *already* of those that are done were so before, by an earlier run.
    """

    done: int
    failed: int
    running: int
    total: int | None
    images: int
    spent: Decimal
    elapsed: float
    already: int = 0

    @property
    def ended(self) -> int:
        """Items that need no more waiting."""
        return self.done + self.failed

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at this pace; None where nobody knows.

        Once all are under way the pace says nothing: the last ones take as long as they take.
        """
        new = self.ended - self.already
        if self.total is None or not new or self.ended + self.running >= self.total:
            return None
        return self.elapsed / new * (self.total - self.ended)

    def words(self) -> str:
        """The tally as one line of text."""
        of = "" if self.total is None else f" of {self.total:,}"
        parts = [f"{self.done:,}{of} done"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        parts.append(f"{self.running:,} running")
        if self.images and self.elapsed > 0:
            parts.append(f"{self.images / self.elapsed * 60:,.0f} images/min")
        parts += [dollars(self.spent), clock(self.elapsed)]
        if self.left is not None:
            parts.append(f"{clock(self.left)} left")
        return " · ".join(parts)


Look = Callable[[], Tally]
Put = Callable[[str], None]
"""Writes a line of data to stdout."""


def progress(session: Session, look: Look) -> AbstractContextManager[Put]:
    """Show what *look* sees while the block runs; gives what writes data without disturbing it."""
    if session.is_quiet:
        return _nothing()
    from rich.console import Console

    console = Console(stderr=True)
    is_live = console.is_terminal and not console.is_dumb_terminal and not session.verbosity
    return _live(console, look, is_shared=sys.stdout.isatty()) if is_live else _plain(look)


@contextmanager
def _nothing() -> Iterator[Put]:
    yield click.echo


@contextmanager
def _plain(look: Look, pause: float = PAUSE) -> Iterator[Put]:
    over = Event()

    def tell() -> None:
        while not over.wait(pause):
            click.echo(look().words(), err=True)

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield click.echo
    finally:
        over.set()
        teller.join()


@contextmanager
def _live(console: Console, look: Look, *, is_shared: bool) -> Iterator[Put]:
    """*is_shared*: stdout is the same terminal."""
    from rich.live import Live
    from rich.text import Text

    started = time.monotonic()

    def draw() -> RenderableType:
        return drawn(look(), width=console.width, moment=time.monotonic() - started)

    def put(line: str) -> None:
        if is_shared:  # above the live line, not through it
            console.print(Text(line), soft_wrap=True)
        else:
            click.echo(line)

    with Live(
        console=console,
        get_renderable=draw,
        refresh_per_second=10,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield put


def drawn(tally: Tally, *, width: int, moment: float) -> RenderableType:
    """The tally as a bar and words; *moment* (seconds) moves a bar whose end is not known."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    words = Text(tally.words(), style="dim", no_wrap=True, overflow="ellipsis")
    is_narrow = width < len(words) + BAR_WIDTH + 2
    bar = ProgressBar(
        total=tally.total or None,
        completed=tally.ended,
        width=min(width, 2 * BAR_WIDTH) if is_narrow else BAR_WIDTH,
        pulse=not tally.total,
        animation_time=moment,
        complete_style="yellow",
        finished_style="yellow",
    )
    grid = Table.grid(padding=(0, 2))
    for row in [(bar,), (words,)] if is_narrow else [(bar, words)]:
        grid.add_row(*row)
    return grid
