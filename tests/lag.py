"""A journal never holds up its event loop: `python -m tests.lag [commits]`.

Eight coroutines write items down and wait until each is durable, 10,000 commits together, while
another sleeps for 2 ms again and again and notes by how much it was late. Before it, the same
without a journal, since a busy machine is late by itself. The exit code is 1 where the journal
makes the 99th percentile later by 20 ms or more.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import attrs

from eggapi_async import GenerationRequest
from eggapi_async._journal import Database
from eggapi_async._record import INTENT, PLANNED
from eggapi_async._scribe import Scribe

COMMITS: Final = 10_000
WRITERS: Final = 8
TICK: Final = 0.002
MOST: Final = 0.020
"""Seconds by which a journal may make the loop late, 99 times of 100."""


async def _tick(late: list[float]) -> None:
    while True:
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        late.append(time.perf_counter() - due)


async def _write(scribe: Scribe, number: int, commits: int) -> None:
    item = await scribe.find(number, f"item {number}", GenerationRequest(prompt=f"Egg {number}"))
    for n in range(commits):
        item = attrs.evolve(item, state=INTENT if n % 2 else PLANNED)
        scribe.note(item)
        await scribe.flush()


async def measure(commits: int, path: Path | None) -> list[float]:
    """How late the loop was, sorted, while so many commits were made (None: while nothing was)."""
    late: list[float] = []
    ticking = asyncio.ensure_future(_tick(late))
    if path is None:
        await asyncio.sleep(3)
    else:
        scribe = Scribe(Database(path, origin="https://egg.test"))
        await scribe.open()
        await asyncio.gather(*(_write(scribe, n, commits // WRITERS) for n in range(WRITERS)))
        await scribe.aclose()
    ticking.cancel()
    await asyncio.wait((ticking,))
    return sorted(late)


def _worst(late: list[float]) -> float:
    return late[int(len(late) * 0.99)]


def _shown(name: str, late: list[float], seconds: float) -> str:
    p50, p99 = (1000 * late[int(len(late) * part)] for part in (0.5, 0.99))
    most = 1000 * late[-1]
    return (
        f"{name}: late by {p50:.2f} ms (p50), {p99:.2f} (p99), {most:.2f} at most, {seconds:.0f} s"
    )


def main(commits: int = COMMITS) -> int:
    """Measure, and write it."""
    nothing = asyncio.run(measure(0, None))
    sys.stdout.write(_shown("nothing to do", nothing, 3) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        late = asyncio.run(measure(commits, Path(folder) / "run.sqlite3"))
        sys.stdout.write(_shown(f"{commits} commits", late, time.monotonic() - began) + "\n")
    return _worst(late) - _worst(nothing) >= MOST


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
