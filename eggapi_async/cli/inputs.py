"""Reads what a batch is to generate: text, JSON lines or CSV, line by line, never all at once.

Its rule: a line that cannot be read is a value with a line number, like any other that fails, so
that one bad line out of thousands spoils nothing. What a request may hold is decided elsewhere.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TextIO, cast

import attrs
import click

from .keys import Keys
from .options import WHOLE, Shard
from .pipe import from_pipe

Format = Literal["txt", "jsonl", "csv"]

FORMATS: Final = ("txt", "jsonl", "csv")
_SUFFIXES: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}
_NUMBERS: Final = ("num_outputs", "duration")
_FIELDS: Final = (
    "model",
    "negative_prompt",
    "aspect_ratio",
    "num_outputs",
    "resolution",
    "image_urls",
    "duration",
    "webhook_url",
)
"""Columns of a CSV file that are used, beside the one that holds the prompts."""


@attrs.frozen
class Unreadable:
    """A line that is no request; *problem* says why."""

    problem: str


@attrs.frozen
class Line:
    """One line of the input: its number from 1, its text, and what it asks for.

    *index* is its place among those that are no comments, from 0; *key* is what the journal knows
    it by (see `keys`): None where it is no request.
    """

    number: int
    text: str
    item: str | dict[str, Any] | Unreadable
    index: int = 0
    key: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that it gives; none where it cannot be read."""
        if isinstance(self.item, str):
            return {"prompt": self.item}
        return {} if isinstance(self.item, Unreadable) else self.item


@attrs.frozen(kw_only=True)
class Source:
    """Where lines come from: a file, or standard input (None)."""

    path: Path | None
    format: Format
    prompt_column: str = "prompt"
    limit: int | None = None
    shard: Shard = WHOLE
    defaults: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        *,
        format: str | None = None,
        prompt_column: str = "prompt",
        limit: int | None = None,
        shard: Shard = WHOLE,
        defaults: Mapping[str, str] | None = None,
    ) -> Source:
        """The source with that *name* (`-`: standard input), in its suffix's format or *format*.

        *defaults* are fields for lines that leave them open.
        """
        path = None if name == "-" else Path(name)
        known = _SUFFIXES.get(path.suffix.lower(), "txt") if path else "txt"
        chosen = cast(Format, format) if format else known
        return cls(
            path=path,
            format=chosen,
            prompt_column=prompt_column,
            limit=limit,
            shard=shard,
            defaults=defaults or {},
        )

    def lines(self) -> Iterator[Line]:
        """The lines of our shard, the first *limit* of them, read as they are asked for.

        Raises click.UsageError without the column.
        """
        ours = (line for line in self._named() if self.shard.takes(line.index))
        return islice(ours, self.limit)

    def _named(self) -> Iterator[Line]:
        """All lines, with all that they ask for: one has the same name in every shard."""
        keys = Keys()
        for index, line in enumerate(self._all()):
            whole = attrs.evolve(line, index=index, item=_with_defaults(line.item, self.defaults))
            if isinstance(whole.item, Unreadable):
                yield whole
            else:
                yield attrs.evolve(whole, key=keys.of(whole.fields, given=line.key))

    async def stream(self) -> AsyncIterator[Line]:
        """The lines, where a pipe must not keep others waiting."""
        if self.path is not None:
            for line in self.lines():
                yield line
            return
        async with aclosing(from_pipe(self.lines())) as lines:
            async for line in lines:
                yield line

    def _all(self) -> Iterator[Line]:
        with _opened(self.path) as file:
            yield from _READERS[self.format](file, self.prompt_column)

    def total(self) -> int | None:
        """How many lines there are; None where only reading would tell."""
        if self.path is None or not self.path.is_file():
            return None
        return sum(1 for _ in self.lines())

    def is_at(self, path: Path) -> bool:
        """True when the lines come from the file at *path*, though another name may lead to it."""
        with suppress(OSError):
            return os.path.samefile(self.path or sys.stdin.fileno(), path)
        return False

    @property
    def name(self) -> str:
        """What messages call it."""
        return "standard input" if self.path is None else self.path.name


def _opened(path: Path | None) -> TextIO:
    if path is not None:
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        # A file of its own: at exit a thread may still wait in it, and must not hold sys.stdin.
        number = sys.stdin.fileno()
        return open(
            number, encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=False
        )
    except io.UnsupportedOperation:
        return io.StringIO(sys.stdin.read())


def _texts(file: TextIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield number, text


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file of text with their numbers, as they are, without comments."""
    with _opened(path) as file:
        yield from _texts(file)


def kept_key(text: str) -> str | None:
    """The name that an earlier run has given to a line that it kept."""
    return _taken_key(_json_item(text))


def _with_defaults(
    item: str | dict[str, Any] | Unreadable, defaults: Mapping[str, str]
) -> str | dict[str, Any] | Unreadable:
    if not defaults or isinstance(item, Unreadable):
        return item
    fields = {"prompt": item} if isinstance(item, str) else item
    return {**defaults, **{name: value for name, value in fields.items() if value is not None}}


def _txt(file: TextIO, _: str) -> Iterator[Line]:
    for number, text in _texts(file):
        yield Line(number, text, text)


def _jsonl(file: TextIO, _: str) -> Iterator[Line]:
    for number, text in _texts(file):
        item = _json_item(text)
        yield Line(number, text, item, key=_taken_key(item))


def _json_item(text: str) -> str | dict[str, Any] | Unreadable:
    try:
        item = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"not JSON: {error}")
    return item if isinstance(item, (dict, str)) else Unreadable("expected a JSON object or string")


def _taken_key(item: object) -> str | None:
    """Take out what an earlier run has added: why it failed the last time, and how it is known."""
    error = item.pop("error", None) if isinstance(item, dict) else None
    key = error.get("key") if isinstance(error, dict) else None
    return key if isinstance(key, str) else None


def _csv(file: TextIO, prompt_column: str) -> Iterator[Line]:
    rows = csv.DictReader(file)
    if prompt_column not in (rows.fieldnames or ()):
        there = ", ".join(rows.fieldnames or ()) or "nothing"
        raise click.UsageError(
            f"there is no column {prompt_column!r} in the first line, but {there}"
            " (--prompt-column names another)"
        )
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(rows.line_num, "", Unreadable(f"not CSV: {error}"))
        else:
            item = _row_item(row, prompt_column)
            yield Line(rows.line_num, json.dumps(item), item)


def _row_item(row: dict[str, Any], prompt_column: str) -> dict[str, Any]:
    item: dict[str, Any] = {"prompt": row[prompt_column] or ""}
    for name in _FIELDS:
        if name != prompt_column and row.get(name):
            item[name] = _cell(name, row[name])
    return item


def _cell(name: str, text: str) -> Any:
    if name == "image_urls":
        return text.split()
    return int(text) if name in _NUMBERS and text.strip().isdecimal() else text


_READERS: Final[dict[Format, Callable[[TextIO, str], Iterator[Line]]]] = {
    "txt": _txt,
    "jsonl": _jsonl,
    "csv": _csv,
}
