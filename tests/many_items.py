"""How much memory many items take: `python -m tests.many_items 1000 100000`.

Each number of items goes through `map` with a journal, in virtual time and in a process of its own,
and its peak memory is told. The service is a few lines, so that what is measured is the client.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import anyio

from eggapi_async import RateLimiter
from eggapi_async.testing import connect
from tests.served import ROOT, environment
from tests.virtual_time import run_virtual

TAKES: Final = 10.0
"""Seconds until a task is completed."""


class Factory:
    """An ASGI app that makes a picture of everything in ten seconds, and remembers when."""

    def __init__(self) -> None:
        self._made_at = array("d")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        data = self._answer(scope)
        body = json.dumps({"data": data, "error": None}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: Any) -> Any:
        if scope["method"] == "POST":
            self._made_at.append(anyio.current_time())
            return self._task(len(self._made_at) - 1)
        name = scope["path"].rpartition("/")[2]
        if name != "tasks":
            return self._task(int(name.removeprefix("gen_")))
        query = parse_qs(scope["query_string"].decode())
        page, size, total = int(query["page"][0]), int(query["per_page"][0]), len(self._made_at)
        newest = range(total - 1 - (page - 1) * size, max(-1, total - 1 - page * size), -1)
        place = {"page": page, "per_page": size, "total": total, "total_pages": -(-total // size)}
        return {"items": [self._task(n) for n in newest], "pagination": place}

    def _task(self, number: int) -> dict[str, Any]:
        is_done = anyio.current_time() >= self._made_at[number] + TAKES
        view = {"id": f"gen_{number}", "status": "pending", "model": "nanobanana"}
        done = {"status": "completed", "cost": "$0.0100", "output": {"url": "https://x.test/a.png"}}
        return {**view, **done} if is_done else view


async def make(number: int) -> None:
    """So many items through `map`, their outcomes looked at and dropped."""
    with tempfile.TemporaryDirectory() as folder:
        async with connect(Factory(), limiter=RateLimiter(per_second=None)) as egg:
            items = (f"Egg {n}" for n in range(number))
            async with egg.map(items, journal=Path(folder, "run.sqlite3")) as run:
                async for outcome in run:
                    outcome.unwrap()
    assert run.ended == number


def peak(number: int) -> float:
    """The peak memory of a process that does so, in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.many_items", "--here", str(number)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout) / 1024


def main(arguments: list[str]) -> None:
    """Measure one number here, or each in a process of its own."""
    if arguments[0] == "--here":
        run_virtual(make, int(arguments[1]))
        sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
        return
    for number in map(int, arguments):
        sys.stdout.write(f"{number} items: {peak(number):.1f} MB at most\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
