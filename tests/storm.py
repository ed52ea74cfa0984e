"""A storm of cancellations over real sockets, and what must be left of a client after it.

A service in the same event loop answers within milliseconds; callers are cancelled at random
moments, by `task.cancel()` or by an anyio scope. Afterwards the client must work as before: no turn
of the limiter is lost, no task is left, no more sockets are open than requests may be under way,
and the id of every generation that the service accepted is known.

The tests run it small. At its full size it is a program: `python -m tests.storm [cancellations]`.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from typing import Any, Final, Literal

import anyio
import attrs

from eggapi_async import AsyncEggClient, EggError, RateLimiter

HOST: Final = "127.0.0.1"
TURNS: Final = 5
CALLERS: Final = 10
LONGEST_ANSWER: Final = 0.002
LONGEST_PATIENCE: Final = 0.008
"""Seconds after which a call is cancelled at the latest: some are answered before, most are not."""
FULL: Final = 100_000
REST: Final = 1.2
"""Seconds after which the connections of POSTs are given up by the next request."""
GOOD_CALLS: Final = 2.0
"""Seconds within which three calls must be answered after a storm at full size."""

ESTABLISHED: Final = 1
"""The first byte of Linux's `tcp_info`, for a connection that neither end has closed."""

How = Literal["task", "scope"]


class Service:
    """An HTTP/1.1 server that takes every generation, and answers after a moment."""

    def __init__(self, dice: random.Random) -> None:
        self.accepted: list[str] = []
        self.connections: set[asyncio.StreamWriter] = set()
        self.most_open = 0
        self._dice = dice

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until the client hangs up."""
        self.connections.add(writer)
        self.most_open = max(self.most_open, sum(map(_is_held, self.connections)))
        try:
            while True:
                writer.write(await self._answer(reader))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.connections.remove(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        is_post = head.startswith(b"post")
        if is_post:
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
            self.accepted.append(f"gen_{len(self.accepted)}")
        task_id = self.accepted[-1] if is_post else "gen_looked_at"
        await asyncio.sleep(self._dice.random() * LONGEST_ANSWER)
        task = {"id": task_id, "status": "pending", "model": "nanobanana", "type": "image_generate"}
        body = json.dumps({"data": task, "error": None}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _is_held(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the client still holds this connection.

    That it let go may be known to the kernel before this service has come to read it.
    """
    connection = writer.get_extra_info("socket")
    if connection.fileno() < 0:
        return False
    state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == ESTABLISHED


@attrs.frozen
class Report:
    """What a storm did, and what was left after it."""

    cancelled: int
    answered: int
    failed: int
    seconds: float
    good_calls_seconds: float
    """How long three calls took afterwards."""
    limiter: str
    most_open: int
    """Connections that the client held at once."""
    open_at_rest: int
    """Connections that it held after the rest and one more request."""
    stray_tasks: int
    accepted: set[str]
    unfinished: set[str]


@attrs.define
class _Counts:
    wanted: int
    cancelled: int = 0
    answered: int = 0
    failed: int = 0


async def storm(cancellations: int, *, how: How, seed: int = 0, rest: float = 0) -> Report:
    """Cancel so many calls of one client, and see what is left, also after a *rest* in seconds."""
    dice = random.Random(seed)
    service, counts = Service(dice), _Counts(cancellations)
    before = asyncio.all_tasks()
    server = await asyncio.start_server(service.serve, HOST, 0)
    url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    limiter = RateLimiter(concurrency=TURNS, per_second=None)
    async with AsyncEggClient("storm-key", base_url=url, limiter=limiter) as egg:
        started = time.monotonic()
        callers = (_caller(egg, counts, random.Random(f"{seed}/{n}"), how) for n in range(CALLERS))
        await asyncio.gather(*callers)
        ended = time.monotonic()
        with anyio.fail_after(10):
            for _ in range(3):
                await egg.generate("An egg after the storm")
        good = time.monotonic() - ended
        await asyncio.sleep(rest)
        await egg.get_task("gen_looked_at")
        at_rest = sum(map(_is_held, service.connections))
        unfinished = {task.id for task in egg.unfinished}
    server.close()
    await _all_gone(service)
    await server.wait_closed()
    return Report(
        cancelled=counts.cancelled,
        answered=counts.answered,
        failed=counts.failed,
        seconds=ended - started,
        good_calls_seconds=good,
        limiter=repr(limiter),
        most_open=service.most_open,
        open_at_rest=at_rest,
        stray_tasks=len(asyncio.all_tasks() - before),
        accepted=set(service.accepted),
        unfinished=unfinished,
    )


async def _all_gone(service: Service) -> None:
    with anyio.fail_after(10):
        while service.connections:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)


async def _caller(egg: AsyncEggClient, counts: _Counts, dice: random.Random, how: How) -> None:
    cancel = {"task": _by_task, "scope": _by_scope}[how]
    while counts.cancelled < counts.wanted:
        is_post = dice.random() < 0.3
        try:
            was_cancelled = await cancel(egg, is_post, dice.random() * LONGEST_PATIENCE)
        except EggError:
            counts.failed += 1
            continue
        counts.cancelled += was_cancelled
        counts.answered += not was_cancelled


async def _call(egg: AsyncEggClient, is_post: bool) -> Any:
    return await (egg.generate("An egg") if is_post else egg.get_task("gen_looked_at"))


async def _by_task(egg: AsyncEggClient, is_post: bool, seconds: float) -> bool:
    task = asyncio.ensure_future(_call(egg, is_post))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def _by_scope(egg: AsyncEggClient, is_post: bool, seconds: float) -> bool:
    with anyio.move_on_after(seconds) as scope:
        await _call(egg, is_post)
    return scope.cancelled_caught


def problems(report: Report) -> list[str]:
    """What is wrong after a storm at full size."""
    found = {
        "ids were lost": report.accepted != report.unfinished,
        "calls failed": report.failed > 0,
        "turns were lost": not report.limiter.startswith(f"<RateLimiter 0 of {TURNS} busy, 0 "),
        "three good calls took too long": report.good_calls_seconds > GOOD_CALLS,
        "tasks are left": report.stray_tasks > 0,
        "too many connections at once": report.most_open > 2 * TURNS,
        "too many connections at rest": report.open_at_rest > TURNS,
    }
    return [problem for problem, is_so in found.items() if is_so]


def main(cancellations: int = FULL) -> int:
    """Run both kinds and write what came of them."""
    kinds: tuple[How, How] = ("task", "scope")
    wrong: list[str] = []
    for how in kinds:
        report = asyncio.run(storm(cancellations, how=how, rest=REST))
        shown = attrs.evolve(report, accepted=set(), unfinished=set())
        lost = report.accepted - report.unfinished
        wrong += problems(report)
        sys.stdout.write(f"{how}: {shown}\n  {len(report.accepted)} accepted, {len(lost)} lost\n")
        sys.stdout.flush()
    sys.stdout.write("\n".join(wrong or ["all is well"]) + "\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
