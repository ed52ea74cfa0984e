"""The thread that writes: what is put down is written, whoever is cancelled; errors stop it all."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import attrs
import pytest

from eggapi_async import GenerationRequest, InvalidRequestError, Journal, JournalError
from eggapi_async._journal import Database
from eggapi_async._scribe import Scribe
from eggapi_async.models import TaskSnapshot
from tests.test_journal import HERE, path
from tests.test_record import item
from tests.threads import on_a_thread
from tests.virtual_time import on_both

__all__ = ["path"]  # the fixture


class Watched(Database):
    """A journal that counts its transactions, waits in them when told to, and can fail.

    *fails* gets the number of each transaction, from 1 (the one that opens), and raises.
    """

    def __init__(self, path: Path, *, fails: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(path, origin=HERE)
        self.number = 0
        self.threads: set[str] = set()
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._fails = fails

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.number += 1
        self.threads.add(threading.current_thread().name)
        assert self.goes_on.wait(30)
        try:
            self._fails(self.number)
        except sqlite3.Error as exc:
            raise JournalError(f"{self.path}: cannot be written: {exc}") from exc
        with super().transaction():
            yield


def full(*numbers: int) -> Callable[[int], None]:
    """The disk is full in these transactions."""

    def fail(number: int) -> None:
        if number in numbers:
            raise sqlite3.OperationalError("database or disk is full")

    return fail


@asynccontextmanager
async def scribe_of(database: Database) -> AsyncIterator[Scribe]:
    scribe = Scribe(database)
    await scribe.open()
    try:
        yield scribe
    finally:
        await scribe.aclose()


@on_a_thread
def task_ids(path: Path) -> list[tuple[str, str | None]]:
    """What the journal says of each item's task."""
    with Journal(path) as journal:
        return [(it.key, it.task_id) for it in journal]


@on_a_thread
def keys(path: Path) -> list[str]:
    with Journal(path) as journal:
        return [it.key for it in journal]


@on_both
async def test_what_was_flushed_is_durable(tmp_path: Path) -> None:
    """When `flush` returns, another reader sees it."""
    where = tmp_path / "run.sqlite3"
    async with scribe_of(Database(where, origin=HERE)) as scribe:
        scribe.note(item(key="a"))
        await scribe.flush()
        assert keys(where) == ["a"]


@on_both
async def test_rows_that_meet_go_together(tmp_path: Path) -> None:
    """One transaction for all that gather while another is being synced, on one thread."""
    database = Watched(tmp_path / "run.sqlite3")
    async with scribe_of(database) as scribe:
        database.goes_on.clear()
        async with anyio.create_task_group() as group:
            for n in range(500):
                scribe.note(item(key=f"{n:03}"))
                group.start_soon(scribe.flush)
            database.goes_on.set()
        assert database.number <= 1 + 3
        [name] = database.threads
        assert name.startswith("eggapi-journal")
        assert len(keys(database.path)) == 500


@on_both
async def test_an_item_is_found_as_it_was_put_down(tmp_path: Path) -> None:
    """Also what nobody waited for."""
    async with scribe_of(Database(tmp_path / "run.sqlite3", origin=HERE)) as scribe:
        request = GenerationRequest(prompt="An egg")
        new = await scribe.find(0, "a", request)
        scribe.note(attrs.evolve(new, state="submitted", task_id="gen_1"))
        assert (await scribe.find(4, "a", request)).task_id == "gen_1"
        with pytest.raises(InvalidRequestError, match="a changed one needs a new key"):
            await scribe.find(0, "a", GenerationRequest(prompt="Another"))
        assert scribe.failure is None


async def test_a_native_cancellation_takes_nothing_back(tmp_path: Path) -> None:
    """What was put down is written, though nobody waits any more."""
    database = Watched(tmp_path / "run.sqlite3")
    async with scribe_of(database) as scribe:
        database.goes_on.clear()
        scribe.note(item(key="a"))
        waiting = [asyncio.create_task(scribe.flush()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert [task.cancelled() for task in waiting] == [True] * 3
        database.goes_on.set()
        await scribe.flush()
    assert keys(database.path) == ["a"]


async def test_when_the_one_who_waits_for_all_is_cancelled_another_does(tmp_path: Path) -> None:
    """The rest hear of the end."""
    database = Watched(tmp_path / "run.sqlite3")
    async with scribe_of(database) as scribe:
        database.goes_on.clear()
        scribe.note(item(key="a"))
        first, second = (asyncio.create_task(scribe.flush()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        database.goes_on.set()
        await second
    assert first.cancelled()


@on_both
async def test_closing_writes_what_is_left_even_when_cancelled(tmp_path: Path) -> None:
    """Whoever closes may be on the way out already."""
    where = tmp_path / "run.sqlite3"
    with anyio.CancelScope() as scope:
        async with scribe_of(Database(where, origin=HERE)) as scribe:
            scribe.note(item(key="a"))
            scope.cancel()
            await anyio.sleep(1)
    assert keys(where) == ["a"]
    async with scribe_of(Database(where, origin=HERE)):
        pass  # and it is free again


@on_both
async def test_after_an_error_nothing_more_is_promised(tmp_path: Path) -> None:
    """Everybody who waits hears of it, and so does whoever comes later."""
    database = Watched(tmp_path / "run.sqlite3", fails=full(2, 3, 4))
    errors = []
    async with scribe_of(database) as scribe:

        async def write(key: str) -> None:
            scribe.note(item(key=key))
            with pytest.raises(JournalError, match="disk is full") as caught:
                await scribe.flush()
            errors.append(caught.value)

        async with anyio.create_task_group() as group:
            for key in "abc":
                group.start_soon(write, key)
        await write("d")
        with pytest.raises(JournalError, match="disk is full"):
            await scribe.find(0, "e", GenerationRequest(prompt="An egg"))
        assert str(scribe.failure) == str(errors[0])
    assert len({id(error) for error in errors}) == 4  # each has a traceback of its own
    assert keys(database.path) == []


@on_both
async def test_the_end_is_a_last_attempt(tmp_path: Path) -> None:
    """When there is room again, what was kept is written, on a fresh connection."""
    database = Watched(tmp_path / "run.sqlite3", fails=full(2))
    async with scribe_of(database) as scribe:
        scribe.note(item("intent", key="a"))
        with pytest.raises(JournalError):
            await scribe.flush()
        scribe.note(item("submitted", key="a", task_id="gen_1"))
    assert task_ids(database.path) == [("a", "gen_1")]


@on_both
async def test_a_bug_is_not_hidden_and_stops_it_too(tmp_path: Path) -> None:
    """What cannot be written at all is nobody's full disk."""
    database = Watched(tmp_path / "run.sqlite3")
    odd = TaskSnapshot(id="gen_1", status="completed", raw={"a": object()})
    scribe = Scribe(database)
    await scribe.open()
    scribe.note(item("finished", snapshot=odd))
    with pytest.raises(TypeError):
        await scribe.flush()
    assert "TypeError" in str(scribe.failure)
    with pytest.raises(TypeError):
        await scribe.aclose()


@on_both
async def test_a_journal_that_cannot_be_opened_is_let_go(tmp_path: Path) -> None:
    """The error is told, and the next attempt is not locked out."""
    where = tmp_path / "run.sqlite3"
    where.write_text("not a database, but rather long for a text that is none")
    scribe = Scribe(Database(where, origin=HERE))
    with pytest.raises(JournalError, match="not a database"):
        await scribe.open()
    where.unlink()
    async with scribe_of(Database(where, origin=HERE)):
        pass


async def test_a_cancelled_opening_is_let_go(tmp_path: Path) -> None:
    """It may still be under way on its thread; the cancellation goes on when that has ended."""
    database = Watched(tmp_path / "run.sqlite3")
    database.goes_on.clear()
    opening = asyncio.create_task(Scribe(database).open())
    while not database.number:
        await asyncio.sleep(0)  # a real sleep would wait for the thread
    opening.cancel()
    await asyncio.sleep(0)
    assert not opening.done()
    database.goes_on.set()
    await asyncio.gather(opening, return_exceptions=True)
    assert opening.cancelled()
    async with scribe_of(Database(database.path, origin=HERE)):
        pass


@on_both
async def test_a_fork_does_not_take_it_along(tmp_path: Path) -> None:
    """A connection must not be used by two processes."""
    async with scribe_of(Database(tmp_path / "run.sqlite3", origin=HERE)) as scribe:
        scribe._process = os.getppid()
        with pytest.raises(JournalError, match=r"^a journal does not go along .* in the child$"):
            await scribe.flush()
