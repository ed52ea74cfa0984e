"""Every point at which a submission can break on the wire, and what must come of it then.

At each point the scripted server hangs up, resets, falls silent, or says something that is no
answer; on a fresh connection, and on one that has served a submission before. Whatever the client
does: the service takes at most one submission, what it took is never called not sent, and what
cannot be known is SubmissionUncertainError. Over the client's own lanes, or a client of the
caller's.

The tests go through it once. `python -m tests.fault_points [repeats]` does so five times.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs
import httpx

from eggapi_async import (
    ConnectionFailedError,
    EggError,
    RetryPolicy,
    SubmissionUncertainError,
    UnexpectedResponseError,
)
from tests.scripted import accepted, client_of, data, error, task
from tests.wire import (
    Received,
    Step,
    Wire,
    answer,
    both,
    close,
    cut,
    drip,
    early_hints,
    flood,
    half_status,
    html_answer,
    json_answer,
    later,
    midway,
    raw,
    reset,
    silence,
)

REPEATS: Final = 5
TIMEOUT: Final = 30.0
SHORT: Final = 0.25
"""Seconds that an attempt may take where nothing else ends it."""
PROMPT: Final = "The one"
QUICK: Final = RetryPolicy(base_delay=0.001)
HEAD: Final = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n"
GOOD: Final = json.dumps(data(task())).encode()


@attrs.frozen
class Point:
    """One way to break a submission.

    *read* is how many bytes of it are read before (None: all, so that it may have been taken).
    *is_slow* where only the client's timeout ends it, *is_usable* where the answer names the task
    after all, *is_refusal* where it says that nothing was taken, *is_declined* where it says that
    nothing ever will be here.
    """

    fault: Step
    read: int | None = None
    is_slow: bool = False
    is_usable: bool = False
    is_refusal: bool = False
    is_declined: bool = False


def _body(body: bytes, **headers: str) -> Step:
    return answer(202, {"Content-Type": "application/json", **headers}, body)


ENDS: dict[str, tuple[Callable[[], Step], bool]] = {
    "FIN": (close, False),
    "RST": (reset, False),
    "silence": (silence, True),
}

BEFORE: dict[str, Point] = {
    f"{end} after {name} of the request was read": Point(make(), read=count, is_slow=is_slow)
    for name, count in {
        "nothing": 0,
        "a byte": 1,
        "half the head": 90,
        "all but the end": 200,
    }.items()
    for end, (make, is_slow) in ENDS.items()
}
"""Nothing was taken, and nobody can prove it once the request has begun to leave."""

HALF: dict[str, Point] = {
    f"{end} after {name}": Point(raw(start, then=make()), is_slow=is_slow)
    for name, start in {
        "the request": b"",
        "half a status line": b"HTTP/1.1 20",
        "a status line": b"HTTP/1.1 202 Accepted\r\n",
        "half a header": HEAD + b"Content-Le",
        "the head": HEAD + b"Content-Length: 100\r\n\r\n",
        "half the body": HEAD + b'Content-Length: 100\r\n\r\n{"data": {"id": "gen_',
        "half a chunk": HEAD + b'Transfer-Encoding: chunked\r\n\r\n50\r\n{"data"',
        "a 100": b"HTTP/1.1 100 Continue\r\n\r\n",
        "a 103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    }.items()
    for end, (make, is_slow) in ENDS.items()
}

NONSENSE: dict[str, Point] = {
    name: Point(raw(text, then=close()))
    for name, text in {
        "no HTTP": b"hello\r\n\r\n",
        "another protocol's greeting": b"220 smtp.example.com ESMTP\r\n",
        "binary": bytes(range(256)),
        "a version that does not exist": b"HTTP/9.9 202 Accepted\r\n\r\n",
        "a status that is no number": b"HTTP/1.1 abc Accepted\r\n\r\n",
        "a header without a colon": b"HTTP/1.1 202 Accepted\r\nwhat is this\r\n\r\n",
        "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n{}  ",
        "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
        "a chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "a head of 200 kB": HEAD + b"X-Long: " + b"a" * 200_000 + b"\r\n\r\n",
        "another protocol is switched to": b"HTTP/1.1 101 Switching\r\nUpgrade: egg\r\n\r\n",
        "a body that is cut without a frame": HEAD + b'Connection: close\r\n\r\n{"data": {"id": "g',
    }.items()
}

BODIES: dict[str, Point] = {
    name: Point(_body(body))
    for name, body in {
        "nothing": b"",
        "a page": b"<html>202</html>",
        "null": b"null",
        "a list": b"[]",
        "a number": b"1" * 5000,
        "nested deeply": b"[" * 100_000,
        "not UTF-8": b'{"data": {"id": "\xff\xfe"}}',
        "without data": b"{}",
        "without an id": json.dumps(data({"status": "pending"})).encode(),
        "an id that is null": json.dumps(data(task() | {"id": None})).encode(),
        "an id that is empty": json.dumps(data(task() | {"id": ""})).encode(),
        "an error of the service's own": json.dumps(error("INTERNAL_ERROR")).encode(),
        "nine megabytes": b" " * 9_000_000,
    }.items()
}

OTHERS: dict[str, Point] = {
    "a bomb": Point(_body(gzip.compress(b" " * 64_000_000, 1), **{"Content-Encoding": "gzip"})),
    "compression that is none": Point(_body(b"no", **{"Content-Encoding": "gzip"})),
    "a chunked body, cut": Point(cut(b'{"data"', framing="chunked", status=202)),
    "a body that drips": Point(drip(GOOD, every=0.05, status=202), is_slow=True),
    "a head that drips": Point(drip(GOOD, every=0.05, status=202, head_too=True), is_slow=True),
    "a flood of 103": Point(flood(100, every=0.01), is_slow=True),
    "a good answer too late": Point(later(2 * SHORT, accepted()), is_slow=True),
    "a good answer after a 103": Point(early_hints(accepted("gen_1")), is_usable=True),
    "a good answer, then FIN": Point(both(accepted("gen_1"), close()), is_usable=True),
    "a good answer, then nonsense": Point(
        both(accepted("gen_1"), raw(b"hello?", then=close())), is_usable=True
    ),
}

STATUSES: dict[str, Point] = {
    **{f"{status} as a page": Point(html_answer(status)) for status in (500, 502, 503, 504, 408)},
    **{
        f"{status} elsewhere": Point(answer(status, {"Location": "/elsewhere"}), is_declined=True)
        for status in (301, 302, 307, 308)
    },
    "303 to what was made": Point(answer(303, {"Location": "/v1/tasks/gen_1"})),
    "500 in the envelope": Point(json_answer(error("INTERNAL_ERROR"), 500)),
    "502 in the envelope": Point(json_answer(error("UPSTREAM_ERROR"), 502)),
    "503 under another code": Point(json_answer(error("INTERNAL_ERROR"), 503)),
    "503 in the envelope": Point(json_answer(error("SERVICE_UNAVAILABLE"), 503), is_refusal=True),
    "429": Point(answer(429, {"Retry-After": "0"}), is_refusal=True),
    "429 as a page": Point(html_answer(429), is_refusal=True),
    "204": Point(answer(204)),
    "half a status, late": Point(later(0.01, half_status())),
}

POINTS: Final[dict[str, Point]] = {**BEFORE, **HALF, **NONSENSE, **BODIES, **OTHERS, **STATUSES}


@attrs.define
class Service:
    """Plays one point, once, and takes every other submission."""

    point: Point
    taken: int = 0
    posts: int = 0
    is_played: bool = False

    def script(self, request: Received) -> Step:
        """The step for a request that was read to its end."""
        if json.loads(request.body)["prompt"] != PROMPT:
            return both(accepted("gen_0"), self._begin()) if self._is_midway else accepted("gen_0")
        self.posts += 1
        is_it = not self._is_midway and not self.is_played
        self.is_played = True
        self.taken += not (is_it and (self.point.is_refusal or self.point.is_declined))
        return self.point.fault if is_it else accepted("gen_1")

    @property
    def _is_midway(self) -> bool:
        return self.point.read is not None

    def _begin(self) -> Step:
        assert self.point.read is not None
        return midway(self.point.read, self.point.fault)

    def accept(self, *, reused: bool) -> dict[int, Step]:
        """What is played on a new connection before its first request was read."""
        return {1: self._begin()} if self._is_midway and not reused else {}


async def play(point: Point, *, reused: bool, own_client: bool = False) -> str:
    """Submit through *point*; how it ended. AssertionError where that is no sound end."""
    service = Service(point)
    options: dict[str, Any] = {"timeout": SHORT if point.is_slow else TIMEOUT, "retry": QUICK}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Wire(service.script, accept=service.accept(reused=reused)))
        if own_client:
            http = httpx.AsyncClient(trust_env=False, verify=False)  # noqa: S501: plain http only
            options["http_client"] = await stack.enter_async_context(http)
        egg = await stack.enter_async_context(client_of(server, **options))
        if reused:
            await egg.with_options(timeout=TIMEOUT).generate("One before")
        try:
            end: str | EggError = (await egg.generate(PROMPT)).id
        except EggError as exc:
            end = exc
    return _checked(service, end)


def _checked(service: Service, end: str | EggError) -> str:
    point = service.point
    assert service.taken <= 1, f"bought {service.taken} times: {end!r}"
    if isinstance(end, str):
        assert service.taken == 1, f"bought {service.taken} times"
        assert end == "gen_1"
        assert point.read is not None or point.is_usable or point.is_refusal, "sent twice"
        return "bought"
    if isinstance(end, ConnectionFailedError):
        assert service.taken == 0, f"taken, and called not sent: {end!r}"
        return "not sent"
    if point.is_declined and isinstance(end, UnexpectedResponseError):
        return "declined"
    assert isinstance(end, SubmissionUncertainError), repr(end)
    is_clear = point.is_usable or point.is_refusal or point.is_declined
    assert not is_clear, "the answer was clear"
    return "uncertain"


async def play_all(repeats: int) -> Counter[str]:
    """All points, on both kinds of connections, over both kinds of clients."""
    ends: Counter[str] = Counter()
    for name, point in POINTS.items():
        for own_client in (False, True):
            try:
                played = await asyncio.gather(
                    *(
                        play(point, reused=reused, own_client=own_client)
                        for reused in (False, True)
                        for _ in range(repeats)
                    )
                )
            except AssertionError as wrong:
                raise AssertionError(f"{name}: {wrong}") from wrong
            ends.update(played)
    return ends


def main(repeats: int = REPEATS) -> None:
    """Play all, and write how they ended."""
    ends = asyncio.run(play_all(repeats))
    sys.stdout.write(f"{len(POINTS)} points, {ends.total()} submissions: {dict(ends)}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
