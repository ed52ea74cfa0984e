"""`eggapi batch` over several runs: it goes on, keeps to its limits, and buys nothing twice."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
from click.testing import CliRunner, Result

from eggapi_async import Journal
from eggapi_async.cli import eggapi
from eggapi_async.cli.records import rows
from eggapi_async.emulator import EggEmulator, Fault
from tests.emulated import Clock
from tests.served import served, start

PATIENCE = 20.0
"""Seconds until a process that should have done something is given up."""


@attrs.define
class Desk:
    """A folder, an emulator over TCP whose tasks end at once, and somebody who runs commands."""

    folder: Path
    emulator: EggEmulator
    url: str

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        """What the command says to these arguments."""
        env = {"EGGAPI_BASE_URL": self.url, "EGGAPI_API_KEY": "a-key", "NO_PROXY": "*"}
        with mock.patch.object(sys, "argv", ["eggapi", *arguments]):
            return CliRunner().invoke(eggapi, arguments, input=stdin, env=env, prog_name="eggapi")

    def batch(self, *options: str, file: str = "in.txt") -> Result:
        """`eggapi batch` into the folder `out`, one after the other."""
        return self.run("batch", file, "-o", "out", "-j", "1", *options)

    def write(self, *lines: str, file: str = "in.txt") -> None:
        """Write the input."""
        (self.folder / file).write_text("".join(f"{line}\n" for line in lines))

    def kept(self, name: str = "failed") -> list[dict[str, Any]]:
        """What the folder's record of that name holds."""
        text = (self.folder / "out" / f"{name}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def has(self, name: str) -> bool:
        """True when the folder `out` has a file of that name."""
        return (self.folder / "out" / name).exists()

    @property
    def posts(self) -> int:
        """How many submissions have arrived."""
        return self.emulator.requests["POST /v1/generate"]

    def states(self) -> list[str]:
        """The states in the journal, in input order."""
        with Journal(self.folder / "out" / ".eggapi.sqlite3") as journal:
            return [item.state for item in journal]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk in an empty folder, with nothing of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EGGAPI_")]:
        monkeypatch.delenv(name)
    emulator = EggEmulator(faults={"sync": 1.0}, speed=1000.0)
    with served(emulator) as url:
        yield Desk(tmp_path, emulator, url)


# --- going on ------------------------------------------------------------------------------------


def test_the_same_command_again_goes_on(desk: Desk) -> None:
    """It says how far it was, buys only the rest, and prints all paths."""
    desk.write("An egg", "A hen", "A cock")
    first = desk.batch("--limit", "2")
    assert (first.exit_code, desk.posts) == (0, 2)
    second = desk.batch()
    assert (second.exit_code, desk.posts) == (0, 3)
    assert second.stderr.startswith("going on: 2 done, 1 to go\n")
    assert second.stderr.endswith("1 image in 0:00, $0.01; 2 of 3 done before\n")
    assert first.stdout in second.stdout
    third = desk.batch()
    assert (third.exit_code, desk.posts) == (0, 3)
    assert third.stderr.startswith("going on: 3 done, 0 to go\n")
    assert third.stderr.endswith("0 images in 0:00, $0.00; 3 of 3 done before\n")


def test_a_pipe_goes_on_too(desk: Desk) -> None:
    """How much is to go is not known before it is read."""
    desk.run("batch", "-", "-o", "out", stdin="An egg\n")
    again = desk.run("batch", "-", "-o", "out", stdin="An egg\nA hen\n")
    assert again.stderr.startswith("going on: 1 done\n")
    assert desk.posts == 2


def test_lines_may_move(desk: Desk) -> None:
    """A line is known by what it asks for: one is added before, one goes, one comes twice."""
    desk.write("An egg", "A hen", "A hen")
    desk.batch()
    desk.write("A cock", "A hen", "A hen", "A hen", "An egg")
    assert desk.batch().stderr.startswith("going on: 3 done, 2 to go\n")
    assert desk.posts == 5


def test_another_wish_is_another_line(desk: Desk) -> None:
    """What the options fill in belongs to what is asked for."""
    desk.write("An egg")
    desk.batch()
    result = desk.batch("--resolution", "4k")
    assert (result.exit_code, desk.posts) == (0, 2), result.stderr


def test_what_was_submitted_is_collected(desk: Desk) -> None:
    """A task that was not waited for is not bought again."""
    clock = Clock()
    desk.emulator = EggEmulator(clock=clock)
    desk.write("An egg", "A hen")
    with served(desk.emulator) as desk.url:
        early = desk.batch("--timeout", "0.05")
        assert early.exit_code == 1
        command = "eggapi batch in.txt -o out -j 1 --timeout 0.05"
        assert f"hint: made or still being made, and paid, so fetch: {command}\n" in early.stderr
        assert not desk.has("failed.jsonl")
        clock.now = 1000.0
        late = desk.batch()
    assert late.exit_code == 0, late.stderr
    assert late.stderr.startswith("going on: 0 done, 2 submitted, 0 to go\n")
    assert (desk.posts, desk.states()) == (2, ["saved", "saved"])


def test_a_missing_picture_is_fetched_again(desk: Desk) -> None:
    """It is there already, so it costs nothing."""
    desk.write("An egg")
    path = Path(desk.batch().stdout.strip())
    path.unlink()
    assert desk.batch().stdout.strip() == str(path)
    assert path.is_file()
    assert desk.posts == 1


def test_an_emulator_in_this_process_leaves_no_journal(desk: Desk) -> None:
    """Its tasks go with it, so there is nothing to go on with."""
    desk.write("An egg")
    result = desk.run("--emulator", "--emulator-speed", "400", "batch", "in.txt", "-o", "out")
    assert (result.exit_code, desk.posts) == (0, 0)
    assert not desk.has(".eggapi.sqlite3")


def test_a_folder_belongs_to_one_batch_at_a_time(desk: Desk) -> None:
    """A second process is refused before it sends anything."""
    desk.emulator = EggEmulator(faults={"stuck": 1.0})
    desk.write("An egg")
    with served(desk.emulator) as desk.url:
        env = {"EGGAPI_BASE_URL": desk.url, "EGGAPI_API_KEY": "a-key"}
        with start("batch", "in.txt", "-o", "out", cwd=desk.folder, **env) as other:
            until(lambda: desk.posts > 0)
            refused = desk.batch()
            other.terminate()
    assert refused.exit_code == 1
    assert "another batch is at work with it" in refused.stderr
    assert "to go on" not in refused.stderr
    assert desk.posts == 1


def until(condition: Any) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["to send", "to tell the price"])
def test_a_file_that_is_no_journal_is_left_alone(desk: Desk, options: list[str]) -> None:
    """Whatever stands in its place is told, and nothing is sent."""
    desk.write("An egg")
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / ".eggapi.sqlite3").write_text("something else" * 100)
    result = desk.batch(*options)
    assert result.exit_code == 1
    assert ".eggapi.sqlite3: cannot be read: file is not a database" in result.stderr
    assert desk.posts == 0


# --- what failed, what is in doubt ---------------------------------------------------------------


def test_what_failed_is_tried_again_only_when_asked(desk: Desk) -> None:
    """Once it has come to a picture, failed.jsonl goes."""
    desk.write("An egg", "A hen")
    desk.emulator.fail_next(Fault.refused(400))
    first = desk.batch()
    assert (first.exit_code, desk.posts) == (3, 2)
    assert [line["prompt"] for line in desk.kept()] == ["An egg"]
    second = desk.batch()
    assert (second.exit_code, desk.posts) == (3, 2)
    assert second.stderr.startswith("going on: 1 done, 1 failed, 0 to go\n")
    assert len(desk.kept()) == 1
    third = desk.batch("--retry-failed")
    assert (third.exit_code, desk.posts) == (0, 3)
    assert third.stderr.startswith("going on: 1 done, 1 to go\n")
    assert not desk.has("failed.jsonl")


def test_the_advice_names_the_option(desk: Desk) -> None:
    """Only once, and only for what the same request may cure."""
    desk.write("A broken egg")
    again = "eggapi batch in.txt -o out -j 1"
    for options in ([], ["--retry-failed"]):
        hint = f"hint: to try these again: {again} --retry-failed\n"
        assert desk.batch(*options).stderr.endswith(hint)


def test_failed_lines_keep_their_names(desk: Desk) -> None:
    """Of three alike the second failed: failed.jsonl asks for that one, and for no other."""
    desk.write("A hen", "A hen", "A hen")
    desk.emulator.fail_next(Fault.sync(), Fault.refused(400))
    desk.batch()
    assert (desk.posts, desk.states().count("failed")) == (3, 1)
    result = desk.batch(file="out/failed.jsonl")
    assert (result.exit_code, desk.posts) == (0, 4)
    assert desk.states() == ["saved"] * 3
    assert not desk.has("failed.jsonl")


def test_a_mended_line_is_a_new_one(desk: Desk) -> None:
    """Given back in failed.jsonl, it is bought once, and goes on like any other."""
    desk.write("A broken egg")
    desk.batch()
    failed = desk.folder / "out" / "failed.jsonl"
    failed.write_text(failed.read_text().replace("broken", "mended"))
    for _ in range(2):
        kept = failed.read_text()
        assert desk.batch(file="out/failed.jsonl").exit_code == 0
        failed.write_text(kept)
    assert desk.posts == 2


def test_records_of_other_inputs_stay(desk: Desk) -> None:
    """What another input of the same folder has left is not of this run."""
    desk.write("A broken egg")
    desk.write("An egg", "A broken hen", "{oops", file="other.jsonl")
    desk.write('"A broken hen"', "{oops", file="other.jsonl")
    desk.batch()
    desk.batch(file="other.jsonl")
    desk.batch(file="other.jsonl")
    lines = (desk.folder / "out" / "failed.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert lines.count("{oops") == 1


def test_a_doubt_is_kept_once_and_resolved_when_asked(desk: Desk) -> None:
    """--verify finds the task that the lost answer was about."""
    desk.write("An egg")
    desk.emulator.fail_next(Fault.html_after())
    for _ in range(2):
        result = desk.batch()
        assert (result.exit_code, desk.posts) == (1, 1)
        assert len(desk.kept("uncertain")) == 1
    assert result.stderr.startswith("going on: 0 done, 1 uncertain, 0 to go\n")
    assert "if nothing else uses the key: eggapi batch in.txt -o out -j 1 --verify" in result.stderr
    resolved = desk.batch("--verify")
    assert (resolved.exit_code, desk.posts) == (0, 1), resolved.stderr
    assert desk.states() == ["saved"]
    assert not desk.has("uncertain.jsonl")


def test_what_was_verified_in_vain_names_its_candidates(desk: Desk) -> None:
    """--verify is not advised again; the tasks that it could be are told and kept."""
    desk.emulator.fail_next(Fault.html_after(), Fault.html_after())
    desk.write("An egg", "An egg")
    desk.run("batch", "in.txt", "-o", "out", "-j", "2")
    result = desk.batch("--verify")
    assert (result.exit_code, desk.posts) == (1, 2)
    assert "--verify" not in result.stderr
    ids = desk.emulator.accepted
    assert "may exist and be billed, maybe as gen_" in result.stderr
    assert all(task_id in result.stderr for task_id in ids)
    for line in desk.kept("uncertain"):
        assert sorted(line["error"]["candidates"]) == sorted(ids)


def test_what_was_not_sent_needs_no_special_word(desk: Desk) -> None:
    """Where nobody listens nothing has failed for the journal: the same command tries again."""
    desk.write("An egg")
    desk.url = "http://127.0.0.1:9"
    result = desk.batch()
    assert (result.exit_code, desk.states()) == (1, ["planned"])
    assert "hint: to try these again: eggapi batch in.txt -o out -j 1\n" in result.stderr
    assert "--retry-failed" not in result.stderr


def test_a_folder_of_another_service_is_refused_in_words_for_the_shell(desk: Desk) -> None:
    """A journal knows one service's tasks: another needs another -o."""
    desk.write("An egg")
    desk.batch()
    with served(EggEmulator()) as desk.url:
        result = desk.batch()
    assert result.exit_code == 1
    assert "it tells of tasks at" in result.stderr
    assert "hint: another service needs another folder: -o DIR\n" in result.stderr


def test_nothing_more_is_begun_after_a_failure_where_that_is_asked(desk: Desk) -> None:
    """--fail-fast: the rest is for the next run."""
    desk.write("An egg", "A broken egg", "A hen", "A cock")
    result = desk.batch("--fail-fast")
    assert (result.exit_code, desk.posts) == (3, 2)
    assert result.stderr.endswith("hint: to go on: eggapi batch in.txt -o out -j 1 --fail-fast\n")
    assert desk.states() == ["saved", "failed"]


# --- money ---------------------------------------------------------------------------------------


def test_no_more_is_spent_than_allowed(desk: Desk) -> None:
    """Earlier runs count; a higher limit goes on; what was not sent is no failure."""
    desk.write(*(f"Egg {n}" for n in range(6)))
    first = desk.batch("--max-cost", "$0.035")
    assert (first.exit_code, desk.posts) == (5, 3)
    assert (
        "3 images in 0:00, $0.03\n"
        "hint: a higher --max-cost lets it go on\n"
        "hint: to go on: eggapi batch in.txt -o out -j 1 --max-cost USD\n"
    ) in first.stderr
    assert first.stderr.startswith("stopped: the budget of $0.035 does not cover $0.010 more")
    assert not desk.has("failed.jsonl")
    second = desk.batch("--max-cost=0.05")
    assert "hint: to go on: eggapi batch in.txt -o out -j 1 --max-cost=USD\n" in second.stderr
    assert (second.exit_code, desk.posts) == (5, 5)
    assert desk.batch("--max-cost", "0.06").exit_code == 0
    assert desk.posts == 6


def test_what_is_open_counts_with_its_price(desk: Desk) -> None:
    """A task that nobody has seen the end of may cost what was published."""
    desk.emulator = EggEmulator(faults={"stuck": 1.0})
    desk.write("An egg", "A hen")
    with served(desk.emulator) as desk.url:
        desk.batch("--limit", "1", "--timeout", "0.05")
        result = desk.batch("--timeout", "0.05", "--max-cost", "0.015")
    assert (result.exit_code, desk.posts) == (5, 1)
    assert "$0.010 is spent" in result.stderr


def test_a_price_that_nobody_knows_is_not_guessed(desk: Desk) -> None:
    """Under a limit such a line is refused by itself."""
    desk.write('{"prompt": "An egg", "model": "veo3.1"}', '"A hen"', file="in.jsonl")
    result = desk.batch("--max-cost", "1", file="in.jsonl")
    assert (result.exit_code, desk.posts) == (3, 1)
    assert "in.jsonl:1: model: expected a model and fields with a published price" in result.stderr


def test_an_empty_account_stops_it(desk: Desk) -> None:
    """Code 5, and nothing that was not sent is a failure; with money it goes on."""
    desk.emulator = EggEmulator(faults={"sync": 1.0}, balance=Decimal("0.02"))
    desk.write(*(f"Egg {n}" for n in range(50)))
    with served(desk.emulator) as desk.url:
        result = desk.batch()
    assert (result.exit_code, desk.posts) == (5, 3)
    assert "stopped: 403 INSUFFICIENT_BALANCE" in result.stderr
    assert "hint: top up the account" in result.stderr
    assert not desk.has("failed.jsonl")


@pytest.mark.parametrize("amount", ["-1", "five", ""])
def test_an_amount_is_exact_money(desk: Desk, amount: str) -> None:
    """What is no amount is refused with what was expected."""
    desk.write("An egg")
    result = desk.batch("--max-cost", amount)
    assert result.exit_code == 2
    assert "Invalid value for '--max-cost': expected US dollars from 0" in result.stderr


# --- a dry run -----------------------------------------------------------------------------------

MIXED = (
    '{"prompt": "An egg", "num_outputs": 2}',
    '{"prompt": "A hen", "aspect_ratio": "1:1"}',
    "{oops",
    '{"prompt": "A cock", "model": "nanobanana-pro", "resolution": "4k"}',
    '{"prompt": "A film", "model": "veo3.1"}',
    '{"prompt": "A scene", "model": "nanobanana-pro", "extra": {"resolution": "8k"}}',
)


def dry(*arguments: str) -> Result:
    """The command without a key, and with no service to reach."""
    return CliRunner().invoke(eggapi, arguments, env={"EGGAPI_BASE_URL": "http://127.0.0.1:1"})


def test_a_dry_run_checks_every_line_and_tells_the_price(desk: Desk) -> None:
    """No key, no folder, no request; what has no price is told."""
    desk.write(*MIXED, file="in.jsonl")
    result = dry("batch", "in.jsonl", "-o", "out", "--dry-run")
    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        "model           requests    images       price",
        "nanobanana             1         2       $0.02",
        "nanobanana-pro         2         1  $0.032 + 1 request of unknown price",
        "veo3.1                 1         0     unknown",
        "total                  4         3  $0.052 + 2 requests of unknown price",
    ]
    first, second, end = result.stderr.splitlines()
    assert first == "refused: in.jsonl:2: aspect_ratio: expected one of 16:9, 9:16, got '1:1'"
    assert second.startswith("refused: in.jsonl:3: not JSON: ")
    assert end == "nothing was sent: 4 tasks to submit, 2 lines refused"
    assert not (desk.folder / "out").exists()


def test_a_dry_run_can_be_json(desk: Desk) -> None:
    """The same for programs."""
    desk.write(*MIXED, file="in.jsonl")
    result = dry("-q", "batch", "in.jsonl", "--dry-run", "--json")
    found = json.loads(result.stdout)
    models = found.pop("models")
    assert found == {
        "lines": 6,
        "refused": 2,
        "to_submit": 4,
        "images": 3,
        "unpriced": 2,
        "total": "0.052",
    }
    assert models[2] == {
        "model": "veo3.1",
        "requests": 1,
        "images": 0,
        "unpriced": 1,
        "total": "0",
    }


@pytest.mark.parametrize(
    ("lines", "options", "code"),
    [
        (["An egg"], [], 0),
        ([], [], 0),
        (["egg " * 600], [], 1),
        (["An egg"], ["--max-cost", "0.01"], 0),
        (["An egg"], ["--max-cost", "0.009"], 5),
    ],
    ids=["all is well", "nothing to do", "all is refused", "just enough", "too dear"],
)
def test_a_dry_run_has_its_exit_code(
    desk: Desk, lines: list[str], options: list[str], code: int
) -> None:
    """As the run itself would end, as far as that is known."""
    desk.write(*lines)
    result = dry("batch", "in.txt", "--dry-run", *options)
    assert result.exit_code == code
    assert ("$0.01 is more than --max-cost $0.009 allows\n" in result.stderr) == (code == 5)


def test_a_dry_run_shows_the_first_problems_only(desk: Desk) -> None:
    """Ten are listed, the others counted."""
    desk.write(*["7"] * 12, file="in.jsonl")
    result = dry("batch", "in.jsonl", "--dry-run")
    assert result.stderr.count("refused: in.jsonl:") == 10
    assert "… and 2 more\n" in result.stderr


def test_a_dry_run_knows_what_is_done(desk: Desk) -> None:
    """The price is that of the rest, and the limit that of all."""
    desk.write("An egg", "A broken egg", "A hen")
    desk.batch("--limit", "2")
    result = dry("batch", "in.txt", "-o", "out", "--dry-run", "--max-cost", "0.015")
    assert result.stdout.splitlines()[-1].split() == ["total", "1", "1", "$0.01"]
    assert result.stderr.splitlines() == [
        "journal: 1 done, 1 failed, 1 to go",
        "nothing was sent: 1 task to submit",
        "$0.01 beside $0.01 before is more than --max-cost $0.015 allows",
    ]
    again = dry("batch", "in.txt", "-o", "out", "--dry-run", "--retry-failed")
    assert "nothing was sent: 2 tasks to submit\n" in again.stderr
    piped = CliRunner().invoke(eggapi, ["batch", "-", "-o", "out", "--dry-run"], input="A hen\n")
    assert piped.stderr.startswith("journal: 1 done, 1 failed\n")


# --- parts of an input ---------------------------------------------------------------------------


def test_shards_share_the_lines(desk: Desk) -> None:
    """Each line is in one of them, and the same line has one name in all, alike ones too."""
    desk.write("Egg 1", "# a comment", "Egg 2", "Egg 2", "Egg 3", "Egg 1")
    records = []
    for number in ("1/3", "2/3", "3/3"):
        result = desk.batch("--shard", number, "--json")
        records += [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["line"] for record in records] == [1, 5, 3, 6, 4]
    assert desk.posts == 5
    assert desk.batch().stderr.startswith("going on: 5 done, 0 to go\n")
    assert dry("batch", "in.txt", "--dry-run", "--shard", "2/2", "--limit", "1").exit_code == 0


@pytest.mark.parametrize("template", ["egg", "../{id}", "{id"])
def test_an_impossible_name_is_refused(desk: Desk, template: str) -> None:
    """Before anything is paid."""
    desk.write("An egg")
    result = desk.batch("--name", template)
    assert (result.exit_code, desk.posts) == (2, 0)
    assert "Invalid value for '--name': expected " in result.stderr


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/2/3", "-1/2"])
def test_an_impossible_shard_is_refused(desk: Desk, shard: str) -> None:
    """It says what was expected."""
    desk.write("An egg")
    result = desk.batch("--shard", shard)
    assert result.exit_code == 2
    assert "expected I/N, as in 3/8: the third of eight, got" in result.stderr


# --- names ---------------------------------------------------------------------------------------


def test_files_can_be_named(desk: Desk) -> None:
    """By place and prompt; several pictures of one task are numbered; a folder may be in it."""
    desk.write(
        '"An Egg: on/in a *nest*"',
        '{"prompt": "Дом", "num_outputs": 2, "model": "nanobanana-pro"}',
        file="in.jsonl",
    )
    template = "{model}/{index:03d}-{line}-{slug}.{ext}"
    result = desk.batch("--name", template, file="in.jsonl")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == [
        "out/nanobanana/000-1-an-egg-on-in-a-nest.png",
        "out/nanobanana-pro/001-2-дом-1.png",
        "out/nanobanana-pro/001-2-дом-2.png",
    ]
    again = desk.batch("--name", template, file="in.jsonl")
    assert (again.stdout, desk.posts) == (result.stdout, 2)


def test_a_name_that_is_taken_is_told(desk: Desk) -> None:
    """The picture is paid for, and nothing of somebody else's is overwritten."""
    desk.write("An egg")
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / "1.png").write_text("mine")
    result = desk.batch("--name", "{line}")
    assert result.exit_code == 1
    assert "out/1.png exists already" in result.stderr
    assert (desk.folder / "out" / "1.png").read_text() == "mine"
    assert desk.batch("--name", "{line}-{id}").exit_code == 0
    assert desk.posts == 1


# --- signals, as processes -----------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX does")
def test_a_second_signal_leaves_at_once(desk: Desk) -> None:
    """A submission under way is not heard to its end: the next run doubts it."""
    desk.emulator = EggEmulator(faults={"sync": 1.0}, latency=3600.0)
    desk.write("An egg")
    with served(desk.emulator) as desk.url:
        env = {"EGGAPI_BASE_URL": desk.url, "EGGAPI_API_KEY": "a-key"}
        with start("batch", "in.txt", "-o", "out", cwd=desk.folder, **env) as process:
            assert process.stderr is not None
            until(lambda: desk.posts > 0)
            process.terminate()
            assert process.stderr.readline().startswith("stopping: ")
            process.terminate()
            assert process.wait(PATIENCE) == 143
            assert process.stderr.read() == "left at once\n"
    assert desk.states() == ["intent"]


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX does")
def test_the_first_signal_hears_what_is_being_submitted(desk: Desk) -> None:
    """Its id is in the journal, nothing else is sent, and the next run collects it."""
    desk.emulator = EggEmulator(faults={"sync": 1.0}, latency=0.5)
    desk.write("An egg", "A hen")
    with served(desk.emulator) as desk.url:
        env = {"EGGAPI_BASE_URL": desk.url, "EGGAPI_API_KEY": "a-key"}
        with start("batch", "in.txt", "-o", "out", "-j", "1", cwd=desk.folder, **env) as process:
            until(lambda: desk.posts > 0)
            process.terminate()
            assert process.wait(PATIENCE) == 143
            assert process.stderr is not None
            assert process.stderr.read().endswith("to go on:\n  eggapi batch in.txt -o out -j 1\n")
        with Journal(desk.folder / "out" / ".eggapi.sqlite3") as journal:
            assert [item.task_id for item in journal] == desk.emulator.accepted
        assert len(desk.emulator.accepted) == desk.posts == 1
        assert desk.batch().exit_code == 0
    assert desk.posts == 2


# --- the page ------------------------------------------------------------------------------------


def test_a_batch_ends_with_a_page(desk: Desk) -> None:
    """--gallery shows what the journal knows, of earlier runs too; each item once."""
    desk.write("An egg", "A broken hen", "A cock", "A drake")
    desk.batch("--limit", "2")
    desk.emulator.fail_next(Fault.html_after(), Fault.refused(403, "INSUFFICIENT_BALANCE"))
    result = desk.batch("--gallery", "--json")
    assert result.exit_code == 5
    assert result.stderr.endswith("gallery: out/index.html\n")
    (desk.folder / "log.jsonl").write_text(result.stdout)
    out = desk.folder / "out"
    shown = rows(out, [desk.folder / "log.jsonl"])
    assert [(item.prompt, item.status, len(item.pictures)) for item in shown] == [
        ("An egg", "completed", 1),
        ("A broken hen", "failed", 0),
        ("A cock", "uncertain", 0),
        ("A drake", "failed", 0),
    ]
    assert rows(out) == shown[:3]
    assert "A broken hen" in (out / "index.html").read_text()


def test_a_page_of_somebody_else_is_told_before_anything_is_paid(desk: Desk) -> None:
    """An index.html that is no gallery stays."""
    desk.write("An egg")
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / "index.html").write_text("mine")
    result = desk.batch("--gallery")
    assert (result.exit_code, desk.posts) == (1, 0)
    assert "out/index.html exists already, and is no gallery" in result.stderr


def test_a_batch_of_nothing_has_no_page(desk: Desk) -> None:
    """There is nothing to show."""
    desk.write()
    assert desk.batch("--gallery").exit_code == 0
    assert not desk.has("index.html")


def test_a_journal_that_cannot_be_read_is_told_by_the_gallery(desk: Desk) -> None:
    """The page would leave out what is in it."""
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / ".eggapi.sqlite3").write_text("something else" * 100)
    result = desk.run("gallery", "out")
    assert result.exit_code == 1
    assert "file is not a database" in result.stderr
