"""Batches that are killed: a process that runs one, the service it buys from, and the reckoning.

Run as a program it reads jobs, one JSON object a line, and forks a child for each, so that a batch
starts in milliseconds: it answers with the child's process id, and later with how that ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import attrs

from eggapi_async import (
    AsyncEggClient,
    Journal,
    JournalError,
    Outcome,
    PollPolicy,
    RateLimiter,
    SubmissionUncertainError,
)
from eggapi_async.emulator import EggEmulator
from tests.served import ROOT, environment

IN_FLIGHT = 8
ENDED, NO_JOURNAL = 0, 3
"""Exit codes: the batch went to its end; the journal stopped it."""


@attrs.frozen
class Job:
    """A batch of so many items, bought at *url* into *folder*.

    *limit* is how big a file may become, in bytes; beyond it the process is killed by the system
    at that very write, or where *is_told* the write fails.
    """

    url: str
    folder: str
    items: int
    limit: int | None = None
    is_told: bool = False

    @property
    def journal(self) -> Path:
        return Path(self.folder, "run.sqlite3")

    @property
    def prompts(self) -> list[str]:
        return [f"Egg {n}" for n in range(self.items)]


async def run(job: Job) -> list[Outcome]:
    """The batch from beginning to end, or from where it was left."""
    polling = PollPolicy(first_delay=0.02, interval=0.1, min_interval=0.02, learn=False)
    limiter = RateLimiter(per_second=None)
    async with AsyncEggClient(
        "test-key", base_url=job.url, limiter=limiter, polling=polling, timeout=10.0
    ) as egg:
        return await egg.map(
            job.prompts, journal=job.journal, save_to=job.folder, in_flight=IN_FLIGHT
        )


def work(job: Job) -> int:
    """The batch as a process, with its exit code."""
    if job.limit is not None:
        _limit_files(job.limit, is_told=job.is_told)
    try:
        asyncio.run(run(job))
    except JournalError as error:
        sys.stderr.write(f"{error}\n")
        return NO_JOURNAL
    return ENDED


def _limit_files(limit: int, *, is_told: bool) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN if is_told else signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- processes that are killed -----------------------------------------------------------------


class Nursery:
    """A process that starts batches, each in a child of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mortal"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, job: Job) -> int:
        """The process id of a batch that will begin when its `end` is waited for."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(attrs.asdict(job)) + "\n")
        self._process.stdin.flush()
        return self._number()

    def end(self) -> int:
        """How the batch ended: its exit code, or the negative number of the signal."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._number()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def serve_jobs() -> None:
    """Start a child for every line that comes, and tell how it ended."""
    for line in sys.stdin:
        gate, opener = os.pipe()
        child = os.fork()
        if not child:
            os.read(gate, 1)
            os._exit(work(Job(**json.loads(line))))
        _tell(child)
        sys.stdin.readline()
        os.write(opener, b"!")
        os.close(gate)
        os.close(opener)
        _tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


# --- the service -------------------------------------------------------------------------------


class Shop:
    """An ASGI app: the emulator of the day, and somebody who kills at its door.

    The customer *victim* dies at the request number *fatal*, before it is done or after.
    """

    def __init__(self) -> None:
        self.open(seed=0)

    def open(self, *, seed: int) -> None:
        """Begin anew, with an emulator that has sold nothing yet."""
        self.emulator = EggEmulator(seed=seed, speed=400.0, faults={"lost": 0.05, "cut": 0.05})
        self.victim: int | None = None
        self.fatal = 0
        self.is_done_first = False
        self._requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._requests += 1
        is_last = self._requests == self.fatal
        if is_last and not self.is_done_first:
            self._kill()
        emulator = self.emulator

        async def send_if_alive(message: Any) -> None:
            if is_last and self.is_done_first:
                self._kill()
            await send(message)

        try:
            await emulator(scope, receive, send_if_alive)
        finally:
            if is_last:  # an answer that the service has lost itself is never sent
                self._kill()

    def _kill(self) -> None:
        if self.victim is not None:
            os.kill(self.victim, signal.SIGKILL)
            self.victim = None


# --- the reckoning -----------------------------------------------------------------------------


@attrs.frozen
class Books:
    """What the service has sold and what the journal knows of it."""

    sold: Counter[str]
    """Tasks by prompt."""
    lost: list[str]
    """Prompts of tasks whose ids are in no journal."""
    states: dict[str, str]
    """By prompt."""


def books(shop: Shop, job: Job) -> Books:
    """Compare the two. The journal must be sound."""
    with closing(sqlite3.connect(job.journal)) as rows:
        assert rows.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        known = {task_id for (task_id,) in rows.execute("SELECT id FROM tasks")}
    prompts = {i: str(shop.emulator.task(i).fields["prompt"]) for i in shop.emulator.accepted}
    with Journal(job.journal) as journal:
        states = {item.request.prompt: item.state for item in journal}
    lost = [prompt for task_id, prompt in prompts.items() if task_id not in known]
    return Books(Counter(prompts.values()), lost, states)


def check(shop: Shop, job: Job, outcomes: list[Outcome]) -> Books:
    """Nothing was bought twice, nothing paid for is lost, and every picture is whole."""
    it = books(shop, job)
    assert set(it.sold.values()) <= {1}, "bought twice"
    assert all(it.states[prompt] == "uncertain" for prompt in it.lost), "lost, and not in doubt"
    assert len(outcomes) == job.items
    for outcome in outcomes:
        assert outcome.request is not None
        if it.states[outcome.request.prompt] == "uncertain":
            assert isinstance(outcome.error, SubmissionUncertainError)
        else:
            assert outcome.error is None, repr(outcome.error)
            assert it.states[outcome.request.prompt] == "saved"
            assert [is_whole(path) for path in outcome.paths] == [True]
    assert not list(Path(job.folder).glob(".*.part")), "half a file was left"
    return it


def is_whole(path: Path) -> bool:
    """True for a picture with a beginning and an end."""
    data = path.read_bytes()
    return data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery that is closed afterwards."""
    with Nursery() as it:
        yield it


if __name__ == "__main__":
    serve_jobs()
