"""The proof that a download can be killed: whole files or none, and nothing beside them later.

A process fetches pictures into a folder and dies by SIGKILL at the first, second, third …
thing that it asks of the file system; or every such thing fails with ENOSPC, EIO, EDQUOT or EROFS,
once or from then on. After each, every file with a final name is whole; after the next run all
of them are there, and nothing else.

The tests run it in processes that are forked (`forked`). Under strace, at every system call that
writes, names, locks or receives, it is a program: `python -m tests.download_rig`, on Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx

from eggapi_async import AsyncEggClient, DownloadError, RetryPolicy
from tests.content_host import Host, Reply, customer, finished, jpeg, png, webp, whole
from tests.served import ROOT, environment, served

MANY: Final = 12
FEW: Final = 4
"""Pictures over TCP, and in process."""


def _name(number: int) -> str:
    return f"gen_1-{number + 1}{('.png', '.jpg', '.webp')[number % 3]}"


def _content(number: int) -> bytes:
    return (png, jpeg, webp)[number % 3](b"a picture!" * (9 + 50 * (number % 4)))


FILES: Final = {_name(number): _content(number) for number in range(MANY)}
ASKED: Final = ("open", "link", "unlink", "fsync", "replace", "listdir", "mkdir")
"""Functions of `os` that ask something of the file system."""
ON_FILES: Final = (
    *("openat", "write", "fsync", "link", "unlink", "flock", "close", "lseek", "getdents64"),
)
ON_SOCKETS: Final = ("connect", "sendto", "recvfrom")
FAILING: Final = ("openat", "write", "fsync", "link", "unlink", "flock", "getdents64")
ERRORS: Final = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
ENDED, REFUSED = 0, 3
"""Exit codes: all is there; a DownloadError."""
PROGRAM: Final = """
import itertools, os, secrets, sys
from tests.download_rig import fetch
assert fetch(sys.argv[3], sys.argv[2]) == 0  # so that all libraries are loaded
numbers = itertools.count()
secrets.token_hex = lambda size: f"{next(numbers):0{2 * size}x}"  # names that strace can be told
os._exit(fetch(sys.argv[1], sys.argv[2]))
"""


def host() -> Host:
    """A content host in process, whose first picture breaks off once."""
    contents = list(FILES.values())
    broken: list[str] = []

    def play(request: httpx.Request) -> Reply:
        number = int(request.url.path[1:])
        if number == 0 and not broken:
            broken.append("once")
            return Reply([contents[0][:100], httpx.ReadError("reset")], headers={"ETag": '"1"'})
        return whole(contents[number])

    return Host(play=play)


class Shop:
    """The same over TCP."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        content = list(FILES.values())[int(scope["path"][1:])]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content[:100], "more_body": True})
        await send({"type": "http.response.body", "body": content[100:]})


async def _in_process(folder: str) -> None:
    async with customer(host(), retry=RetryPolicy(base_delay=0.001)) as egg:
        await egg.download(finished(*(f"https://cdn.test/{n}" for n in range(FEW))), folder)


async def _over_tcp(folder: str, url: str) -> None:
    async with AsyncEggClient("a-key", base_url=url, retry=RetryPolicy(base_delay=0.001)) as egg:
        await egg.download(finished(*(f"{url}/{n}" for n in range(MANY))), folder)


def fetch(folder: str, url: str | None = None) -> int:
    """Fetch them into *folder*; an exit code."""
    try:
        asyncio.run(_in_process(folder) if url is None else _over_tcp(folder, url))
    except DownloadError:
        return REFUSED
    return ENDED


# --- the reckoning -----------------------------------------------------------------------------


def looked_at(folder: Path) -> int:
    """How many of them are there; what has a final name must be whole."""
    finals = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in finals:
        assert path.read_bytes() == FILES[path.name], f"{path.name} is not whole"
    return len(finals)


def tidy(folder: Path, number: int) -> None:
    """After the next run all is there, and nothing else."""
    left = sorted(path.name for path in folder.iterdir())
    assert left == sorted(list(FILES)[:number]), left


# --- in processes that are forked --------------------------------------------------------------


def forked(points: Iterator[tuple[str, int]], folder: Path) -> Counter[str]:
    """Try each (kind of end, point); how the processes ended. Raises at the first that is bad."""
    tally: Counter[str] = Counter()
    for number, (kind, point) in enumerate(points):
        place = folder / str(number)
        place.mkdir()
        code = _child(partial(_spoilt, place, kind, point))
        tally[f"{kind}: {code}"] += 1
        looked_at(place)
        assert _child(partial(fetch, str(place))) == ENDED
        tidy(place, FEW)
        shutil.rmtree(place)
    return tally


def _child(work: Callable[[], int]) -> int:
    child = os.fork()
    if not child:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _spoilt(folder: Path, kind: str, point: int) -> int:
    """A fetch whose file system ends it, or fails, at that point."""
    asked = [0]

    def spoil(real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any, **options: Any) -> Any:
            asked[0] += 1
            if kind == "SIGKILL" and asked[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
            lasts = kind.endswith("+")
            if kind != "SIGKILL" and (asked[0] == point or (lasts and asked[0] > point)):
                raise OSError(getattr(errno, kind.rstrip("+")), "spoilt")
            return real(*arguments, **options)

        return ask

    for name in ASKED:
        setattr(os, name, spoil(getattr(os, name)))
    return fetch(str(folder))


def in_forks(points: int, folder: str) -> None:
    """So many kills and so many errors, and their sum on stdout."""
    kinds = ["SIGKILL", *(f"{error}{lasts}" for error in ERRORS for lasts in ("", "+"))]
    tries = ((kinds[n % 2 * (1 + n // 2 % 8)], 1 + n // 2) for n in range(points))
    for what, number in sorted(forked(tries, Path(folder)).items()):
        sys.stdout.write(f"{number} × {what}\n")


# --- under strace ------------------------------------------------------------------------------


def traced(folder: Path, url: str, *options: str) -> int:
    """A fetch under strace; its exit code, or the negative number of the signal."""
    with tempfile.TemporaryDirectory() as other:
        program = [sys.executable, "-c", PROGRAM, str(folder), url, other]
        return _ended(["strace", "-f", "-qq", *options, *program])


def _ended(command: list[str]) -> int:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


def calls(folder: Path, url: str, names: tuple[str, ...], *options: str) -> list[tuple[str, int]]:
    """The system calls of a fetch, each by its name and its number within its thread, from the
    first that concerns the folder on."""
    with tempfile.NamedTemporaryFile("r") as log:
        trace = f"trace={','.join(('mkdir', 'openat', *names))}"
        assert traced(folder, url, "-o", log.name, "-e", trace, *options) == ENDED
        made: Counter[tuple[str, str]] = Counter()
        found: dict[tuple[str, int], None] = {}
        has_begun = False
        for thread, name, rest in re.findall(r"^(\d+) +(\w+)\((.*)", log.read(), re.MULTILINE):
            has_begun |= str(folder) in rest
            made[thread, name] += 1
            if has_begun and name in names:
                found[name, made[thread, name]] = None
    return list(found)


def within(folder: Path) -> list[str]:
    """Options that look at the folder's files only."""
    parts = [f".{name.partition('.')[0]}.{n:012x}.part" for name in FILES for n in range(MANY)]
    return [f"--trace-path={path}" for path in [folder, *(folder / n for n in (*FILES, *parts))]]


class Rig:
    """Folders that are spoilt, one after the other, and a sum."""

    def __init__(self, home: Path, url: str) -> None:
        self.tally: Counter[str] = Counter()
        self._home = home
        self._url = url
        self._numbers = count()

    def run(self, times: int) -> None:
        """All points of files so often: threads take turns as they like. Those of sockets once."""
        path = self._place()
        files = calls(path, self._url, ON_FILES, *within(path))
        for call, when in files * times:
            self._spoil("SIGKILL", call, f"signal=KILL:when={when}", on_files=True)
            for error in ERRORS if call in FAILING else ():
                self._spoil(error, call, f"error={error}:when={when}", on_files=True)
                self._spoil(f"{error}+", call, f"error={error}:when={when}+", on_files=True)
        for call, when in calls(self._place(), self._url, ON_SOCKETS):
            self._spoil("SIGKILL", call, f"signal=KILL:when={when}", on_files=False)

    def _place(self) -> Path:
        path = self._home / str(next(self._numbers))
        path.mkdir()
        return path

    def _spoil(self, kind: str, call: str, rule: str, *, on_files: bool) -> None:
        path = self._place()
        options = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{rule}"]
        code = traced(path, self._url, *options, *(within(path) if on_files else ()))
        assert code in (ENDED, REFUSED, -signal.SIGKILL), (call, rule, code)
        self.tally[f"{kind}: {code}"] += 1
        looked_at(path)
        assert fetch(str(path), self._url) == ENDED
        tidy(path, MANY)
        shutil.rmtree(path)
        if (done := self.tally.total()) % 100 == 0:
            sys.stderr.write(f"{done} ended, at {call} last\n")


def main() -> None:
    """All points, and a sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", nargs=2, metavar=("POINTS", "FOLDER"))
    parser.add_argument("--times", type=int, default=2)
    wanted = parser.parse_args()
    if wanted.forks:
        in_forks(int(wanted.forks[0]), wanted.forks[1])
        return
    with tempfile.TemporaryDirectory(prefix="eggapi-download-") as home, served(Shop()) as url:
        rig = Rig(Path(home), url)
        rig.run(wanted.times)
    for what, number in sorted(rig.tally.items()):
        sys.stdout.write(f"{number} × {what}\n")


if __name__ == "__main__":
    main()
