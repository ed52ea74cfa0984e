"""What is logged, with which fields, what never is, and the environment's switch that shows it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from eggapi_async import (
    AsyncEggClient,
    ConfigurationError,
    EggError,
    RetryPolicy,
    SubmissionUncertainError,
)
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.scripted import data, error
from tests.scripted import task as task_object
from tests.served import environment
from tests.virtual_time import on_both

ROOT = Path(__file__).parent.parent
KEY = "canary-0123456789-abcdefghijkl"
PROMPT = "a plain egg, whispered"
LOG = logging.getLogger("eggapi_async")


def records(caplog: pytest.LogCaptureFixture, level: int) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.name == "eggapi_async" and one.levelno == level]


@on_both
async def test_a_repetition_is_logged_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO, for a formatter that writes them one by one."""
    caplog.set_level(logging.INFO, "eggapi_async")
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.refused(429, retry_after=7))
    async with connect(emulator) as egg:
        await egg.generate(PROMPT)
    [record] = records(caplog, logging.INFO)
    text = "POST /v1/generate goes again after RateLimitedError (HTTP 429)"
    assert record.getMessage() == text
    assert {name: value for name, value in vars(record).items() if name.startswith("egg_")} == {
        "egg_kind": "submit",
        "egg_attempt": 1,
        "egg_error": "RateLimitedError",
        "egg_status_code": 429,
        "egg_delay": 7.0,
    }


async def test_a_request_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """Which, and how it was answered after how long."""
    caplog.set_level(logging.DEBUG, "eggapi_async")
    async with connect(EggEmulator(clock=anyio.current_time, latency=0.5)) as egg:
        task = await egg.generate(PROMPT)
        await task.refresh()
    post, get = records(caplog, logging.DEBUG)
    assert post.getMessage() == "POST /v1/generate: HTTP 202"
    assert get.getMessage() == f"GET /v1/tasks/{task.id}: HTTP 200"
    assert vars(get)["egg_kind"] == "get"
    assert vars(get)["egg_status_code"] == 200
    assert vars(get)["egg_seconds"] == 0.5


ECHOES = {
    "a refusal that quotes the prompt": (503, error("BUSY", f"too busy for {PROMPT}")),
    "a failure that quotes the prompt": (500, error("INTERNAL_ERROR", f"cannot draw {PROMPT}")),
    "an answer without an id that quotes it": (202, data({"prompt": PROMPT})),
    "an answer that has it": (202, data(task_object(prompt=PROMPT, error=PROMPT))),
}


@pytest.mark.parametrize(("status", "body"), ECHOES.values(), ids=ECHOES)
async def test_no_log_has_the_prompt(
    status: int, body: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Though a service may quote it, and an error then shows it to whoever awaits."""
    caplog.set_level(logging.DEBUG)
    http = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda _: httpx.Response(status, json=body))
    )
    twice = RetryPolicy(max_attempts=2)
    egg = AsyncEggClient(KEY, http_client=http, retry=twice)
    try:
        await egg.generate(PROMPT)
    except EggError as problem:
        kept = str(problem)
    else:
        kept = "no error"
    await http.aclose()
    assert kept
    assert [one for one in caplog.records if one.name == "eggapi_async"]
    assert "whispered" not in caplog.text
    assert all("whispered" not in repr(vars(record)) for record in caplog.records)


async def test_a_lost_submission_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody may have to look, even if the program goes on."""
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.lost())
    async with connect(emulator) as egg:
        with pytest.raises(SubmissionUncertainError):
            await egg.generate(PROMPT)
    [record] = records(caplog, logging.WARNING)
    assert record.getMessage() == (
        "a submission's answer was lost (ConnectionResetError: the answer was lost): "
        "the task may exist and be billed"
    )
    assert vars(record)["egg_kind"] == "submit"
    assert vars(record)["egg_is_lost"] is True


async def test_the_words_of_a_failure_are_in_the_error_and_not_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They may quote the prompt."""
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.refused(502))
    async with connect(emulator) as egg:
        with pytest.raises(SubmissionUncertainError, match="UPSTREAM_ERROR: refused on demand"):
            await egg.generate(PROMPT)
    [record] = records(caplog, logging.WARNING)
    assert record.getMessage() == (
        "a submission's answer was lost (ServerError (HTTP 502)): the task may exist and be billed"
    )


async def test_a_poll_that_fails_is_told_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """The wait goes on, so it is nobody's problem."""
    caplog.set_level(logging.DEBUG, "eggapi_async")
    emulator = EggEmulator(clock=anyio.current_time)
    async with connect(emulator) as egg:
        task = await egg.generate(PROMPT)
        emulator.fail_next(Fault.refused(503), on="GET /v1/tasks/")
        await task
    assert f"Peek(task_id='{task.id}') failed: ServerError (HTTP 503)" in caplog.text
    assert records(caplog, logging.INFO) == []


# --- the switch ------------------------------------------------------------------------------


@contextmanager
def root_with(*handlers: logging.Handler) -> Iterator[None]:
    """These handlers at the root, and the package's logger left as it was."""
    root, before = logging.getLogger(), list(LOG.handlers)
    others, root.handlers = root.handlers, list(handlers)
    try:
        yield
    finally:
        root.handlers, LOG.handlers = others, before
        LOG.setLevel(logging.NOTSET)


@pytest.mark.parametrize("level", ["info", "DEBUG"])
def test_the_switch_adds_one_console(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """However many clients are made."""
    before = len(LOG.handlers)
    monkeypatch.setenv("EGGAPI_LOG", level)
    with root_with():
        for _ in range(3):
            AsyncEggClient(KEY)
        assert logging.getLevelName(LOG.level) == level.upper()
        assert len(LOG.handlers) == before + 1


def test_the_switch_leaves_the_lines_to_a_program_that_has_logging(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise each would be written twice."""
    before = list(LOG.handlers)
    monkeypatch.setenv("EGGAPI_LOG", "info")
    with root_with(logging.NullHandler()):
        AsyncEggClient(KEY)
        assert LOG.level == logging.INFO
        assert LOG.handlers == before


@pytest.mark.parametrize("level", ["warn", "1", "trace"])
def test_a_level_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """By the variable's name, with what may stand in it."""
    monkeypatch.setenv("EGGAPI_LOG", level)
    with pytest.raises(ConfigurationError) as caught:
        AsyncEggClient(KEY)
    assert str(caught.value) == f"EGGAPI_LOG: expected debug or info, got {level!r}"


PROGRAM = """
import asyncio, sys
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect

async def main():
    emulator = EggEmulator()
    emulator.fail_next(Fault.refused(429, retry_after=0))
    async with connect(emulator, "canary-0123456789-abcdefghijkl") as egg:
        await egg.generate("a plain egg, whispered")

asyncio.run(main())
print(*sys.modules)
"""


@pytest.mark.parametrize("level", ["", "info", "debug"])
def test_a_program_shows_its_log_where_the_environment_says_so(level: str) -> None:
    """On standard error, without prompt and key; without the switch nothing is loaded for it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment(EGGAPI_LOG=level),
        capture_output=True,
        text=True,
        check=True,
    )
    again = r"[\d-]+ [\d:,]+ INFO eggapi_async: POST /v1/generate goes again after RateLim.*"
    lines = done.stderr.splitlines()
    assert [bool(re.fullmatch(again, line)) for line in lines].count(True) == bool(level)
    assert sum(" DEBUG " in line for line in lines) == (2 if level == "debug" else 0)
    assert len(lines) == {"": 0, "info": 1, "debug": 3}[level]
    assert "whispered" not in done.stderr
    assert KEY not in done.stderr
    assert ("eggapi_async._console" in done.stdout.split()) == bool(level)
