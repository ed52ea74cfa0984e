"""One contender's run, in a process of its own: start N tasks at once, await them all, measure.

`python -m benchmarks.client NAME ORIGIN SCENARIO` prints one JSON object. CPU is this process's own
from the first submission to the last result; imports and construction are not in it. Peak memory
is the whole process's.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from .contenders import BY_NAME, One
from .scenario import Scenario


async def run(name: str, origin: str, scenario: Scenario) -> dict[str, Any]:
    """All tasks of *scenario* by the contender called *name*."""
    done: dict[str, float] = {}
    problems: Counter[str] = Counter()
    async with BY_NAME[name].door(origin) as one:
        base = peak_kb()
        began, cpu = time.monotonic(), cpu_seconds()
        await _all(one, scenario, done, problems)
        wall, cpu = time.monotonic() - began, cpu_seconds() - cpu
    return {
        "wall": wall,
        "cpu": cpu,
        "done": done,
        "problems": dict(problems),
        "base_kb": base,
        "peak_kb": peak_kb(),
    }


async def _all(
    one: One, scenario: Scenario, done: dict[str, float], problems: Counter[str]
) -> None:
    gate = asyncio.Semaphore(scenario.concurrency or scenario.n)

    async def noted(number: int) -> None:
        async with gate:
            try:
                task_id = await one(number)
            except Exception as error:
                problems[type(error).__name__] += 1
            else:
                done[task_id] = time.monotonic()

    work = asyncio.gather(*(noted(number) for number in range(scenario.n)))
    with suppress(TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(scenario.bound()):
            await work
    unfinished = scenario.n - len(done) - problems.total()
    if unfinished:
        problems["did not finish"] = unfinished


def cpu_seconds() -> float:
    """CPU time of this process, user and system, in all threads."""
    return time.process_time()


def peak_kb() -> int:
    """Peak resident memory of this process in kB.

    Not getrusage: its figure begins with what the parent had.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def main() -> None:
    """Run what the arguments name."""
    name, origin, scenario = sys.argv[1], sys.argv[2], Scenario(**json.loads(sys.argv[3]))
    result = asyncio.run(run(name, origin, scenario))
    sys.stdout.write(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # a peer's clean-up is no part of the comparison, and may hang


if __name__ == "__main__":
    main()
