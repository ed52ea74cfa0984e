"""Several processes, one journal: `python -m tests.rivals`, on Linux.

Three processes want the same batch with the same journal. One owns it, the others are refused and
ask again; the owner is killed at a moment that nobody chose, and another takes over where it was.
In the end every item was bought once, or is in doubt since its submission was under way at the
kill; and all that are left have come to their end.

The tests run it small.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import attrs

from eggapi_async import JournalError
from eggapi_async.emulator import EggEmulator
from tests.mortal import ENDED, Job, Shop, check, run
from tests.served import ROOT, environment, served

PROCESSES: Final = 3
PATIENCE: Final = 300.0
"""Seconds after which a process that has not ended hangs."""
PROGRAM: Final = """
import json, os, sys
from tests.mortal import Job
from tests.rivals import compete
os._exit(compete(Job(**json.loads(sys.argv[1]))))
"""


def compete(job: Job) -> int:
    """Run the batch as soon as nobody else does."""
    while True:
        try:
            asyncio.run(run(job))
        except JournalError as error:
            if "another batch is at work" not in str(error):
                sys.stderr.write(f"{error}\n")
                return 1
            time.sleep(0.02)
        else:
            return ENDED


def rival(job: Job) -> subprocess.Popen[bytes]:
    """Such a process."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(attrs.asdict(job))]
    return subprocess.Popen(command, cwd=ROOT, env=environment())


def owner(job: Job) -> int | None:
    """The process that holds the lock beside the journal, as the system tells."""
    lock = Path(f"{job.journal}-lock")
    inode = lock.stat().st_ino if lock.exists() else 0
    for line in Path("/proc/locks").read_text("ascii").splitlines():
        _, kind, _, how, process, where, *_ = line.replace("-> ", "").split()
        if kind == "POSIX" and how == "WRITE" and where.rpartition(":")[2] == str(inode):
            return int(process)
    return None


def contest(shop: Shop, url: str, *, items: int, seed: int) -> str:
    """One run; what came of it. Raises where something was bought twice, is lost, or hangs."""
    dice = random.Random(seed)
    shop.open(seed=seed)
    shop.emulator = EggEmulator(seed=seed, speed=400.0)
    job = Job(url, tempfile.mkdtemp(prefix="eggapi-rivals-"), items)
    began = time.monotonic()
    rivals = [rival(job) for _ in range(PROCESSES)]
    wanted = dice.randrange(1, items)
    while len(shop.emulator.accepted) < wanted:
        assert time.monotonic() - began < PATIENCE, "nobody buys"
        time.sleep(0.005)
    victim = owner(job)
    killed = 0
    for one in rivals:
        if one.pid == victim:
            one.send_signal(signal.SIGKILL)
            killed += 1
    codes = Counter(one.wait(PATIENCE) for one in rivals)
    assert set(codes) <= {ENDED, -signal.SIGKILL}, codes
    before = len(shop.emulator.accepted)
    it = check(shop, job, asyncio.run(run(job)))
    assert len(shop.emulator.accepted) == before, "the last run bought something"
    states = Counter(it.states.values())
    shutil.rmtree(job.folder)
    ended = f"{codes[ENDED]} ended, {killed} owner killed after {wanted} of {items}"
    doubts = f"{states['uncertain']} in doubt, of these {len(it.lost)} sold"
    return f"{ended}: {states['saved']} saved, {doubts}"


def main() -> None:
    """All runs, one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--items", type=int, default=200)
    wanted = parser.parse_args()
    shop = Shop()
    with served(shop) as url:
        for number in range(wanted.runs):
            line = contest(shop, url, items=wanted.items, seed=number)
            sys.stdout.write(f"{number + 1}: {line}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
