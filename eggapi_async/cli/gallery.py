"""`eggapi gallery`: one page beside the pictures that shows what came of a batch."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import JournalError, dollars
from .session import Session, pass_session, with_json
from .trouble import FAILED
from .wording import counted

if TYPE_CHECKING:
    from ..gallery import GalleryItem, Totals

NAME = "index.html"
_OURS = b'<meta name="generator" content="eggapi-async '
_START = 4096
"""Bytes of a page within which it says what made it."""


@click.command(short_help="Make a web page of the pictures in a folder.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--title", metavar="TEXT", help="What stands at the top.  [default: DIR's name]")
@click.option(
    "--log",
    "logs",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `batch --json` printed, if it is kept elsewhere; repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace an index.html of another program.")
@with_json
@pass_session
def gallery(
    session: Session, folder: Path, title: str | None, logs: tuple[Path, ...], overwrite: bool
) -> None:
    """Write DIR/index.html, which shows the pictures in DIR, their prompts, and what failed.

    \b
    eggapi gallery out
    eggapi batch prompts.txt -o out --json > log.jsonl
    eggapi gallery out --log log.jsonl

    The page needs no network and no server: open it, or copy the folder and send it. Prompts and
    costs come from the journal and the records in DIR; without any, pictures are shown by name.
    """
    from .records import rows

    try:
        items = rows(folder, logs)
        if not items:
            raise OSError(f"{folder}: no pictures and no record of any")
        path = write(folder, items, title=title or folder.resolve().name, overwrite=overwrite)
    except (OSError, JournalError) as error:
        click.echo(f"error: {error}", err=True)
        click.get_current_context().exit(FAILED)
    _tell(session, path, items)


def write(
    folder: Path, items: Iterable[GalleryItem], *, title: str, overwrite: bool = False
) -> Path:
    """Write the page of *items* into *folder*, whole or not at all; its path.

    Raises OSError where it cannot be written, FileExistsError for a page that is not a gallery.
    """
    from ..gallery import chunks

    path = folder / NAME
    if not overwrite:
        check(folder)
    part = folder / f".{NAME}.{secrets.token_hex(6)}.part"
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(chunks(items, title=title))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def check(folder: Path) -> None:
    """Raises FileExistsError where *folder* has a page that is not a gallery."""
    path = folder / NAME
    if path.exists() and not _is_ours(path):
        raise FileExistsError(
            f"{path} exists already, and is no gallery (`eggapi gallery --overwrite` replaces it)"
        )


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _OURS in file.read(_START)


def show(session: Session, folder: Path) -> None:
    """Write the page of a batch that has just ended, and say where it is. Raises OSError."""
    from .records import rows

    if items := rows(folder):
        session.say(f"gallery: {write(folder, items, title=folder.resolve().name)}")


def _tell(session: Session, path: Path, items: list[GalleryItem]) -> None:
    from ..gallery import Totals

    totals = Totals.of(items)
    click.echo(json.dumps(_as_json(path, totals)) if session.is_json else str(path))
    session.say(_words(totals))


def _words(totals: Totals) -> str:
    videos = f", {counted(totals.videos, 'video')}" if totals.videos else ""
    failed = f", {totals.failed:,} failed" if totals.failed else ""
    cost = f", {dollars(totals.cost)}" if totals.cost is not None else ""
    return f"{counted(totals.images, 'image')}{videos}{failed}{cost}"


def _as_json(path: Path, totals: Totals) -> dict[str, object]:
    return {
        "path": str(path),
        "images": totals.images,
        "videos": totals.videos,
        "failed": totals.failed,
        "cost": None if totals.cost is None else str(totals.cost),
    }
