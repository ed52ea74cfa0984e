"""Whatever is slow, a call ends in time: the whole of it is bounded, not each of its reads.

A name that is not resolved, a handshake that does not end, a head or a body that drips, a flood of
103s, silence. httpx counts each read for itself, so that a drip outlives it.

The tests meet each once. `python -m tests.deadlines [cases]` measures by how much real deadlines
are missed, 200 times; the exit code is 1 if it is more than 0.3 s once.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import attrs

from eggapi_async import ConnectionFailedError, RetryPolicy, SubmissionUncertainError
from tests.scripted import client_of, data, task
from tests.wire import (
    Step,
    Wire,
    drip,
    early_hints,
    flood,
    half_status,
    json_answer,
    later,
    silence,
)

CASES: Final = 200
AT_ONCE: Final = 4
MOST: Final = 0.3
"""Seconds by which a real deadline may be missed."""
ONCE: Final = RetryPolicy(max_attempts=1)


@attrs.frozen
class Slow:
    """What is slow: a *step* of the service, or a *greeting* in place of all it would say."""

    step: Step | None = None
    greeting: Step | None = None
    scheme: str = "http"
    host: str = "127.0.0.1"


def _kinds() -> Mapping[str, Slow]:
    return {
        "a name that is not resolved": Slow(scheme="https", host="slow.example"),
        "a handshake that does not end": Slow(greeting=silence(), scheme="https"),
        "nobody who reads": Slow(greeting=silence()),
        "silence": Slow(silence()),
        "a late answer": Slow(later(5.0, json_answer(data(task())))),
        "half a status line": Slow(half_status(silence())),
        "a head that drips": Slow(drip(b"{}", every=0.02, head_too=True)),
        "a body that drips": Slow(drip(b" " * 1000, every=0.02)),
        "a flood of 103": Slow(flood(500, every=0.01)),
        "a 103, and a body that drips": Slow(early_hints(drip(b" " * 1000, every=0.02))),
    }


KINDS: Final = _kinds()


@contextmanager
def slow_names() -> Iterator[None]:
    """The system resolves no name that is not an address for as long as the block lasts."""
    real, end = socket.getaddrinfo, threading.Event()

    def resolve(host: Any, *args: Any, **options: Any) -> Any:
        if host in ("slow.example", b"slow.example"):
            end.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return real(host, *args, **options)

    socket.getaddrinfo = resolve
    try:
        yield
    finally:
        end.set()
        socket.getaddrinfo = real


async def late_by(slow: Slow, timeout: float, *, post: bool = False) -> float:
    """Seconds by which a call under *timeout* ends too late."""
    with ExitStack() as stack:
        stack.enter_context(slow_names())
        accept = {} if slow.greeting is None else {1: slow.greeting}
        server = stack.enter_context(Wire([] if slow.step is None else [slow.step], accept=accept))
        url = f"{slow.scheme}://{slow.host}:{server.port}"
        async with client_of(url, timeout=timeout, retry=ONCE) as egg:
            began = time.monotonic()
            try:
                await (egg.generate("An egg") if post else egg.get_task("a"))
            except (ConnectionFailedError, SubmissionUncertainError):
                return time.monotonic() - began - timeout
    raise AssertionError("it was answered")


async def measure(cases: int) -> dict[str, float]:
    """The most that calls were late, by kind."""
    most = dict.fromkeys(KINDS, 0.0)
    await late_by(KINDS["a handshake that does not end"], 1.0)  # certificates are loaded once
    for round_number in range(cases // (len(KINDS) * AT_ONCE)):
        for name, slow in KINDS.items():
            timeouts = [0.1 + 0.1 * ((round_number + n) % 5) for n in range(AT_ONCE)]
            late = await asyncio.gather(
                *(late_by(slow, timeout, post=n % 2 == 0) for n, timeout in enumerate(timeouts))
            )
            most[name] = max(most[name], *late)
    return most


def main(cases: int = CASES) -> int:
    """Measure, and write it."""
    most = asyncio.run(measure(cases))
    for name, late in most.items():
        sys.stdout.write(f"{late * 1000:+7.1f} ms  {name}\n")
    sys.stdout.write(f"{cases} cases, at most {max(most.values()) * 1000:.1f} ms late\n")
    return max(most.values()) > MOST


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
