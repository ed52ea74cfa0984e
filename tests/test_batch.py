"""Many generations: read lazily, bounded in flight, outcomes as values."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from eggapi_async import (
    AsyncEggClient,
    AuthenticationError,
    DownloadError,
    EggError,
    GenerationRequest,
    InsufficientBalanceError,
    InvalidRequestError,
    PermissionDeniedError,
    RateLimiter,
    ServerError,
    SubmissionUncertainError,
    TaskFailedError,
    TaskSnapshot,
    TaskTimeoutError,
)
from eggapi_async._batch import Batch
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.virtual_time import on_both


def emulated(**options: Any) -> tuple[EggEmulator, AsyncEggClient]:
    """An emulator on virtual time, and a client of it."""
    emulator = EggEmulator(**{"clock": anyio.current_time} | options)
    return emulator, connect(emulator, limiter=RateLimiter(per_second=None))


class Kitchen:
    """Makes pictures by itself: seconds by prompt, and a count of what is under way."""

    def __init__(self) -> None:
        self.busy = 0
        self.most = 0
        self.made: list[str] = []

    async def make(self, request: GenerationRequest, _: Any) -> TaskSnapshot:
        """The prompt's number is the seconds that it takes."""
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await anyio.sleep(float(request.prompt))
        finally:
            self.busy -= 1
        self.made.append(request.prompt)
        return TaskSnapshot(id=f"gen_{request.prompt}", status="completed")

    def batch(self, requests: Any, *, in_flight: int = 2) -> Batch:
        """A batch that is made here."""
        return Batch(
            requests,
            in_flight=in_flight,
            read=GenerationRequest.of,
            make=self.make,
            save=None,
        )


class Counted:
    """An iterable that tells how many of its items were taken."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.taken += 1
            yield item


class CountedSlowly(Counted):
    """The same as an asynchronous iterable only."""

    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._items:
            await anyio.sleep(0.125)
            self.taken += 1
            yield item


# --- what goes in -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_requests",
    [
        pytest.param(lambda: ["1", "2", "3"], id="a list"),
        pytest.param(lambda: ("1", "2", "3"), id="a tuple"),
        pytest.param(lambda: iter(["1", "2", "3"]), id="an iterator"),
        pytest.param(lambda: (str(n) for n in (1, 2, 3)), id="a generator"),
        pytest.param(lambda: Counted(["1", "2", "3"]), id="an iterable of one's own"),
        pytest.param(lambda: CountedSlowly(["1", "2", "3"]), id="an async iterable"),
        pytest.param(lambda: aiter(CountedSlowly(["1", "2", "3"])), id="an async generator"),
        pytest.param(
            lambda: ["1", {"prompt": "2"}, GenerationRequest(prompt="3")], id="all three kinds"
        ),
    ],
)
@on_both
async def test_any_iterable_will_do(make_requests: Any) -> None:
    """Lists, generators, async iterables; prompts, mappings and requests."""
    outcomes = await Kitchen().batch(make_requests())
    assert [outcome.unwrap().id for outcome in outcomes] == ["gen_1", "gen_2", "gen_3"]
    assert all(outcome.ok for outcome in outcomes)


@pytest.mark.parametrize("requests", [[], iter(()), CountedSlowly([])])
@on_both
async def test_nothing_in_nothing_out(requests: Any) -> None:
    """A batch of nothing ends at once."""
    assert await Kitchen().batch(requests) == []


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param("A cat", id="one prompt"),
        pytest.param(b"A cat", id="bytes"),
        pytest.param(GenerationRequest(prompt="A cat"), id="one request"),
        pytest.param(None, id="nothing"),
        pytest.param(3, id="a number"),
    ],
)
def test_what_is_no_iterable_of_requests_is_refused(requests: Any) -> None:
    """One prompt in place of many would be bought letter by letter."""
    with pytest.raises(InvalidRequestError) as caught:
        Kitchen().batch(requests)
    assert caught.value.field == "requests"


@pytest.mark.parametrize("in_flight", [0, -1, 1.5, "2", None])
def test_an_impossible_bound_is_refused(in_flight: Any) -> None:
    """`in_flight` is a whole number from 1."""
    with pytest.raises(InvalidRequestError) as caught:
        Kitchen().batch([], in_flight=in_flight)
    assert caught.value.field == "in_flight"


# --- how it goes ------------------------------------------------------------------------------


@on_both
async def test_await_gives_input_order() -> None:
    """However they finish, the list is in the order of the input."""
    outcomes = await Kitchen().batch(["3", "1", "2"], in_flight=3)
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert [outcome.unwrap().id for outcome in outcomes] == ["gen_3", "gen_1", "gen_2"]


@on_both
async def test_the_block_gives_them_as_they_finish() -> None:
    """`async for` brings each outcome at the moment of its end."""
    started = anyio.current_time()
    async with Kitchen().batch(["3", "1", "2"], in_flight=3) as run:
        seen = [(outcome.index, anyio.current_time() - started) async for outcome in run]
    assert seen == [(1, 1.0), (2, 2.0), (0, 3.0)]


@pytest.mark.parametrize("kind", [Counted, CountedSlowly], ids=["read", "read slowly"])
@pytest.mark.parametrize("in_flight", [1, 2, 7])
@on_both
async def test_the_input_is_read_only_when_there_is_a_place(
    kind: type[Counted], in_flight: int
) -> None:
    """Never more than `in_flight` items are begun and not ended, nor read ahead of that."""
    requests = kind(["1"] * 30)
    kitchen = Kitchen()
    ahead = []
    async with kitchen.batch(requests, in_flight=in_flight) as run:
        ended = 0
        async for _ in run:
            ahead.append(requests.taken - ended)
            ended += 1
    assert ended == requests.taken == 30
    assert kitchen.most == in_flight or kind is CountedSlowly
    assert max(ahead) <= 2 * in_flight  # under way, and ended but not yet looked at


@on_both
async def test_with_one_place_an_item_is_read_when_the_one_before_has_ended() -> None:
    """What the bound means in its smallest case."""
    requests = Counted(["10"] * 3)
    async with Kitchen().batch(requests, in_flight=1) as run:
        for taken in (1, 2, 3):
            await anyio.sleep(5)
            assert requests.taken == taken
            await anext(run)


@on_both
async def test_a_slow_consumer_stops_the_reading() -> None:
    """Outcomes that nobody takes bound what is bought: `in_flight` more, and no further."""
    requests = Counted(["1"] * 1000)
    kitchen = Kitchen()
    async with kitchen.batch(requests, in_flight=5) as run:
        await anyio.sleep(10_000)
        assert requests.taken == 10
        assert kitchen.busy == 0
        await anext(run)
        await anyio.sleep(10_000)
        assert requests.taken == 11


@on_both
async def test_its_repr_counts() -> None:
    """What has ended and what is under way, and no request in it."""
    batch = Kitchen().batch(["1", "20", "30"], in_flight=2)
    assert repr(batch) == "<Batch 0 ended, 0 under way>"
    async with batch as run:
        await anext(run)
        await anyio.sleep(1)
        assert repr(batch) == "<Batch 1 ended, 2 under way>"
    assert (batch.begun, batch.ended) == (3, 1)


@on_both
async def test_a_batch_runs_once() -> None:
    """To run it again would buy it again."""
    batch = Kitchen().batch(["1"])
    await batch
    with pytest.raises(RuntimeError, match="once"):
        await batch
    with pytest.raises(RuntimeError, match="once"):
        async with batch:
            raise AssertionError


async def test_ten_thousand_items_take_no_more_memory_than_a_few() -> None:
    """10,000 items in virtual time, and the number of live snapshots stays flat."""
    counts = []
    started = anyio.current_time()
    async with Kitchen().batch((str(n % 7) for n in range(10_000)), in_flight=100) as run:
        async for outcome in run:
            assert outcome.ok
            if outcome.index % 1000 == 0:
                counts.append(_snapshots())
    assert run.ended == 10_000
    assert len(counts) == 10
    assert max(counts) <= 201  # of what has ended and is not looked at yet
    assert anyio.current_time() - started <= 10_000 * 3 / 100 + 7


def _snapshots() -> int:
    gc.collect()
    return sum(isinstance(thing, TaskSnapshot) for thing in gc.get_objects())


async def test_a_thousand_items_are_bought_once_each() -> None:
    """Against the service: as many tasks as items, and all of them known to have ended."""
    emulator, egg = emulated()
    async with egg, egg.map((f"cat {n}" for n in range(1000)), in_flight=200) as run:
        prompts = {outcome.request.prompt async for outcome in run if outcome.request}
    assert len(prompts) == len(emulator.accepted) == egg.stats.completed == 1000
    assert egg.unfinished == ()


# --- failures ---------------------------------------------------------------------------------


@on_both
async def test_failures_are_values(tmp_path: Path) -> None:
    """Refused, moderated, uncertain, too late: each an outcome in its place, the rest unharmed."""
    emulator, egg = emulated()
    emulator.fail_next(Fault.lost())
    async with egg:
        [lost] = await egg.map(["lost"])
        emulator.fail_next(Fault.stuck())
        [stuck] = await egg.map(["stuck"], timeout=100)
        items = [
            "",
            {"prompt": "x", "num_outputs": 9},
            7,
            {"colour": "red"},
            "A forbidden egg",
            "A",
        ]
        outcomes = await egg.map(items, save_to=tmp_path)
    assert isinstance(lost.error, SubmissionUncertainError)
    assert lost.request == GenerationRequest(prompt="lost")
    assert isinstance(stuck.error, TaskTimeoutError)
    assert stuck.result is None
    fields = [o.error.field for o in outcomes if isinstance(o.error, InvalidRequestError)]
    assert fields == ["prompt", "num_outputs", "request", "colour"]
    assert [outcome.request for outcome in outcomes[:4]] == [None] * 4
    moderated, fine = outcomes[4:]
    assert isinstance(moderated.error, TaskFailedError)
    assert moderated.error.is_moderation
    assert not moderated.ok
    assert fine.ok
    assert [path.parent for path in fine.paths] == [tmp_path]
    assert len(emulator.accepted) == 4


@on_both
async def test_unwrap_raises_the_error() -> None:
    """`unwrap()` gives the result, or raises what took its place."""
    emulator, egg = emulated()
    async with egg:
        failed, fine = await egg.map(["A forbidden egg", "A cat"])
    with pytest.raises(TaskFailedError, match="moderation"):
        failed.unwrap()
    assert fine.unwrap() is fine.result
    assert fine.unwrap().id in emulator.accepted


@on_both
async def test_a_picture_that_cannot_be_saved_keeps_its_result(tmp_path: Path) -> None:
    """The picture is paid for: the outcome has the error and the task."""
    _, egg = emulated()
    (tmp_path / "taken").write_text("a file")
    async with egg:
        [outcome] = await egg.map(["A cat"], save_to=tmp_path / "taken" / "out")
    assert isinstance(outcome.error, DownloadError)
    assert outcome.result is not None
    assert outcome.result.is_completed
    assert outcome.paths == ()


@on_both
async def test_a_folder_may_look_like_a_file(tmp_path: Path) -> None:
    """`save_to` is a folder, whatever its name."""
    _, egg = emulated()
    async with egg:
        outcomes = await egg.map(["A", "B"], save_to=tmp_path / "run.v1")
    assert sorted((tmp_path / "run.v1").iterdir()) == sorted(o.paths[0] for o in outcomes)


@on_both
async def test_files_may_be_named(tmp_path: Path) -> None:
    """`name` gets the item's place, its request and its task; a bad name is the item's error."""

    def name(index: int, request: GenerationRequest, task: TaskSnapshot) -> str:
        assert task.is_completed
        return "../B" if request.prompt == "B" else f"{request.prompt}/{index}"

    _, egg = emulated()
    async with egg:
        fine, bad = await egg.map(["A", "B"], save_to=tmp_path / "out", name=name)
    assert fine.paths == (tmp_path / "out" / "A" / "0.png",)
    assert isinstance(bad.error, InvalidRequestError)
    assert bad.error.field == "name"
    assert bad.result is not None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@on_both
async def test_the_clients_model_is_the_default() -> None:
    """Items that name no model get the client's; `uncertain` reaches every submission."""
    skew = time.time() - anyio.current_time()  # lost tasks are found by the wall clock
    emulator, egg = emulated(clock=lambda: skew + anyio.current_time())
    emulator.fail_next(Fault.lost())
    async with egg:
        outcomes = await egg.with_options(model="nanobanana-pro").map(
            ["A", {"prompt": "B", "model": "nanobanana"}], uncertain="verify", in_flight=1
        )
    assert [outcome.unwrap().model for outcome in outcomes] == ["nanobanana-pro", "nanobanana"]
    assert len(emulator.accepted) == 2


@pytest.mark.parametrize("kind", [Counted, CountedSlowly], ids=["an iterable", "an async iterable"])
@pytest.mark.parametrize("in_flight", [1, 2, 50])
@on_both
async def test_an_iterable_that_raises_ends_what_was_begun(
    kind: type[Counted], in_flight: int
) -> None:
    """Its own exception comes out as itself, after the outcomes of what was read before."""

    class Broken(kind):  # type: ignore[misc, valid-type]
        @property
        def _items(self) -> Any:
            yield from ["1", "2", "3"]
            raise LookupError("the file is torn")

        @_items.setter
        def _items(self, _: Any) -> None:
            pass

    kitchen = Kitchen()
    async with kitchen.batch(Broken([]), in_flight=in_flight) as run:
        assert [(await anext(run)).index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(LookupError, match="torn"):
            await anext(run)
    with pytest.raises(LookupError, match="torn"):
        await kitchen.batch(Broken([]), in_flight=in_flight)


@pytest.mark.parametrize("place", ["key", "name"])
@on_both
async def test_a_callable_that_raises_ends_what_was_begun(tmp_path: Path, place: str) -> None:
    """Its own exception comes out as itself, after the outcomes of what was begun; no more is."""
    torn = LookupError("no such column")

    def word(*given: Any) -> str:
        prompt = given[1].prompt if place == "name" else given[0]
        if prompt == "B":
            raise torn
        return str(prompt)

    emulator, egg = emulated()
    items = Counted(["A", "B", "C", "D", "E"])
    how: dict[str, Any] = {"journal": tmp_path / "run.sqlite3", "save_to": tmp_path, place: word}
    async with egg:
        with pytest.raises(LookupError) as caught:
            await egg.map(items, in_flight=2, **how)
    assert caught.value is torn
    assert items.taken < 5
    assert len(emulator.accepted) == items.taken - (place == "key")
    assert len(list(tmp_path.glob("*.png"))) == items.taken - 1


@on_both
async def test_the_first_exception_of_the_caller_counts(tmp_path: Path) -> None:
    """Where a callable and the input fail, the batch raises what came first."""

    async def items() -> AsyncIterator[str]:
        yield "A"
        await anyio.sleep(60)
        raise LookupError

    def name(*_: Any) -> str:
        raise ZeroDivisionError

    _, egg = emulated()
    async with egg:
        with pytest.raises(ZeroDivisionError):
            await egg.map(items(), save_to=tmp_path, name=name)


@on_both
async def test_an_error_of_this_package_from_a_callable_is_the_items(tmp_path: Path) -> None:
    """As every EggError is a value."""

    def name(*_: Any) -> str:
        raise InvalidRequestError("name", "A", "a better word")

    _, egg = emulated()
    async with egg:
        [outcome] = await egg.map(["A"], save_to=tmp_path, name=name)
    assert isinstance(outcome.error, InvalidRequestError)


@pytest.mark.parametrize(
    ("how", "field", "expected"),
    [
        pytest.param({"key": 3, "journal": "j"}, "key", "a callable", id="a key not callable"),
        pytest.param({"name": "x", "save_to": "d"}, "name", "a callable", id="a name not callable"),
        pytest.param({"key": str}, "key", "journal=", id="a key without a journal"),
        pytest.param({"name": str}, "name", "save_to=", id="a name without a folder"),
        pytest.param({"retry_failed": True}, "retry_failed", "journal=", id="nothing that failed"),
    ],
)
async def test_an_option_that_could_not_do_its_work_is_refused(
    how: dict[str, Any], field: str, expected: str
) -> None:
    """At once, by its name, with what was expected."""
    _, egg = emulated()
    async with egg:
        with pytest.raises(InvalidRequestError, match=expected) as caught:
            egg.map(["A"], **how)
    assert caught.value.field == field


# --- errors that meet all -----------------------------------------------------------------------

POOR = {
    "an empty account": (Fault.refused(403, "INSUFFICIENT_BALANCE"), InsufficientBalanceError),
    "a refused key": (Fault.refused(401), AuthenticationError),
}


@on_both
@pytest.mark.parametrize(("fault", "kind"), POOR.values(), ids=POOR)
async def test_an_error_that_will_meet_all_stops_the_sending(
    fault: Fault, kind: type[EggError]
) -> None:
    """What was sent before is collected; the rest are outcomes with the same error, unsent."""
    emulator = EggEmulator(clock=anyio.current_time, latency=1.0)
    limiter = RateLimiter(concurrency=2, per_second=None)
    async with connect(emulator, limiter=limiter) as egg:
        run = egg.map((f"cat {n}" for n in range(100)), in_flight=20)
        async with run as outcomes:
            while len(emulator.accepted) < 4:
                await anyio.sleep(0.125)
            emulator.fail_next(fault, on="POST /v1/generate")
            done = sorted([outcome async for outcome in outcomes], key=lambda it: it.index)
    fine = [outcome for outcome in done if outcome.ok]
    assert len(done) == 100
    assert len(fine) == len(emulator.accepted) == egg.stats.completed
    assert emulator.requests["POST /v1/generate"] <= len(fine) + 2
    assert {type(outcome.error) for outcome in done if not outcome.ok} == {kind}
    assert all(outcome.request for outcome in done)
    assert egg.unfinished == ()


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(PermissionDeniedError("no", status_code=403), id="this may not be done"),
        pytest.param(ServerError("broken", status_code=500), id="the service is broken"),
        pytest.param(InvalidRequestError("model", "m", "another"), id="a bad request"),
    ],
)
async def test_other_errors_stop_nothing(error: EggError) -> None:
    """They may be about one item only."""

    async def make(request: GenerationRequest, check: Callable[[], None]) -> TaskSnapshot:
        check()
        if request.prompt == "1":
            raise error
        return TaskSnapshot(id="gen_1", status="completed")

    batch = Batch(["1", "2", "3"], in_flight=1, read=GenerationRequest.of, make=make, save=None)
    assert [outcome.ok for outcome in await batch] == [False, True, True]


def test_a_batch_that_is_never_run_is_noticed() -> None:
    """`egg.map(...)` without `await` does nothing, and says so; a refused one says nothing more."""
    with pytest.warns(ResourceWarning, match="a batch was made and never run: await it"):
        Kitchen().batch(["1"])
    with pytest.raises(InvalidRequestError):
        Kitchen().batch(7)


# --- leaving early ----------------------------------------------------------------------------


@on_both
async def test_leaving_the_block_stops_the_rest() -> None:
    """What was submitted is in `unfinished`, nothing more is bought, and nothing goes on."""
    emulator, egg = emulated()
    requests = Counted(["A cat"] * 1000)
    async with egg:
        async with egg.map(requests, in_flight=10) as run:
            async for outcome in run:
                assert outcome.ok
                break
        accepted = list(emulator.accepted)
        now = anyio.current_time()
        ended = {id_ for id_ in accepted if emulator.task(id_).completed_at <= now}
        left = {task.id for task in egg.unfinished}
        assert left <= set(accepted)
        assert set(accepted) - left <= ended
        await anyio.sleep(1000)
        assert emulator.accepted == accepted
        assert (await egg.unfinished[0]).is_completed
    assert 10 <= len(accepted) <= 20


@on_both
async def test_leaving_the_block_while_submitting_loses_no_id() -> None:
    """A POST under way is heard to its end: the id is in `unfinished`."""
    emulator, egg = emulated(latency=1.0)
    async with egg:
        async with egg.map(["A cat"] * 5, in_flight=5):
            await anyio.sleep(0.5)
        assert sorted(task.id for task in egg.unfinished) == sorted(emulator.accepted)
    assert len(emulator.accepted) == 5


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), SystemExit(3)])
async def test_an_exception_of_the_block_comes_out_as_itself(error: BaseException) -> None:
    """Not in a group, and not wrapped."""
    kitchen = Kitchen()

    async def fail_inside() -> None:
        async with kitchen.batch(["100"] * 9):
            await anyio.sleep(1)
            raise error

    with pytest.raises(type(error)) as caught:
        await fail_inside()
    assert caught.value is error
    assert kitchen.busy == 0


@on_both
async def test_a_time_limit_around_a_batch_ends_it() -> None:
    """A scope around it cancels it whole."""
    kitchen = Kitchen()
    with anyio.move_on_after(5) as scope:
        await kitchen.batch(["3", "100", "3", "100"])
    assert scope.cancelled_caught
    assert kitchen.busy == 0
    assert kitchen.made == ["3"]


@pytest.mark.parametrize("after", range(25))
async def test_cancelled_after_any_step(after: int) -> None:
    """A native cancellation at any step ends the batch, and leaves no task behind."""
    kitchen = Kitchen()

    async def consume() -> None:
        async with kitchen.batch(["0", "1", "2", "3"]) as run:
            async for _ in run:
                pass

    before = asyncio.all_tasks()
    task = asyncio.create_task(consume())
    for _ in range(after):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
    assert kitchen.busy == 0


async def test_asyncio_timeout_works_around_a_batch() -> None:
    """asyncio's own time limit sees its cancellation again."""
    kitchen = Kitchen()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await kitchen.batch(["100"])
    assert kitchen.busy == 0


@on_both
async def test_a_batch_that_was_left_gives_no_more() -> None:
    """After the block, and before it, there is nothing to iterate over."""
    batch = Kitchen().batch(["1", "1", "1"])
    async with batch as run:
        await anext(run)
    with pytest.raises(RuntimeError, match="block"):
        await anext(run)


@on_both
async def test_the_stream_stays_at_its_end() -> None:
    """Asking on after the last outcome gives the end again."""
    async with Kitchen().batch(["1"]) as run:
        assert [outcome.index async for outcome in run] == [0]
        assert [outcome.index async for outcome in run] == []


@on_both
async def test_several_may_share_the_outcomes() -> None:
    """Workers that take from one run get each outcome once."""
    seen: list[int] = []

    async def work(run: Batch) -> None:
        async for outcome in run:
            seen.append(outcome.index)
            await anyio.sleep(1)

    async with Kitchen().batch(["1"] * 20, in_flight=4) as run:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work, run)
    assert sorted(seen) == list(range(20))


async def test_a_bug_in_the_middle_is_not_an_outcome() -> None:
    """Only errors of this package are values: anything else is a bug, and is raised."""

    async def make(_: GenerationRequest, __: Any) -> TaskSnapshot:
        raise ZeroDivisionError

    batch = Batch(["A"], in_flight=1, read=GenerationRequest.of, make=make, save=None)
    with pytest.raises(ExceptionGroup) as caught:
        await batch
    assert caught.group_contains(ZeroDivisionError)
