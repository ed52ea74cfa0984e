"""`eggapi doctor` and `eggapi completion`: what is wrong is named, the key never."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result

from eggapi_async import ConnectionFailedError
from eggapi_async.cli import checkup, eggapi
from eggapi_async.cli.checkup import judged, reached_by, without_secrets
from eggapi_async.emulator import EggEmulator, Fault
from tests.served import environment, served

KEY = "a-secret-canary-key-0123456789"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, no proxy, and nothing of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EGGAPI_")]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path


@pytest.fixture
def emulator() -> EggEmulator:
    """A service that knows one key."""
    return EggEmulator(api_keys=[KEY])


@pytest.fixture
def url(emulator: EggEmulator) -> Iterator[str]:
    """Where it is served."""
    with served(emulator) as base_url:
        yield base_url


def doctor(*arguments: str, **env: str) -> Result:
    """What the doctor says."""
    return CliRunner().invoke(eggapi, ["doctor", *arguments], env=env, prog_name="eggapi")


def found(result: Result) -> dict[str, Any]:
    """The findings of `--json`, by what they are about."""
    return {row["what"]: row for row in map(json.loads, result.stdout.splitlines())}


def test_all_is_well(emulator: EggEmulator, url: str, folder: Path) -> None:
    """A good key at a service that answers: 0; nothing is bought, left behind or shown."""
    result = doctor(EGGAPI_API_KEY=KEY, EGGAPI_BASE_URL=url)
    assert result.exit_code == 0, result.output
    assert result.stderr == "all is well\n"
    assert f"{url} answers in" in result.stdout
    assert "ok    key       accepted" in result.stdout
    assert KEY not in result.output
    assert emulator.accepted == []
    assert set(emulator.requests) == {"GET /v1/tasks"}
    assert list(folder.iterdir()) == []


def test_an_emulator_will_do() -> None:
    """With --emulator the same is tried in this process, without a key."""
    result = doctor("--emulator", "--json")
    assert result.exit_code == 0
    rows = found(result)
    assert rows["service"]["told"].startswith("an emulator in this process answers in ")
    assert "clock" not in rows
    assert {row["state"] for row in rows.values()} == {"ok"}
    assert set(rows["key"]) == {"what", "state", "told", "advice"}


def test_a_missing_key_is_no_reason_not_to_look_further(url: str) -> None:
    """The service is there; what is missing is the key: 4."""
    result = doctor("--json", EGGAPI_BASE_URL=url)
    assert result.exit_code == 4
    rows = found(result)
    assert rows["key"]["state"] == "bad"
    assert "EGGAPI_API_KEY" in rows["key"]["advice"]
    assert rows["service"]["state"] == "ok"
    assert result.stderr == "1 trouble\n"


def test_a_refused_key_is_told_without_it(url: str) -> None:
    """The wrong key: 4, and nobody reads it over a shoulder."""
    wrong = "another-canary-key-0123456789"
    result = doctor(EGGAPI_API_KEY=wrong, EGGAPI_BASE_URL=url)
    assert result.exit_code == 4
    assert "bad   key       refused: 401" in result.stdout
    assert wrong not in result.output


def test_a_broken_key_is_told_without_it(url: str) -> None:
    """A key that no header can carry is refused before anything is sent."""
    result = doctor("--json", EGGAPI_API_KEY="broken canary", EGGAPI_BASE_URL=url)
    assert result.exit_code == 4
    assert found(result)["key"]["state"] == "bad"
    assert "canary" not in result.output


def test_a_base_url_that_cannot_be_ends_it() -> None:
    """No key is sent over plain http to another host: 2."""
    result = doctor("--json", EGGAPI_API_KEY=KEY, EGGAPI_BASE_URL="http://elsewhere.test")
    assert result.exit_code == 2
    assert found(result)["base url"]["state"] == "bad"
    assert "service" not in found(result)


def test_nobody_there() -> None:
    """A port where nobody listens: 1, and where to look."""
    with served(EggEmulator()) as url:
        pass
    result = doctor("--json", EGGAPI_API_KEY=KEY, EGGAPI_BASE_URL=url)
    assert result.exit_code == 1
    rows = found(result)
    assert rows["service"]["state"] == "bad"
    assert "network" in rows["service"]["advice"]
    assert rows["clock"]["state"] == "note"


def test_somebody_else_answers(emulator: EggEmulator, url: str) -> None:
    """A page in place of the API is no service, and said to be none."""
    emulator.fail_next(Fault.html(), on="GET /v1/tasks")
    result = doctor("--json", EGGAPI_API_KEY=KEY, EGGAPI_BASE_URL=url)
    assert result.exit_code == 1
    assert "base URL" in found(result)["service"]["advice"]


def test_an_empty_account_is_a_note(emulator: EggEmulator, url: str) -> None:
    """The key is good, the account is not: worth a word, no failure of this machine."""
    emulator.fail_next(Fault.refused(403, "INSUFFICIENT_BALANCE"), on="GET /v1/tasks")
    result = doctor("--json", EGGAPI_API_KEY=KEY, EGGAPI_BASE_URL=url)
    assert result.exit_code == 0
    assert found(result)["key"]["state"] == "note"


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    """A file where a folder should be: said before a batch is begun."""
    (folder / "taken").touch()
    made = checkup.folder(folder / "taken" / "out")
    assert (made.state, made.code) == ("bad", 1)
    assert "-o DIR" in made.advice


def test_a_folder_that_is_still_to_be_made(folder: Path) -> None:
    """The nearest that exists is tried, and stays as it was."""
    assert checkup.folder(folder / "a" / "b").told.startswith(f"{folder}: ")
    assert list(folder.iterdir()) == []


def test_a_wrong_clock_is_noticed(url: str) -> None:
    """The service's Date is compared with the clock of this machine."""
    with served(EggEmulator(clock=lambda: time.time() + 1000)) as ahead:
        result = doctor("--json", EGGAPI_API_KEY=KEY, EGGAPI_BASE_URL=ahead)
    assert result.exit_code == 1
    assert found(result)["clock"]["told"].endswith(" s behind the service")
    assert (
        found(doctor("--json", EGGAPI_API_KEY=KEY, EGGAPI_BASE_URL=url))["clock"]["state"] == "ok"
    )


@pytest.mark.parametrize(
    ("skew", "state"),
    [(0.0, "ok"), (-29.0, "ok"), (31.0, "note"), (-31.0, "note"), (241.0, "bad"), (-241.0, "bad")],
)
def test_a_clock_is_judged(skew: float, state: str) -> None:
    """Seconds do no harm, minutes make webhooks stale."""
    assert judged(skew).state == state


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:01:00 -0000", 60.0),
        ("today", None),
        ("", None),
    ],
)
def test_a_date_is_read_or_not(text: str, seconds: float | None) -> None:
    """What is no date is none."""
    assert checkup.date_in(text) == seconds


async def app_without_date(scope: Any, receive: Any, send: Any) -> None:
    """Answers everything, and never says when."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def test_an_answer_without_a_date_tells_no_time() -> None:
    """Not compared is not wrong."""
    with served(app_without_date) as url:
        assert checkup.clock(url).state == "note"


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which way requests go, but not what opens it."""
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.test:3128")
    assert checkup.proxy("https://api.test").told == "by way of http://proxy.test:3128"
    assert checkup.proxy("http://api.test").told == "none"
    monkeypatch.setenv("no_proxy", "api.test")
    assert checkup.proxy("https://api.test").told == "none"
    assert without_secrets("me:secret@proxy.test:3128") == "proxy.test:3128"


def test_broken_trust_has_advice_of_its_own() -> None:
    """A certificate that is not trusted is another trouble than a network that is not there."""
    error = ConnectionFailedError("ConnectError: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed")
    assert "SSL_CERT_FILE" in reached_by(error)


def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    """Over TLS whose certificate nobody vouches for, the service counts as not reached."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    with certificate.private_key_and_cert_chain_pem.tempfile(str(tmp_path)) as pem:
        with served(EggEmulator(), ssl_certfile=pem, ssl_keyfile=pem) as url:
            result = doctor(
                "--json", EGGAPI_API_KEY=KEY, EGGAPI_BASE_URL=url.replace("http:", "https:")
            )
    assert result.exit_code == 1
    assert "SSL_CERT_FILE" in found(result)["service"]["advice"]


# --- completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    """The script names our command and the variable by which it asks."""
    result = CliRunner().invoke(eggapi, ["completion", shell], prog_name="eggapi")
    assert result.exit_code == 0
    assert "_EGGAPI_COMPLETE" in result.stdout
    assert "eggapi" in result.stdout


def test_another_shell_is_refused() -> None:
    """2, with the three that are known."""
    result = CliRunner().invoke(eggapi, ["completion", "csh"], prog_name="eggapi")
    assert result.exit_code == 2
    assert "bash" in result.stderr


def test_bash_completes_a_command(tmp_path: Path) -> None:
    """The script as bash runs it, with our words in its hands."""
    bash = shutil.which("bash")
    assert bash, "the gate itself needs it"
    command = tmp_path / "eggapi"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m eggapi_async "$@"\n', "utf-8")
    command.chmod(0o755)
    script = (
        'eval "$(eggapi completion bash)"; COMP_WORDS=(eggapi doc); COMP_CWORD=1;'
        ' _eggapi_completion eggapi; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [bash, "-c", script],
        env=environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["doctor"], done.stderr
