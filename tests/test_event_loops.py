"""One client on event loops that follow each other, on asyncio and on trio, over real sockets."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest
import trio

from eggapi_async import (
    AsyncEggClient,
    ConnectionFailedError,
    RateLimiter,
    RetryPolicy,
    SubmissionUncertainError,
)
from tests.scripted import accepted, client_of, data, task
from tests.wire import (
    Step,
    Wire,
    close,
    cut,
    html_answer,
    json_answer,
    refusing_port,
    reset,
    silence,
)

ROOT = Path(__file__).parent.parent


async def buy_and_look(egg: AsyncEggClient) -> None:
    """A POST and two GETs, the second on a kept connection."""
    bought = await egg.generate("An egg")
    for _ in range(2):
        assert (await egg.get_task(bought.id)).id == bought.id


def whatever(request: object) -> Step:
    """A service that takes everything, and knows one task."""
    return accepted() if getattr(request, "method", "") == "POST" else json_answer(data(task()))


@pytest.mark.parametrize(
    "kinds",
    [
        ["asyncio", "asyncio", "asyncio"],
        ["trio", "trio"],
        ["asyncio", "trio"],
        ["trio", "asyncio", "trio"],
    ],
    ids=" then ".join,
)
def test_one_client_serves_loops_that_follow_each_other(kinds: list[str]) -> None:
    """Each run has connections of its own, and leaves none to the next."""
    with Wire(whatever) as server:
        egg = client_of(server, limiter=RateLimiter(2, per_second=1000))
        for kind in kinds:
            anyio.run(buy_and_look, egg, backend=kind)
        asyncio.run(egg.aclose())
        assert server.connections == 2 * len(kinds)
        assert {task.id for task in egg.unfinished} == {"gen_1"}


def test_connections_are_closed_with_their_loop() -> None:
    """A run that ends without closing the client leaves no socket open."""
    with Wire(whatever) as server:
        egg = client_of(server)
        asyncio.run(buy_and_look(egg))
        anyio.run(server.wait_for, lambda it: it.hung_up == {1, 2})
        asyncio.run(egg.aclose())


def test_waiters_of_a_loop_that_was_cut_off_do_not_block_the_next() -> None:
    """A run that ends with calls under way and in line leaves no turn taken."""
    limiter = RateLimiter(1, None)

    async def leave_calls_behind(egg: AsyncEggClient) -> None:
        calls = [asyncio.ensure_future(egg.get_task("gen_1")) for _ in range(3)]
        await server.wait_for(lambda it: it.requests)
        assert not any(call.done() for call in calls)

    with Wire([silence(), json_answer(data(task()))]) as server:
        egg = client_of(server, limiter=limiter)
        asyncio.run(leave_calls_behind(egg))
        asyncio.run(look(egg))
        asyncio.run(egg.aclose())
    assert limiter._busy == 0


async def look(egg: AsyncEggClient) -> None:
    await egg.get_task("gen_1")


PROGRAM = """
import asyncio, sys, gc
from eggapi_async import AsyncEggClient

async def program(egg):
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no fault
    task = await egg.generate("An egg")
    await egg.get_task(task.id)

def main():
    egg = AsyncEggClient("a-key-of-a-test", base_url=sys.argv[1])
    for _ in range(2):
        asyncio.run(program(egg))
    {end}

main()
gc.collect()
"""


def run_strictly(end: str, url: str) -> subprocess.CompletedProcess[str]:
    """The program in a process where every warning counts."""
    program = textwrap.dedent(PROGRAM).replace("{end}", end)
    command = [sys.executable, "-X", "dev", "-W", "always", "-c", program, url]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_closed_client_ends_without_a_word() -> None:
    """Two runs and a close: in development mode nothing is written to stderr."""
    with Wire(whatever) as server:
        done = run_strictly("asyncio.run(egg.aclose())", server.url)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_client_left_unclosed_is_one_resource_warning() -> None:
    """Whoever forgets to close it is told so once, and nothing else."""
    with Wire(whatever) as server:
        done = run_strictly("pass", server.url)
    assert done.returncode == 0
    # From 3.13 on the line of the program is shown below, indented.
    first, *hints = [line for line in done.stderr.splitlines() if not line.startswith(" ")]
    assert first.endswith("ResourceWarning: unclosed <AsyncEggClient 1 unfinished, 0 awaited>")
    assert hints in (
        [],
        ["ResourceWarning: Enable tracemalloc to get the object allocation traceback"],
    )


LOST = {
    "closed": close(),
    "reset": reset(),
    "silence": silence(),
    "502": html_answer(502),
    "cut": cut(b'{"data"'),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_on_trio_a_post_whose_answer_is_lost_is_sent_once(fault: Step) -> None:
    """The core promise holds on trio over real sockets."""

    async def program() -> None:
        async with client_of(server, timeout=0.2) as egg:
            with pytest.raises(SubmissionUncertainError):
                await egg.generate("An egg")

    with Wire([fault]) as server:
        trio.run(program)
    assert len(server.requests) == 1


def test_on_trio_a_refused_connection_is_safe_to_repeat() -> None:
    """So does the other one."""

    async def program() -> None:
        async with client_of(f"http://127.0.0.1:{port}", retry=RetryPolicy(base_delay=0.01)) as egg:
            with pytest.raises(ConnectionFailedError) as caught:
                await egg.generate("An egg")
            assert not caught.value.was_sent
            assert egg.stats.retries == 4

    with refusing_port() as port:
        trio.run(program)


def test_on_trio_cancellations_cost_no_turn() -> None:
    """A storm of scopes that end leaves a client that works, and knows what it bought."""
    limiter = RateLimiter(3, None)

    async def caller(egg: AsyncEggClient, number: int) -> None:
        for n in range(20):
            with trio.move_on_after((number * 7 + n * 3) % 11 / 2000):
                await (egg.generate("An egg") if n % 3 else egg.get_task("gen_1"))

    async def program() -> None:
        async with client_of(server, limiter=limiter) as egg:
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(caller, egg, number)
            with trio.fail_after(5):
                await buy_and_look(egg)
            assert egg.stats.submitted == sum(r.method == "POST" for r in server.requests)

    with Wire(whatever) as server:
        trio.run(program)
    assert limiter._busy == 0
