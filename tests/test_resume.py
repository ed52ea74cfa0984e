"""Batches with a journal: left anywhere and run again, they buy nothing twice and lose nothing."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs
import pytest

from eggapi_async import (
    AsyncEggClient,
    BadRequestError,
    Batch,
    Budget,
    BudgetExceededError,
    DownloadError,
    GenerationRequest,
    InsufficientBalanceError,
    InvalidRequestError,
    Journal,
    JournalError,
    JournalItem,
    NotFoundError,
    Outcome,
    RateLimiter,
    RetryPolicy,
    SubmissionUncertainError,
    TaskFailedError,
    TaskTimeoutError,
    WebhookEvent,
)
from eggapi_async._journal import Database
from eggapi_async._record import as_row
from eggapi_async._transport import wall_clock
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.scripted import KEY
from tests.threads import on_a_thread
from tests.virtual_time import on_both

ORIGIN = "https://api.eggapi.ai"
SUBMIT = "POST /v1/generate"


@attrs.define
class Studio:
    """A service, a folder, and one process after another that runs a batch there."""

    folder: Path
    emulator: EggEmulator = attrs.field(factory=lambda: service())

    @property
    def journal(self) -> Path:
        return self.folder / "run.sqlite3"

    def client(self, **options: Any) -> AsyncEggClient:
        """Another process's."""
        return connect(self.emulator, **{"limiter": RateLimiter(per_second=None)} | options)

    async def run(
        self,
        requests: Any,
        *,
        retry: RetryPolicy = RetryPolicy(),
        budget: Budget | None = None,
        **how: Any,
    ) -> Any:
        """The outcomes of the whole batch."""
        async with self.client(retry=retry, budget=budget) as egg:
            return await egg.map(requests, **{"journal": self.journal} | how)

    async def leave(self, requests: Any, *, after: int, **how: Any) -> None:
        """Run it until so many outcomes have come."""
        async with self.client() as egg:
            async with egg.map(requests, **{"journal": self.journal} | how) as run:
                for _ in range(after):
                    await anext(run)

    @on_a_thread
    def states(self) -> Counter[str]:
        """How many items are in which state."""
        with Journal(self.journal) as journal:
            return Counter(journal.counts())

    @on_a_thread
    def items(self) -> list[JournalItem]:
        with Journal(self.journal) as journal:
            return list(journal)

    def asked(self, *labels: str) -> int:
        """How many requests there were; of some sort, or of all."""
        return sum(
            n for label, n in self.emulator.requests.items() if not labels or label in labels
        )

    @on_a_thread
    def edit(self, sql: str, *values: Any) -> None:
        """Change the journal behind its back."""
        with closing(sqlite3.connect(self.journal)) as rows:
            rows.execute(sql, values)
            rows.commit()


def service(**options: Any) -> EggEmulator:
    """An emulator on virtual time, which shows the hour of this machine."""
    skew = time.time() - anyio.current_time()
    return EggEmulator(clock=lambda: skew + anyio.current_time(), **options)


def until(holds: Callable[[], bool]) -> None:
    """Wait for another thread's work, in a thread: virtual time stands still meanwhile."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def eggs(number: int) -> list[str]:
    return [f"Egg {n}" for n in range(number)]


def told(outcome: Outcome) -> str:
    """What came of it, in a word."""
    return "ok" if outcome.error is None else type(outcome.error).__name__


# --- going on ----------------------------------------------------------------------------------


@on_both
async def test_what_is_finished_costs_nothing(tmp_path: Path) -> None:
    """The same outcomes again, files included, and not one request."""
    it = Studio(tmp_path)
    first = await it.run(eggs(20), save_to=tmp_path / "out")
    before = it.asked()
    again = await it.run(eggs(20), save_to=tmp_path / "out")
    assert it.asked() == before
    assert again == first
    assert [outcome.index for outcome in again] == list(range(20))
    assert all(outcome.ok and outcome.paths[0].is_file() for outcome in again)
    assert len(it.emulator.accepted) == 20


@on_both
async def test_without_files_neither(tmp_path: Path) -> None:
    """The result alone is enough where no files are wanted."""
    it = Studio(tmp_path)
    first = await it.run(eggs(3))
    before = it.asked()
    assert await it.run(eggs(3)) == first
    assert it.asked() == before
    assert it.states() == {**it.states(), "finished": 3}


@on_both
async def test_what_was_submitted_is_collected(tmp_path: Path) -> None:
    """By its id, without another POST; the rest is submitted."""
    it = Studio(tmp_path)
    await it.leave(eggs(20), after=5, in_flight=8)
    left = it.states()
    assert left["submitted"] > 0
    accepted = list(it.emulator.accepted)
    outcomes = await it.run(eggs(20))
    assert [told(outcome) for outcome in outcomes] == ["ok"] * 20
    assert it.emulator.accepted[: len(accepted)] == accepted
    assert len(it.emulator.accepted) == 20
    assert {outcome.unwrap().id for outcome in outcomes} == set(it.emulator.accepted)
    assert it.states()["finished"] == 20


@on_both
async def test_the_paths_are_written_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As seen from the folder that was given, relative or not."""
    monkeypatch.chdir(tmp_path)
    it = Studio(Path())
    first = await it.run(eggs(1), save_to="out")
    assert first[0].paths[0].parent == Path("out")
    assert await it.run(eggs(1), save_to="out") == first
    [elsewhere] = await it.run(eggs(1), save_to=tmp_path / "out")
    assert elsewhere.paths == (tmp_path / first[0].paths[0],)
    assert it.asked("GET /outputs") == 1


@on_both
async def test_missing_files_are_fetched(tmp_path: Path) -> None:
    """Only those that are missing or torn, and without asking for the task."""
    it = Studio(tmp_path)
    out = tmp_path / "out"
    outcomes = await it.run(eggs(5), save_to=out)
    outcomes[1].paths[0].unlink()
    torn = outcomes[3].paths[0]
    torn.write_bytes(torn.read_bytes()[:-9])
    torn.rename(torn.with_suffix(".torn"))
    before = Counter(it.emulator.requests)
    again = await it.run(eggs(5), save_to=out)
    assert [outcome.paths for outcome in again] == [outcome.paths for outcome in outcomes]
    assert all(outcome.paths[0].is_file() for outcome in again)
    assert it.emulator.requests - before == {"GET /outputs": 2}


@on_both
async def test_what_was_finished_and_not_saved_is_saved(tmp_path: Path) -> None:
    """A batch that was left between a task's end and its file."""
    it = Studio(tmp_path)
    await it.run(eggs(4))
    before = Counter(it.emulator.requests)
    outcomes = await it.run(eggs(4), save_to=tmp_path / "out")
    assert all(outcome.paths[0].is_file() for outcome in outcomes)
    assert it.emulator.requests - before == {"GET /outputs": 4}
    assert it.states()["saved"] == 4


@on_both
async def test_another_folder_gets_files_of_its_own(tmp_path: Path) -> None:
    """What was saved elsewhere is not what was asked for."""
    it = Studio(tmp_path)
    await it.run(eggs(2), save_to=tmp_path / "one")
    outcomes = await it.run(eggs(2), save_to=tmp_path / "two")
    assert [outcome.paths[0].parent.name for outcome in outcomes] == ["two", "two"]
    assert all(outcome.paths[0].is_file() for outcome in outcomes)
    assert len(it.emulator.accepted) == 2


@on_both
async def test_paths_have_the_name_that_the_folder_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they were given, relative or by a link, whatever they were called before."""
    it = Studio(tmp_path)
    [before] = await it.run(eggs(1), save_to=tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    for folder in ("out", "link"):
        [outcome] = await it.run(eggs(1), save_to=folder)
        assert outcome.paths == (Path(folder) / before.paths[0].name,)


@on_both
async def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    """The parts of these tasks, and of any that is dead; what is locked is a living one's."""
    it = Studio(tmp_path)
    out = tmp_path / "out"
    [outcome] = await it.run([{"prompt": "Eggs", "num_outputs": 2}], save_to=out)
    task_id = outcome.unwrap().id
    ours = [out / f".{task_id}.0123456789ab.part", out / f".{task_id}-2.0123456789ab.part"]
    others = [out / ".gen_x-1.0123456789ab.part", out / f".{task_id}.part", out / f"{task_id}.part"]
    for path in [*ours, *others]:
        path.touch()
    dead = out / ".gen_y-1.0123456789ab.part"
    dead.touch()
    with others[0].open("rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        await it.run(["Another"], save_to=out)
    assert not any(path.exists() for path in [*ours, dead])
    assert all(path.exists() for path in [*others, *outcome.paths])


@pytest.mark.parametrize("place", ["", "-wal"])
@on_both
async def test_the_key_is_in_none_of_its_files(tmp_path: Path, place: str) -> None:
    """Whatever was asked for and whatever came."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.refused(400), on=SUBMIT)
    it.emulator.fail_next(Fault.lost(), on=SUBMIT)
    async with connect(it.emulator, KEY) as egg:
        async with egg.map([*eggs(4), "A forbidden egg"], journal=it.journal, in_flight=1) as run:
            async for _ in run:
                pass
            assert it.states()["finished"] == 2
            assert KEY.encode() not in Path(f"{it.journal}{place}").read_bytes()
    assert KEY.encode() not in it.journal.read_bytes()


@on_both
async def test_an_expired_url_is_renewed(tmp_path: Path) -> None:
    """One GET of the task gives the URL that it has now."""
    it = Studio(tmp_path)
    await it.run(eggs(1))
    it.emulator.fail_next(Fault.refused(403), on="GET /outputs")
    before = Counter(it.emulator.requests)
    [outcome] = await it.run(eggs(1), save_to=tmp_path / "out")
    assert outcome.paths[0].is_file()
    assert it.emulator.requests - before == {"GET /outputs": 2, "GET /v1/tasks/{id}": 1}


@on_both
async def test_a_file_that_cannot_be_had_is_tried_again(tmp_path: Path) -> None:
    """The result stays, the next run fetches it."""
    it = Studio(tmp_path)
    for _ in range(2):
        it.emulator.fail_next(Fault.refused(403), on="GET /outputs")
    [outcome] = await it.run(eggs(1), save_to=tmp_path / "out")
    assert isinstance(outcome.error, DownloadError)
    assert outcome.result is not None
    assert it.states()["finished"] == 1
    [outcome] = await it.run(eggs(1), save_to=tmp_path / "out")
    assert outcome.paths[0].is_file()
    assert len(it.emulator.accepted) == 1


@on_both
async def test_a_task_that_takes_too_long_is_awaited_by_the_next_run(tmp_path: Path) -> None:
    """A time-out ends the wait, not the task."""
    it = Studio(tmp_path)
    [outcome] = await it.run(eggs(1), timeout=1.0)
    assert isinstance(outcome.error, TaskTimeoutError)
    assert it.states()["submitted"] == 1
    [outcome] = await it.run(eggs(1))
    assert outcome.unwrap().id in it.emulator.accepted
    assert len(it.emulator.accepted) == 1


@on_both
async def test_a_task_that_the_service_forgot_is_told(tmp_path: Path) -> None:
    """It stays submitted: another key, or another day, may know it."""
    it = Studio(tmp_path)
    await it.leave(eggs(1), after=0)
    async with it.client() as egg:
        async with egg.map(eggs(1), journal=it.journal):
            await anyio.sleep(1)
    it.edit("UPDATE items SET task_id = 'gen_gone'")
    [outcome] = await it.run(eggs(1))
    assert isinstance(outcome.error, NotFoundError)
    assert it.states()["submitted"] == 1


@on_both
async def test_failed_items_stay_failed(tmp_path: Path) -> None:
    """With their error, and without a request; the refused ones too."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.refused(400, "VALIDATION_ERROR"), on=SUBMIT)
    items = ["Odd", "A forbidden egg", "An egg"]
    first = await it.run(items, in_flight=1)
    assert [told(one) for one in first] == ["BadRequestError", "TaskFailedError", "ok"]
    before = it.asked()
    again = await it.run(items)
    assert it.asked() == before
    assert [str(one.error) for one in again] == [str(one.error) for one in first]
    assert isinstance(again[0].error, BadRequestError)
    assert isinstance(again[1].error, TaskFailedError)
    assert again[1].error.is_moderation


@on_both
async def test_failed_items_are_tried_again_when_told(tmp_path: Path) -> None:
    """Each is bought anew; what went well is not."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.refused(400), on=SUBMIT)
    items = ["Odd", "A forbidden egg", "An egg"]
    await it.run(items, in_flight=1)
    again = await it.run(items, retry_failed=True)
    assert [told(one) for one in again] == ["ok", "TaskFailedError", "ok"]
    assert len(it.emulator.accepted) == 4
    assert [(one.state, one.error is None) for one in it.items()] == [
        ("finished", True),
        ("failed", False),
        ("finished", True),
    ]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.refused(401), id="the key is refused"),
        pytest.param(Fault.refused(403, "INSUFFICIENT_BALANCE"), id="the money is gone"),
        pytest.param(Fault.refused(503), id="the service is down"),
    ],
)
@on_both
async def test_what_is_not_the_items_fault_is_submitted_by_the_next_run(
    tmp_path: Path, fault: Fault
) -> None:
    """Nothing was bought, so there is nothing to be afraid of."""
    it = Studio(tmp_path)
    it.emulator.fail_next(fault, on=SUBMIT)
    [outcome] = await it.run(eggs(1), retry=RetryPolicy(max_attempts=1))
    assert outcome.error is not None
    assert it.states()["planned"] == 1
    [outcome] = await it.run(eggs(1))
    assert outcome.ok
    assert len(it.emulator.accepted) == 1


@on_both
async def test_a_submission_that_is_repeated_is_planned_meanwhile(tmp_path: Path) -> None:
    """A kill during the pause after a refusal leaves no doubt."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.refused(429, retry_after=50), on=SUBMIT)
    async with it.client() as egg:
        async with egg.map(eggs(1), journal=it.journal) as run:
            await anyio.sleep(25)
            await anyio.to_thread.run_sync(until, lambda: it.states()["planned"] == 1)
            assert (await anext(run)).ok
    assert len(it.emulator.accepted) == 1


@on_both
async def test_leaving_in_the_middle_of_a_submission_loses_no_id(tmp_path: Path) -> None:
    """POSTs under way are heard to their end; what had not left is planned."""
    it = Studio(tmp_path, service(latency=2.0))
    async with it.client(limiter=RateLimiter(concurrency=3, per_second=None)) as egg:
        async with egg.map(eggs(9), journal=it.journal, in_flight=9):
            await anyio.sleep(1)
    assert len(it.emulator.accepted) == 3
    assert {one.task_id for one in it.items()} == set(it.emulator.accepted)
    assert it.states()["submitted"] == 3
    assert [told(one) for one in await it.run(eggs(9))] == ["ok"] * 9
    assert len(it.emulator.accepted) == 9


@pytest.mark.parametrize("after", range(0, 120, 9))
async def test_cancelled_after_any_step_and_run_again(tmp_path: Path, after: int) -> None:
    """A native cancellation at any step: each item is bought once all the same."""
    it = Studio(tmp_path)
    before = asyncio.all_tasks()
    task = asyncio.create_task(it.run(eggs(3), save_to=tmp_path / "out"))
    for _ in range(after):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
    outcomes = await it.run(eggs(3), save_to=tmp_path / "out")
    assert [told(outcome) for outcome in outcomes] == ["ok"] * 3
    assert len(it.emulator.accepted) == 3


@pytest.mark.parametrize("after", range(0, 30, 3))
async def test_cancelled_at_any_step_of_its_opening(tmp_path: Path, after: int) -> None:
    """The journal is free again when the cancellation has gone on."""
    it = Studio(tmp_path)
    (tmp_path / f".gen_x.{0:012x}.part").touch()
    for steps in (after, 1000):
        task = asyncio.create_task(it.run([], save_to=tmp_path))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await it.run([], save_to=tmp_path) == []


@on_both
async def test_a_journal_that_fails_at_its_opening_is_let_go(tmp_path: Path) -> None:
    """Also when that comes late."""
    it = Studio(tmp_path)
    (tmp_path / f".gen_x.{0:012x}.part").touch()
    await it.run([], save_to=tmp_path)
    it.edit("ALTER TABLE tasks RENAME TO no_tasks")
    with pytest.raises(JournalError, match="no such table"):
        await it.run([], save_to=tmp_path)
    it.edit("ALTER TABLE no_tasks RENAME TO tasks")
    assert await it.run([], save_to=tmp_path) == []


# --- which item is which -----------------------------------------------------------------------


@on_both
async def test_lines_may_be_added_removed_and_moved(tmp_path: Path) -> None:
    """Only what is new is bought; of equal lines each is one."""
    it = Studio(tmp_path)
    await it.run(["A", "B", "B", "C"])
    outcomes = await it.run(["New", "C", "B", "A", "B", "B"])
    assert len(it.emulator.accepted) == 6
    assert len({outcome.unwrap().id for outcome in outcomes}) == 6
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4, 5]


@on_both
async def test_a_changed_item_is_a_new_one(tmp_path: Path) -> None:
    """Another prompt, another model, another field."""
    it = Studio(tmp_path)
    await it.run(["A"])
    await it.run([{"prompt": "A", "resolution": "4k"}, {"prompt": "A", "model": "x"}, "A!"])
    assert len(it.emulator.accepted) == 4


@on_both
async def test_keys_of_ones_own(tmp_path: Path) -> None:
    """A key is an item: twice the same key is bought once; under an old key nothing new is."""
    it = Studio(tmp_path)
    items = [{"prompt": "A"}, {"prompt": "A"}, {"prompt": "B"}]
    outcomes = await it.run(items, key=lambda item: item["prompt"])
    assert len(it.emulator.accepted) == 2
    assert outcomes[0].unwrap().id == outcomes[1].unwrap().id
    [outcome] = await it.run([{"prompt": "B"}], key=lambda _: "A")
    assert isinstance(outcome.error, InvalidRequestError)
    assert outcome.error.field == "key"
    assert outcome.request == GenerationRequest(prompt="B")
    assert len(it.emulator.accepted) == 2


@pytest.mark.parametrize("key", [None, 3, "", "\ud800"])
@on_both
async def test_a_key_is_text(tmp_path: Path, key: Any) -> None:
    """Anything else is refused before anything is bought."""
    it = Studio(tmp_path)
    [outcome] = await it.run(["A"], key=lambda _: key)
    assert isinstance(outcome.error, InvalidRequestError)
    assert outcome.error.field == "key"
    assert it.emulator.accepted == []


@on_both
async def test_what_is_no_request_is_not_recorded(tmp_path: Path) -> None:
    """It costs nothing to refuse it again."""
    it = Studio(tmp_path)
    [outcome] = await it.run([""])
    assert isinstance(outcome.error, InvalidRequestError)
    assert outcome.request is None
    assert it.items() == []


# --- doubts ------------------------------------------------------------------------------------


@on_a_thread
def kill_while_sending(it: Studio, *, sent_at: datetime | None = None, prompt: str = "Egg") -> None:
    """What a process leaves that is killed after an intent, and before the answer."""
    with closing(Database(it.journal, origin=ORIGIN)) as database:
        database.open()
        with database.transaction():
            item = database.find(0, None, GenerationRequest(prompt=prompt))
            when = sent_at or wall_clock()
            database.write(attrs.evolve(item, state="intent", sent_at=when, lost_at=when))
        database.write(attrs.evolve(item, state="intent", sent_at=when, lost_at=when))


@on_both
async def test_a_lost_answer_is_a_doubt_in_every_run(tmp_path: Path) -> None:
    """It is not sent again; the error has what was sent and when, and finds the task."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.lost())
    [first] = await it.run(["Egg"])
    assert isinstance(first.error, SubmissionUncertainError)
    async with it.client() as egg:
        [again] = await egg.map(["Egg"], journal=it.journal)
        assert isinstance(again.error, SubmissionUncertainError)
        assert (again.error.request, again.error.sent_at, again.error.lost_at) == (
            first.error.request,
            first.error.sent_at,
            first.error.lost_at,
        )
        [found] = await again.error.reconcile()
    assert [found.id] == it.emulator.accepted
    assert it.asked(SUBMIT) == 1


@on_both
async def test_what_a_kill_left_is_a_doubt(tmp_path: Path) -> None:
    """An intent without an answer: it may have been sent."""
    it = Studio(tmp_path)
    kill_while_sending(it)
    [outcome] = await it.run(["Egg"])
    assert isinstance(outcome.error, SubmissionUncertainError)
    assert it.asked(SUBMIT) == 0
    assert it.states()["uncertain"] == 1


@on_both
async def test_a_delivery_names_the_task_of_a_lost_submission_to_the_next_process(
    tmp_path: Path,
) -> None:
    """The reference in its webhook URL is in the journal, and good for one submission only."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.lost())
    async with it.client(webhook_url="https://you.test/hook") as egg:
        [first] = await egg.map(["Egg"], journal=it.journal)
    assert isinstance(first.error, SubmissionUncertainError)
    (reference,) = {item.reference for item in it.items()}
    assert reference == first.error.reference is not None
    (lost,) = it.emulator.accepted
    async with it.client(webhook_url="https://you.test/hook") as egg:
        await anyio.sleep(300)
        task = await egg.get_task(lost)
        event = WebhookEvent(
            event="task.completed", task_id=lost, reference=reference, is_trusted=False
        )
        assert await egg.deliver(event) == task
        [again] = await egg.map(["Egg"], journal=it.journal)
    assert again.unwrap().id == lost
    assert it.asked(SUBMIT) == 1


@on_both
async def test_a_task_that_a_delivery_named_can_be_read_again(tmp_path: Path) -> None:
    """Left before its end, it is collected by the next run."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.lost())
    async with it.client(webhook_url="https://you.test/hook") as egg:
        await egg.map(["Egg"], journal=it.journal)
        (reference,) = {item.reference for item in it.items()}
        (lost,) = it.emulator.accepted
        event = WebhookEvent(
            event="task.processing", task_id=lost, status="processing", reference=reference
        )
        await egg.deliver(event)
        [left] = await egg.map(["Egg"], journal=it.journal, timeout=0.1)
    assert isinstance(left.error, TaskTimeoutError)
    assert [(item.state, item.task_id) for item in it.items()] == [("submitted", lost)]
    [again] = await it.run(["Egg"])
    assert again.unwrap().id == lost


@on_both
async def test_a_doubt_of_an_earlier_run_survives_a_loss_in_this_one(tmp_path: Path) -> None:
    """However old it is: it is being resolved."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.html(502))
    await it.run(["Egg"])
    long_ago = (wall_clock() - timedelta(hours=24)).isoformat()
    it.edit("UPDATE items SET sent_at = ?, lost_at = ?", long_ago, long_ago)
    it.emulator.fail_next(Fault.html(502))
    outcomes = await it.run(["Egg", "A fresh egg"], uncertain="verify")
    assert list(map(told, outcomes)) == ["ok", "ok"]
    assert len(it.emulator.accepted) == 2


@on_both
async def test_an_item_is_sent_as_this_run_asks_for_it(tmp_path: Path) -> None:
    """Where its end is to be told is no part of what it is."""
    it = Studio(tmp_path)
    egg = {"prompt": "forbidden egg", "webhook_url": "https://old.test/hook"}
    [first] = await it.run([egg])
    assert isinstance(first.error, TaskFailedError)
    await it.run([egg | {"webhook_url": "https://new.test/hook"}], retry_failed=True)
    sent = [it.emulator.task(task_id).fields["webhook_url"] for task_id in it.emulator.accepted]
    assert sent == ["https://old.test/hook", "https://new.test/hook"]


@on_both
async def test_a_batch_run_again_by_its_client_still_relies_on_webhooks(tmp_path: Path) -> None:
    """The client's own URL stays the task's, and an end that was told early counts."""
    it = Studio(tmp_path)
    async with it.client(webhook_url="https://you.test/hook") as egg:
        await egg.map(["Egg"], journal=it.journal, timeout=0.1)
        (task,) = egg.unfinished
        await egg.map(["Egg"], journal=it.journal, timeout=0.1)
        assert egg.unfinished == (task,)
    assert task.request is not None
    assert task.request.webhook_url == "https://you.test/hook"
    async with it.client(webhook_url="https://you.test/hook") as egg:
        handle = egg.task(task.id)
        end = WebhookEvent(
            event="task.completed",
            task_id=task.id,
            status="completed",
            output={"url": "https://cdn.test/egg.png"},
            cost=Decimal("0.01"),
            raw={"cost": "$0.01"},
        )
        await egg.deliver(end)
        [outcome] = await egg.map(["Egg"], journal=it.journal)
        assert handle.done
        assert outcome.ok
        assert (egg.stats.completed, egg.stats.cost) == (1, Decimal("0.01"))


@on_both
async def test_tasks_of_the_journal_are_no_candidates(tmp_path: Path) -> None:
    """They are known, though this process has never seen them."""
    it = Studio(tmp_path, service(speed=1000))  # so that the clocks hardly drift apart
    await it.run(eggs(5))
    kill_while_sending(it)
    async with it.client() as egg:
        [outcome] = await egg.map(["Egg"], journal=it.journal)
        assert isinstance(outcome.error, SubmissionUncertainError)
        assert await outcome.error.reconcile() == ()
        it.journal.unlink()  # without it nothing is known of them
        assert len(await outcome.error.reconcile()) == 5


@on_both
async def test_verify_submits_what_was_never_taken(tmp_path: Path) -> None:
    """The list shows none that could be it, so it goes again, once."""
    it = Studio(tmp_path)
    await it.run(eggs(5))
    kill_while_sending(it)
    [outcome] = await it.run(["Egg"], uncertain="verify")
    assert outcome.ok
    assert len(it.emulator.accepted) == 6


@on_both
async def test_verify_adopts_what_was_taken(tmp_path: Path) -> None:
    """The one task that it must be, though another process sent it."""
    it = Studio(tmp_path)
    await it.run(eggs(5))
    async with it.client() as egg:
        lost = await egg.generate("Egg")  # by the process that was killed
    kill_while_sending(it)
    [outcome] = await it.run(["Egg"], uncertain="verify")
    assert outcome.unwrap().id == lost.id
    assert len(it.emulator.accepted) == 6
    [again] = await it.run(["Egg"])
    assert again.unwrap().id == lost.id


@on_both
async def test_verify_does_not_choose_between_two_doubts(tmp_path: Path) -> None:
    """One task and two questions: both are told, with the candidate."""
    it = Studio(tmp_path)
    async with it.client() as egg:
        lost = await egg.generate("Egg")
    when = wall_clock()
    kill_while_sending(it, sent_at=when)
    kill_while_sending(it, sent_at=when, prompt="Another")
    outcomes = await it.run(["Egg", "Another"], uncertain="verify")
    for outcome in outcomes:
        assert isinstance(outcome.error, SubmissionUncertainError)
        assert [task.id for task in outcome.error.candidates] == [lost.id]
    assert it.states()["uncertain"] == 2


@on_both
async def test_a_doubt_of_this_very_process_is_the_same_in_its_next_batch(tmp_path: Path) -> None:
    """It is no rival of itself."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.lost())
    async with it.client() as egg:
        [first] = await egg.map(["Egg"], journal=it.journal)
        assert isinstance(first.error, SubmissionUncertainError)
        [again] = await egg.map(["Egg"], journal=it.journal, uncertain="verify")
    assert [again.unwrap().id] == it.emulator.accepted


@on_both
async def test_a_doubt_that_was_resolved_by_the_run_is_recorded(tmp_path: Path) -> None:
    """With "verify" a lost answer in the middle ends well, in the journal too."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.lost())
    [outcome] = await it.run(["Egg"], uncertain="verify")
    assert [outcome.unwrap().id] == it.emulator.accepted
    assert [one.task_id for one in it.items()] == it.emulator.accepted


@on_both
async def test_a_key_twice_in_one_run_meets_its_own_doubt(tmp_path: Path) -> None:
    """The second gets the first one's doubt, not a second POST."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.lost())
    outcomes = await it.run(["Egg", "Egg"], key=lambda _: "the egg")
    assert [told(one) for one in outcomes] == ["SubmissionUncertainError"] * 2
    assert it.asked(SUBMIT) == 1


# --- the journal fails -------------------------------------------------------------------------


@on_both
async def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    """Before anything is read or bought."""
    it = Studio(tmp_path)
    taken: list[str] = []

    def requests() -> Iterable[str]:
        taken.append("one")
        yield "Egg"

    async with it.client() as egg:
        async with egg.map(eggs(1), journal=it.journal):
            with pytest.raises(JournalError, match="another batch is at work"):
                await egg.map(requests(), journal=it.journal)
    assert taken == []


@pytest.mark.parametrize("place", [3, ":memory:", ""])
async def test_what_is_no_place_for_a_journal_is_refused_at_once(place: Any) -> None:
    """By `map` itself."""
    async with connect(service()) as egg:
        with pytest.raises(InvalidRequestError) as caught:
            egg.map(eggs(1), journal=place)
    assert caught.value.field == "journal"


async def take_all(run: Batch, outcomes: list[Outcome]) -> None:
    """What came before an error counts, too."""
    with suppress(StopAsyncIteration):
        while True:
            outcomes.append(await anext(run))


def break_after(it: Studio, number: int) -> Callable[[], None]:
    """Makes every write of one sort fail from now on: SQLite itself refuses."""

    def spoil() -> None:
        it.edit(
            "CREATE TRIGGER full BEFORE UPDATE ON items"
            f" WHEN new.state = 'submitted' AND new.position >= {number}"
            " BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )

    return spoil


@on_both
async def test_a_journal_that_fails_stops_the_batch_and_collects_the_rest(tmp_path: Path) -> None:
    """Nothing more is read or submitted; what is under way is awaited; then the error comes."""
    it = Studio(tmp_path)
    taken: list[int] = []

    def requests() -> Iterable[str]:
        for n in range(100):
            taken.append(n)
            if n == 10:
                break_after(it, 8)()
            yield f"Egg {n}"

    outcomes: list[Outcome] = []
    async with it.client() as egg:
        async with egg.map(requests(), journal=it.journal, in_flight=4) as run:
            with pytest.raises(JournalError, match="the disk is full"):
                await take_all(run, outcomes)
        assert len(taken) <= 20
        assert len(it.emulator.accepted) <= 14
        done = {one.result.id for one in outcomes if one.result}
        assert done == set(it.emulator.accepted)  # all of them were collected
        refused = [one for one in outcomes if not one.ok]
        assert all(isinstance(one.error, JournalError) for one in refused)
    items = it.items()
    known = {one.task_id for one in items} & set(it.emulator.accepted)
    doubts = [one for one in items if one.state in ("intent", "uncertain")]
    assert len(it.emulator.accepted) - len(known) <= len(doubts)


@on_both
async def test_awaiting_such_a_batch_raises_too(tmp_path: Path) -> None:
    """The list would hide that the rest was not done."""
    it = Studio(tmp_path)
    await it.run(["Egg"], timeout=1.0)
    it.edit("CREATE TRIGGER no BEFORE INSERT ON items BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(JournalError, match="full"):
        await it.run(eggs(50))
    assert len(it.emulator.accepted) == 1


# --- many --------------------------------------------------------------------------------------


async def test_thousands_of_finished_items_are_read_lazily(tmp_path: Path) -> None:
    """A resumed batch holds no more than what is in flight."""
    it = Studio(tmp_path)
    await it.run(["Egg"])
    [row] = [as_row(item) for item in it.items()]
    columns = ", ".join(row)
    with closing(sqlite3.connect(it.journal)) as rows:
        rows.executemany(
            f"INSERT INTO items ({columns}) VALUES ({', '.join(f':{name}' for name in row)})",
            ({**row, "key": f"{row['content']}/{n}"} for n in range(2, 3001)),
        )
        rows.commit()
    most = 0
    async with it.client() as egg:
        async with egg.map(("Egg" for _ in range(3000)), journal=it.journal) as run:
            async for outcome in run:
                assert outcome.ok
                if outcome.index % 500 == 0:
                    gc.collect()
                    most = max(most, sum(isinstance(one, Outcome) for one in gc.get_objects()))
    assert run.ended == 3000
    assert most <= 401
    assert it.asked(SUBMIT) == 1


# --- money -----------------------------------------------------------------------------------


@on_both
async def test_a_budget_counts_what_this_run_submits(tmp_path: Path) -> None:
    """Finished items cost nothing again; beyond the budget nothing is recorded as intended."""
    it = Studio(tmp_path)
    await it.run(eggs(2))
    outcomes = await it.run(eggs(8), budget=Budget("0.03"))
    refused = [outcome.error for outcome in outcomes if not outcome.ok]
    assert [type(error) for error in refused] == [BudgetExceededError] * 3
    assert len(it.emulator.accepted) == 5
    assert +it.states() == {"finished": 5}


@on_both
async def test_a_refusal_of_all_stops_what_has_not_left(tmp_path: Path) -> None:
    """Intents that were not followed are withdrawn, and the next run submits them."""
    it = Studio(tmp_path)
    it.emulator.fail_next(Fault.refused(403, "INSUFFICIENT_BALANCE"))
    outcomes = await it.run(eggs(60))
    refused = [outcome for outcome in outcomes if not outcome.ok]
    assert refused
    assert all(isinstance(outcome.error, InsufficientBalanceError) for outcome in refused)
    assert len(it.emulator.accepted) == 60 - len(refused)
    assert set(+it.states()) <= {"finished", "planned"}
    assert all(outcome.ok for outcome in await it.run(eggs(60)))
    assert len(it.emulator.accepted) == 60
