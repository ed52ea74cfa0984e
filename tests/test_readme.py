"""README and docs are true: their code runs against the emulator, their figures and links hold.

A block of Python runs as it stands, in virtual time, in a folder of its own. One that awaits
outside a function is a fragment: it gets a client called `egg`. A line of a shell block that
begins with `eggapi` is run in this process; one that would serve until Ctrl-C, or needs what is
not there, is only looked at: its options exist.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
import statistics
import sys
import types
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import pytest
from click.testing import CliRunner

import eggapi_async
from eggapi_async import emulator
from eggapi_async.cli import eggapi
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.pages import ROOT, Block, blocks, pages, read
from tests.virtual_time import run_virtual, virtual_clock

README = (ROOT / "README.md").read_text("utf-8")
PYTHON = [block for block in blocks("python") if block.test is None]
ELSEWHERE = [block for block in blocks("python", "sh", "console") if block.test is not None]


@pytest.mark.parametrize("block", PYTHON, ids=map(str, PYTHON))
def test_a_block_of_python_runs_as_it_stands(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Against the emulator and in virtual time, but otherwise unchanged."""

    def client(api_key: str = "readme-key", **options: Any) -> eggapi_async.AsyncEggClient:
        return connect(EggEmulator(clock=virtual_clock, seed=5), api_key, **options)

    def run(main: Coroutine[Any, Any, None]) -> None:
        async def whole() -> None:
            await main

        run_virtual(whole)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(eggapi_async, "AsyncEggClient", client)
    monkeypatch.setattr(emulator, "EggEmulator", partial(EggEmulator, clock=virtual_clock))
    monkeypatch.setattr(asyncio, "run", run)

    code = compile(block.text, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        run_virtual(run_fragment, code)
    else:
        exec(code, {"__name__": "__main__"})


async def run_fragment(code: types.CodeType) -> None:
    """Run code that awaits outside a function, as a notebook does, with a client at hand."""
    async with eggapi_async.AsyncEggClient() as egg:
        await eval(code, {"__name__": "__main__", "egg": egg})


def test_the_blocks_were_found() -> None:
    """An edit that hides them all from the test above is noticed."""
    assert len([block for block in PYTHON if block.page == "README.md"]) >= 4
    assert {"docs/batches.md", "docs/errors.md", "docs/money.md"} <= {b.page for b in PYTHON}


def test_every_fence_has_a_language() -> None:
    """A block without one would be neither coloured nor run."""
    assert [str(block) for path in pages() for block in read(path) if not block.language] == []


@pytest.mark.parametrize("block", ELSEWHERE, ids=map(str, ELSEWHERE))
def test_a_block_that_is_run_elsewhere_is(block: Block) -> None:
    """The test that it names knows its name."""
    assert block.test is not None
    assert f'"{block.name}"' in (ROOT / block.test).read_text("utf-8")


# --- shells --------------------------------------------------------------------------------------

SERVES = ("demo", "emulator", "webhook listen")
"""Commands that go on until Ctrl-C, and one that works long, and is tried by `test_cli`."""
INPUTS = {
    "prompts.txt": "an egg\na hen\n",
    "prompts.jsonl": '{"prompt": "an egg"}\n',
    "jobs.csv": "title,model\nan egg,nanobanana\n",
}
UNKNOWN = re.compile(r"…|[<>|]|gen_|https?://(?!127)")
"""Where a line needs something that only its reader has, or a real shell."""


def commands() -> list[tuple[str, list[str]]]:
    """Each shell block's lines that call us: where it stands, and the commands in it."""
    found = []
    for block in blocks("sh", "console"):
        lines = [line.removeprefix("$ ").strip() for line in block.text.splitlines()]
        ours = [line for line in lines if line.startswith("eggapi ")]
        if ours:
            found.append((str(block), ours))
    return found


@pytest.mark.parametrize("lines", [c[1] for c in commands()], ids=[c[0] for c in commands()])
def test_the_commands_of_a_shell_block_work(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One after the other, in a folder that has the inputs which pages speak of."""
    monkeypatch.chdir(tmp_path)
    for name, text in INPUTS.items():
        (tmp_path / name).write_text(text, "utf-8")
    for folder in ("out", "part3"):
        (tmp_path / folder).mkdir()

    for line in lines:
        said = told(shlex.split(line.partition(" | ")[0], comments=True)[1:], line)
        assert said.exit_code == 0, f"{line}\n{said.output}"


def told(words: list[str], line: str) -> Any:
    """What the command line says to these words, its emulator being very fast."""
    if " ".join(words).startswith(SERVES) or UNKNOWN.search(line.partition("#")[0]):
        words = [*(word for word in words if word not in (">", "<", "…")), "--help"]
    env = {"EGGAPI_EMULATOR": "1", "EGGAPI_EMULATOR_SPEED": "400", "NO_PROXY": "*"}
    with mock.patch.object(sys, "argv", ["eggapi", *words]):
        return CliRunner().invoke(eggapi, words, env=env, prog_name="eggapi")


# --- figures, links, pins ------------------------------------------------------------------------


def test_the_figures_of_the_first_list_hold() -> None:
    """500 pictures with default settings: requests beyond the submissions, and the median lag."""

    async def batch() -> tuple[float, float]:
        service = EggEmulator(clock=anyio.current_time, seed=1)
        lags = []
        async with connect(service) as egg:

            async def one(number: int) -> None:
                task = await egg.generate(f"egg {number}")
                await task
                lags.append(anyio.current_time() - service.task(task.id).completed_at)

            await asyncio.gather(*map(one, range(500)))
            return egg.stats.polls / 500, statistics.median(lags)

    polls, lag = run_virtual(batch)

    assert polls <= 0.6
    assert lag <= 0.3


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    """A page names only files that are there, and only headings that they have."""
    broken = [link for link in links(path.read_text("utf-8")) if not leads(path, link)]
    assert broken == []


def links(page: str) -> list[str]:
    """What a page links to, apart from the web; code is no page."""
    return re.findall(r"\]\((?!https?://)([^)\s]+)\)", re.sub(r"```.*?```", "", page, flags=re.S))


def leads(page: Path, link: str) -> bool:
    """True when the file is there, and the heading in it."""
    name, _, anchor = link.partition("#")
    goal = page.parent / name if name else page
    if not goal.exists():
        return False
    return not anchor or anchor in anchors(goal.read_text("utf-8"))


def anchors(page: str) -> list[str]:
    """The anchors that headings get."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.S), re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    """The site shows each name by its docstring."""
    told = re.findall(r"^::: eggapi_async\.(\w+)$", (ROOT / "docs/api.md").read_text("utf-8"), re.M)
    assert {*told} >= {*eggapi_async.__all__} - {"__version__"}
    assert [name for name in told if not hasattr(eggapi_async, name)] == []


def test_every_error_is_on_the_page_of_errors() -> None:
    """Whoever meets one finds what happened, and what to do."""
    text = (ROOT / "docs/errors.md").read_text("utf-8")
    errors = [name for name in eggapi_async.__all__ if name.endswith("Error")]
    assert [name for name in errors if f"`{name}`" not in text and f"`{name}`s" not in text] == []


def test_every_page_is_on_the_site() -> None:
    """No page is written and never found; none leads to a page that the site does not have."""
    site = (ROOT / "zensical.toml").read_text("utf-8")
    docs = [path for path in pages() if path.parent.name == "docs"]
    assert [path.name for path in docs if f'"{path.name}"' not in site] == []
    beyond = [(p.name, link) for p in docs for link in links(p.read_text("utf-8")) if "../" in link]
    assert [link for _, link in beyond if link.partition("#")[0].endswith(".md")] == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    """The checks above find what they are for."""
    page = tmp_path / "page.md"
    page.write_text("# A key, or none\n[a](gone.md) [b](page.md#none) [c](#a-key-or-none)", "utf-8")
    found = links(page.read_text("utf-8"))
    assert [leads(page, link) for link in found] == [False, False, True]


def test_the_version_has_an_entry_in_the_changelog() -> None:
    """No release without words for its users."""
    assert f"## [{eggapi_async.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_no_pinned_file_names_a_host() -> None:
    """Pins must work with any index."""
    text = (ROOT / "constraints.txt").read_text("utf-8")

    assert "==" in text
    assert "://" not in text
    assert "--" not in text
