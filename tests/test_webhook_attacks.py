"""Webhooks under attack and under the axe: floods, fuzz, and processes killed in the middle."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import anyio
import pytest

from eggapi_async import PollPolicy
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.deliveries import SECRET
from tests.served import environment
from tests.test_examples import free_port
from tests.webhook_flood import SLOW, flood
from tests.webhook_fuzz import fuzz

MEGABYTE: Final = 1 << 20


def test_verification_raises_one_error_whatever_it_is_given() -> None:
    """And accepts only what the page's own function accepts; a million in the full run."""
    counts = fuzz(10_000, seed=1)

    assert {"accepted", "forged", "malformed", "unreadable", "not_bytes", "unsigned"} <= {*counts}
    assert counts["accepted"] > 1000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see memory")
def test_a_flood_leaves_memory_flat_and_good_deliveries_served() -> None:
    """A body without end is cut off, slow senders hold up nobody, guesses are refused."""
    report = flood(forged=500, endless=256 * MEGABYTE)

    assert report.sent_of_endless < 64 * MEGABYTE  # what the sockets between can hold
    assert report.endless[:12] in (b"HTTP/1.1 413", b"")
    assert (report.slow_still_open, report.good_among_slow) == (SLOW, 1)
    assert report.forged == {401: 500}
    assert report.good_afterwards == 1
    assert report.at_most - report.before < 16 * MEGABYTE


APP = f"""
import sys
from pathlib import Path
import anyio, uvicorn
from eggapi_async import WebhookReceiver
port, folder, is_good = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "good"

async def on_event(event):
    with open(folder / "begun", "a") as begun:
        begun.write(event.task_id + "\\n")
    if not is_good:
        await anyio.sleep_forever()
    with open(folder / "done", "a") as done:
        done.write(event.task_id + "\\n")

uvicorn.run(WebhookReceiver({SECRET!r}, on_event=on_event), port=port, log_level="error")
"""


def receiver(port: int, folder: Path, kind: str) -> subprocess.Popen[bytes]:
    """A process that listens there; only a good one ever comes to an end with an event."""
    command = [sys.executable, "-c", APP, str(port), str(folder), kind]
    return subprocess.Popen(command, env=environment())


async def until_written(file: Path) -> list[str]:
    """The lines of *file*, once there are any."""
    while not file.exists() or not file.read_text("utf-8").endswith("\n"):
        await anyio.sleep(0.02)
    return file.read_text("utf-8").splitlines()


@pytest.mark.real_time
async def test_a_process_killed_in_its_handler_loses_nothing(tmp_path: Path) -> None:
    """The event comes again to its successor; who waits elsewhere finds the end by a poll."""
    emulator = EggEmulator(speed=100, webhook_secret=SECRET, webhook_backoff=200.0)
    port = free_port()
    first = receiver(port, tmp_path, "bad")
    second = None
    try:
        with anyio.fail_after(120):
            url = f"http://127.0.0.1:{port}/"
            policy = PollPolicy(first_delay=0.1, interval=0.1, min_interval=0.1, safety_net=0.5)
            async with connect(emulator, polling=policy, webhook_url=url) as egg:
                async with emulator.delivering():
                    task = await egg.generate("An egg")
                    begun = await until_written(tmp_path / "begun")
                    first.send_signal(signal.SIGKILL)
                    first.wait()
                    second = receiver(port, tmp_path, "good")
                    result = await task
                    done = await until_written(tmp_path / "done")
                    while emulator.pending_webhooks:
                        await anyio.sleep(0.02)
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()

    assert result.is_completed
    assert egg.stats.polls >= 1
    assert begun == done == [task.id]
    statuses = [attempt.status for attempt in emulator.deliveries]
    assert statuses == [None] * (len(statuses) - 1) + [204]
    assert len(statuses) > 1
