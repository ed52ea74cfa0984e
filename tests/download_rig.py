"""The proof that a download can be killed: whole files or none, and nothing beside them later.

A process fetches four pictures into a folder and dies by SIGKILL at the first, second, third …
thing that it asks of the file system; or every such thing fails with ENOSPC, EIO, EDQUOT or EROFS,
once or from then on. After each, every file with a final name is whole; after the next run all
four are there, and nothing else.

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
from pathlib import Path
from typing import Any, Final

import httpx

from eggapi_async import AsyncEggClient, DownloadError, RetryPolicy
from tests.content_host import Host, Reply, customer, finished, jpeg, png, webp, whole
from tests.served import ROOT, environment, served

FILES: Final = {
    "gen_1-1.png": png(b"a picture" * 99),
    "gen_1-2.jpg": jpeg(b"a picture" * 99),
    "gen_1-3.webp": webp(b"a picture!" * 99),
    "gen_1-4.png": png(b"another" * 9),
}
ASKED: Final = ("open", "link", "unlink", "fsync", "replace", "listdir", "mkdir")
"""Functions of `os` that ask something of the file system."""
CALLS: Final = (
    *("openat", "write", "fsync", "link", "unlink", "flock", "close", "recvfrom", "sendto"),
    *("connect", "mmap", "lseek", "getdents64", "ftruncate"),
)
FAILING: Final = ("openat", "write", "fsync", "link", "flock", "getdents64")
ERRORS: Final = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
ENDED, REFUSED = 0, 3
"""Exit codes: all is there; a DownloadError."""
PROGRAM: Final = """
import os, sys
from tests.download_rig import fetch
os._exit(fetch(*sys.argv[1:]))
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
        await egg.download(finished(*(f"https://cdn.test/{n}" for n in range(4))), folder)


async def _over_tcp(folder: str, url: str) -> None:
    async with AsyncEggClient("a-key", base_url=url, retry=RetryPolicy(base_delay=0.001)) as egg:
        await egg.download(finished(*(f"{url}/{n}" for n in range(4))), folder)


def fetch(folder: str, url: str | None = None) -> int:
    """Fetch the four into *folder*; an exit code."""
    try:
        asyncio.run(_in_process(folder) if url is None else _over_tcp(folder, url))
    except DownloadError:
        return REFUSED
    return ENDED


# --- the reckoning -----------------------------------------------------------------------------


def looked_at(folder: Path) -> int:
    """How many of the four are there; what has a final name must be whole."""
    finals = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in finals:
        assert path.read_bytes() == FILES[path.name], f"{path.name} is not whole"
    return len(finals)


def tidy(folder: Path) -> None:
    """After the next run all is there, and nothing else."""
    left = sorted(path.name for path in folder.iterdir())
    assert left == sorted(FILES), left


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
        tidy(place)
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
    command = ["strace", "-f", "-qq", *options, sys.executable, "-c", PROGRAM, str(folder), url]
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


def calls(folder: Path, url: str) -> list[tuple[str, int]]:
    """The system calls of a fetch, each by its name and its number within its thread, from the
    first that concerns the folder on."""
    with tempfile.NamedTemporaryFile("r") as log:
        trace = f"trace={','.join(CALLS)}"
        assert traced(folder, url, "-o", log.name, "-e", trace) == ENDED
        made: Counter[tuple[str, str]] = Counter()
        found: dict[tuple[str, int], None] = {}
        has_begun = False
        for thread, name, rest in re.findall(r"^(\d+) +(\w+)\((.*)", log.read(), re.MULTILINE):
            has_begun |= str(folder) in rest
            made[thread, name] += 1
            if has_begun:
                found[name, made[thread, name]] = None
    return list(found)


def main() -> None:
    """All points, and a sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", nargs=2, metavar=("POINTS", "FOLDER"))
    parser.add_argument("--kills", type=int, default=400)
    parser.add_argument("--errors", type=int, default=200)
    wanted = parser.parse_args()
    if wanted.forks:
        in_forks(int(wanted.forks[0]), wanted.forks[1])
        return
    tally: Counter[str] = Counter()
    home = Path(tempfile.mkdtemp(prefix="eggapi-download-"))
    with served(Shop()) as url:

        def attempt(kind: str, *options: str) -> None:
            place = home / str(sum(tally.values()))
            place.mkdir()
            code = traced(place, url, "-o", "/dev/null", *options)
            tally[f"{kind}: {code}"] += 1
            looked_at(place)
            assert fetch(str(place), url) == ENDED
            tidy(place)
            shutil.rmtree(place)

        first = home / "first"
        first.mkdir()
        points = calls(first, url)
        for name, when in _some(points, wanted.kills):
            attempt(
                "SIGKILL", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={when}"
            )
        failing = [point for point in points if point[0] in FAILING]
        for number, (name, when) in enumerate(_some(failing, wanted.errors)):
            error = ERRORS[number % 4]
            rule = f"inject={name}:error={error}:when={when}"
            attempt(error, "-e", f"trace={name}", "-e", rule)
    shutil.rmtree(home)
    for what, number in sorted(tally.items()):
        sys.stdout.write(f"{number} × {what}\n")


def _some(points: list[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """*points*, or an even choice of *most* of them."""
    step = max(1.0, len(points) / most)
    return [points[int(n * step)] for n in range(min(most, len(points)))]


if __name__ == "__main__":
    main()
