"""`eggapi gallery`: from a folder, with records or without, to a page that stands there whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from eggapi_async.cli import eggapi
from eggapi_async.cli.gallery import write
from eggapi_async.cli.records import rows
from eggapi_async.emulator.pictures import VIDEO, picture
from eggapi_async.gallery import GalleryItem, GalleryPicture

EMULATED = {"EGGAPI_EMULATOR": "1", "EGGAPI_EMULATOR_SPEED": "400"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder `out` in the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def run(*arguments: str, **env: str) -> Result:
    """What the command line says to these arguments."""
    return CliRunner().invoke(eggapi, arguments, env=env, prog_name="eggapi")


def record(**changes: Any) -> dict[str, Any]:
    """A line of `batch --json`."""
    given: dict[str, Any] = {
        "index": 0,
        "ok": True,
        "id": "gen_1",
        "status": "completed",
        "cost": "0.02",
        "paths": ["out/gen_1.png"],
        "error": None,
        "prompt": "An egg",
        "model": "nanobanana",
        "aspect_ratio": None,
        "resolution": "1k",
        "seconds": 9.5,
    }
    return given | changes


def keep(path: Path, *lines: object) -> Path:
    """A record with these lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def paint(path: Path) -> Path:
    """A picture there."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(picture("An egg", 1))
    return path


SMALL = GalleryPicture("gen_1.png", 1024, 576)


# --- the command ---------------------------------------------------------------------------------


def test_a_batch_becomes_a_page(folder: Path) -> None:
    """What a batch printed and saved is on the page, model, cost and time included."""
    Path("prompts.txt").write_text("An egg\nA hen\n")
    made = run(
        "batch", "prompts.txt", "-o", "out", "--model", "nanobanana-pro", "--json", **EMULATED
    )
    Path("log.jsonl").write_text(made.stdout)
    result = run("gallery", "out", "--log", "log.jsonl", "--title", "Two birds")
    assert result.stdout == f"{Path('out/index.html')}\n"
    assert result.stderr.startswith("2 images, $")
    text = (folder / "index.html").read_text("utf-8")
    assert "<title>Two birds</title>" in text
    items = rows(folder, [Path("log.jsonl")])
    assert [(item.prompt, item.model) for item in items] == [
        ("An egg", "nanobanana-pro"),
        ("A hen", "nanobanana-pro"),
    ]
    assert all(item.duration is not None and item.cost and item.task_id for item in items)
    assert all((shown.width, shown.height) != (0, 0) for item in items for shown in item.pictures)


def test_a_folder_of_pictures_is_enough(folder: Path) -> None:
    """Without any record they are shown by name; the folder's name stands at the top."""
    paint(folder / "b.png")
    (folder / "a.mp4").write_bytes(VIDEO)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    result = run("gallery", "out")
    assert (result.exit_code, result.stderr) == (0, "1 image, 1 video\n")
    assert "<title>out</title>" in (folder / "index.html").read_text("utf-8")
    assert [item.pictures[0].path for item in rows(folder)] == ["a.mp4", "b.png"]


def test_the_page_is_told_to_programs(folder: Path) -> None:
    """With --json the path and the totals are an object."""
    paint(folder / "gen_1.png")
    keep(folder / "log.jsonl", record(), record(id="gen_2", paths=[], error={"message": "No."}))
    assert json.loads(run("gallery", "out", "--json").stdout) == {
        "path": str(Path("out/index.html")),
        "images": 1,
        "videos": 0,
        "failed": 1,
        "cost": "0.04",
    }


def test_a_folder_of_nothing_is_an_error(folder: Path) -> None:
    """No page is written where there is nothing to show; nor is money told that nobody knows."""
    (folder / "notes.txt").touch()
    result = run("gallery", "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: out: no pictures and no record of any\n"
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    paint(folder / "a.png")
    assert json.loads(run("gallery", "out", "--json").stdout)["cost"] is None


def test_a_page_of_somebody_else_is_not_lost(folder: Path) -> None:
    """An index.html that is no gallery stays, unless asked for; a gallery is renewed."""
    paint(folder / "a.png")
    page = folder / "index.html"
    page.write_text("<h1>Mine</h1>")
    result = run("gallery", "out")
    assert result.exit_code == 1
    assert "index.html exists already, and is no gallery" in result.stderr
    assert page.read_text() == "<h1>Mine</h1>"
    assert run("gallery", "out", "--overwrite").exit_code == 0
    assert run("gallery", "out", "--title", "Again").exit_code == 0
    assert "<title>Again</title>" in page.read_text("utf-8")


def test_a_folder_in_the_place_of_the_page_is_an_error(folder: Path) -> None:
    """It is named, and nothing is left behind."""
    paint(folder / "a.png")
    (folder / "index.html").mkdir()
    for words in ((), ("--overwrite",)):
        result = run("gallery", "out", *words)
        assert (result.exit_code, result.stderr[:7]) == (1, "error: ")
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "index.html"]


def torn() -> Iterator[GalleryItem]:
    """Rows that cannot all be read."""
    yield GalleryItem(prompt="New")
    raise OSError("the disk is gone")


def test_a_page_is_whole_or_not_there(folder: Path) -> None:
    """Until it is written the old page stands; what broke leaves nothing behind."""
    write(folder, [GalleryItem(prompt="Old")], title="Old")

    with pytest.raises(OSError, match="the disk is gone"):
        write(folder, torn(), title="New")
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    assert "<title>Old</title>" in (folder / "index.html").read_text("utf-8")


# --- records -------------------------------------------------------------------------------------


def test_a_record_tells_all_that_a_row_knows(folder: Path) -> None:
    """Request, file, cost and time come together."""
    paint(folder / "gen_1.png")
    keep(folder / "log.jsonl", record(aspect_ratio="16:9"))
    assert rows(folder) == [
        GalleryItem(
            prompt="An egg",
            model="nanobanana",
            aspect_ratio="16:9",
            resolution="1k",
            status="completed",
            pictures=(SMALL,),
            cost=Decimal("0.02"),
            duration=9.5,
            task_id="gen_1",
        )
    ]


def test_rows_come_in_input_order(folder: Path) -> None:
    """Whatever came first; what has no place in the input comes last, and loose files after it."""
    kept = {"prompt": "E", "error": {"type": "TaskFailedError", "message": "No."}}
    lines = [record(index=n, id=f"gen_{n}", prompt="ABCD"[n], paths=[]) for n in (2, 0, 3, 1)]
    keep(folder / "log.jsonl", *lines, kept)
    paint(folder / "loose.png")
    assert [item.prompt for item in rows(folder)] == ["A", "B", "C", "D", "E", ""]


def test_the_same_item_is_shown_once(folder: Path) -> None:
    """The latest record of a task counts, and a failure that is also kept is no second one."""
    paint(folder / "gen_1.png")
    late = {"type": "TaskTimeoutError", "message": "Late."}
    broken = {"type": "TaskFailedError", "message": "Broken."}
    failed = record(id="gen_2", index=1, paths=[], prompt="A cock", error=broken, status="failed")
    keep(folder / "a.jsonl", record(ok=False, paths=[], error=late), failed)
    keep(folder / "b.jsonl", record())
    keep(folder / "failed.jsonl", {"prompt": "A cock", "error": broken})
    assert [(item.prompt, item.error) for item in rows(folder)] == [
        ("An egg", None),
        ("A cock", "Broken."),
    ]


def test_failures_without_a_task_are_told_apart(folder: Path) -> None:
    """By their place in the input; what two runs tell of the same place is shown once."""
    lost = {"type": "SubmissionUncertainError", "message": "Lost."}
    one, other = (record(id=None, index=n, ok=False, error=lost, paths=[]) for n in (0, 1))
    keep(folder / "a.jsonl", one, other)
    keep(folder / "b.jsonl", one)
    assert [item.error for item in rows(folder)] == ["Lost.", "Lost."]


def test_what_was_kept_is_shown_without_a_log(folder: Path) -> None:
    """`failed.jsonl` and `uncertain.jsonl` tell their reasons."""
    lost = {"type": "SubmissionUncertainError", "message": "The answer was lost."}
    keep(folder / "failed.jsonl", {"prompt": "A", "model": "m", "error": {"message": "No."}})
    keep(folder / "uncertain.jsonl", {"prompt": "B", "error": lost}, {"prompt": "C"}, "D")
    assert [(item.prompt, item.model, item.status, item.error) for item in rows(folder)] == [
        ("A", "m", "", "No."),
        ("B", "", "uncertain", "The answer was lost."),
    ]


ERRORS = {
    "a reason": ({"type": "TaskFailedError", "message": "No."}, ("failed", "No.")),
    "a kind without a reason": ({"type": "EggError"}, ("failed", "EggError")),
    "nothing at all": ({}, ("completed", "no reason was given")),
}


@pytest.mark.parametrize(("error", "told"), ERRORS.values(), ids=ERRORS)
def test_a_failure_has_a_reason(folder: Path, error: object, told: tuple[str, str]) -> None:
    """The service's, or at least what kind it was."""
    keep(folder / "log.jsonl", record(ok=False, error=error, paths=[]))
    (item,) = rows(folder)
    assert (item.status, item.error) == told


def test_a_line_of_nonsense_is_no_record(folder: Path) -> None:
    """Neither what is no JSON, nor other JSON, nor a folder of such a name."""
    lines = ["{oops", "[]", "7", '"A prompt"', '{"prompt": "An egg"}', '{"ok": true}', "[" * 99_999]
    (folder / "log.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    (folder / "folder.jsonl").mkdir()
    assert rows(folder) == []


ODD: dict[str, dict[str, Any]] = {
    "money that is none": {"cost": "a lot"},
    "money without an end": {"cost": "Infinity"},
    "money beyond counting": {"cost": "1e999999"},
    "no number of money": {"cost": float("nan")},
    "a time that is none": {"seconds": "soon"},
    "a time before it began": {"seconds": -1},
    "a time without an end": {"seconds": float("inf")},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_number_is_none(folder: Path, odd: dict[str, Any]) -> None:
    """It is left out, and the rest is shown."""
    keep(folder / "log.jsonl", record(**odd))
    (item,) = rows(folder)
    assert None in (item.cost, item.duration)
    assert (item.cost, item.duration) != (None, None)
    assert item.prompt == "An egg"


@pytest.mark.parametrize(
    "name", ["out/gen_1.png", "gen_1.png", "/far/away/gen_1.png", "../../out/gen_1.png"]
)
def test_a_picture_is_found_where_it_is_now(folder: Path, name: str) -> None:
    """A folder may be moved; a record cannot point out of it."""
    paint(folder / "gen_1.png")
    keep(folder / "log.jsonl", record(paths=[name]))
    (item,) = rows(folder)
    assert (item.pictures, item.error) == ((SMALL,), None)


def test_a_picture_in_a_folder_of_its_own_is_found(folder: Path) -> None:
    """Its path on the page begins at the page."""
    paint(folder / "birds" / "hen.png")
    keep(folder / "log.jsonl", record(paths=["out/birds/hen.png"]))
    assert [shown.path for item in rows(folder) for shown in item.pictures] == ["birds/hen.png"]


def test_a_picture_that_is_gone_is_missed(folder: Path) -> None:
    """The row says which; the one that is there is shown."""
    paint(folder / "gen_1-1.png")
    (folder / "gen_1-3.bin").touch()
    keep(
        folder / "log.jsonl", record(paths=[f"out/gen_1-{n}" for n in ("1.png", "2.png", "3.bin")])
    )
    (item,) = rows(folder)
    assert [shown.path for shown in item.pictures] == ["gen_1-1.png"]
    assert item.error == "nothing here to show for gen_1-2.png, gen_1-3.bin"


def test_a_jpeg_is_measured_behind_its_profile(folder: Path) -> None:
    """More is read of it than of others."""
    profile = b"\xff\xe2\xff\xfe" + bytes(65_532)
    frame = b"\xff\xc0\x00\x0b\x08\x01\xe0\x02\x80\x01" + bytes(4)
    (folder / "a.jpg").write_bytes(b"\xff\xd8" + profile + frame)
    (item,) = rows(folder)
    assert item.pictures == (GalleryPicture("a.jpg", 640, 480),)
