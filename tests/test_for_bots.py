"""What a bot needs of a client: throttled news, pictures in memory, and an orderly end."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import attrs
import httpx
import pytest

from eggapi_async import (
    AsyncEggClient,
    DownloadError,
    InvalidRequestError,
    OutputDownloaded,
    RetryPolicy,
    TaskFailedError,
)
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.content_host import JPEG, PNG, Host, Reply, customer, finished, part, says, whole
from tests.virtual_time import on_both

URL = "https://cdn.test/a.png"


def emulated(**options: Any) -> tuple[EggEmulator, AsyncEggClient]:
    """An emulator on virtual time, and a client of it."""
    emulator = EggEmulator(clock=anyio.current_time, **options)
    return emulator, connect(emulator)


# --- news ------------------------------------------------------------------------------------


@on_both
async def test_updates_come_no_oftener_than_asked() -> None:
    """What changes in between is left out, but for the end, which comes at once."""
    emulator, egg = emulated()
    emulator.fail_next(Fault.stuck())
    async with egg:
        task = await egg.generate("A cat")
        hub = egg._engines.hub
        start = anyio.current_time()

        async def change() -> None:
            assert task.snapshot is not None
            for seconds, status in ((0.5, "processing"), (0.5, "upscaling"), (1.5, "completed")):
                await anyio.sleep(seconds)
                hub.show(attrs.evolve(task.snapshot, status=status))

        async with anyio.create_task_group() as group:
            group.start_soon(change)
            seen = [
                (anyio.current_time() - start, snapshot.status)
                async for snapshot in task.updates(every=2.0)
            ]
    assert seen == [(0, "pending"), (2.0, "upscaling"), (2.5, "completed")]


@on_both
async def test_updates_of_a_real_task_are_apart() -> None:
    """Against the emulator, with 20 s between them."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", resolution="4k")
        moments = [(anyio.current_time(), news) async for news in task.updates(every=20.0)]
        assert moments[-1][1].is_completed
        assert all(b - a >= 20 for (a, _), (b, _) in pairwise(moments[:-1]))


@pytest.mark.parametrize("every", [-1, "2", None, True])
async def test_no_other_interval_is_taken(every: Any) -> None:
    """It is refused at once, not at the first step."""
    _, egg = emulated()
    async with egg:
        with pytest.raises(InvalidRequestError, match="every: expected seconds from 0"):
            egg.task("gen_1").updates(every=every)


@on_both
async def test_a_task_knows_how_long_it_has_been_at_work() -> None:
    """While it is open by our clock, then by the service's; a bare handle knows nothing."""
    _, egg = emulated()
    async with egg:
        assert egg.task("gen_1").elapsed is None
        task = await egg.generate("A cat")
        assert task.elapsed == 0
        await anyio.sleep(4)
        assert task.elapsed == 4
        result = await task
        assert result.completed_at is not None
        assert result.created_at is not None
        took = (result.completed_at - result.created_at).total_seconds()
        await anyio.sleep(60)
        assert task.elapsed == took > 4


# --- pictures in memory ----------------------------------------------------------------------


@on_both
async def test_a_picture_is_read_into_memory() -> None:
    """The first output, another one, or all; the same bytes as a file would have."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", num_outputs=3)
        first = await task.read()
        pictures = await task.read_all()
        assert await task.read(2) == pictures[2]
        assert await egg.read(await task, 1) == pictures[1]
        assert await egg.read((await task).urls[0]) == first
    assert first == pictures[0]
    assert len(set(pictures)) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert emulator.leaks == []


async def test_what_is_read_is_told_of() -> None:
    """`on_event` hears of a picture in memory as of one on disk."""
    told: list[Any] = []
    emulator = EggEmulator(clock=anyio.current_time)
    async with connect(emulator, on_event=told.append) as egg:
        task = await egg.generate("A cat")
        picture = await task.read()
    [event] = [event for event in told if isinstance(event, OutputDownloaded)]
    assert (event.task_id, event.size) == (task.id, len(picture))


async def test_what_is_read_is_what_is_saved(tmp_path: Any) -> None:
    """Byte by byte."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        [path] = await task.save(tmp_path)
        assert await task.read() == path.read_bytes()


async def test_reading_waits_for_the_end() -> None:
    """And says why there is nothing to read."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A forbidden egg")
        with pytest.raises(TaskFailedError):
            await task.read(timeout=100)


@pytest.mark.parametrize("index", [-1, 1, True, "0"])
async def test_an_output_that_is_not_there_is_refused(index: Any) -> None:
    """Before anything is fetched."""
    host = Host()
    async with customer(host) as egg:
        with pytest.raises(InvalidRequestError, match="index: expected 0 to 0") as caught:
            await egg.read(finished(URL), index)
        assert caught.value.value is index
    assert host.requests == []


async def test_a_task_without_output_cannot_be_read() -> None:
    """The error names it."""
    async with customer(Host()) as egg:
        with pytest.raises(DownloadError) as caught:
            await egg.read(finished())
    assert str(caught.value) == "gen_1: the task has no output to fetch"


async def test_what_broke_off_is_continued() -> None:
    """As with files: the rest is asked for, and the whole is what counts."""
    cut = Reply([PNG[:20], httpx.ReadError("reset")], headers={"ETag": '"v1"'}, length=len(PNG))
    host = Host(cut, part(PNG, 20, ETag='"v1"'))
    async with customer(host) as egg:
        assert await egg.read(finished(URL)) == PNG
    assert host.ranges == [None, "bytes=20-"]


async def test_a_picture_of_unknown_length_is_read_to_its_end() -> None:
    """Nothing states its size: its own parts tell that it is whole."""
    _, egg = emulated()
    async with egg:
        content = await (await egg.generate("A cat")).read()
    retry = RetryPolicy(max_attempts=1)
    async with customer(Host(Reply([content])), retry=retry) as egg:
        assert await egg.read(URL) == content
    async with customer(Host(Reply([content[:-20]])), retry=retry) as egg:
        with pytest.raises(DownloadError):
            await egg.read(URL)


@pytest.mark.parametrize(
    ("replies", "problem"),
    [
        pytest.param([whole(PNG + bytes(100))], "more than max_bytes=100", id="too big"),
        pytest.param([says(200, b"<html>")], "expected a picture or a video", id="no picture"),
        pytest.param([whole(PNG[:-4])], "before its end", id="cut under its own length"),
        pytest.param([says(404)], "HTTP 404", id="gone"),
    ],
)
async def test_what_is_no_whole_picture_is_refused(replies: list[Any], problem: str) -> None:
    """The same checks as for files, and the same error."""
    async with customer(Host(*replies), retry=RetryPolicy(max_attempts=1)) as egg:
        with pytest.raises(DownloadError, match=problem):
            await egg.read(URL, max_bytes=100)


async def test_all_are_read_or_none() -> None:
    """One that fails is not left out silently; the order is the task's."""
    urls = [f"https://cdn.test/{n}.png" for n in range(3)]
    pictures = {urls[0]: PNG, urls[1]: JPEG, urls[2]: PNG + b"\x00\x00\x00\x00IEND\xaeB`\x82"}
    async with customer(Host(play=lambda request: whole(pictures[str(request.url)]))) as egg:
        assert await egg.read_all(finished(*urls)) == list(pictures.values())
    host = Host(play=lambda request: says(404) if "1.png" in str(request.url) else whole())
    async with customer(host) as egg:
        with pytest.raises(DownloadError):
            await egg.read_all(finished(*urls), max_bytes=1000)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        pytest.param("http://cdn.test/a.png", DownloadError, id="plain http"),
        pytest.param(finished(), DownloadError, id="a task without output"),
        pytest.param(7, InvalidRequestError, id="neither task nor URL"),
    ],
)
async def test_what_cannot_be_read_is_refused(source: Any, error: type[Exception]) -> None:
    """Nothing is sent."""
    host = Host()
    async with customer(host) as egg:
        with pytest.raises(error):
            await egg.read(source)
    assert host.requests == []


# --- the end ---------------------------------------------------------------------------------


@on_both
async def test_closing_waits_for_what_is_awaited() -> None:
    """And for the pictures that are fetched then; nothing is unfinished afterwards."""
    _, egg = emulated()
    pictures = []

    async def work(prompt: str) -> None:
        task = await egg.generate(prompt)
        pictures.append(await task.read())

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(work, f"Egg {number}")
        await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
        assert await egg.aclose(drain=100) == ()
        assert 0 < anyio.current_time() - start < 100
        assert len(pictures) == 3


@on_both
async def test_closing_waits_so_long_and_no_longer() -> None:
    """What has not ended is returned, to be stored and taken up again by another client."""
    emulator, egg = emulated()
    emulator.fail_next(Fault.stuck())
    async with anyio.create_task_group() as group:
        task = await egg.generate("A cat")
        group.start_soon(task.result)
        await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
        unfinished = await egg.aclose(drain=10)
        assert anyio.current_time() - start == 10
        assert unfinished == (task,) == egg.unfinished
        group.cancel_scope.cancel()
    other = await connect(emulator).generate("Another")
    assert other.id != unfinished[0].id


@on_both
async def test_closing_hears_a_submission_that_is_under_way() -> None:
    """Its task is among those that are returned: it is paid for."""
    emulator, egg = emulated(latency=2.0)
    async with anyio.create_task_group() as group:
        group.start_soon(egg.generate, "A cat")
        await anyio.wait_all_tasks_blocked()
        [task] = await egg.aclose(drain=30)
    assert [task.id] == emulator.accepted


@on_both
async def test_what_nobody_awaits_holds_nobody_up() -> None:
    """Submitted, and left to a webhook: closing returns it at once, with and without drain."""
    _, egg = emulated()
    task = await egg.generate("A cat")
    start = anyio.current_time()
    assert await egg.aclose(drain=30) == (task,)
    assert await egg.aclose() == (task,)
    assert anyio.current_time() == start


@on_both
async def test_closing_without_drain_waits_for_nothing() -> None:
    """As ever."""
    _, egg = emulated()
    async with anyio.create_task_group() as group:
        task = await egg.generate("A cat")
        group.start_soon(task.result)
        await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
        assert await egg.aclose() == (task,)
        assert anyio.current_time() == start
        group.cancel_scope.cancel()


@on_both
async def test_only_the_owner_waits() -> None:
    """A client made by `with_options` closes nothing, and so drains nothing."""
    _, egg = emulated()
    async with egg, anyio.create_task_group() as group:
        task = await egg.generate("A cat")
        group.start_soon(task.result)
        await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
        assert await egg.with_options(timeout=5).aclose(drain=30) == (task,)
        assert anyio.current_time() == start


@pytest.mark.parametrize("drain", [-1, None, "10"])
async def test_no_other_drain_is_taken(drain: Any) -> None:
    """Seconds, from 0."""
    _, egg = emulated()
    async with egg:
        with pytest.raises(InvalidRequestError, match="drain: expected seconds from 0"):
            await egg.aclose(drain=drain)
