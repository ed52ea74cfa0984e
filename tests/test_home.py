"""One event loop at a time, in one process: who comes second is told so, and nothing crosses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from eggapi_async import (
    AsyncEggClient,
    Batch,
    ConfigurationError,
    JournalError,
    RateLimiter,
    TaskSnapshot,
    WrongLoopError,
)
from eggapi_async._home import Home
from tests.scripted import accepted, client_of, data, task
from tests.served import environment
from tests.wire import Received, Step, Wire, json_answer

ROOT = Path(__file__).parent.parent
REPEATS = 20
URL = "https://127.0.0.1:1/egg.png"
PATIENCE = 30.0
"""Real seconds after which what should have ended counts as hanging."""

Call = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


@contextmanager
def another_loop() -> Iterator[Call]:
    """A loop that runs in a thread of its own, and a function that runs a coroutine there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(), loop).result(PATIENCE)

    try:
        yield call
        call(loop.shutdown_asyncgens)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def service(request: Received) -> Step:
    """Takes everything; a task is open for long, and named as it was asked for."""
    if request.method == "POST":
        return accepted(json.loads(request.body)["prompt"])
    return json_answer(data(task(request.path.rpartition("/")[2])))


def told(work: Callable[[], Awaitable[object]], *, backend: str = "asyncio") -> WrongLoopError:
    """The error that *work* raises on a loop of this thread, if it ends at all."""

    async def program() -> WrongLoopError:
        with anyio.fail_after(PATIENCE), pytest.raises(WrongLoopError) as caught:
            await work()
        return caught.value

    return anyio.run(program, backend=backend)


async def iterate(egg: AsyncEggClient) -> None:
    async for _ in egg.tasks():
        pass


USES: dict[str, Callable[[AsyncEggClient], Awaitable[object]]] = {
    "generate": lambda egg: egg.generate("egg_2"),
    "run": lambda egg: egg.run("egg_2"),
    "get_task": lambda egg: egg.get_task("egg_2"),
    "await task": lambda egg: egg.task("egg_2").result(),
    "await a task of the other loop's": lambda egg: egg.unfinished[0].result(),
    "tasks": iterate,
    "usage_summary": lambda egg: egg.usage_summary(),
    "map": lambda egg: egg.map(["egg_2", "egg_3"])._all(),
    "download": lambda egg: egg.download(URL, "/nowhere/egg.png"),
    "download of a task": lambda egg: egg.download(
        TaskSnapshot(id="gen_1", status="completed", url=URL, urls=(URL,)), "/nowhere/"
    ),
    "another client over the same connections": lambda egg: egg.with_options(
        model="nanobanana-pro"
    ).generate("egg_2"),
    "aclose": lambda egg: egg.aclose(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_second_thread_at_once_is_told_what_is_wrong(
    use: Callable[[AsyncEggClient], Awaitable[object]],
) -> None:
    """One error, at once, whatever is called; the first loop goes on as if nothing had been."""
    with Wire(service) as server, another_loop() as there:
        egg = client_of(server)
        there(lambda: egg.generate("egg_1"))
        error = told(lambda: use(egg))
        assert str(error).startswith("AsyncEggClient: in use on another event loop, which is still")
        assert isinstance(error, ConfigurationError)
        assert there(lambda: egg.get_task("egg_1")).id == "egg_1"
        assert {task.id for task in egg.unfinished} == {"egg_1"}
        there(egg.aclose)
    assert [request.path for request in server.requests] == ["/v1/generate", "/v1/tasks/egg_1"]


def test_no_answers_cross_when_two_threads_use_one_client() -> None:
    """Twenty times both at once: each gets what it asked for or the one error; nobody hangs."""
    ends: list[str] = []
    ready = threading.Barrier(2)

    async def ask(egg: AsyncEggClient, name: str) -> None:
        ready.wait(PATIENCE)
        with anyio.fail_after(PATIENCE):
            for number in range(5):
                try:
                    bought = await egg.generate(f"{name}_{number}")
                    assert bought.id == f"{name}_{number}"
                    ends.append("bought")
                    assert (await egg.get_task(bought.id)).id == bought.id
                except WrongLoopError:
                    ends.append("told")
        await asyncio.sleep(0.01)

    with Wire(service) as server:
        for _ in range(REPEATS):
            egg = client_of(server)
            threads = [
                threading.Thread(target=asyncio.run, args=(ask(egg, name),)) for name in "ab"
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
            asyncio.run(egg.aclose())
        posts = [request for request in server.requests if request.method == "POST"]
    assert set(ends) == {"bought", "told"}
    assert ends.count("bought") == len(posts)
    assert len(ends) == REPEATS * 2 * 5


def test_a_second_client_at_the_same_limiter_is_told_so_too() -> None:
    """A limiter's clock and waiters belong to a loop as well; a wait ends by the error."""
    limiter = RateLimiter()
    with Wire(service) as server, another_loop() as there:
        first, second = (client_of(server, limiter=limiter) for _ in range(2))
        there(lambda: first.generate("egg_1"))
        for use in (
            lambda: second.generate("egg_2"),
            lambda: second.task("egg_1").result(),
            limiter.acquire,
        ):
            assert str(told(use)).startswith("RateLimiter: in use on another event loop")
        there(first.aclose)
        asyncio.run(second.aclose())
    assert len(server.requests) == 1
    assert limiter._busy == 0


@contextmanager
def entered(there: Call, batch: Batch) -> Iterator[None]:
    """The batch, entered on the loop of *there* by one task, which leaves it at the end."""
    ready, done = threading.Event(), asyncio.Event()

    async def stay() -> None:
        async with batch:
            ready.set()
            await done.wait()

    async def leave(stayed: asyncio.Task[None]) -> None:
        done.set()
        await stayed

    async def enter() -> asyncio.Task[None]:
        return asyncio.ensure_future(stay())

    stayed = there(enter)
    try:
        assert ready.wait(PATIENCE)
        yield
    finally:
        there(partial(leave, stayed))


def test_a_batch_is_read_on_its_own_loop() -> None:
    """Its outcomes come where it was entered."""
    with Wire(service) as server, another_loop() as there:
        egg = client_of(server)
        batch = egg.map(["egg_1"])
        with entered(there, batch):
            assert str(told(batch.__anext__)).startswith("Batch: in use on another event loop")
        there(egg.aclose)


def test_a_journal_in_use_is_refused_in_another_thread(tmp_path: Path) -> None:
    """Two clients, two threads, one file: the second is told, as another process would be."""
    path = tmp_path / "run.sqlite3"

    async def second(egg: AsyncEggClient) -> None:
        async with egg:
            with anyio.fail_after(PATIENCE), pytest.raises(JournalError, match="another batch"):
                await egg.map(["egg_2"], journal=path)

    with Wire(service) as server, another_loop() as there:
        egg = client_of(server)
        with entered(there, egg.map(["egg_1"], journal=path)):
            for _ in range(REPEATS):
                asyncio.run(second(client_of(server)))
        there(egg.aclose)


@pytest.mark.parametrize("second", ["asyncio", "trio"])
def test_a_loop_of_trio_is_a_home_as_well(second: str) -> None:
    """While it runs, other threads are told; when it has ended, they may."""
    ready, done = threading.Event(), threading.Event()
    home = Home("Egg")

    async def arrive() -> None:
        home.arrive()

    async def stay() -> None:
        home.arrive()
        ready.set()
        await trio.to_thread.run_sync(done.wait, PATIENCE)

    thread = threading.Thread(target=trio.run, args=(stay,))
    thread.start()
    assert ready.wait(PATIENCE)
    assert "Egg: in use on another event loop" in str(told(arrive, backend=second))
    done.set()
    thread.join()
    anyio.run(arrive, backend=second)


def test_a_loop_that_pauses_is_no_hindrance() -> None:
    """Two loops of one thread that run in turns are loops that follow each other."""
    with Wire(service) as server:
        egg = client_of(server)
        with asyncio.Runner() as one, asyncio.Runner() as other:
            for number in range(3):
                for runner in (one, other):
                    runner.run(egg.get_task(f"egg_{number}"))
        asyncio.run(egg.aclose())
    assert len(server.requests) == 6


# --- fork ------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys
import anyio
from eggapi_async import AsyncEggClient, RateLimiter, WebhookEvent, WrongLoopError

async def uses(egg, limiter):
    event = WebhookEvent(event="task.completed", task_id="egg_1")
    calls = [
        lambda: egg.generate("egg_2"),
        lambda: egg.task("egg_1").result(),
        lambda: egg.deliver(event),
        lambda: egg.map(["egg_2"])._all(),
        egg.aclose,
        limiter.acquire,
    ]
    for call in calls:
        with anyio.fail_after(20):
            try:
                await call()
            except WrongLoopError as error:
                assert "before this process was forked" in str(error), error
            else:
                return 3
    return 7

def forked(work):
    child = os.fork()
    if child == 0:
        code = 4
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def within(egg, limiter):
    await egg.generate("egg_1")
    # The child has no loop that it could go on with: the parent's belongs to the parent.
    return [forked(lambda: asyncio.run(uses(egg, limiter))) for _ in range(REPEATS)]

def main():
    limiter = RateLimiter()
    egg = AsyncEggClient("a-key-of-a-test", base_url=sys.argv[1], limiter=limiter)
    unused = AsyncEggClient("a-key-of-a-test", base_url=sys.argv[1])
    codes = asyncio.run(within(egg, limiter))
    codes += [forked(lambda: asyncio.run(uses(egg, limiter))) for _ in range(REPEATS)]
    assert forked(lambda: asyncio.run(first_use(unused))) == 7
    asyncio.run(egg.aclose())
    print(codes)

async def first_use(egg):
    async with egg:
        return 7 if (await egg.generate("egg_3")).id == "egg_3" else 5

main()
"""


def test_a_fork_is_told_what_is_wrong() -> None:
    """Forked on the way or between two runs: the child is told, and an unused client may go."""
    program = textwrap.dedent(PROGRAM).replace("REPEATS", str(REPEATS))
    with Wire(service) as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        posts = [json.loads(request.body)["prompt"] for request in server.requests]
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [7] * (2 * REPEATS)
    assert posts == ["egg_1", "egg_3"]


def test_the_first_of_two_that_arrive_at_once_stays() -> None:
    """Threads that come in the very same moment do not both find the place empty."""
    for _ in range(REPEATS):
        ends: list[bool] = []
        home, ready = Home("Egg"), threading.Barrier(4)

        async def arrive(
            home: Home = home, ready: threading.Barrier = ready, ends: list[bool] = ends
        ) -> None:
            await asyncio.to_thread(ready.wait, PATIENCE)
            try:
                home.arrive()
                ends.append(True)
            except WrongLoopError:
                ends.append(False)
            await asyncio.to_thread(ready.wait, PATIENCE)

        threads = [threading.Thread(target=asyncio.run, args=(arrive(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ends) == [False, False, False, True]


async def test_a_home_of_another_process_is_none() -> None:
    """The number of the process tells a fork from its parent."""
    home = Home("Egg")
    home.check_process()
    home.arrive()
    home.check_process()
    home._process += 1
    with pytest.raises(WrongLoopError, match="Egg: was in use before this process was forked"):
        home.arrive()


async def test_the_same_loop_may_come_again() -> None:
    """Arriving is not a turn that could be taken."""
    home = Home("Egg")
    assert home.arrive() == home.arrive()
