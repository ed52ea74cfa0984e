"""The journal on disk: whose it is, what is refused, what survives, and how it is read."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from eggapi_async import GenerationRequest, InvalidRequestError, Journal, JournalError, JournalItem
from eggapi_async._journal import (
    APPLICATION,
    VERSION,
    Database,
    checked_path,
    connect,
)
from eggapi_async._reading import reading_mode
from eggapi_async._values import snapshot
from tests.scripted import task
from tests.served import ROOT, environment
from tests.test_record import DONE, NOON, item

HERE = "https://egg.test"
EGG = GenerationRequest(prompt="An egg")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite3"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """A journal that is owned."""
    with closing(Database(path, origin=HERE)) as it:
        it.open()
        yield it


def put(database: Database, *items: JournalItem) -> None:
    with database.transaction():
        for one in items:
            database.write(one)


def find(database: Database, request: GenerationRequest = EGG, **how: Any) -> JournalItem:
    with database.transaction():
        return database.find(how.get("index", 0), how.get("key"), request)


def reopened(path: Path, *, origin: str = HERE) -> list[JournalItem]:
    """What a new owner finds in doubt."""
    with closing(Database(path, origin=origin)) as it:
        return it.open()


# --- where it can be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        *(None, 3, "", " ", b"bytes", ":memory:", "file:x?mode=memory", "."),
        pytest.param("a\0b", id="NUL"),
    ],
)
def test_what_is_no_place_for_a_journal_is_refused(place: Any) -> None:
    """A journal is a file: nothing in memory, no folder, no URI."""
    with pytest.raises(InvalidRequestError) as caught:
        checked_path(place)
    told = (caught.value.field, caught.value.value, caught.value.expected)
    assert told == ("journal", place, "the path of a file")


def test_a_journal_behind_a_link_is_the_same_one(path: Path, tmp_path: Path) -> None:
    """Two names of one file are one journal, with one lock."""
    (tmp_path / "link").symlink_to(path)
    assert checked_path(tmp_path / "link") == checked_path(path) == path.resolve()


def test_its_folder_is_made(tmp_path: Path) -> None:
    """As that of the pictures is: it is often the same."""
    assert reopened(tmp_path / "out" / "today" / "run.sqlite3") == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """As a JournalError, which names the file."""
    (tmp_path / "taken").touch()
    with pytest.raises(JournalError, match=r"taken.run\.sqlite3: cannot be opened: .*[Ee]xists"):
        reopened(tmp_path / "taken" / "run.sqlite3")


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_only_its_owner_may_read_it(database: Database, path: Path) -> None:
    """Prompts are in it."""
    put(database, item())
    files = sorted(path.parent.iterdir())
    modes = {file.name.removeprefix(path.name): file.stat().st_mode & 0o777 for file in files}
    assert modes.pop("-lock") & 0o022 == 0
    assert modes == {"": 0o600, "-shm": 0o600, "-wal": 0o600}


def test_a_commit_is_on_the_disk(database: Database) -> None:
    """A power cut afterwards changes nothing; and what is counted while it is read is no file."""
    rows = database._open_rows()
    full, in_memory = 2, 2
    assert rows.execute("PRAGMA synchronous").fetchone()[0] == full
    assert rows.execute("PRAGMA fullfsync").fetchone()[0] == 1
    assert rows.execute("PRAGMA temp_store").fetchone()[0] == in_memory


def test_a_file_that_cannot_be_made_is_told(path: Path) -> None:
    """By its name, with what the system says."""
    database = Database(path / "run.sqlite3", origin=HERE)
    path.touch()
    with pytest.raises(JournalError) as caught:
        database.connect()
    assert str(caught.value).startswith(f"{path / 'run.sqlite3'}: cannot be opened: ")


def test_nothing_but_the_journal_and_its_lock_is_left(database: Database, path: Path) -> None:
    """Closing leaves one file that holds everything, and an empty one."""
    put(database, item())
    database.close()
    database.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}-lock"]


# --- whose it is -------------------------------------------------------------------------------


def foreign(path: Path, *statements: str) -> bytes:
    """A database that is not ours; its bytes."""
    with closing(sqlite3.connect(path)) as rows:
        for statement in statements:
            rows.execute(statement)
        rows.commit()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        pytest.param(("CREATE TABLE t (a)",), "no journal of a batch", id="another's tables"),
        pytest.param(("PRAGMA application_id = 7",), "no journal of a batch", id="another's mark"),
        pytest.param(("PRAGMA user_version = 7",), "no journal of a batch", id="another's version"),
        pytest.param(
            (f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {VERSION + 1}"),
            "made by a newer eggapi-async",
            id="a newer version's",
        ),
        pytest.param(
            (f"PRAGMA application_id = {APPLICATION}",), "made by a newer", id="of no version"
        ),
    ],
)
def test_a_file_that_is_not_ours_is_refused(
    path: Path, statements: tuple[str, ...], problem: str
) -> None:
    """Before anything is written to it, or beside it."""
    before = foreign(path, *statements)
    for use in (lambda: reopened(path), lambda: Journal(path)):
        with pytest.raises(JournalError, match=problem):
            use()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """A list of prompts in the journal's place stays what it is."""
    path.write_text("A cat\nA dog\n" * 100)
    for use in (lambda: reopened(path), lambda: Journal(path)):
        with pytest.raises(JournalError, match="not a database"):
            use()
    assert path.read_text() == "A cat\nA dog\n" * 100
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("make", [Path.touch, foreign], ids=["no byte", "no table"])
def test_an_empty_file_is_as_good_as_none(path: Path, make: Any) -> None:
    """A kill may come right after the file was made."""
    make(path)
    with Journal(path) as journal:
        assert (list(journal), journal.known(["gen_1"])) == ([], set())
        assert not any(journal.counts().values())
    assert reopened(path) == []
    with Journal(path) as journal:
        assert list(journal) == []


def test_a_journal_of_another_service_is_refused(path: Path, database: Database) -> None:
    """Its task ids mean nothing there, and an emulator's pictures are no pictures."""
    database.close()
    with pytest.raises(JournalError) as caught:
        reopened(path, origin="https://other.test")
    assert str(caught.value) == (
        f"{path}: it tells of tasks at https://egg.test, not at https://other.test; "
        "use a journal for each service"
    )
    assert reopened(path) == []


def test_a_file_system_without_shared_memory_is_refused(path: Path) -> None:
    """What cannot be made durable is not begun; SQLite says what it has."""
    nowhere = sqlite3.connect(":memory:", check_same_thread=False)
    with closing(Database(path, origin=HERE, connect=lambda *_: nowhere)) as it:
        with pytest.raises(JournalError, match="this file system cannot hold a journal"):
            it.open()


# --- one owner ---------------------------------------------------------------------------------


def test_a_second_owner_in_this_process_is_refused(database: Database, path: Path) -> None:
    """At once, in so many words; afterwards the journal is free."""
    with pytest.raises(JournalError, match="another batch is at work with it"):
        reopened(path)
    put(database, item())  # the first was not disturbed
    database.close()
    assert reopened(path) == []


def test_a_lock_that_is_no_lock_is_told(path: Path) -> None:
    """Whatever stands in its place is left alone."""
    lock = path.with_name(f"{path.name}-lock")
    lock.write_text("something else, and longer than any header of a database would be " * 9)
    with pytest.raises(JournalError, match="cannot be locked: file is not a database"):
        reopened(path)
    assert lock.read_text().startswith("something else")


OPEN = """
import sys
from pathlib import Path
from eggapi_async._journal import Database
from eggapi_async import JournalError
database = Database(Path(sys.argv[1]), origin="https://egg.test")
try:
    database.open()
except JournalError as error:
    sys.exit(str(error))
print("mine", flush=True)
sys.stdin.read()
"""


def owner(path: Path) -> subprocess.Popen[str]:
    """Another process that opens the journal, and keeps it until its stdin ends."""
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(path)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_process_is_refused(database: Database, path: Path) -> None:
    """With the same words."""
    with owner(path) as other:
        _, told = other.communicate()
    assert other.returncode == 1
    assert told.strip() == f"{path}: another batch is at work with it"


def test_a_dead_owner_is_recognised(path: Path) -> None:
    """The lock is the system's own: it ends with the process, however that ends."""
    with owner(path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(JournalError, match="another batch is at work"):
            reopened(path)
        other.kill()
    assert reopened(path) == []


# --- what it knows -----------------------------------------------------------------------------


def test_what_was_committed_is_there_for_the_next_owner(database: Database, path: Path) -> None:
    """The last that was written of an item is what is found."""
    put(database, item("submitted", task_id="gen_1"), item("finished", key="b", snapshot=DONE))
    put(database, item("finished", task_id="gen_1", snapshot=DONE, ended_at=NOON))
    database.close()
    with closing(Database(path, origin=HERE)) as later:
        assert later.open() == []
        found = find(later, index=3, key="a key")
    assert found == item("finished", index=3, task_id="gen_1", snapshot=DONE, ended_at=NOON)


def test_a_transaction_is_whole_or_nothing(database: Database) -> None:
    """An error in the middle undoes all of it."""

    def fail_half_way() -> None:
        with database.transaction():
            database.write(item())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert find(database, key="a key") == item(index=0)  # a new one


def test_an_intent_of_a_dead_owner_is_a_doubt(database: Database, path: Path) -> None:
    """Its POST may have left; nobody knows."""
    put(
        database,
        item("intent", key="a", sent_at=NOON, lost_at=NOON),
        item("uncertain", key="b", sent_at=NOON, lost_at=NOON),
        item("planned", key="c"),
        item("submitted", key="d", task_id="gen_1"),
    )
    database.close()
    assert sorted((it.key, it.state) for it in reopened(path)) == [
        ("a", "uncertain"),
        ("b", "uncertain"),
    ]


def test_items_are_known_by_content_and_number(database: Database) -> None:
    """Of two alike, each is one; the next owner counts from the beginning again."""
    first, second = find(database, index=0), find(database, index=1)
    other = find(database, GenerationRequest(prompt="Another"), index=2)
    assert len({first.key, second.key, other.key}) == 3
    assert [one.state for one in (first, second, other)] == ["planned"] * 3
    database.close()
    database.open()
    assert find(database, index=5).key == first.key


def test_a_changed_request_under_an_old_key_is_refused(database: Database) -> None:
    """The key stands for what it stood for; nothing is bought for it unasked."""
    put(database, find(database, key="cover"))
    assert find(database, EGG, key="cover").request is EGG
    with pytest.raises(InvalidRequestError) as caught:
        find(database, GenerationRequest(prompt="A better egg"), key="cover")
    assert (caught.value.field, caught.value.value) == ("key", "cover")
    assert caught.value.expected == (
        "the request that it stood for before; a changed one needs a new key"
    )


def test_files_are_found_again_when_the_folder_moves(tmp_path: Path) -> None:
    """Paths are kept as seen from the journal."""
    (tmp_path / "here").mkdir()
    old, new = tmp_path / "here", tmp_path / "there"
    with closing(Database(old / "run.sqlite3", origin=HERE)) as it:
        it.open()
        put(it, item("saved", paths=(old / "out" / "a.png",)))
    old.rename(new)
    with Journal(new / "run.sqlite3") as journal:
        assert next(iter(journal)).paths == (new / "out" / "a.png",)
    with closing(Database(new / "run.sqlite3", origin=HERE)) as it:
        it.open()
        assert find(it, item().request, key="a key").paths == (new / "out" / "a.png",)


def test_a_closed_journal_takes_nothing(database: Database) -> None:
    """As a JournalError."""
    database.close()
    with pytest.raises(JournalError, match="it is closed"):
        put(database, item())


# --- reading it --------------------------------------------------------------------------------


def test_there_must_be_one_to_read(path: Path) -> None:
    """Reading makes no file."""
    with pytest.raises(JournalError, match="there is no journal"):
        Journal(path)
    assert list(path.parent.iterdir()) == []


def test_it_is_read_while_it_is_written(database: Database, path: Path) -> None:
    """Counts by state, items in the order of the input, ids that are known."""
    put(
        database,
        item("saved", index=2, key="c", task_id="gen_3", snapshot=DONE),
        item("submitted", index=0, key="a", task_id="gen_1"),
        item("submitted", index=1, key="b", task_id="gen_2"),
    )
    with Journal(path) as journal:
        assert repr(journal) == f"<Journal {path}>"
        assert journal.counts() == {
            **dict.fromkeys(("planned", "intent", "finished", "failed", "uncertain"), 0),
            "saved": 1,
            "submitted": 2,
        }
        assert [it.key for it in journal] == ["a", "b", "c"]
        put(database, item("finished", index=0, key="a", task_id="gen_1"))
        assert [it.state for it in journal] == ["finished", "submitted", "saved"]
        assert journal.known(["gen_3", "gen_4"]) == {"gen_3"}


def test_a_task_stays_known_when_its_item_goes_on_to_another(
    database: Database, path: Path
) -> None:
    """A failed task that was tried again is no candidate for anything."""
    put(database, item("failed", task_id="gen_1", snapshot=snapshot(task(status="failed"))))
    put(database, item("submitted", task_id="gen_2"))
    with Journal(path) as journal:
        assert journal.known(["gen_1", "gen_2"]) == {"gen_1", "gen_2"}


def test_progress_tells_how_far_a_list_is(database: Database, path: Path) -> None:
    """What was never tried is planned; of lines alike each counts by itself."""
    first = find(database)
    put(database, attrs.evolve(first, state="saved"), item("failed", key="B"))
    with Journal(path) as journal:
        before = journal.progress(["An egg", {"prompt": "An egg"}, "New"])
        assert (before["saved"], before["planned"], sum(before.values())) == (1, 2, 3)
        assert journal.progress(["An egg"], model="other")["planned"] == 1
        by_key = journal.progress(["a", "b"], key=str.upper)
        assert (by_key["failed"], by_key["planned"]) == (1, 1)


def test_a_row_that_nobody_can_read_is_told(database: Database, path: Path) -> None:
    """Somebody wrote into the file: it cannot be trusted."""
    put(database, item())
    with closing(sqlite3.connect(path)) as rows:
        rows.execute("UPDATE items SET request = '{'")
        rows.commit()
    with Journal(path) as journal, pytest.raises(JournalError, match="a row that cannot be read"):
        list(journal)
    with pytest.raises(JournalError) as caught:
        find(database, key="a key")
    assert str(caught.value).startswith(f"{path}: a row that cannot be read: ")


def test_a_torn_file_is_told(database: Database, path: Path) -> None:
    """What SQLite says of it is a JournalError."""
    put(database, *(item(key=str(n)) for n in range(1000)))
    database.close()
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(JournalError, match=r"malformed|cannot be"):
        with Journal(path) as journal:
            list(journal)


@pytest.mark.parametrize("is_owned", [False, True], ids=["at rest", "at work"])
def test_it_is_read_where_nothing_can_be_written(
    database: Database, path: Path, is_owned: bool
) -> None:
    """Somebody else's folder is readable, too, and nothing appears in it."""
    put(database, item())
    if not is_owned:
        database.close()
    before = sorted(path.parent.iterdir())
    with closing(connect(path, reading_mode(path, may_write=False))) as rows:
        assert rows.execute("SELECT count(*) FROM items").fetchone()[0] == 1
    assert sorted(path.parent.iterdir()) == before


def test_the_state_of_one_item_can_be_asked_for(database: Database, path: Path) -> None:
    """By its key; None for one that was never tried."""
    put(database, item(key="a", state="saved"))
    with Journal(path) as journal:
        assert (journal.state("a"), journal.state("b")) == ("saved", None)
