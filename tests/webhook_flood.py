"""A receiver under attack, over TCP and in a process of its own, and what it has left for others.

One who sends a body without end, fifty who send theirs byte by byte, and thousands who guess
signatures. Afterwards the memory must be what it was; all the while a good delivery is served.

The tests run it small. At its full size it is a program: `python -m tests.webhook_flood`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import attrs

from eggapi_async import sign_webhook
from tests.deliveries import SECRET, body_of

ROOT: Final = Path(__file__).parent.parent
SLOW: Final = 50
FORGED: Final = 10_000
ENDLESS: Final = 1 << 30
CHUNK: Final = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
PATIENCE: Final = 120.0

APP: Final = f"""
import socket, sys, uvicorn
from eggapi_async import WebhookReceiver
receiver = WebhookReceiver({SECRET!r}, on_event=lambda event: None)
door = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(door.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(receiver, log_level="error")).run(sockets=[door])
"""


@attrs.frozen
class Report:
    """What the flood did, and what it left. Sizes in bytes."""

    sent_of_endless: int
    endless: bytes
    slow_still_open: int
    good_among_slow: int
    good_seconds: float
    forged: dict[int, int]
    good_afterwards: int
    before: int
    at_most: int
    afterwards: int


@contextmanager
def attacked() -> Iterator[tuple[int, int]]:
    """A receiver's port and process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", APP],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.communicate()


def memory(process_id: int, *, at_most: bool = False) -> int:
    """Bytes of memory that a process holds now, or has held *at_most*."""
    status = Path(f"/proc/{process_id}/status").read_text("utf-8")
    field = "VmHWM:" if at_most else "VmRSS:"
    return int(status.partition(field)[2].split()[0]) * 1024


def post(port: int, secret: str, *, count: int = 1) -> Counter[int]:
    """POST so many deliveries over one connection; the statuses."""
    statuses: Counter[int] = Counter()
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    for number in range(count):
        body = body_of(f"gen_{number}")
        connection.request("POST", "/", body, sign_webhook(body, secret))
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] += 1
    connection.close()
    return statuses


def head(length: str) -> bytes:
    """The head of a request whose signature could be good."""
    lines = [f"{name}: {value}" for name, value in sign_webhook(b"", "a guess").items()]
    return "\r\n".join(["POST / HTTP/1.1", "Host: x", *lines, length, "", ""]).encode()


def send_endless(port: int, size: int) -> tuple[int, bytes]:
    """Send a chunked body of *size* bytes, or until it is refused; what was sent, and the answer's
    first line."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as door:
        door.sendall(head("Transfer-Encoding: chunked"))
        with suppress(ConnectionError):
            while sent < size:
                door.sendall(CHUNK)
                sent += 0x10000
        with suppress(ConnectionError):
            return sent, door.recv(1000).split(b"\r\n")[0]
    return sent, b""  # it was cut off before it could read the answer


def flood(*, forged: int, endless: int) -> Report:
    """Attack a receiver, and see what is left of it."""
    with attacked() as (port, process_id):
        good = post(port, SECRET)
        forgers = post(port, "a guess", count=100)
        before = memory(process_id)
        sent, line = send_endless(port, endless)
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(SLOW)]
        for door in slow:
            door.sendall(head("Content-Length: 1000"))
            door.sendall(b"{")
        began = time.monotonic()
        good = post(port, SECRET)
        took = time.monotonic() - began
        still_open = sum(map(_is_open, slow))
        for door in slow:
            door.close()
        forgers = post(port, "a guess", count=forged)
        afterwards = post(port, SECRET)
        return Report(
            sent_of_endless=sent,
            endless=line,
            slow_still_open=still_open,
            good_among_slow=good[204],
            good_seconds=took,
            forged=dict(forgers),
            good_afterwards=afterwards[204],
            before=before,
            at_most=memory(process_id, at_most=True),
            afterwards=memory(process_id),
        )


def _is_open(door: socket.socket) -> bool:
    """True while nothing has been answered, and the other end has not hung up."""
    door.setblocking(False)
    try:
        door.recv(1)
    except BlockingIOError:
        return True
    return False


def main() -> None:
    """Run it at its full size and write what came of it."""
    report = flood(forged=FORGED, endless=ENDLESS)
    for name, value in attrs.asdict(report).items():
        sys.stdout.write(f"{name:>16}: {value}\n")
    peak, grown = report.at_most - report.before, report.afterwards - report.before
    sys.stdout.write(f"memory grew by {grown / 1e6:.1f} MB, {peak / 1e6:.1f} MB at most\n")


if __name__ == "__main__":
    main()
