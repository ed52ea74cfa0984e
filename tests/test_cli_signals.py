"""How the command line ends when somebody ends it: Ctrl-C, SIGTERM, a reader that has gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
from click.testing import CliRunner

from eggapi_async import AsyncEggClient, Journal, __main__
from eggapi_async.cli import eggapi
from eggapi_async.cli.running import attend, run
from eggapi_async.cli.session import Session
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.served import environment, served, start

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX does")

PATIENCE = 20.0
"""Seconds until a process that should have done something is given up."""


@pytest.fixture(autouse=True)
def _hears_hangups() -> Iterator[None]:
    """A suite that nohup started is deaf to SIGHUP, and so would be what it tests."""
    if sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


# --- in this process -----------------------------------------------------------------------------


def interrupted(
    number: signal.Signals, *, tasks: int, session: Session, folder: Path | None
) -> tuple[int, list[str]]:
    """What becomes of a command that gets a signal after so many submissions; the ids."""
    emulator = EggEmulator(speed=0.001)

    async def work(egg: AsyncEggClient) -> int:
        for n in range(tasks):
            await egg.generate(f"Egg {n}")
        signal.raise_signal(number)
        await anyio.sleep_forever()
        raise AssertionError("nobody sleeps for ever")

    code = attend(session, connect(emulator), work, folder=folder)
    return code, emulator.accepted


STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
if sys.platform != "win32":
    STOPS.append((signal.SIGHUP, 129))


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_signal_names_what_is_unfinished(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ids, the command that waits for them, and the signal's own exit code."""
    left, ids = interrupted(number, tasks=2, session=Session(), folder=None)
    assert left == code
    assert capsys.readouterr().err == (
        "interrupted\n"
        "2 tasks not finished yet: the service goes on, and bills what it makes. To collect:\n"
        f"  eggapi tasks wait {ids[0]} {ids[1]}\n"
    )


def test_pictures_are_to_be_fetched_into_their_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a command saves, the advice saves too."""
    _, ids = interrupted(signal.SIGINT, tasks=1, session=Session(), folder=tmp_path)
    assert f"  eggapi tasks download {ids[0]} -o {tmp_path}\n" in capsys.readouterr().err


def test_many_ids_go_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More than ten ids are no command to copy: they are listed in the folder."""
    _, ids = interrupted(signal.SIGINT, tasks=11, session=Session(), folder=tmp_path)
    listed = tmp_path / "unfinished.txt"
    assert sorted(listed.read_text().split()) == sorted(ids)
    assert f"eggapi tasks download - -o {tmp_path} < {listed}\n" in capsys.readouterr().err


def test_ids_that_cannot_be_listed_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the list cannot be written, all ids are in the command."""
    (tmp_path / "unfinished.txt").mkdir()
    _, ids = interrupted(signal.SIGINT, tasks=11, session=Session(), folder=tmp_path)
    assert f"eggapi tasks download {' '.join(ids)} -o {tmp_path}\n" in capsys.readouterr().err


@pytest.mark.parametrize("error", [BrokenPipeError(32, "gone"), ValueError("a bug")], ids=repr)
def test_an_error_names_what_is_unfinished(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever ends the work, no task is lost without a word."""
    emulator = EggEmulator(speed=0.001)

    async def work(egg: AsyncEggClient) -> int:
        await egg.generate("An egg")
        raise error

    with pytest.raises(type(error)):
        attend(Session(), connect(emulator), work)
    assert capsys.readouterr().err == (
        "1 task not finished yet: the service goes on, and bills what it makes. To collect:\n"
        f"  eggapi tasks wait {emulator.accepted[0]}\n"
    )


def test_a_submission_that_a_signal_cut_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No outcome tells of it any more, so the library's warning does."""
    monkeypatch.chdir(tmp_path)

    async def app(_: Any, receive: Any, __: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while (await receive())["type"] != "http.disconnect":
            pass

    with served(app) as url:
        env = {"EGGAPI_BASE_URL": url, "EGGAPI_API_KEY": "a-key", "NO_PROXY": "*"}
        result = CliRunner().invoke(eggapi, ["generate", "An egg"], env=env)
    assert result.exit_code == 130
    assert "cancelled before the answer came" in result.stderr


def test_nohup_is_left_alone() -> None:
    """A process that was made deaf to SIGHUP stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def work(_: AsyncEggClient) -> int:
        signal.raise_signal(signal.SIGHUP)
        return 7

    try:
        assert attend(Session(), connect(EggEmulator()), work) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is under way then: the code is that of the last one."""
    left: list[int] = []

    async def work(_: AsyncEggClient) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep_forever()
        finally:
            signal.raise_signal(signal.SIGTERM)
        raise AssertionError("nobody sleeps for ever")

    attend(Session(), connect(EggEmulator()), work, leave=left.append)
    assert left == [143]
    assert capfd.readouterr().err.startswith("left at once\n")


def test_a_command_that_goes_on_is_named_instead_of_ids(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where there is a journal, the same command again is all there is to do."""

    async def work(egg: AsyncEggClient) -> int:
        await egg.generate("An egg")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        attend(Session(), connect(EggEmulator(speed=0.001)), work, again="eggapi batch x")
    assert capsys.readouterr().err == (
        "1 task not finished yet: the service goes on. Nothing is lost; to go on:\n"
        "  eggapi batch x\n"
    )


def test_an_embedded_emulator_leaves_nothing_to_collect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its tasks end with the process, and no advice pretends otherwise."""
    interrupted(signal.SIGINT, tasks=1, session=Session(is_emulated=True), folder=None)
    said = "interrupted\n1 task went with the emulator of this process\n"
    assert capsys.readouterr().err == said


def test_nothing_unfinished_needs_no_advice(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was submitted, there is nothing more to say."""
    interrupted(signal.SIGINT, tasks=0, session=Session(), folder=None)
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupted_batch_keeps_its_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had failed before the signal is in failed.jsonl, and the tally is told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('7\n"An egg"\n')
    emulator = EggEmulator(faults={"stuck": 1.0})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await emulator(scope, receive, send)
        os.kill(os.getpid(), signal.SIGINT)

    with served(app) as url:
        env = {"EGGAPI_BASE_URL": url, "EGGAPI_API_KEY": "a-key", "NO_PROXY": "*"}
        result = CliRunner().invoke(eggapi, ["batch", "in.jsonl"], env=env)
    assert result.exit_code == 130
    stopping, tally, *_ = result.stderr.splitlines()
    assert stopping == "stopping: what is being submitted may end (again: leave at once)"
    assert tally.startswith("0 of 2 done · 1 failed · 1 running · $0.00 · ")
    assert (tmp_path / "failed.jsonl").read_text() == "7\n"


def test_an_interrupted_batch_leaves_unfinished_lines_in_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """failed.jsonl on standard input keeps what has not ended, so that the next run goes on."""
    monkeypatch.chdir(tmp_path)
    failed = tmp_path / "failed.jsonl"
    failed.write_text('"An egg"\n"A hen"\n')
    emulator = EggEmulator(faults={"stuck": 1.0})
    with served(emulator) as url, failed.open() as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "eggapi_async", "batch", "-", "--format", "jsonl", "-j", "1"],
            env=environment(EGGAPI_BASE_URL=url, EGGAPI_API_KEY="a-key"),
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(emulator, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert failed.read_text() == '"An egg"\n"A hen"\n'


def test_handlers_are_put_back() -> None:
    """Whoever handled the signals before does so afterwards, even one who ignored them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code, _ = interrupted(signal.SIGTERM, tasks=1, session=Session(), folder=None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 143, "SIGTERM ends what is deaf to Ctrl-C, as a shell's background jobs are"


def test_an_error_among_many_is_raised_alone() -> None:
    """What a group of tasks wraps is taken out: click knows single errors."""

    async def fail() -> None:
        raise BrokenPipeError(32, "gone")

    async def work(_: AsyncEggClient) -> int:
        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
            outer.start_soon(anyio.sleep, 0)
            inner.start_soon(fail)
        return 0

    with click.Context(eggapi), pytest.raises(BrokenPipeError):
        run(Session(is_emulated=True), work)


def test_a_failing_disk_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the system is one line, not a traceback."""

    async def work(_: AsyncEggClient) -> int:
        raise OSError(28, "No space left on device")

    with click.Context(eggapi), pytest.raises(click.exceptions.Exit) as left:
        run(Session(is_emulated=True), work)
    assert left.value.exit_code == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


def test_the_module_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m eggapi_async` is the command."""
    monkeypatch.setattr(sys, "argv", ["eggapi", "--version"])
    # Not by runpy: pytest reads the modules of its plugins itself, and gives it no code.
    code = compile(Path(__main__.__file__).read_text(), __main__.__file__, "exec")
    with pytest.raises(SystemExit) as left:
        exec(code, {"__name__": "__main__", "__package__": "eggapi_async"})
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("eggapi-async ")


# --- as processes --------------------------------------------------------------------------------


@pytest.fixture
def emulator() -> EggEmulator:
    """An emulator whose tasks never end."""
    return EggEmulator(faults={"stuck": 1.0})


@pytest.fixture
def service(emulator: EggEmulator) -> Iterator[dict[str, str]]:
    """The environment that leads to `emulator` over TCP."""
    with served(emulator) as url:
        yield {"EGGAPI_BASE_URL": url, "EGGAPI_API_KEY": "the-secret-key"}


def wait_until(emulator: EggEmulator, tasks: int) -> None:
    """Wait until that many tasks were submitted."""
    end = time.monotonic() + PATIENCE
    while len(emulator.accepted) < tasks:
        assert time.monotonic() < end, "nothing was submitted"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_batch_can_be_ended(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    emulator: EggEmulator,
    service: dict[str, str],
) -> None:
    """It says how far it came and what is unfinished, without a traceback or the key."""
    (tmp_path / "in.txt").write_text("An egg\nA hen\n")
    process = start("batch", "in.txt", "-o", "out", cwd=tmp_path, **service)
    wait_until(emulator, 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, "")
    stopping, tally, *rest = err.splitlines()
    assert stopping.startswith("stopping: ")
    assert tally.startswith("0 of 2 done · 2 running · $0.00 · ")
    assert rest == [
        "interrupted",
        "2 tasks not finished yet: the service goes on. Nothing is lost; to go on:",
        "  eggapi batch in.txt -o out",
    ]
    with Journal(tmp_path / "out" / ".eggapi.sqlite3") as journal:
        assert {item.task_id for item in journal} == set(emulator.accepted)
    assert "Traceback" not in err
    assert "secret" not in err


def test_a_batch_from_a_silent_pipe_can_be_ended(
    tmp_path: Path, emulator: EggEmulator, service: dict[str, str]
) -> None:
    """A reader that waits for its next line does not keep the process alive."""
    with subprocess.Popen(
        [sys.executable, "-m", "eggapi_async", "batch", "-"],
        cwd=tmp_path,
        env=environment(**service),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("An egg\n")
        process.stdin.flush()
        wait_until(emulator, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read().endswith("to go on:\n  eggapi batch -\n")
    with Journal(tmp_path / ".eggapi.sqlite3") as journal:
        assert [item.task_id for item in journal] == emulator.accepted


def test_a_reader_that_has_gone_ends_it_quietly(
    tmp_path: Path, emulator: EggEmulator, service: dict[str, str]
) -> None:
    """A broken pipe is no reason to complain; an id that nobody read is told."""
    process = start("generate", "An egg", "--no-wait", cwd=tmp_path, **service)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 1
    said, command = process.stderr.read().splitlines()
    assert said.startswith("1 task not finished yet: ")
    assert command == f"  eggapi tasks wait {emulator.accepted[0]}"
    process.stderr.close()


LIGHT = """
import json, sys
sys.argv[0] = "eggapi"
from eggapi_async.__main__ import main
try:
    main()
except SystemExit:
    print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_help_does_not_load_the_client(option: str) -> None:
    """The command line by itself loads neither httpx nor rich nor uvicorn to say what it is."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, option],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    loaded: Any = json.loads(done.stdout.splitlines()[-1])
    assert "eggapi_async.cli" in loaded
    assert not {"httpx", "rich", "uvicorn", "eggapi_async.client"} & set(loaded)
