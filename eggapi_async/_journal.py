"""The journal of a batch on disk: which item became which task, and what came of it.

The only sqlite3. Everything here blocks, so the batch calls it on a thread of its own (`_scribe`).
One process owns a journal: the lock is one of the operating system's, on a file beside it, so that
it ends with its owner, however that dies. A file that is not ours, or newer than we are, is refused
before anything is written to it. WAL and a full sync make a commit durable; the file is readable by
its owner only, since prompts are in it. No network file systems: WAL does not work there, and where
the system does not say so, nobody can.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
from cattrs import BaseValidationError

from ._record import COLUMNS, INTENT, PLANNED, UNCERTAIN, JournalItem, as_item, as_row
from ._record import content as content_of
from .errors import InvalidRequestError, JournalError
from .models import GenerationRequest

APPLICATION: Final = 0x45676741
"""`EggA`, in the file's header: the file is ours."""
VERSION: Final = 1
"""Of the tables; a file with a higher one is refused."""
BUSY: Final = 5.0
"""Seconds that a read may have to wait for another connection."""

_SCHEMA: Final = (
    "CREATE TABLE service (origin TEXT NOT NULL)",
    "CREATE TABLE items (key TEXT PRIMARY KEY NOT NULL, position INTEGER NOT NULL,"
    " content TEXT NOT NULL, state TEXT NOT NULL, request TEXT NOT NULL, task_id TEXT,"
    " snapshot TEXT, refusal TEXT, paths TEXT, sent_at TEXT, lost_at TEXT, ended_at TEXT,"
    " reference TEXT)",
    "CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
_WRITE: Final = (
    f"INSERT INTO items ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{c}' for c in COLUMNS)})"
    f" ON CONFLICT (key) DO UPDATE SET {', '.join(f'{c} = :{c}' for c in COLUMNS[1:])}"
)


def named_path(path: object) -> str:
    """*path* if it names a file. Raises InvalidRequestError; looks at nothing."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    is_name = isinstance(text, str) and bool(text.strip()) and "\0" not in text
    if not is_name or str(text).startswith((":memory:", "file:")):
        raise InvalidRequestError("journal", path, "the path of a file")
    return str(text)


def checked_path(path: object) -> Path:
    """*path*, its links followed, if a journal can be there. Raises InvalidRequestError. Blocks."""
    name = named_path(path)
    if os.path.isdir(name):
        raise InvalidRequestError("journal", path, "the path of a file")
    return Path(os.path.realpath(name))


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection that begins no transactions by itself."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    return connection


class Database:
    """A journal that is owned: locked, is_blank, ready to be written. Blocks."""

    def __init__(
        self,
        path: Path,
        *,
        origin: str,
        connect: Callable[[Path, str], sqlite3.Connection] = connect,
    ) -> None:
        self.path = path
        self._origin = origin
        self._connect_to = connect
        self._lock: sqlite3.Connection | None = None
        self._rows: sqlite3.Connection | None = None

    def open(self) -> list[JournalItem]:
        """Take possession; what is in doubt. Raises JournalError, and then nothing is held.

        What a dead owner was about to send may have been sent.
        """
        with told(self.path, "cannot be opened"):
            try:
                _look_at(self.path)
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(self.path)
                self.connect()
                return [item_of(self.path, row) for row in self._found("state = ?", UNCERTAIN)]
            except BaseException:
                self.close()
                raise

    def connect(self) -> None:
        """Open the file, in place of a connection that an error has spoilt."""
        with told(self.path, "cannot be opened"):
            self._connect()

    def _connect(self) -> None:
        self._disconnect()
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._rows = rows = self._connect_to(self.path, "rw")
        is_new = is_blank(rows, self.path)
        (mode,) = rows.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalError(f"{self.path}: this file system cannot hold a journal (no WAL)")
        for pragma in ("synchronous = FULL", "fullfsync = 1", "temp_store = MEMORY"):
            rows.execute(f"PRAGMA {pragma}")
        rows.execute("CREATE TEMP TABLE seen (content TEXT PRIMARY KEY, number INTEGER)")
        with self.transaction():
            self._prepare(rows, is_new)

    def _prepare(self, rows: sqlite3.Connection, is_new: bool) -> None:
        if is_new:
            for statement in _SCHEMA:
                rows.execute(statement)
            rows.execute("INSERT INTO service VALUES (?)", (self._origin,))
        (origin,) = rows.execute("SELECT origin FROM service").fetchone()
        if origin != self._origin:
            raise JournalError(
                f"{self.path}: it tells of tasks at {origin}, not at {self._origin};"
                " use a journal for each service"
            )
        rows.execute("UPDATE items SET state = ? WHERE state = ?", (UNCERTAIN, INTENT))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside becomes durable at once, or not at all."""
        rows = self._open_rows()
        with told(self.path, "cannot be written"):
            rows.execute("BEGIN IMMEDIATE")
            try:
                yield
                rows.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the error itself may have ended it
                    rows.execute("ROLLBACK")
                raise

    def write(self, item: JournalItem) -> None:
        """Write the whole row of *item*, inside a transaction; its task stays known for ever."""
        rows = self._open_rows()
        rows.execute(_WRITE, as_row(attrs.evolve(item, paths=tuple(map(self._seen, item.paths)))))
        if item.task_id is not None:
            rows.execute("INSERT OR IGNORE INTO tasks VALUES (?)", (item.task_id,))

    def _seen(self, path: Path) -> Path:
        """*path* as seen from the journal, so that the two can move together."""
        with suppress(ValueError):  # on another drive
            path = Path(os.path.relpath(os.path.realpath(path), self.path.parent))
        return path

    def find(self, index: int, key: str | None, request: GenerationRequest) -> JournalItem:
        """The item as it is recorded, or as a new one, inside a transaction.

        Without a *key* it is known by its content; of several alike each is one of its own, in the
        order in which they are asked for.
        """
        content = content_of(request)
        if key is None:
            key = f"{content}/{self._number(content)}"
        for row in self._found("key = ?", key):
            if row["content"] != content:
                raise InvalidRequestError(
                    "key",
                    key,
                    "the request that it stood for before; a changed one needs a new key",
                )
            return attrs.evolve(item_of(self.path, row), index=index, request=request)
        return JournalItem(index=index, key=key, state=PLANNED, request=request)

    def _number(self, content: str) -> int:
        rows = self._open_rows()
        rows.execute(
            "INSERT INTO seen VALUES (?, 1)"
            " ON CONFLICT (content) DO UPDATE SET number = number + 1",
            (content,),
        )
        found = rows.execute("SELECT number FROM seen WHERE content = ?", (content,))
        return int(found.fetchone()[0])

    def _found(self, where: str, value: str) -> list[sqlite3.Row]:
        found = self._open_rows().execute(f"SELECT * FROM items WHERE {where}", (value,))
        return found.fetchall()

    def _open_rows(self) -> sqlite3.Connection:
        if self._rows is None:
            raise JournalError(f"{self.path}: it is closed")
        return self._rows

    def close(self) -> None:
        """Let go of the file. Safe to repeat."""
        self._disconnect()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _disconnect(self) -> None:
        if self._rows is not None:
            with suppress(sqlite3.Error):  # tidying up; what was committed stays committed
                self._rows.close()
            self._rows = None


def _look_at(path: Path) -> None:
    """Refuse a file that is not ours before anything appears beside it."""
    if not path.exists() or not path.stat().st_size:
        return
    with suppress(sqlite3.OperationalError):  # what a kill left is mended by its next owner only
        with closing(connect(path, "ro")) as rows:
            is_blank(rows, path)


def _locked(path: Path) -> sqlite3.Connection:
    """A connection that keeps everybody else out, in this process too, until it is closed."""
    lock = sqlite3.connect(
        f"{path}-lock", timeout=0.0, isolation_level=None, check_same_thread=False
    )
    try:
        lock.execute("PRAGMA journal_mode = MEMORY")  # nothing is written: no file for it
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as exc:
        lock.close()
        is_taken = exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        problem = "another batch is at work with it" if is_taken else f"cannot be locked: {exc}"
        raise JournalError(f"{path}: {problem}") from exc
    return lock


def is_blank(rows: sqlite3.Connection, path: Path) -> bool:
    """True for a file without anything in it. Raises JournalError for one that is not ours."""
    application = rows.execute("PRAGMA application_id").fetchone()[0]
    version = rows.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION and 1 <= version <= VERSION:
        return False
    if application == APPLICATION:
        raise JournalError(f"{path}: made by a newer eggapi-async (tables of version {version})")
    tables = rows.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application or version or tables:
        raise JournalError(f"{path}: a database, but no journal of a batch")
    return True


def item_of(path: Path, row: sqlite3.Row) -> JournalItem:
    """The item of a *row*, its files found from where the journal is now."""
    try:
        item = as_item(dict(row))
    except (ValueError, KeyError, TypeError, BaseValidationError) as exc:
        raise JournalError(f"{path}: a row that cannot be read: {exc}") from exc
    paths = (os.path.normpath(path.parent / file) for file in item.paths)
    return attrs.evolve(item, paths=tuple(map(Path, paths)))


@contextmanager
def told(path: Path, problem: str) -> Iterator[None]:
    """What SQLite and the system say, as JournalError."""
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise JournalError(f"{path}: {problem}: {reason}") from exc
