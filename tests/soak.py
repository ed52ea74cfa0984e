"""Weeks of a bot's life in half an hour: `python -m tests.soak [--minutes 30] [--tasks 20000]`.

One client against the emulator over TCP, in a process of its own. One request in a hundred meets a
fault, one caller in ten is cancelled at a random moment (natively or by a scope), one picture in
twenty is fetched. What was left unfinished by those who were cancelled is collected, as a bot
does it. At the end sockets, tasks, threads and file descriptors must be what they were, and the
memory must not have grown with the number of tasks: its slope is taken after a warm-up, in which
what is bounded fills up. Prints its figures as it goes; the exit code is 1 if one of them is bad.
Linux only, since it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import attrs

from eggapi_async import AsyncEggClient, EggError, RateLimiter, SubmissionUncertainError
from tests.served import ROOT, environment

MINUTES: Final = 30.0
TASKS: Final = 20_000
TASKS_PER_MINUTE: Final = 1_000
"""At most: far below the 80 requests per second that a client allows itself."""
SAMPLES: Final = 60
WARM_UP: Final = 0.5
"""The part of the run in which the memory may still fill up."""
MOST_GROWTH: Final = 1_000_000
"""Bytes by which the memory may grow in 10,000 tasks. Judged where half of the run has so many: in
fewer, what a crowd on a busy machine takes for a moment, and leaves to Python, outweighs it."""
MOST_BLOCKS: Final = 5_000
"""Objects of Python's that may be more at the end than after the first crowd, per 10,000 tasks or
fewer: half of one for each task."""
TURNS: Final = 32
CANCELLED: Final = 0.1
SAVED: Final = 0.05
CROWD: Final = 500
"""Callers at once, to begin with, and never more: the memory that a crowd takes is no growth."""
LONGEST_PATIENCE: Final = 6.0
"""Seconds after which a caller is cancelled at the latest: on its way, waiting, or done before."""

SERVICE: Final = """
import socket, uvicorn
from eggapi_async.emulator import EggEmulator
lost = dict.fromkeys(("empty", "html_after", "idless", "lost"), 0.0025)
others = {"html": 0.005, "refused": 0.005, "slow": 0.0025, "cut": 0.05, "truncated": 0.05}
app = EggEmulator(speed=20.0, faults={**lost, **others})
door = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(door.getsockname()[1], flush=True)
config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, date_header=False)
uvicorn.Server(config).run(sockets=[door])
"""


@contextlib.contextmanager
def service() -> Iterator[str]:
    """The emulator's base URL while the block runs; its process ends with it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a lost answer is an exception of the application
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


@attrs.frozen
class Held:
    """What this process holds, beside memory."""

    tasks: int
    threads: int
    sockets: int
    descriptors: int


@attrs.frozen
class Sample:
    """One look at the memory: after so many tasks, so many bytes and objects of Python's."""

    tasks: int
    memory: int
    blocks: int


@attrs.define
class Run:
    """What has come of the tasks so far."""

    egg: AsyncEggClient
    wanted: int
    folder: Path
    dice: random.Random = attrs.field(factory=lambda: random.Random(0))
    ended: int = 0
    ends: Counter[str] = attrs.field(factory=Counter)
    samples: list[Sample] = attrs.field(factory=list)
    after_crowd: Sample | None = None


def held() -> Held:
    """Count it."""
    gc.collect()
    ends: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one by which the folder is read
            ends.append(os.readlink(f"/proc/self/fd/{name}"))
    sockets = sum(end.startswith("socket:") for end in ends)
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:  # outside an event loop
        tasks = 0
    return Held(tasks, threading.active_count(), sockets, len(ends))


def look(run: Run) -> Sample:
    """Take a sample, and write it."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    sample = Sample(run.ended, pages * os.sysconf("SC_PAGE_SIZE"), sys.getallocatedblocks())
    run.samples.append(sample)
    sys.stdout.write(
        f"{sample.tasks:6} tasks  {sample.memory / 1e6:6.2f} MB  {sample.blocks:7} blocks"
        f"  {len(run.egg.unfinished):4} unfinished  {held()} {run.egg.stats.requests}\n"
    )
    sys.stdout.flush()
    return sample


# --- the callers -----------------------------------------------------------------------------


async def use(run: Run, number: int) -> None:
    """Buy one picture, wait for it, perhaps fetch it."""
    task = await run.egg.generate(f"Egg {number}")
    await task.result(timeout=120)
    if run.dice.random() < SAVED:
        for path in await task.save(run.folder):
            path.unlink()


async def cancelled(run: Run, number: int) -> None:
    """The same, by somebody who loses patience."""
    patience = run.dice.random() * LONGEST_PATIENCE
    if run.dice.random() < 0.5:
        with anyio.move_on_after(patience) as scope:
            await use(run, number)
        run.ends["cancelled by a scope"] += scope.cancelled_caught
        return
    task = asyncio.ensure_future(use(run, number))
    await asyncio.wait((task,), timeout=patience)
    task.cancel()
    await asyncio.wait((task,))
    if task.cancelled():
        run.ends["cancelled natively"] += 1
    else:
        task.result()


async def caller(run: Run, number: int) -> None:
    """One of the two, and what came of it."""
    kind = cancelled if run.dice.random() < CANCELLED else use
    try:
        await kind(run, number)
        run.ends["returned"] += 1
    except EggError as error:
        run.ends[type(error).__name__] += 1
    run.ended += 1


async def collect(run: Run) -> None:
    """What a bot does with what was left behind: wait for it, whoever bought it."""
    while True:
        await anyio.sleep(1)
        waits = (task.result(timeout=120) for task in run.egg.unfinished)
        await asyncio.gather(*waits, return_exceptions=True)


async def live(run: Run, minutes: float) -> None:
    """All callers: a crowd, and then one after the other, evenly over the time."""
    began, pause = time.monotonic(), minutes * 60 / run.wanted
    every = max(1, run.wanted // SAMPLES)
    places = asyncio.Semaphore(CROWD)  # on a slow machine they would pile up
    async with asyncio.TaskGroup() as group:
        for number in range(run.wanted):
            if number == CROWD:
                await _end_of_crowd(run)
                began = time.monotonic() - number * pause
            if number >= CROWD:
                await asyncio.sleep(began + number * pause - time.monotonic())
            await places.acquire()
            group.create_task(caller(run, number)).add_done_callback(lambda _: places.release())
            if number % every == 0:
                look(run)


async def _end_of_crowd(run: Run) -> None:
    while run.ended < CROWD or run.egg.unfinished:
        await asyncio.sleep(0.1)
    run.after_crowd = look(run)


# --- the verdict -----------------------------------------------------------------------------


def slope(samples: list[Sample]) -> float:
    """Bytes of memory per 10,000 tasks: the line of least squares through what came after."""
    late = samples[int(len(samples) * WARM_UP) :]
    mean_x = sum(one.tasks for one in late) / len(late)
    mean_y = sum(one.memory for one in late) / len(late)
    over = sum((one.tasks - mean_x) * (one.memory - mean_y) for one in late)
    return 10_000 * over / sum((one.tasks - mean_x) ** 2 for one in late)


async def soak(url: str, wanted: int, minutes: float) -> list[str]:
    """Run it; what is wrong."""
    before = held()
    with tempfile.TemporaryDirectory() as folder:
        limiter = RateLimiter(TURNS)
        async with AsyncEggClient("soak-key-0123456789", base_url=url, limiter=limiter) as egg:
            run = Run(egg, wanted, Path(folder))
            collector = asyncio.ensure_future(collect(run))
            await live(run, minutes)
            while egg.unfinished:
                await anyio.sleep(1)
            collector.cancel()
            await asyncio.wait((collector,))
            look(run)
            at_rest, page = held(), await egg.tasks_page()
            left = [path.name for path in Path(folder).iterdir()]
        known = egg.stats.submitted + run.ends[SubmissionUncertainError.__name__]
    after = held()
    assert run.after_crowd is not None, "there are more than a crowd"
    growth, objects = slope(run.samples), run.samples[-1].blocks - run.after_crowd.blocks
    is_long = (1 - WARM_UP) * wanted >= 10_000
    for line in (
        f"ends: {dict(run.ends)}",
        f"stats: {egg.stats}",
        f"limiter: {limiter!r}",
        f"accepted by the service: {page.total}, known here: {known}",
        f"before: {before}\nat rest: {at_rest}\nafter closing: {after}",
        f"memory: {growth / 1e6:+.3f} MB per 10,000 tasks, {objects:+} objects",
    ):
        sys.stdout.write(line + "\n")
    found = {
        "the memory grows": is_long and growth >= MOST_GROWTH,
        "objects are left": objects >= MOST_BLOCKS * max(1.0, wanted / 10_000),
        "tasks are left": (at_rest.tasks, after.tasks) != (before.tasks, before.tasks),
        "sockets are left at rest": at_rest.sockets - before.sockets > 2 * TURNS,
        "sockets or descriptors are left": (after.sockets, after.descriptors)
        != (before.sockets, before.descriptors),
        "turns are left taken": not repr(limiter).startswith(f"<RateLimiter 0 of {TURNS} busy, 0"),
        "files are left": bool(left),
        "a paid task is not known": page.total > known + run.ends["cancelled natively"],
        "not every caller ended": run.ended != wanted,
    }
    return [problem for problem, is_so in found.items() if is_so]


def main() -> int:
    """Run it for so long, and tell by the exit code what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--tasks", type=int)
    options = parser.parse_args()
    wanted = options.tasks or min(TASKS, int(TASKS_PER_MINUTE * options.minutes))
    before = held()
    with service() as url:
        problems = asyncio.run(soak(url, wanted, options.minutes))
    after = held()
    sys.stdout.write(f"process before: {before}\nprocess after:  {after}\n")
    if after != before:
        problems.append("threads or descriptors are left")
    sys.stdout.write("\n".join(problems or ["all is well"]) + "\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
