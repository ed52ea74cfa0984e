"""Batches that are killed, over real sockets and in processes of their own, and run again.

After every kill the books of the service and the journal are compared: see `mortal.check`. The
long version, at every system call, is `python -m tests.kill_rig`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mortal import ENDED, NO_JOURNAL, Books, Job, Nursery, Shop, books, check, nursery, run
from tests.rivals import contest
from tests.served import ROOT, environment, served

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does"),
]

ITEMS = 6


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def url(shop: Shop) -> Iterator[str]:
    with served(shop) as it:
        yield it


@pytest.fixture(scope="module")
def cradle() -> Iterator[Nursery]:
    """Where batches are born."""
    with nursery() as it:
        yield it


def job_in(folder: Path, number: int, url: str, **how: Any) -> Job:
    """A batch in a folder of its own."""
    place = folder / str(number)
    place.mkdir()
    return Job(url, str(place), ITEMS, **how)


def finish(shop: Shop, job: Job) -> Books:
    """Run the batch again until it has ended, and once more for nothing."""
    it = check(shop, job, asyncio.run(run(job)))
    asked = shop.emulator.requests.copy()
    asyncio.run(run(job))
    assert shop.emulator.requests == asked, "a finished batch asked for something"
    return it


@pytest.mark.parametrize("part", range(4))
def test_killed_at_a_write(
    shop: Shop, url: str, cradle: Nursery, tmp_path: Path, part: int
) -> None:
    """The system itself kills the process at a write of the journal: 16 different ones."""
    killed = 0
    for point in range(4):
        shop.open(seed=100 * part + point)
        job = job_in(tmp_path, point, url, limit=4096 + 4120 * (4 * point + part))
        cradle.start(job)
        killed += cradle.end() == -signal.SIGXFSZ
        finish(shop, job)
    assert killed >= 3  # the last ones may lie behind the end


@pytest.mark.parametrize("is_done_first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("part", range(3))
def test_killed_at_a_request(
    shop: Shop, url: str, cradle: Nursery, tmp_path: Path, part: int, is_done_first: bool
) -> None:
    """SIGKILL when the service gets a request, or when it has done it: 24 different ones."""
    killed = 0
    for point in range(4):
        shop.open(seed=1000 + 100 * part + point)
        job = job_in(tmp_path, point, url)
        shop.fatal, shop.is_done_first = 1 + 3 * point + part, is_done_first
        shop.victim = cradle.start(job)
        killed += cradle.end() == -signal.SIGKILL
        shop.fatal = 0
        finish(shop, job)
    assert killed >= 3  # with answers lost the last one may lie behind the end


@pytest.mark.parametrize("part", range(2))
def test_a_full_disk(shop: Shop, url: str, cradle: Nursery, tmp_path: Path, part: int) -> None:
    """A write of the journal fails, at 8 different ones: no POST goes unrecorded."""
    stopped = 0
    for point in range(4):
        shop.open(seed=2000 + 100 * part + point)
        limit = 4096 + 4120 * (2 * point + part)
        job = job_in(tmp_path, point, url, limit=limit, is_told=True)
        cradle.start(job)
        code = cradle.end()
        assert code in (ENDED, NO_JOURNAL)
        stopped += code == NO_JOURNAL
        if shop.emulator.accepted:
            it = books(shop, job)
            assert all(it.states[prompt] in ("intent", "uncertain") for prompt in it.lost)
        finish(shop, job)
    assert stopped >= 3


def test_a_download_killed_or_failing_at_anything_it_asks_of_the_disk(tmp_path: Path) -> None:
    """32 kills, and 32 errors of four kinds: no half file, and nothing is left by the next run.

    At every system call: `python -m tests.download_rig`.
    """
    command = [sys.executable, "-m", "tests.download_rig", "--forks", "64", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" × ") for line in done.stdout.splitlines()]
    tally = {what: int(number) for number, _, what in lines}
    assert tally["SIGKILL: -9"] >= 25
    assert sum(number for what, number in tally.items() if what.endswith(": 3")) >= 8
    assert sum(tally.values()) == 64


@pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="looks who holds a lock, as Linux tells"
)
def test_three_processes_and_one_journal(shop: Shop, url: str) -> None:
    """Two wait for the first, which is killed; one takes over, and buys nothing a second time.

    Fifty times, with 200 items: `python -m tests.rivals`.
    """
    assert "2 ended, 1 owner killed" in contest(shop, url, items=24, seed=7)
