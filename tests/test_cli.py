"""The commands, run in this process against the embedded emulator or one over TCP."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner, Result

import eggapi_async.__main__
import eggapi_async.cli
from eggapi_async.cli import eggapi
from eggapi_async.cli.demo import PROMPTS, Figures, tell
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.models import Stats
from tests.served import served

PNG = b"\x89PNG\r\n\x1a\n"
EMULATED = {"EGGAPI_EMULATOR": "1", "EGGAPI_EMULATOR_SPEED": "400"}
AT_ONCE = {"sync": 1.0}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and nothing of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EGGAPI_")]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path


def run(*arguments: str, stdin: str | None = None, **env: str) -> Result:
    """What the command line says to these arguments."""
    with mock.patch.object(sys, "argv", ["eggapi", *arguments]):
        return CliRunner().invoke(eggapi, arguments, input=stdin, env=env, prog_name="eggapi")


def emulated(*arguments: str, stdin: str | None = None, **env: str) -> Result:
    """The same with an emulator of its own."""
    return run(*arguments, stdin=stdin, **(EMULATED | env))


def at(url: str, *arguments: str, stdin: str | None = None) -> Result:
    """The same with the service at *url*."""
    return run(*arguments, stdin=stdin, EGGAPI_BASE_URL=url, EGGAPI_API_KEY="a-key")


@pytest.fixture
def emulator() -> EggEmulator:
    """An emulator whose tasks end at once, so that nobody waits in real time."""
    return EggEmulator(faults=AT_ONCE)


@pytest.fixture
def url(emulator: EggEmulator) -> Iterator[str]:
    """Where `emulator` is served."""
    with served(emulator) as base_url:
        yield base_url


def objects(result: Result) -> list[dict[str, Any]]:
    """The JSON objects on stdout."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def pictures(result: Result) -> list[Path]:
    """The paths on stdout, all of which are pictures."""
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert all(path.read_bytes().startswith(PNG) for path in paths)
    return paths


# --- generate ------------------------------------------------------------------------------------


def test_generate_saves_and_prints_paths() -> None:
    """The paths of the pictures are the data; the sum is talk."""
    result = emulated("generate", "An egg", "A hen", "-o", "out", "--num-outputs", "2")
    assert result.exit_code == 0, result.stderr
    assert {path.parent.name for path in pictures(result)} == {"out"}
    assert len(pictures(result)) == 4
    assert re.fullmatch(r"4 images in \d+:\d\d, \$0\.04\n", result.stderr)


def test_generate_saves_here_by_default(folder: Path) -> None:
    """Without -o the files go to the current folder; --quiet leaves the data only."""
    result = emulated("-q", "generate", "An egg")
    assert [path.resolve().parent for path in pictures(result)] == [folder]
    assert result.stderr == ""


def test_generate_sends_what_is_asked_for(emulator: EggEmulator, url: str) -> None:
    """Every option arrives at the service as the field of that name."""
    options = {
        "--model": "nanobanana-pro",
        "--aspect-ratio": "9:16",
        "--resolution": "4k",
        "--negative-prompt": "spoons",
        "--num-outputs": "1",
        "--image-url": "https://a.test/1.png",
        "--duration": "5",
        "--webhook-url": "https://a.test/hook",
    }
    words = [word for option in options.items() for word in option]
    result = at(url, "generate", "An egg", "--no-wait", *words, "--image-url", "https://a.test/2")
    assert result.stdout.split() == emulator.accepted
    assert dict(emulator.task(emulator.accepted[0]).fields) == {
        "prompt": "An egg",
        "model": "nanobanana-pro",
        "aspect_ratio": "9:16",
        "resolution": "4k",
        "negative_prompt": "spoons",
        "num_outputs": 1,
        "image_urls": ["https://a.test/1.png", "https://a.test/2"],
        "duration": 5,
        "webhook_url": "https://a.test/hook",
    }


def test_generate_can_print_urls() -> None:
    """--no-download waits, and saves nothing."""
    result = emulated("generate", "An egg", "--no-download")
    assert result.stdout.startswith("https://emulator.invalid/outputs/")
    assert not list(Path().iterdir())


def test_generate_can_print_json() -> None:
    """--json, before or after the command, gives one object per item."""
    for arguments in (["--json", "generate", "An egg"], ["generate", "An egg", "--json"]):
        (item,) = objects(emulated(*arguments))
        assert item["ok"] is True
        assert item["cost"] == "0.0100"
        assert item["paths"] == [f"{item['id']}.png"]
        assert (item["status"], item["prompt"], item["error"]) == ("completed", "An egg", None)


def test_generate_without_waiting_can_print_json() -> None:
    """The ids come with their prompts."""
    (item,) = objects(emulated("generate", "An egg", "--no-wait", "--json"))
    assert item["id"].startswith("gen_")
    assert item["prompt"] == "An egg"


def test_generate_tells_which_failed() -> None:
    """Some failures leave the rest alone, and show in the exit code."""
    result = emulated("generate", "An egg", "A forbidden egg")
    assert result.exit_code == 3
    assert len(pictures(result)) == 1
    assert "failed: gen_" in result.stderr
    assert "Content moderation" in result.stderr
    assert re.search(r"1 image in \d+:\d\d, 1 failed, \$0\.01", result.stderr)


def test_generate_fails_when_nothing_came() -> None:
    """Nothing but failures is exit code 1."""
    assert emulated("generate", "A broken egg").exit_code == 1


def test_generate_refuses_what_the_api_would_refuse() -> None:
    """A field out of range is a matter of usage, and nothing is sent."""
    result = emulated("generate", "An egg", "--num-outputs", "9")
    assert result.exit_code == 2
    assert result.stderr == "error: num_outputs: expected a whole number from 1 to 4, got 9\n"


def test_generate_stops_waiting(url: str, emulator: EggEmulator) -> None:
    """After the time-out the task is named, with the command that fetches it."""
    emulator.fail_next(Fault.stuck())
    result = at(url, "generate", "An egg", "--timeout", "0.1")
    assert result.exit_code == 1
    (task_id,) = emulator.accepted
    assert f"failed: {task_id} was not finished after 0.1 s" in result.stderr
    assert f"eggapi tasks download {task_id} -o ." in result.stderr


def test_submitting_can_fail(url: str, emulator: EggEmulator) -> None:
    """With --no-wait the ids that came are printed, and the code says that some did not."""
    emulator.fail_next(Fault.refused(400))
    result = at(url, "generate", "An egg", "A hen", "--no-wait")
    assert result.exit_code == 3
    assert result.stdout.split() == emulator.accepted
    assert "error: 400" in result.stderr


# --- keys and money ------------------------------------------------------------------------------


def test_a_missing_key_has_its_own_code() -> None:
    """Code 4, and what to do about it."""
    result = run("tasks", "list")
    assert result.exit_code == 4
    assert "error: api_key: there is none in the environment\n" in result.stderr
    assert "hint: set EGGAPI_API_KEY" in result.stderr


def test_the_key_may_be_in_a_file(folder: Path) -> None:
    """--api-key-file is read, wins over the environment, and its text is never shown."""
    (folder / "key").write_text("the-secret-key\n")
    (folder / "none").write_text("\n")
    (folder / "bad").write_text("the secret key")
    with served(EggEmulator(api_keys=["the-secret-key"])) as url:
        good = at(url, "--api-key-file", "key", "usage")
        wrong = at(url, "usage")
        empty = at(url, "--api-key-file", "none", "usage")
        bad = at(url, "--api-key-file", "bad", "usage")
    assert (good.exit_code, good.output) == (0, "")
    assert wrong.exit_code == empty.exit_code == bad.exit_code == 4
    assert "401 UNAUTHORIZED" in wrong.stderr
    assert "error: api_key: there is none in none" in empty.stderr
    assert "secret" not in bad.output + wrong.output


def test_a_refused_key_stops_a_batch() -> None:
    """When the key is refused, the rest of the input is not tried."""
    prompts = "".join(f"Egg {n}\n" for n in range(100))
    app = EggEmulator(api_keys=["another"])
    with served(app) as url:
        result = at(url, "batch", "-", "-j", "2", stdin=prompts)
    assert result.exit_code == 4
    assert app.requests["POST /v1/generate"] < 10
    assert "hint: set EGGAPI_API_KEY" in result.stderr


def test_an_empty_account_has_its_own_code() -> None:
    """Code 5 for money, though a part was made."""
    with served(EggEmulator(faults=AT_ONCE, balance=Decimal("0.02"))) as url:
        result = at(url, "generate", "Egg 1", "Egg 2", "Egg 3")
        submitted = at(url, "generate", "Egg 4", "--no-wait")
    assert result.exit_code == submitted.exit_code == 5
    assert len(pictures(result)) == 2
    assert "hint: top up the account" in result.stderr


def test_a_bad_address_is_a_matter_of_usage() -> None:
    """Plain http goes to this machine only; --base-url wins over the environment."""
    result = at("http://127.0.0.1:1", "--base-url", "http://a.test", "tasks", "list")
    assert result.exit_code == 2
    assert "error: base_url: expected an https URL" in result.stderr


# --- batch ---------------------------------------------------------------------------------------


def test_batch_makes_a_picture_for_every_line(folder: Path) -> None:
    """Defaults fill in what lines leave open; the paths are the data."""
    lines = ['{"prompt": "An egg", "model": "nanobanana-pro"}', '"A hen"', '{"prompt": "A cock"}']
    (folder / "in.jsonl").write_text("\n".join(lines))
    result = emulated(
        "batch", "in.jsonl", "-o", "out", "--json", "--model", "nanobanana", "--resolution", "2k"
    )
    assert result.exit_code == 0, result.stderr
    items = sorted(objects(result), key=lambda item: int(item["index"]))
    assert [(item["line"], item["prompt"], item["cost"]) for item in items] == [
        (1, "An egg", "0.0160"),
        (2, "A hen", "0.0100"),
        (3, "A cock", "0.0100"),
    ]
    assert all(Path(item["paths"][0]).is_file() for item in items)
    assert not (folder / "out" / "failed.jsonl").exists()
    assert re.fullmatch(r"3 images in \d+:\d\d, \$0\.036\n", result.stderr)


def test_batch_reads_a_pipe(folder: Path) -> None:
    """`-` is standard input, in the format that is named; --limit ends it."""
    result = emulated("batch", "-", "--format", "csv", "--limit", "1", stdin="prompt\nEgg\nHen\n")
    assert result.exit_code == 0, result.stderr
    assert len(pictures(result)) == 1


def test_batch_keeps_what_failed(folder: Path) -> None:
    """failed.jsonl holds the failures, can be given to the command again, and goes when all is
    well."""
    (folder / "in.txt").write_text("An egg\n# no\nA broken egg\n")
    first = emulated("batch", "in.txt", "-o", "out")
    assert first.exit_code == 3
    assert "failed: in.txt:3: gen_" in first.stderr
    assert "hint: to try these again: eggapi batch out/failed.jsonl -o out" in first.stderr
    failed = folder / "out" / "failed.jsonl"
    (kept,) = [json.loads(line) for line in failed.read_text().splitlines()]
    assert kept["prompt"] == "A broken egg"
    assert kept["error"]["type"] == "TaskFailedError"

    second = emulated("batch", "out/failed.jsonl", "-o", "out")
    assert second.exit_code == 1
    assert json.loads(failed.read_text())["prompt"] == "A broken egg"

    failed.write_text(failed.read_text().replace("broken", "mended"))
    assert emulated("batch", "out/failed.jsonl", "-o", "out").exit_code == 0
    assert not failed.exists()


def test_batch_keeps_lines_that_are_no_requests(folder: Path) -> None:
    """What cannot be read is kept as it was, what is refused with its fields."""
    lines = ['{"prompt": "An egg", "aspect_ratio": "1:1"}', "{oops", '"An egg"', "7"]
    (folder / "in.jsonl").write_text("\n".join(lines))
    result = emulated("batch", "in.jsonl", "--json", "--model", "nanobanana-pro")
    assert result.exit_code == 3
    errors = {item["line"]: item["error"] for item in objects(result)}
    assert errors[1]["message"] == "aspect_ratio: expected one of 16:9, 9:16, got '1:1'"
    assert errors[2]["message"].startswith("not JSON: ")
    assert errors[2]["type"] == "InvalidRequestError"
    kept = sorted((folder / "failed.jsonl").read_text().splitlines())
    assert (kept[0], kept[2]) == ("7", "{oops")
    refused = json.loads(kept[1])
    assert (refused["prompt"], refused["aspect_ratio"]) == ("An egg", "1:1")


def test_batch_keeps_refused_text(folder: Path) -> None:
    """A line of text that is too long is kept whole."""
    (folder / "in.txt").write_text("egg " * 600)
    assert emulated("batch", "in.txt").exit_code == 1
    kept = json.loads((folder / "failed.jsonl").read_text())
    assert kept["prompt"] == ("egg " * 600).strip()


def test_batch_shows_the_first_failures_only(folder: Path) -> None:
    """Ten are listed, the others counted."""
    (folder / "in.txt").write_text("A broken egg\n" * 12)
    result = emulated("batch", "in.txt")
    assert result.stderr.count("failed: in.txt:") == 10
    assert "… and 2 more\n" in result.stderr


def test_batch_tells_what_is_not_safe_to_repeat(
    folder: Path, url: str, emulator: EggEmulator
) -> None:
    """A lost answer goes to uncertain.jsonl, a task that goes on is named: neither is repeated."""
    emulator.fail_next(Fault.html_after(), Fault.stuck())
    (folder / "in.txt").write_text("An egg\nA hen\n")
    result = at(url, "batch", "in.txt", "-o", "out", "-j", "1", "--timeout", "0.2")
    assert result.exit_code == 1
    lost, stuck = emulator.accepted
    assert json.loads((folder / "out/uncertain.jsonl").read_text())["prompt"] == "An egg"
    assert not (folder / "out" / "failed.jsonl").exists()
    assert lost not in result.stderr
    command = "eggapi batch in.txt -o out -j 1 --timeout 0.2"
    assert f"failed: in.txt:2: {stuck} was not finished after 0.2 s" in result.stderr
    assert f"hint: made or still being made, and paid, so fetch: {command}\n" in result.stderr
    assert "hint: out/uncertain.jsonl: these may exist and be billed" in result.stderr
    assert f"if nothing else uses the key: {command} --verify\n" in result.stderr


def test_batch_names_pictures_that_could_not_be_saved(
    folder: Path, url: str, emulator: EggEmulator
) -> None:
    """A picture that was made is not asked for again: it is to be fetched."""
    (task_id,) = at(url, "generate", "An egg", "--no-wait").stdout.split()
    twin = EggEmulator(faults=AT_ONCE)  # the same seed: its first id is the same
    (folder / "out").mkdir()
    (folder / "out" / f"{task_id}.png").write_text("something else has that name")
    (folder / "in.txt").write_text("An egg\n")
    with served(twin) as other:
        result = at(other, "batch", "in.txt", "-o", "out")
    assert result.exit_code == 1
    assert f"{task_id}.png exists already" in result.stderr
    assert "paid, so fetch: eggapi batch in.txt -o out\n" in result.stderr
    assert not (folder / "out" / "failed.jsonl").exists()


def test_batch_pays_nothing_when_nothing_can_be_saved(folder: Path, url: str) -> None:
    """A folder that cannot be made is told before anything is submitted."""
    (folder / "out").write_text("a file stands where the folder should be")
    (folder / "in.txt").write_text("An egg\n")
    result = at(url, "batch", "in.txt", "-o", "out/deeper")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: [Errno 20] Not a directory")
    assert at(url, "tasks", "list").stdout == ""


def test_batch_deletes_no_record_that_it_has_not_read(folder: Path) -> None:
    """Without failures, a failed.jsonl of another run stays, and uncertain.jsonl always does."""
    (folder / "in.txt").write_text("An egg\n")
    (folder / "failed.jsonl").write_text("mine")
    (folder / "uncertain.jsonl").write_text("mine too")
    assert emulated("batch", "in.txt").exit_code == 0
    assert (folder / "failed.jsonl").read_text() == "mine"
    assert (folder / "uncertain.jsonl").read_text() == "mine too"


def test_batch_adds_to_what_is_uncertain(folder: Path, url: str, emulator: EggEmulator) -> None:
    """What an earlier run doubted stays; the doubt is told once, by the command itself."""
    emulator.fail_next(Fault.html_after())
    (folder / "in.txt").write_text("An egg\n")
    (folder / "uncertain.jsonl").write_text("earlier\n")
    result = at(url, "batch", "in.txt", "-j", "1")
    earlier, later = (folder / "uncertain.jsonl").read_text().splitlines()
    assert earlier == "earlier"
    assert json.loads(later)["prompt"] == "An egg"
    assert not list(folder.glob(".*.part"))
    first, *_ = result.stderr.splitlines()
    assert first.startswith("failed: in.txt:1: ")
    assert result.stderr.count(first.removeprefix("failed: in.txt:1: ")) == 1


@pytest.mark.parametrize("name", ["failed.jsonl", "another.jsonl"], ids=["by its name", "a link"])
def test_batch_keeps_the_lines_that_it_has_not_tried(folder: Path, name: str) -> None:
    """--limit leaves the rest of failed.jsonl in it, before what failed again."""
    failed = folder / "failed.jsonl"
    failed.write_text('# mine\n"A broken egg"\n"A hen"\n"A cock"\n')
    if name != failed.name:
        (folder / name).symlink_to(failed)
    result = emulated("batch", name, "--limit", "2")
    assert result.exit_code == 3
    untried, again = failed.read_text().splitlines()
    assert json.loads(again)["prompt"] == "A broken egg"
    assert untried == '"A cock"'
    assert "hint: to try these again: eggapi batch failed.jsonl -o .\n" in result.stderr


def test_batch_keeps_the_rest_when_the_key_is_refused(folder: Path) -> None:
    """No line of failed.jsonl is lost when the run stops early."""
    failed = folder / "failed.jsonl"
    failed.write_text("".join(f'"Egg {n}"\n' for n in range(100)))
    with served(EggEmulator(api_keys=["another"])) as url:
        assert at(url, "batch", "failed.jsonl", "-j", "2").exit_code == 4
    kept = [json.loads(line) for line in failed.read_text().splitlines()]
    prompts = {item if isinstance(item, str) else item["prompt"] for item in kept}
    assert prompts == {f"Egg {n}" for n in range(100)}


def test_batch_keeps_bytes_that_are_no_text(folder: Path) -> None:
    """A line that is not UTF-8 is kept as it came."""
    (folder / "in.jsonl").write_bytes(b'"\xff\n"An egg"\n')
    result = emulated("batch", "in.jsonl")
    assert result.exit_code == 3
    assert (folder / "failed.jsonl").read_bytes() == b'"\xff\n'


def test_batch_refuses_prompts_that_are_no_text(folder: Path) -> None:
    """A prompt that is not UTF-8 fails by itself."""
    (folder / "in.txt").write_bytes(b"An \xff egg\nAn egg\n")
    result = emulated("batch", "in.txt")
    assert result.exit_code == 3, result.output
    assert json.loads((folder / "failed.jsonl").read_text())["prompt"] == "An \udcff egg"


@pytest.mark.parametrize(
    ("lines", "advice"),
    [
        (["7"], "hint: mend 1 refused line first, then: eggapi batch"),
        (["7", '"A broken egg"'], "hint: to try these again, but mend 1 refused line first: egg"),
        (['"A broken egg"'], "hint: to try these again: eggapi batch"),
    ],
    ids=["all are refused", "some are refused", "none is refused"],
)
def test_batch_advises_to_repeat_what_can_pass(folder: Path, lines: list[str], advice: str) -> None:
    """What was refused would be refused again."""
    (folder / "in.jsonl").write_text("\n".join(lines))
    assert advice in emulated("batch", "in.jsonl").stderr


def test_batch_pays_nothing_where_nothing_can_be_written(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is there but closed is named before anything is submitted."""
    (folder / "in.txt").write_text("An egg\n")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    result = at(url, "batch", "in.txt", "-o", "out")
    assert result.exit_code == 1
    assert result.stderr == "error: out: nothing can be written here (Permission denied)\n"
    assert at(url, "tasks", "list").stdout == ""


def test_batch_refuses_csv_without_prompts(folder: Path) -> None:
    """A missing column is told before anything is sent, from a file or a pipe."""
    (folder / "in.csv").write_text("a,b\n1,2\n")
    piped = emulated("batch", "-", "--format", "csv", stdin="a,b\n1,2\n")
    for result in (emulated("batch", "in.csv"), piped):
        assert result.exit_code == 2
        assert "there is no column 'prompt' in the first line, but a, b" in result.stderr


def test_batch_of_nothing_is_done(folder: Path) -> None:
    """An empty file is no failure, and leaves an earlier failed.jsonl alone."""
    (folder / "in.txt").write_text("# nothing\n")
    (folder / "failed.jsonl").write_text("{}")
    result = emulated("batch", "in.txt")
    assert result.exit_code == 0
    assert re.fullmatch(r"0 images in \d+:\d\d, \$0\.00\n", result.stderr)
    assert (folder / "failed.jsonl").exists()


# --- progress ------------------------------------------------------------------------------------


def test_a_terminal_gets_a_live_line(folder: Path) -> None:
    """At a terminal the bar is drawn on stderr; the data on stdout stays clean."""
    (folder / "in.txt").write_text("An egg\nA hen\n")
    result = emulated(
        "batch", "in.txt", TTY_COMPATIBLE="1", TERM="xterm", COLUMNS="120", TTY_INTERACTIVE="1"
    )
    assert "of 2 done" in result.stderr
    assert len(pictures(result)) == 2


def test_the_log_is_shown_when_asked_for(url: str, emulator: EggEmulator) -> None:
    """-v shows what the library does again, -vv all that it does; the log is left as it was."""
    for option in ("-v", "-vv"):
        emulator.fail_next(Fault.refused(503))
        result = at(url, option, "generate", "An egg")
        assert "INFO POST /v1/generate goes again" in result.stderr
    assert not [
        h for h in logging.getLogger("eggapi_async").handlers if type(h) is logging.StreamHandler
    ]


# --- tasks and usage -----------------------------------------------------------------------------


def test_tasks_are_listed_shown_and_fetched(url: str) -> None:
    """What was submitted before can be waited for, listed, shown and saved."""
    prompts = ("An egg", "A forbidden egg")
    ids = [at(url, "generate", prompt, "--no-wait").stdout.strip() for prompt in prompts]
    waited = at(url, "tasks", "wait", "-", stdin="\n".join([*ids, ids[0]]))
    assert waited.exit_code == 3
    assert waited.stdout == f"{url}/outputs/{ids[0].removeprefix('gen_')}-1.png\n"
    assert waited.stderr.startswith(f"error: {ids[1]} failed: Content moderation")

    listed = at(url, "tasks", "list").stdout.splitlines()
    assert sorted(line.split()[:2] for line in listed) == sorted(
        [[ids[0], "completed"], [ids[1], "failed"]]
    )
    assert len(at(url, "tasks", "list", "--limit", "1").stdout.splitlines()) == 1

    shown = at(url, "tasks", "get", ids[0]).stdout
    assert shown.startswith(f"id         {ids[0]}\nstatus     completed\n")
    assert "cost       $0.01\n" in shown
    failed = at(url, "tasks", "get", ids[1]).stdout
    assert failed.endswith("error      Content moderation: prompt contains prohibited content\n")

    saved = at(url, "tasks", "download", ids[0], "-o", "out")
    assert pictures(saved) == [Path("out") / f"{ids[0]}.png"]


def test_tasks_can_be_json(url: str) -> None:
    """--json gives the service's own objects."""
    (task_id,) = at(url, "generate", "An egg", "--no-wait").stdout.split()
    (waited,) = objects(at(url, "tasks", "wait", task_id, "--json"))
    (listed,) = objects(at(url, "tasks", "list", "--json"))
    (got,) = objects(at(url, "tasks", "get", task_id, "--json"))
    (saved,) = objects(at(url, "tasks", "download", task_id, "--json"))
    assert waited == listed == got
    assert saved == {"id": task_id, "paths": [f"{task_id}.png"]}


def test_a_young_task_has_little_to_show(url: str, emulator: EggEmulator) -> None:
    """What a task does not have yet is left out."""
    emulator.fail_next(Fault.stuck())
    (task_id,) = at(url, "generate", "An egg", "--no-wait").stdout.split()
    assert "completed" not in at(url, "tasks", "get", task_id).stdout
    assert at(url, "tasks", "list").stdout.startswith(f"{task_id}  p")


def test_tasks_that_do_not_exist_are_named(url: str) -> None:
    """An error that names no task gets the name."""
    result = at(url, "tasks", "wait", "gen_nobody")
    assert result.exit_code == 1
    assert result.stderr == "error: gen_nobody: 404 NOT_FOUND: no such task\n"
    assert at(url, "tasks", "get", "gen_nobody").exit_code == 1


def test_usage_is_told(url: str) -> None:
    """Records are JSON lines; the summary is a table, or JSON."""
    assert at(url, "usage", "--summary").stdout.split() == ["model", "requests", "units", "cost"]
    at(url, "generate", "An egg", "--num-outputs", "3", "--no-download")
    (record,) = objects(at(url, "usage"))
    assert record["units"] == 3
    assert at(url, "usage", "--summary").stdout.splitlines() == [
        "model       requests     units        cost",
        "nanobanana         1         3       $0.03",
    ]
    (row,) = objects(at(url, "usage", "--summary", "--json"))
    assert row["total_cost"] == "$0.0300"


# --- demo ----------------------------------------------------------------------------------------


def test_the_prompts_are_many_and_harmless() -> None:
    """Two hundred, each of its own, none of which the emulator would refuse."""
    assert len(PROMPTS) == len(set(PROMPTS)) == 200
    assert all(prompt.strip() == prompt and prompt for prompt in PROMPTS)
    assert not [p for p in PROMPTS if "forbidden" in p.lower() or "broken" in p.lower()]


def test_the_demo_shows_what_it_did(folder: Path) -> None:
    """It needs no key, saves whole pictures, and tells its figures; a second run adds to them."""
    for total in (3, 6):
        result = run("demo", "-n", "3", "--speed", "400")
        assert result.exit_code == 0, result.stderr
        assert "3 pictures in egg-demo/" in result.stdout
        assert "the service would have charged $0.03" in result.stdout
        assert "a machine that cannot keep up" in result.stdout
        assert result.stderr == "3 pictures, asked for all at once:\n"
        assert len(list((folder / "egg-demo").glob("gen_*.png"))) == total


def test_the_demo_can_be_json() -> None:
    """The figures are there for programs too, and add up."""
    (figures,) = objects(run("demo", "-n", "2", "--speed", "400", "-o", "out", "--json"))
    assert (figures["pictures"], figures["folder"], figures["cost"]) == (2, "out", "0.0200")
    assert figures["requests"]["submit"] == figures["requests"]["download"] == 2
    assert figures["polls_by_advice"] >= 2


def test_a_demo_at_a_speed_that_a_machine_can_keep_has_no_doubts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The remark on slow machines comes only where it may matter."""
    figures = Figures(
        folder=Path("out"),
        pictures=2,
        size=36_000,
        seconds=9.04,
        speed=5.0,
        mean_seconds=13.2,
        stats=Stats(requests={"sweep": 1000, "peek": 1}, cost=Decimal("0.0200")),
        polls_by_advice=6,
    )
    tell(figures, is_json=False)
    said = capsys.readouterr().out
    assert said.startswith("\n2 pictures in out/ (36 kB), after 9.0 s\n\n")
    assert "1,001 requests to watch all tasks" in said
    assert "would have taken 6\n" in said
    assert "5 times faster than real\n  Money" in said


# --- emulator ------------------------------------------------------------------------------------


def test_the_emulator_serves_until_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells its address, answers there, and ends with code 0 on Ctrl-C and SIGTERM."""
    import uvicorn

    started = uvicorn.Server.startup
    for number in (signal.SIGINT, signal.SIGTERM):

        async def startup(self: Any, sockets: Any = None, number: int = number) -> None:
            await started(self, sockets)
            Thread(target=os.kill, args=(os.getpid(), number)).start()

        monkeypatch.setattr(uvicorn.Server, "startup", startup)
        before = signal.getsignal(number)
        result = run("emulator", "--port", "0", "--balance", "1.50", "--speed", "2")
        assert result.exit_code == 0, result.output
        address, key = result.stdout.splitlines()
        assert address.startswith("export EGGAPI_BASE_URL=http://127.0.0.1:")
        assert key == "export EGGAPI_API_KEY=any-key"
        assert "Ctrl-C ends it" in result.stderr
        assert signal.getsignal(number) == before


def test_the_emulator_shows_version_six_addresses_as_urls_do() -> None:
    """An IPv6 address stands in brackets."""
    from eggapi_async.cli.serving import address

    assert address("::1", 80) == "http://[::1]:80"


def test_the_emulator_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn it says what to install."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run("emulator")
    assert result.exit_code == 1
    assert (
        result.stderr == "error: the emulator needs an extra: pip install 'eggapi-async[server]'\n"
    )


def test_the_emulator_needs_a_free_port(url: str) -> None:
    """A port that is taken is told, with a way out."""
    result = run("emulator", "--port", url.rpartition(":")[2])
    assert result.exit_code == 1
    assert "--port 0 takes a free port" in result.stderr


def test_the_emulator_stays_on_this_machine() -> None:
    """No other machine may reach it; money is money."""
    assert run("emulator", "--host", "0.0.0.0").exit_code == 2
    result = run("emulator", "--balance", "much")
    assert result.exit_code == 2
    assert "expected US dollars" in result.stderr


# --- the entry point -----------------------------------------------------------------------------


def leave(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the entry point with these arguments."""
    monkeypatch.setattr(sys, "argv", ["eggapi", *arguments])
    with pytest.raises(SystemExit) as left:
        eggapi_async.__main__.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_the_entry_point_leaves_with_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands, wrong usage and Ctrl-C before a command each have their code."""
    assert leave(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("eggapi-async ")
    assert leave(monkeypatch, "tasks", "list") == 4
    assert leave(monkeypatch, "batch") == 2
    assert "Missing argument" in capsys.readouterr().err
    monkeypatch.setattr("click.Group.invoke", _interrupted)
    assert leave(monkeypatch, "demo") == 130


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_the_entry_point_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without the extra there is one line on what to do."""
    monkeypatch.delitem(sys.modules, "eggapi_async.cli")
    monkeypatch.delattr(eggapi_async, "cli")
    error = ModuleNotFoundError(f"No module named {missing!r}", name=missing)
    monkeypatch.setattr(sys, "meta_path", [_Without("eggapi_async.cli", error), *sys.meta_path])
    with pytest.raises(SystemExit, match="pip install 'eggapi-async\\[cli\\]'"):
        eggapi_async.__main__.main()


def test_the_entry_point_hides_no_other_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other missing module is raised as it is."""
    monkeypatch.delitem(sys.modules, "eggapi_async.cli")
    monkeypatch.delattr(eggapi_async, "cli")
    error = ModuleNotFoundError("No module named 'attrs'", name="attrs")
    monkeypatch.setattr(sys, "meta_path", [_Without("eggapi_async.cli", error), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="attrs"):
        eggapi_async.__main__.main()


class _Without:
    """A finder for a world in which importing *name* ends in *error*."""

    def __init__(self, name: str, error: ImportError) -> None:
        self._name = name
        self._error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == self._name:
            raise self._error


async def test_in_a_running_loop_it_says_what_to_do() -> None:
    """A notebook's loop cannot be left: the command is for its shell, the client for its cells."""
    with pytest.raises(SystemExit, match=r"!eggapi"):
        eggapi_async.__main__.main()


@pytest.mark.parametrize(
    "words",
    [[], ["generate"], ["batch"], ["tasks"], ["tasks", "list"], ["tasks", "get"], ["tasks", "wait"],
     ["tasks", "download"], ["usage"], ["emulator"], ["demo"], ["gallery"], ["webhook"],
     ["doctor"], ["completion"], ["webhook", "listen"], ["webhook", "verify"]],
    ids=" ".join,
)  # fmt: skip
def test_help_begins_with_examples(words: list[str]) -> None:
    """Every help text has an example before its options, and fits 80 columns."""
    text = run(*words, "--help").stdout
    before, _, _ = text.partition("\nOptions:")
    assert f"\n  eggapi {' '.join(words)}".rstrip() in before
    assert max(map(len, text.splitlines())) <= 80
