"""Options that several commands have, and what their values mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import click

from ..errors import ConfigurationError, InvalidRequestError

HERE = "Where the files go, named by their task's id.  [default: here]"


def with_folder(
    default: str = ".", help: str = HERE
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `-o`: the folder that pictures go to."""
    return click.option(
        "-o",
        "--output",
        "folder",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        show_default=default != ".",
        help=help,
    )


def with_port(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `--port` of a command that listens."""
    return click.option(
        "--port",
        metavar="N",
        type=click.IntRange(0, 65535),
        default=default,
        show_default=True,
        help="Where to listen; 0 takes a free one.",
    )


@attrs.frozen
class Shard:
    """One of several equal parts of an input, numbered from 1: every *of*-th line."""

    number: int = 1
    of: int = 1

    def takes(self, index: int) -> bool:
        """True when the line *index*, counted from 0, is in this part."""
        return index % self.of == self.number - 1


WHOLE = Shard()
"""All of it."""


def as_shard(_: click.Context, __: click.Parameter, text: str | None) -> Shard:
    """`3/8` as a shard."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text or "1/1")
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"expected I/N, as in 3/8: the third of eight, got {text!r}")
    return Shard(int(match[1]), int(match[2]))


def as_dollars(_: click.Context, __: click.Parameter, text: str | None) -> Decimal | None:
    """An amount of US dollars as exact money."""
    from .. import Budget

    try:
        return None if text is None else Budget(text).limit
    except ConfigurationError as error:
        raise click.BadParameter(str(error).partition(": ")[2]) from None


def as_template(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """A template of file names, tried."""
    from .naming import Template

    try:
        return None if text is None else Template.of(text)
    except InvalidRequestError as error:
        raise click.BadParameter(f"expected {error.expected}, got {text!r}") from None
