"""The apps work: each framework over real TCP, with webhooks from the emulator's process.

What they answer in detail is in `test_apps`, in virtual time.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from eggapi_async import sign_webhook
from tests.deliveries import SECRET, body_of
from tests.served import emulator_process, environment

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 60.0
"""Seconds that a process may take to start on a busy machine."""

ASGI = ["fastapi", "starlette", "litestar", "django"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An emulator that signs its webhooks, and sends them to this machine."""
    folder = tmp_path_factory.mktemp("emulator")
    options = ("--speed", "20", "--webhook-secret", SECRET)
    with emulator_process(*options, cwd=folder) as url:
        yield url


def free_port() -> int:
    """A port that was free just now, and that no outgoing connection is given."""
    for port in random.sample(range(20_000, 30_000), 1000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("a thousand ports are taken")


@contextmanager
def example(name: str, service: str) -> Iterator[int]:
    """The port at which the example for *name* is served by a process of its own."""
    port = free_port()
    served = [sys.executable, "-m", "uvicorn", f"app_{name}:app", "--port", str(port)]
    if name == "aiohttp":
        served = [sys.executable, "webhook_aiohttp.py", str(port)]
    changes = {
        "EGGAPI_BASE_URL": service,
        "EGGAPI_API_KEY": "a-key",
        "EGGAPI_WEBHOOK_SECRET": SECRET,
        "WEBHOOK_URL": f"http://127.0.0.1:{port}/webhooks/egg",
    }
    process = subprocess.Popen(
        served,
        cwd=EXAMPLES,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        said, _ = process.communicate()
    assert "Traceback" not in said, said


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    """Wait until somebody listens there."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    process.terminate()
    pytest.fail(f"it does not listen: {process.communicate()[0]}")


def ask(
    port: int, path: str, body: bytes, headers: dict[str, str], method: str = "POST"
) -> tuple[int, bytes]:
    """One request; status and body of the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    status, content = answer.status, answer.read()
    connection.close()
    return status, content


@pytest.mark.parametrize("name", [*ASGI, "aiohttp"])
def test_a_webhook_ends_the_await_of_a_request(name: str, service: str) -> None:
    """A picture is made and followed to its end; strangers are refused, and learn nothing."""
    with example(name, service) as port:
        status, content = ask(port, "/pictures", b"An egg", {"Content-Type": "text/plain"})
        assert status in (200, 202), content
        answer = json.loads(content)
        if name in ASGI:
            status, content = ask(port, answer["follow"], b"", {}, method="GET")
            assert status == 200
            answer = json.loads(content.rpartition(b"data: ")[2])
            assert answer["status"] == "completed"
            assert ask(port, "/pictures", b"", {})[0] == 422
            assert ask(port, "/pictures/gen_unknown/events", b"", {}, method="GET")[0] == 404
        else:
            assert answer["polls"] == 0
        assert answer["url"].startswith(f"{service}/outputs/")
        body = body_of()
        genuine, forged = sign_webhook(body, SECRET), sign_webhook(body, "a guess")
        assert ask(port, "/webhooks/egg", body, genuine) == (204, b"")
        assert ask(port, "/webhooks/egg?a=1", body, genuine) == (204, b"")
        assert ask(port, "/webhooks/egg", body, forged) == (401, b"")
        assert ask(port, "/webhooks/egg", body + b" ", genuine) == (401, b"")
        if name in ASGI:
            assert ask(port, "/webhooks/egg", b"", {}, method="GET") == (405, b"")
            assert ask(port, "/webhooks/egg", body, {"Content-Type": "a/b"}) == (415, b"")


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        pytest.param(["webhook_aiohttp.py"], "PORT", id="aiohttp without a port"),
        pytest.param(["webhook_aiohttp.py", "8000"], "WEBHOOK_URL", id="aiohttp without the URL"),
        pytest.param(["app_django.py"], "WEBHOOK_URL", id="django without the URL"),
    ],
)
def test_what_is_missing_is_named(command: list[str], missing: str) -> None:
    """An example that lacks something says how it is started, instead of a traceback."""
    bare = {key: text for key, text in environment().items() if key != "WEBHOOK_URL"}
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env=bare,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("usage: ")
    assert missing in ended.stderr
    assert "Traceback" not in ended.stderr
