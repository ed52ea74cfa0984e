"""Files on disk: where outputs go, and that one appears there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from eggapi_async._files import Output, Part, _sync_folder, kept_in, plan, sweep, whole_file
from eggapi_async.errors import DownloadError, EggError, InvalidRequestError
from eggapi_async.models import TaskSnapshot
from tests.content_host import webp

URL = "https://cdn.eggapi.ai/outputs/abc123.png?signature=hush"
IEND = b"\x00\x00\x00\x00IEND\xaeB`\x82"
PNG = b"\x89PNG\r\n\x1a\n" + b"\x01" * 100 + IEND
MP4 = b"\x00\x00\x00\x18ftypisom" + b"\x01" * 100


def task(*urls: str, task_id: str = "gen_1") -> TaskSnapshot:
    """A completed task with these outputs."""
    return TaskSnapshot(id=task_id, status="completed", urls=urls)


def output(folder: Path, **fields: Any) -> Output:
    """The single output of `gen_1`, on its way to *folder*."""
    return Output(**{"url": URL, "folder": folder, "stem": "gen_1", **fields})


def names(folder: Path) -> list[str]:
    """What is in *folder*, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


# --- where outputs go ------------------------------------------------------------------------


def test_one_output_is_named_by_its_task(tmp_path: Path) -> None:
    """The folder is made, and the suffix follows from the bytes later."""
    folder = tmp_path / "out" / "today"
    [planned] = plan(task(URL), folder, overwrite=False)
    assert planned == Output(URL, folder, "gen_1", part="gen_1", task_id="gen_1")
    assert planned.path(".png") == folder / "gen_1.png"
    assert folder.is_dir()


def test_many_outputs_are_numbered(tmp_path: Path) -> None:
    """The numbers begin with 1, in the order of the outputs."""
    planned = plan(task(URL, URL), tmp_path, overwrite=False)
    assert [file.path(".png").name for file in planned] == ["gen_1-1.png", "gen_1-2.png"]


def test_a_single_output_may_go_to_a_file(tmp_path: Path) -> None:
    """A destination with a suffix is a file's name, and stays whatever the bytes are."""
    [planned] = plan(task(URL), tmp_path / "new" / "cat.jpeg", overwrite=False)
    assert planned.path(".png") == tmp_path / "new" / "cat.jpeg"
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize(
    ("destination", "is_folder"),
    [
        pytest.param("out", True, id="a name without a suffix is a folder"),
        pytest.param("out.d/", True, id="a separator at the end makes a folder"),
        pytest.param("there.d", True, id="a folder that exists is one"),
        pytest.param("cat.png", False, id="a suffix makes a file"),
        pytest.param(".hidden", True, id="a leading dot is no suffix"),
    ],
)
def test_folder_or_file(tmp_path: Path, destination: str, is_folder: bool) -> None:
    """What a destination means follows from its look, and from what is there."""
    (tmp_path / "there.d").mkdir()
    [planned] = plan(task(URL), os.path.join(tmp_path, destination), overwrite=False)
    assert (planned.name is None) is is_folder


@pytest.mark.parametrize(
    ("url", "name"),
    [
        pytest.param(URL, "abc123.png", id="the last part names it, without query and suffix"),
        pytest.param("https://x/a.tar.gz", "a.png", id="only up to the first dot"),
        pytest.param("https://x/", "output.png", id="no last part is an output"),
        pytest.param("https://x", "output.png", id="no path is an output"),
        pytest.param("https://x/.png", "output.png", id="a suffix alone is an output"),
        pytest.param("https://x/..", "output.png", id="two dots lead nowhere"),
        pytest.param("https://x/%2e%2e%2fetc%2fpasswd", "passwd.png", id="nor do they in disguise"),
        pytest.param("https://x/a%00b%0Ac\\d:e", "a_b_c_d_e.png", id="odd characters are replaced"),
        pytest.param("https://x/%D0%BA.png", "_.png", id="so are letters of other scripts"),
        pytest.param("https://x/" + "a" * 300, "a" * 100 + ".png", id="long names are cut"),
    ],
)
def test_a_url_gives_its_name(tmp_path: Path, url: str, name: str) -> None:
    """A bare URL is named by its path, as a name that leads nowhere."""
    [planned] = plan(url, tmp_path, overwrite=False)
    assert planned.path(".png") == tmp_path / name
    assert not planned.is_of_task


@pytest.mark.parametrize(
    "task_id",
    ["../../etc/passwd", "a/b", "..", "/etc/x", pytest.param("a\x00b", id="NUL"), "🐈" * 300],
)
def test_an_id_leads_nowhere(tmp_path: Path, task_id: str) -> None:
    """Whatever the service calls a task, its files stay in the folder."""
    [planned] = plan(task(URL, task_id=task_id), tmp_path, overwrite=False)
    assert planned.path(".png").parent == tmp_path
    part = Part.open(planned)
    assert planned.is_of_task
    part.write(PNG)
    assert part.publish(planned, overwrite=False).parent == tmp_path


def test_a_task_without_output_has_nothing_to_fetch(tmp_path: Path) -> None:
    """A pending task, say; nothing is made."""
    with pytest.raises(DownloadError, match="gen_1: the task has no output to fetch"):
        plan(task(), tmp_path / "out", overwrite=False)
    assert names(tmp_path) == []


def test_many_outputs_need_a_folder(tmp_path: Path) -> None:
    """One file name cannot hold two outputs; nothing is made."""
    with pytest.raises(InvalidRequestError, match="destination: expected a folder, for 2 outputs"):
        plan(task(URL, URL), tmp_path / "new" / "cat.png", overwrite=False)
    assert names(tmp_path) == []


def test_a_file_that_exists_is_not_planned_over(tmp_path: Path) -> None:
    """It is refused before anything is fetched, unless overwriting is asked for."""
    (tmp_path / "cat.png").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"cat\.png exists already") as caught:
        plan(task(URL), tmp_path / "cat.png", overwrite=False)
    assert "hush" not in str(caught.value)
    [planned] = plan(task(URL), tmp_path / "cat.png", overwrite=True)
    assert planned.name == "cat.png"


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    """A folder that cannot be made says why."""
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"cannot make .*out: File exists"):
        plan(task(URL), tmp_path / "out", overwrite=False)


# --- what is there already -------------------------------------------------------------------


def test_nothing_is_there(tmp_path: Path) -> None:
    """An empty folder has no earlier fetch."""
    assert whole_file(output(tmp_path)) is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_earlier_fetch_is_found(tmp_path: Path, suffix: str) -> None:
    """A whole file of the task is taken as it is, under any suffix."""
    path = tmp_path / f"gen_1{suffix}"
    path.write_bytes(PNG)
    assert whole_file(output(tmp_path)) == path


def test_an_earlier_webp_is_found(tmp_path: Path) -> None:
    """Its size stands at its start."""
    path = tmp_path / "gen_1.webp"
    path.write_bytes(webp(b"a picture" * 20))
    assert whole_file(output(tmp_path)) == path


def test_files_that_a_journal_knows_are_kept_while_all_are_whole(tmp_path: Path) -> None:
    """Told as the caller calls the folder; one that is cut, gone or elsewhere is fetched again."""
    folder = tmp_path / "out"
    folder.mkdir()
    first, second = folder / "a.png", folder / "b.webp"
    first.write_bytes(PNG)
    second.write_bytes(webp(b"aa"))
    (tmp_path / "link").symlink_to(folder)
    link = tmp_path / "link"

    assert kept_in(str(folder), [first, second]) == [first, second]
    assert kept_in(str(link), [first]) == [link / "a.png"]
    assert kept_in(str(folder), []) == []
    assert kept_in(str(tmp_path / "elsewhere"), [first]) == []
    assert kept_in(str(folder), [first, folder / "c.png"]) == []
    second.write_bytes(webp(b"aa")[:-2])
    assert kept_in(str(folder), [first, second]) == []


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        pytest.param(PNG[:-1], {}, id="half a picture is in the way"),
        pytest.param(b"", {}, id="an empty file is in the way"),
        pytest.param(b"mine", {}, id="something else is in the way"),
        pytest.param(MP4, {}, id="a video's end cannot be told"),
        pytest.param(PNG, {"name": "gen_1.png"}, id="a file that was named is not taken for ours"),
        pytest.param(PNG, {"is_of_task": False}, id="another URL may have the same name"),
    ],
)
def test_what_is_in_the_way_is_told(tmp_path: Path, data: bytes, fields: dict[str, Any]) -> None:
    """What is not surely the output of this task is neither taken nor replaced."""
    path = tmp_path / "gen_1.png"
    path.write_bytes(data)
    with pytest.raises(DownloadError, match=r"gen_1\.png exists already"):
        whole_file(output(tmp_path, **fields))
    assert path.read_bytes() == data


def test_a_folder_is_in_the_way(tmp_path: Path) -> None:
    """A folder of the output's name is no earlier fetch."""
    (tmp_path / "gen_1.png").mkdir()
    with pytest.raises(DownloadError, match=r"gen_1\.png exists already"):
        whole_file(output(tmp_path))


# --- a file in the making --------------------------------------------------------------------


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    """Until it is published only a hidden file is there; then only the named one."""
    part = Part.open(output(tmp_path))
    part.write(PNG[:10])
    part.write(PNG[10:])
    [hidden] = names(tmp_path)
    assert hidden.startswith(".gen_1.")
    assert hidden.endswith(".part")
    path = part.publish(output(tmp_path), overwrite=False)
    assert (path, path.read_bytes()) == (tmp_path / "gen_1.png", PNG)
    assert names(tmp_path) == ["gen_1.png"]
    part.discard()
    assert names(tmp_path) == ["gen_1.png"]


def test_a_long_name_is_hidden_too(tmp_path: Path) -> None:
    """The name of the part is short enough for every file system."""
    planned = output(tmp_path, stem="x" * 100)
    part = Part.open(planned)
    assert len(names(tmp_path)[0]) < 100
    part.discard()


def test_two_parts_of_one_output_do_not_meet(tmp_path: Path) -> None:
    """Two programs that fetch the same output write to files of their own."""
    one, two = Part.open(output(tmp_path)), Part.open(output(tmp_path))
    assert len(names(tmp_path)) == 2
    one.discard()
    two.discard()
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [1, 7, 16, 32, 33, 1000])
def test_head_and_tail_are_those_of_the_whole(tmp_path: Path, size: int) -> None:
    """However the body is cut into pieces, its ends and its length are known."""
    data = bytes(range(256)) * 2
    part = Part.open(output(tmp_path))
    for start in range(0, len(data), size):
        part.write(data[start : start + size])
    assert (part.head, part.tail, part.size) == (data[:16], data[-32:], len(data))
    part.discard()


def test_a_body_that_begins_again(tmp_path: Path) -> None:
    """What had come is forgotten, on disk too."""
    part = Part.open(output(tmp_path))
    part.write(b"x" * 500)
    part.restart('"v2"')
    assert (part.size, part.head, part.tail) == (0, b"", b"")
    part.write(PNG)
    assert part.publish(output(tmp_path), overwrite=False).read_bytes() == PNG


@pytest.mark.parametrize(
    ("etag", "data", "headers"),
    [
        pytest.param(
            '"v1"', b"12345", {"Range": "bytes=5-", "If-Range": '"v1"'}, id="a strong one"
        ),
        pytest.param('W/"v1"', b"12345", {}, id="a weak one does not prove the same bytes"),
        pytest.param("", b"12345", {}, id="none proves nothing"),
        pytest.param('"v1"', b"", {}, id="with nothing there is nothing to go on from"),
    ],
)
def test_going_on(tmp_path: Path, etag: str, data: bytes, headers: dict[str, str]) -> None:
    """The rest is asked for only where an ETag proves that it is the rest of the same."""
    part = Part.open(output(tmp_path))
    part.restart(etag)
    part.write(data)
    assert part.resume() == headers
    part.discard()


@pytest.mark.parametrize(
    ("content_range", "etag", "does"),
    [
        pytest.param("bytes 5-9/10", "", True, id="the rest from here"),
        pytest.param("bytes 5-9/10", '"v1"', True, id="the rest of the same version"),
        pytest.param("bytes 5-9/10", '"v2"', False, id="not the rest of another version"),
        pytest.param("bytes 4-9/10", "", False, id="not from before"),
        pytest.param("bytes 50-99/100", "", False, id="not from later"),
        pytest.param("bytes 0-9/10", "", False, id="not from the start"),
        pytest.param("", "", False, id="not from nobody knows where"),
    ],
)
def test_what_continues(tmp_path: Path, content_range: str, etag: str, does: bool) -> None:
    """A partial answer counts only where it begins exactly where we are."""
    part = Part.open(output(tmp_path))
    part.restart('"v1"')
    part.write(b"12345")
    assert part.continues(content_range, etag) is does
    part.restart('"v1"')
    assert not part.continues("bytes 0-9/10")
    part.discard()


# --- what the dead have left -----------------------------------------------------------------


def test_what_a_dead_fetch_left_is_removed_and_what_a_living_one_has_is_not(
    tmp_path: Path,
) -> None:
    """A part is locked while somebody has it open, and by nobody else's leave."""
    living = Part.open(output(tmp_path))
    (tmp_path / ".gen_2.0123456789ab.part").write_bytes(PNG)
    kept = [".gen_2.part", "gen_2.0123456789ab.part", ".gen_2.0123456789AB.part", "notes.txt"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".link.0123456789ab.part").symlink_to(tmp_path / "notes.txt")
    (tmp_path / ".folder.0123456789ab.part").mkdir()
    sweep(tmp_path)
    kept += [".link.0123456789ab.part", ".folder.0123456789ab.part"]
    left = set(names(tmp_path))
    assert left > set(kept)
    [part] = left - set(kept)
    assert part.startswith(".gen_1.")
    living.write(PNG)
    assert living.publish(output(tmp_path), overwrite=False).read_bytes() == PNG
    living.discard()


@pytest.mark.skipif(os.name == "nt", reason="no pipes with names there")
def test_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    """Opening one to read waits for a writer, which may never come."""
    os.mkfifo(tmp_path / ".gen_1.0123456789ab.part")
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    """Tidying up is no reason to fail."""
    sweep(tmp_path / "none")


def test_where_open_files_cannot_be_removed_no_lock_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor may an open one be renamed there: it is closed before."""
    path = tmp_path / ".gen_2.0123456789ab.part"
    path.touch()
    part = Part.open(output(tmp_path))
    part.write(PNG)
    elsewhere = tmp_path.with_name("elsewhere")
    elsewhere.mkdir()
    path.rename(elsewhere / path.name)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        sweep(elsewhere)
        final = part.publish(output(tmp_path), overwrite=False)
    assert names(elsewhere) == []
    assert final.read_bytes() == PNG


def test_a_part_that_was_taken_for_a_dead_ones_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making and its lock another may tidy up; and some file systems know no locks."""
    swept: list[int] = []

    def lock(descriptor: int, _: int) -> None:
        if not swept:
            swept.append(descriptor)
            (only,) = tmp_path.iterdir()
            only.unlink()
        else:
            raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", lock)
    part = Part.open(output(tmp_path))
    part.write(PNG)
    assert part.publish(output(tmp_path), overwrite=False).read_bytes() == PNG
    assert names(tmp_path) == ["gen_1.png"]


# --- publishing ------------------------------------------------------------------------------


def ready(folder: Path) -> Part:
    """A whole picture, not yet published."""
    part = Part.open(output(folder))
    part.write(PNG)
    return part


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    """One that appeared meanwhile stays, and nothing half-written does."""
    (tmp_path / "gen_1.png").write_bytes(b"mine")
    part = ready(tmp_path)
    with pytest.raises(DownloadError, match=r"gen_1\.png exists already"):
        part.publish(output(tmp_path), overwrite=False)
    part.discard()
    assert names(tmp_path) == ["gen_1.png"]
    assert (tmp_path / "gen_1.png").read_bytes() == b"mine"


def test_an_existing_file_is_replaced_when_asked(tmp_path: Path) -> None:
    """Overwriting replaces the file in one step."""
    (tmp_path / "gen_1.png").write_bytes(b"mine")
    path = ready(tmp_path).publish(output(tmp_path), overwrite=True)
    assert path.read_bytes() == PNG
    assert names(tmp_path) == ["gen_1.png"]


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no hard links."""

    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("no_links")
def test_a_file_system_without_links(tmp_path: Path) -> None:
    """A rename does where a link cannot."""
    assert ready(tmp_path).publish(output(tmp_path), overwrite=False).read_bytes() == PNG
    assert names(tmp_path) == ["gen_1.png"]


@pytest.mark.usefixtures("no_links")
def test_a_file_system_without_links_keeps_what_is_there(tmp_path: Path) -> None:
    """A rename would replace: so it is looked before."""
    (tmp_path / "gen_1.png").write_bytes(b"mine")
    part = ready(tmp_path)
    with pytest.raises(DownloadError, match="exists already"):
        part.publish(output(tmp_path), overwrite=False)
    part.discard()
    assert (tmp_path / "gen_1.png").read_bytes() == b"mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """What could not be written is discarded without another error."""
    path = tmp_path / ".gen_1.part"
    path.touch()
    part = Part(os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"), path)
    part.write(PNG)
    with pytest.raises(OSError, match="No space left"):
        part.publish(output(tmp_path), overwrite=False)
    part.discard()
    assert names(tmp_path) == []


def test_discarding_what_cannot_be_removed_is_quiet(tmp_path: Path) -> None:
    """The first trouble is the one to tell; cleaning up adds none."""
    part = Part((tmp_path / "x").open("wb"), tmp_path)
    part.discard()
    assert tmp_path.is_dir()


def test_a_folder_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new name is made durable, where folders can be opened; the folder is closed again."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    _sync_folder(tmp_path)
    [descriptor] = synced
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_folder_that_cannot_be_opened_is_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows knows no open folders: there the name is left to the system."""
    missing = Path("no", "such", "folder")
    with pytest.raises(FileNotFoundError):
        _sync_folder(missing)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        _sync_folder(missing)


def test_every_refusal_is_an_egg_error() -> None:
    """`except EggError` catches what these functions refuse."""
    assert issubclass(DownloadError, EggError)
    assert issubclass(InvalidRequestError, EggError)


# --- names of the caller's -----------------------------------------------------------------------


def test_outputs_may_be_named(tmp_path: Path) -> None:
    """In place of the task's id, in a folder below if it says so."""
    [planned] = plan(task(URL), tmp_path, overwrite=False, stem="today/egg")
    assert planned.path(".png") == tmp_path / "today" / "egg.png"
    assert planned.is_named
    assert (tmp_path / "today").is_dir()
    two = plan(task(URL, URL), tmp_path, overwrite=False, stem="egg")
    assert [file.path(".png").name for file in two] == ["egg-1.png", "egg-2.png"]


@pytest.mark.parametrize(
    "stem",
    [
        *("", ".", "..", "../egg", "a/../egg", "/egg", "a//egg", ".egg", "egg/", "c:egg", 7),
        pytest.param("a\\egg", id="backslash"),
        pytest.param("egg\0", id="NUL"),
        pytest.param("egg\ud800", id="surrogate"),
        pytest.param("e" * 201, id="too long"),
    ],
    ids=repr,
)
def test_a_name_cannot_leave_the_folder(tmp_path: Path, stem: Any) -> None:
    """It is refused before anything is made."""
    with pytest.raises(InvalidRequestError, match="stays in its folder") as caught:
        plan(task(URL), tmp_path / "out", overwrite=False, stem=stem)
    assert caught.value.field == "name"
    assert names(tmp_path) == []


def published(folder: Path, content: bytes, **fields: Any) -> Path:
    """An output with that content under its final name."""
    one = output(folder, **fields)
    part = Part.open(one)
    try:
        part.write(content)
        return part.publish(one, overwrite=False)
    finally:
        part.discard()


@pytest.mark.parametrize("links", [True, False], ids=["with links", "without links"])
def test_only_the_same_file_may_have_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """What a killed process has left is taken as it is; what is another's stays."""
    if not links:
        monkeypatch.setattr(os, "link", refuse_link)
    assert whole_file(output(tmp_path, is_named=True)) is None
    first = published(tmp_path, PNG, is_named=True)
    assert whole_file(output(tmp_path, is_named=True)) is None
    assert published(tmp_path, PNG, is_named=True) == first
    with pytest.raises(DownloadError, match="exists already"):
        published(tmp_path, PNG[:9] + b"\x02" + PNG[10:], is_named=True)
    assert first.read_bytes() == PNG
    assert names(tmp_path) == [first.name]


def refuse_link(*_: object) -> None:
    """A file system that knows no hard links."""
    raise OSError(95, "Operation not supported")


def test_a_named_file_is_made_under_its_tasks_name(tmp_path: Path) -> None:
    """So that what a kill has left of it is known for what it is; and a long name has room."""
    [planned] = plan(task(URL), tmp_path, overwrite=False, stem="ж" * 95)
    part = Part.open(planned)
    assert names(tmp_path)[0].startswith(".gen_1.")
    part.discard()
