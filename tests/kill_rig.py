"""The long proof that a batch can be killed: `python -m tests.kill_rig`, on Linux with strace.

A batch is killed by SIGKILL at a system call that writes, syncs, names or sends, at as many
different ones as wanted, and run again until it is finished. Then at moments that nobody chose,
and then with ENOSPC, EIO, EDQUOT or EROFS in place of the kill, at every such call on the journal's
own files. After each the books of the service and the journal are compared (`mortal.check`); the
first difference ends the program.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from operator import itemgetter

import attrs

from tests.mortal import ENDED, NO_JOURNAL, Job, Shop, check, run
from tests.served import ROOT, environment, served

WRITES = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "link", "unlink", "sendto")
FILES = ("openat", "pwrite64", "fdatasync", "fsync", "ftruncate")
"""Calls on the journal's files."""
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
PROGRAM = """
import json, os, sys
from tests.mortal import Job, work
os._exit(work(Job(**json.loads(sys.argv[1]))))
"""


def traced(job: Job, *options: str) -> int:
    """The batch under strace; its exit code, or the negative number of the signal."""
    command = ["strace", "-f", "-qq", *options, sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        [*command, json.dumps(attrs.asdict(job))],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


def journal_paths(job: Job) -> list[str]:
    """Options that look at the journal's files only."""
    paths = [f"{job.journal}{end}" for end in ("", "-wal", "-journal", "-shm", "-lock")]
    return [f"--trace-path={path}" for path in [*paths, job.folder]]


def calls(job: Job, names: tuple[str, ...], *options: str) -> dict[str, int]:
    """How often a thread of an undisturbed batch makes each call, the busiest one counting."""
    with tempfile.NamedTemporaryFile("r") as log:
        code = traced(job, "-o", log.name, "-e", f"trace={','.join(names)}", *options)
        assert code == ENDED, code
        threads = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read(), re.MULTILINE))
    return {
        name: max((n for (_, c), n in threads.items() if c == name), default=0) for name in names
    }


def points(most: dict[str, int], number: int) -> list[tuple[str, int]]:
    """Calls to end at: all of the rare kinds, and of the frequent ones an even choice."""
    chosen: list[tuple[str, int]] = []
    kinds = sorted(most.items(), key=itemgetter(1))
    for place, (name, count) in enumerate(kinds):
        share = min(count, (number - len(chosen)) // (len(kinds) - place))
        chosen += [(name, 1 + n * count // share) for n in range(share)]
    return chosen


def finish(shop: Shop, job: Job) -> str:
    """Run the batch to its end in this process; what the books say."""
    outcomes = asyncio.run(run(job))
    it = check(shop, job, outcomes)
    again = sum(shop.emulator.requests.values())
    asyncio.run(run(job))
    assert sum(shop.emulator.requests.values()) == again, "a finished batch asked for something"
    states = Counter(it.states.values())
    return f"{states['saved']} saved, {states['uncertain']} in doubt, of these {len(it.lost)} sold"


def main() -> None:
    """All points, one line each, and a sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--errors", type=int, default=200)
    parser.add_argument("--error-items", type=int, default=20)
    wanted = parser.parse_args()
    shop, tally = Shop(), Counter[str]()
    with served(shop) as url:

        def job(number: int, items: int) -> Job:
            shop.open(seed=number)
            return Job(url, tempfile.mkdtemp(prefix="eggapi-kill-"), items)

        def settle(it: Job, kind: str, what: str, code: int) -> None:
            tally[f"{kind} {code}"] += 1
            say(f"{kind} at {what}: exit {code}; {finish(shop, it)}")
            shutil.rmtree(it.folder)

        first = job(0, wanted.items)
        most = calls(first, WRITES)
        settle(first, "nothing", str(most), ENDED)
        for number, (name, when) in enumerate(points(most, wanted.kills), 1):
            it = job(number, wanted.items)
            rule = f"inject={name}:signal=SIGKILL:when={when}"
            code = traced(it, "-o", "/dev/null", "-e", f"trace={name}", "-e", rule)
            settle(it, "killed", f"{name} {when}", code)
        took = seconds(first := job(9_999, wanted.items))
        settle(first, "nothing", f"{took:.1f} s", ENDED)
        for number in range(wanted.moments):
            it = job(10_000 + number, wanted.items)
            settle(it, "killed", *at_random(it, random.Random(number).uniform(0.2, took)))
        first = job(20_000, wanted.error_items)
        most = calls(first, FILES, *journal_paths(first))
        settle(first, "nothing", str(most), ENDED)
        for number, (name, when) in enumerate(points(most, wanted.errors), 20_001):
            error = ERRORS[number % 4]
            lasts = "+" if number // 4 % 2 else ""
            it = job(number, wanted.error_items)
            rule = f"inject={name}:error={error}:when={when}{lasts}"
            code = traced(
                it, "-o", "/dev/null", "-e", f"trace={name}", "-e", rule, *journal_paths(it)
            )
            assert code in (ENDED, NO_JOURNAL), code
            settle(it, f"{error}{lasts}", f"{name} {when}", code)
    for what, number in sorted(tally.items()):
        say(f"{number} × {what}")


def say(line: str) -> None:
    """A line that is seen at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def seconds(job: Job) -> float:
    """How long the batch takes when nobody disturbs it."""
    began = time.monotonic()
    code = started(job).wait()
    assert code == ENDED, code
    return time.monotonic() - began


def at_random(job: Job, when: float) -> tuple[str, int]:
    """The batch killed at a moment that nobody chose."""
    process = started(job)
    time.sleep(when)
    process.send_signal(signal.SIGKILL)
    return f"{when:.3f} s", process.wait()


def started(job: Job) -> subprocess.Popen[bytes]:
    """The batch as a process."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(attrs.asdict(job))],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
