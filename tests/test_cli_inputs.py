"""Reading prompts: three formats, line numbers, and pipes that keep one waiting."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import click
import pytest

from eggapi_async.cli.inputs import Line, Source, Unreadable
from eggapi_async.cli.pipe import from_pipe


def read(
    folder: Path, name: str, text: str | bytes, *, format: str | None = None, column: str = "prompt"
) -> list[Line]:
    """The lines of a file of this name with this content."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    source = Source.of(str(path), format=format, prompt_column=column, limit=None)
    lines = list(source.lines())
    assert source.total() == len(lines)
    return lines


FILES: dict[str, tuple[str, str | bytes, list[tuple[int, Any]]]] = {
    "text skips blank lines and comments": (
        "a.txt",
        "An egg\n\n  # a remark\n  A hen \n",
        [(1, "An egg"), (4, "A hen")],
    ),
    "text may begin with a byte order mark": ("a.txt", b"\xef\xbb\xbfAn egg", [(1, "An egg")]),
    "text may end lines as Windows does": (
        "a.txt",
        "An egg\r\nA hen\r\n",
        [(1, "An egg"), (2, "A hen")],
    ),
    "text that is no UTF-8 comes as it is": ("a.txt", b"caf\xe9", [(1, "caf\udce9")]),
    "any other suffix is text": ("prompts", "An egg", [(1, "An egg")]),
    "JSON lines are objects or strings": (
        "a.jsonl",
        '{"prompt": "An egg", "num_outputs": 2}\n\n"A hen"\n',
        [(1, {"prompt": "An egg", "num_outputs": 2}), (3, "A hen")],
    ),
    "ndjson is JSON lines": ("a.NDJSON", '"A hen"', [(1, "A hen")]),
    "the error of an earlier run is left out": (
        "a.jsonl",
        '{"prompt": "An egg", "error": {"message": "no"}}',
        [(1, {"prompt": "An egg"})],
    ),
    "a line that is no JSON is a value": (
        "a.jsonl",
        '"A hen"\n{oops\n',
        [
            (1, "A hen"),
            (
                2,
                Unreadable(
                    "not JSON: Expecting property name enclosed in double quotes:"
                    " line 1 column 2 (char 1)"
                ),
            ),
        ],
    ),
    "a JSON number is no prompt": (
        "a.jsonl",
        "7",
        [(1, Unreadable("expected a JSON object or string"))],
    ),
    "CSV uses the columns that it knows": (
        "a.csv",
        "who,prompt,num_outputs,image_urls,model\nme,An egg,2,https://a/1 https://a/2,\n",
        [
            (
                2,
                {
                    "prompt": "An egg",
                    "num_outputs": 2,
                    "image_urls": ["https://a/1", "https://a/2"],
                },
            )
        ],
    ),
    "CSV cells may have many lines": (
        "a.csv",
        'prompt\n"An egg\non a spoon"\nA hen\n',
        [(3, {"prompt": "An egg\non a spoon"}), (4, {"prompt": "A hen"})],
    ),
    "a CSV number that is none is left to the request to refuse": (
        "a.csv",
        "prompt,duration\nAn egg,long\n",
        [(2, {"prompt": "An egg", "duration": "long"})],
    ),
    "a CSV row that is too short has an empty prompt": (
        "a.csv",
        "model,prompt\nnanobanana\n",
        [(2, {"prompt": "", "model": "nanobanana"})],
    ),
}


@pytest.mark.parametrize(("name", "text", "expected"), FILES.values(), ids=FILES)
def test_a_file_is_read(
    tmp_path: Path, name: str, text: str | bytes, expected: list[tuple[int, Any]]
) -> None:
    """Every line comes with its number and what it asks for."""
    assert [(line.number, line.item) for line in read(tmp_path, name, text)] == expected


def test_a_format_wins_over_the_suffix(tmp_path: Path) -> None:
    """`--format` is believed, whatever the file is called."""
    assert [line.item for line in read(tmp_path, "a.txt", '"A hen"', format="jsonl")] == ["A hen"]


def test_another_column_may_hold_the_prompts(tmp_path: Path) -> None:
    """With `--prompt-column` a column of any name is the prompt, even one named like a field."""
    lines = read(tmp_path, "a.csv", "model,title\nAn egg,x\n", column="model")
    assert [line.item for line in lines] == [{"prompt": "An egg"}]


@pytest.mark.parametrize(("text", "there"), [("a,b\n1,2\n", "a, b"), ("", "nothing")])
def test_a_missing_column_is_a_matter_of_usage(tmp_path: Path, text: str, there: str) -> None:
    """Without the prompts' column nothing is begun; the message says which ones there are."""
    with pytest.raises(
        click.UsageError, match=f"no column 'prompt' in the first line, but {there}"
    ):
        read(tmp_path, "a.csv", text)


def test_a_cell_that_csv_refuses_is_a_value(tmp_path: Path) -> None:
    """A row beyond the format's limits fails by itself; the next one is read."""
    lines = read(tmp_path, "a.csv", f"prompt\n{'x' * 200_000}\nA hen\n")
    assert isinstance(lines[0].item, Unreadable)
    assert lines[0].item.problem == "not CSV: field larger than field limit (131072)"
    assert lines[1].item == {"prompt": "A hen"}


def test_a_limit_ends_the_reading(tmp_path: Path) -> None:
    """`--limit` counts what is used, in the total too."""
    (tmp_path / "a.txt").write_text("# one\nAn egg\nA hen\nA cock\n")
    source = Source.of(str(tmp_path / "a.txt"), format=None, prompt_column="prompt", limit=2)
    assert [line.item for line in source.lines()] == ["An egg", "A hen"]
    assert source.total() == 2


def test_standard_input_has_no_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without a file behind it is read too; how long it is, nobody knows."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("An egg\n"))
    source = Source.of("-", format=None, prompt_column="prompt", limit=None)
    assert source.total() is None
    assert source.name == "standard input"
    assert [line.item for line in source.lines()] == ["An egg"]


def test_standard_input_is_read_through_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands behind sys.stdin is read, and left open."""
    (tmp_path / "in").write_text("An egg\n")
    with (tmp_path / "in").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = Source.of("-", format="txt", prompt_column="prompt", limit=None)
        assert [line.item for line in source.lines()] == ["An egg"]
        assert stdin.fileno() >= 0


async def test_a_pipe_gives_what_comes() -> None:
    """Lines from a thread arrive in order, and the end ends them."""
    assert [line async for line in from_pipe(iter(range(300)))] == list(range(300))


async def test_a_pipe_passes_errors_on() -> None:
    """What goes wrong in the thread is raised where the lines are wanted."""

    def lines() -> Iterator[int]:
        yield 1
        raise click.UsageError("no such column")

    came = from_pipe(lines())
    assert await anext(came) == 1
    with pytest.raises(click.UsageError, match="no such column"):
        await anext(came)


@pytest.mark.real_time
async def test_a_silent_pipe_blocks_nobody() -> None:
    """While a pipe says nothing, everything else goes on, and the wait can be given up."""
    from threading import Event

    more = Event()

    def lines() -> Iterator[int]:
        yield 1
        more.wait()

    came = from_pipe(lines())
    assert await anext(came) == 1
    with anyio.move_on_after(0.1) as scope:
        await anext(came)
    more.set()
    assert scope.cancelled_caught
