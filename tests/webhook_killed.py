"""One effect for each event, whenever the receiver dies: `python -m tests.webhook_killed`.

An event is delivered six times, each in four copies at once, to a receiver whose handler writes it
into a database of its own, with the event as the key. The receiver is killed by SIGKILL at a system
call: as it reads, writes to the database, syncs it, or answers; and started again. In the end the
effect is there once, and at each 2xx that anybody heard it was there already. On Linux with strace.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from eggapi_async import sign_webhook
from tests.deliveries import SECRET, body_of
from tests.served import ROOT, environment

ATTEMPTS: Final = 6
COPIES: Final = 4
CALLS: Final = ("recvfrom", "sendto", "pwrite64", "fdatasync")
"""What the receiver does for a delivery, as system calls that nothing else in it makes often."""

APP: Final = f"""
import socket, sqlite3, sys, uvicorn
from eggapi_async import WebhookReceiver

def on_event(event):
    with sqlite3.connect(sys.argv[1]) as rows:
        rows.execute("PRAGMA synchronous = FULL")
        rows.execute("INSERT OR IGNORE INTO effects VALUES (?, ?)", (event.task_id, event.event))
    rows.close()

door = socket.create_server(("127.0.0.1", int(sys.argv[2])))
app = WebhookReceiver({SECRET!r}, on_event=on_event)
uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off")).run(sockets=[door])
"""


class Receiver:
    """The process, under strace where it is to be killed, and without where it was."""

    def __init__(self, database: Path, port: int) -> None:
        self._arguments = [sys.executable, "-c", APP, str(database), str(port)]
        self._process: subprocess.Popen[bytes] | None = None
        self.kills = 0

    def start(self, *strace: str) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            [*strace, *self._arguments], cwd=ROOT, env=environment(), start_new_session=True
        )

    def mend(self) -> None:
        """Start it again if it was killed."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            assert code == -signal.SIGKILL, code
            self.kills += 1
            self.start()

    def stop(self) -> None:
        """End it."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def effects(database: Path) -> list[tuple[str, str]]:
    """What is durable."""
    with closing(sqlite3.connect(database)) as rows:
        return rows.execute("SELECT * FROM effects").fetchall()


def deliver(port: int, database: Path) -> int | None:
    """One delivery; its status, None where nobody answered. At 2xx the effect must be there."""
    body = body_of("gen_a")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/", body, sign_webhook(body, SECRET))
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    assert status in (204, 503), status
    assert status != 204 or effects(database) == [("gen_a", "task.completed")], "2xx too early"
    return status


def attempt(call: str, when: int, folder: Path) -> tuple[int, Counter[int | None]]:
    """All deliveries, the receiver killed at that call; kills, and the statuses."""
    database = folder / f"{call}-{when}.sqlite3"
    with closing(sqlite3.connect(database)) as rows:
        rows.execute("CREATE TABLE effects (task TEXT, event TEXT, PRIMARY KEY (task, event))")
        rows.commit()
    port = _free_port()
    receiver = Receiver(database, port)
    rule = f"inject={call}:signal=KILL:when={when}"
    receiver.start("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", rule)
    statuses: Counter[int | None] = Counter()
    try:
        _until_it_listens(port)
        with ThreadPoolExecutor(COPIES) as senders:
            for _ in range(ATTEMPTS):
                copies = [senders.submit(deliver, port, database) for _ in range(COPIES)]
                statuses.update(copy.result() for copy in copies)
                time.sleep(0.05)
                receiver.mend()
                _until_it_listens(port)
            assert deliver(port, database) == 204
    finally:
        receiver.stop()
    assert effects(database) == [("gen_a", "task.completed")]
    return receiver.kills, statuses


def _free_port() -> int:
    import socket

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def _until_it_listens(port: int) -> None:
    import socket

    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.02)
    raise AssertionError("the receiver does not listen")


def main() -> None:
    """So many points, evenly over the kinds of calls, and a sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=80)
    wanted = parser.parse_args().points
    kills, statuses = 0, Counter[int | None]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(wanted):
            killed, heard = attempt(CALLS[number % 4], 1 + number // 4, Path(folder))
            kills += killed
            statuses += heard
    answered = ", ".join(
        f"{number} × {status}" for status, number in sorted(statuses.items(), key=str)
    )
    sys.stdout.write(f"{wanted} points, {kills} kills; answers: {answered}\n")


if __name__ == "__main__":
    main()
