"""What a batch left in its folder, as the rows of a gallery.

Its rule: a folder is believed as it is. The journal and the records that `eggapi batch` writes tell
what was asked for, the journal first; the files tell what is there. A file that no record names is
a row of its own, and so is a picture that a record names and nobody finds. A line that cannot be
read is no record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePath
from typing import Any

import attrs

from ..gallery import GalleryItem, GalleryPicture, measured
from ..gallery.sizes import ENOUGH, ENOUGH_OF_A_JPEG
from ..models import Outcome
from .past import NAME, past
from .report import as_json

SHOWN = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".mp4", ".webm"})
"""Suffixes of files that a browser shows."""
_ABSURD = 10**9
"""Dollars and seconds from which on a number is a mistake."""


@attrs.frozen
class Record:
    """One line of a record, and the file that it is from."""

    fields: dict[str, Any]
    path: Path

    @property
    def is_report(self) -> bool:
        """True for what `--json` prints, False for what is kept to be fed back."""
        return "ok" in self.fields and isinstance(self.fields.get("paths"), list)


def rows(folder: Path, logs: Iterable[Path] = ()) -> list[GalleryItem]:
    """The rows of *folder*, in input order; *logs* are `--json` records that are kept elsewhere.

    Raises OSError where a file cannot be read, JournalError where that is the journal.
    """
    kept = sorted(path for path in folder.glob("*.jsonl") if path.is_file())
    told = list(_journal(folder))
    known = {name for record in told for name in _names(record)}
    others = [record for record in _records([*logs, *kept]) if not known & _names(record)]
    records = _latest([*told, *others])
    items = [_row(folder, record) for record in sorted(records, key=_place)]
    named = {picture.path for item in items for picture in item.pictures}
    loose = [path for path in _files(folder) if path.name not in named]
    return items + [GalleryItem(pictures=(_picture(folder, path),)) for path in loose]


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and _is_shown(path)
    )


# --- records -------------------------------------------------------------------------------------


def _journal(folder: Path) -> Iterator[Record]:
    with past(folder) as before:
        for item in before.items():
            outcome = Outcome(
                index=item.index,
                request=item.request,
                result=None if item.error else item.snapshot,
                error=item.error,
                paths=item.paths,
            )
            fields = as_json(outcome, None, str(item.error or "")) | {"key": item.key}
            yield Record(fields, folder / NAME)


def _names(record: Record) -> set[str]:
    """What an item is known by: its task, and its line."""
    error = record.fields.get("error")
    kept = error.get("key") if isinstance(error, dict) else None
    names = (record.fields.get("id"), record.fields.get("key"), kept)
    return {name for name in names if isinstance(name, str)}


def _records(paths: Iterable[Path]) -> Iterator[Record]:
    for path in paths:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                record = Record(_fields(line), path)
                if record.is_report or _is_kept(record):
                    yield record


def _fields(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_kept(record: Record) -> bool:
    return isinstance(record.fields.get("error"), dict) and "prompt" in record.fields


def _latest(records: Iterable[Record]) -> Iterable[Record]:
    """One record of each item: a later one wins, and one that is kept tells nothing new."""
    by_item: dict[object, Record] = {}
    failures: set[tuple[str, str]] = set()
    kept: list[Record] = []
    for record in records:
        if not record.is_report:
            kept.append(record)
            continue
        name = record.fields.get("id") or (record.fields.get("index"), *_failure(record))
        by_item[name] = record
        failures.add(_failure(record))
    return [*by_item.values(), *(record for record in kept if _failure(record) not in failures)]


def _failure(record: Record) -> tuple[str, str]:
    return _word(record, "prompt"), _reason(record) or ""


def _place(record: Record) -> tuple[bool, int]:
    index = record.fields.get("index")
    return (False, index) if isinstance(index, int) else (True, 0)


# --- rows ----------------------------------------------------------------------------------------


def _row(folder: Path, record: Record) -> GalleryItem:
    names = record.fields.get("paths", [])
    found = {str(name): _found(folder, str(name)) for name in names}
    gone = [Path(name).name for name, path in found.items() if path is None]
    return GalleryItem(
        prompt=_word(record, "prompt"),
        model=_word(record, "model"),
        aspect_ratio=_word(record, "aspect_ratio"),
        resolution=_word(record, "resolution"),
        status=_status(record),
        pictures=tuple(_picture(folder, path) for path in found.values() if path),
        error=_reason(record) or _missing(gone),
        cost=_amount(record.fields.get("cost")),
        duration=_duration(record),
        task_id=_word(record, "id"),
    )


def _word(record: Record, name: str) -> str:
    value = record.fields.get(name)
    return value if isinstance(value, str) else ""


def _status(record: Record) -> str:
    error = record.fields.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    if kind == "SubmissionUncertainError":
        return "uncertain"
    return "failed" if kind else _word(record, "status")


def _reason(record: Record) -> str | None:
    error = record.fields.get("error")
    if not isinstance(error, dict):
        return None
    return str(error.get("message") or error.get("type") or "no reason was given")


def _missing(names: list[str]) -> str | None:
    return f"nothing here to show for {', '.join(names)}" if names else None


def _amount(value: object) -> Decimal | None:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and abs(amount) < _ABSURD else None


def _duration(record: Record) -> float | None:
    seconds = record.fields.get("seconds")
    if not isinstance(seconds, int | float) or not 0 <= seconds < _ABSURD:
        return None
    return float(seconds)


# --- files ---------------------------------------------------------------------------------------


def _found(folder: Path, name: str) -> Path | None:
    """Where a file of a record is now: the folder may have been moved since."""
    parts = [part for part in PurePath(name).parts if part not in ("..", PurePath(name).anchor)]
    places = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in places if _is_shown(path)), None)


def _is_shown(path: Path) -> bool:
    return path.suffix.lower() in SHOWN and path.is_file()


def _picture(folder: Path, path: Path) -> GalleryPicture:
    width, height = measured(_head(path)) or (0, 0)
    return GalleryPicture(path.relative_to(folder).as_posix(), width, height)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(ENOUGH)
        is_jpeg = head.startswith(b"\xff\xd8")
        return head + file.read(ENOUGH_OF_A_JPEG) if is_jpeg else head
