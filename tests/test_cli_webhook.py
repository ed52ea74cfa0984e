"""`eggapi webhook`: what it prints of genuine deliveries, and what it says of others."""

from __future__ import annotations

import json
import os
import signal
import sys
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from eggapi_async import sign_webhook
from eggapi_async.cli import eggapi
from tests.deliveries import NOW, SECRET, body_of, delivery
from tests.served import start


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and nothing of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EGGAPI_")]:
        monkeypatch.delenv(name)
    return tmp_path


def run(*arguments: str, stdin: bytes | None = None, secret: str = SECRET) -> Result:
    """What the command line says to these arguments."""
    env = {"EGGAPI_WEBHOOK_SECRET": secret}
    words = ["webhook", *arguments]
    return CliRunner().invoke(eggapi, words, input=stdin, env=env, prog_name="eggapi")


def options(headers: dict[str, str]) -> list[str]:
    """*headers* as options."""
    return [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]


def test_a_genuine_webhook_is_printed_whatever_its_age(folder: Path) -> None:
    """From a file or from stdin, as one line of JSON."""
    body, headers = delivery()
    (folder / "body.json").write_bytes(body)
    results = [
        run("verify", "body.json", *options(headers)),
        run("verify", *options(headers), stdin=body),
    ]
    for result in results:
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == {**json.loads(body), "is_signed": True}


@pytest.mark.parametrize(
    ("arguments", "changed", "said"),
    [
        pytest.param((), b" ", "forged: the signature is not that of this body", id="forged"),
        pytest.param(("--tolerance", "300"), b"", "stale: it is signed, but older", id="stale"),
    ],
)
def test_what_is_not_genuine_is_told_with_its_reason(
    arguments: tuple[str, ...], changed: bytes, said: str
) -> None:
    """And ends with 1."""
    body, headers = delivery()
    result = run("verify", *arguments, *options(headers), stdin=body + changed)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stdout == ""


def test_an_unsigned_webhook_passes_only_if_asked_for() -> None:
    """It says so itself."""
    refused = run("verify", stdin=body_of())
    allowed = run("verify", "--allow-unsigned", stdin=body_of(), secret="")
    assert (refused.exit_code, allowed.exit_code) == (1, 0)
    assert "dashboard" in refused.stderr
    assert json.loads(allowed.stdout)["is_signed"] is False


def test_the_secret_may_be_in_a_file_beside_its_successor(folder: Path) -> None:
    """One a line; none anywhere is a matter of usage."""
    body, headers = delivery()
    (folder / "secrets").write_text(f"new-one\n\n{SECRET}\n", "utf-8")
    (folder / "empty").touch()
    given = ("--secret-file", "secrets", *options(headers))
    assert run("verify", *given, stdin=body, secret="").exit_code == 0
    for arguments in ((), ("--secret-file", "empty")):
        result = run("verify", *arguments, stdin=body, secret="")
        assert result.exit_code == 2
        assert "there is no webhook secret in" in result.stderr


def post(port: int, body: bytes, headers: dict[str, str]) -> int:
    """POST to this machine; the status."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/any/path", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_listening_prints_each_event_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forged is answered 401 and not printed; Ctrl-C ends it with code 0."""
    import uvicorn

    statuses: list[int] = []
    began = uvicorn.Server.startup

    async def startup(self: Any, sockets: Any = None) -> None:
        await began(self, sockets)
        Thread(target=talk, args=(sockets[0].getsockname()[1],)).start()

    def talk(port: int) -> None:
        headers = sign_webhook(body_of(), SECRET)
        forged = sign_webhook(body_of(), "a guess")
        try:
            statuses.extend(post(port, body_of(), each) for each in (headers, headers, forged))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    result = run("listen", "--port", "0")

    assert result.exit_code == 0, result.output
    assert statuses == [204, 204, 401]
    assert json.loads(result.stdout) == {**json.loads(body_of()), "is_signed": True}
    assert "listening for webhooks at http://127.0.0.1:" in result.stderr
    assert "refused (forged)" in result.stderr


def test_listening_as_a_process(tmp_path: Path) -> None:
    """A line comes when the event does, though stdout is a pipe."""
    process = start("webhook", "listen", "--port", "0", cwd=tmp_path, EGGAPI_WEBHOOK_SECRET=SECRET)
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        port = int(process.stderr.readline().split(" (")[0].rpartition(":")[2])
        assert post(port, body_of("gen_b"), sign_webhook(body_of("gen_b"), SECRET)) == 204
        assert json.loads(process.stdout.readline())["task_id"] == "gen_b"
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


def test_listening_needs_an_extra_and_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told with the way out."""
    assert run("listen", secret="").exit_code == 2
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run("listen")
    assert result.exit_code == 1
    assert "listening needs an extra: pip install 'eggapi-async[server]'" in result.stderr


def test_the_example_timestamp_is_the_documents() -> None:
    """The help shows the page's own moment."""
    assert str(NOW) in run("verify", "--help").stdout
