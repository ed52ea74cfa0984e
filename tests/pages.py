"""The pages that people read, and the blocks of code in them, for tests that run these.

A block stands in a fence with its language. A comment before the fence says what is special about
it: `<!-- block: NAME, run by tests/test_apps.py -->` for one that another test runs, which gets it
by `named()`.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent
SKILL = "eggapi_async/.agents/skills/eggapi-async/SKILL.md"

_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<language>\w*)[^\n]*\n"
    r"(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
_MARK = re.compile(r"block: (?P<name>[\w-]+), run by (?P<test>tests/test_\w+\.py)")


@attrs.frozen
class Block:
    """A block of code: where it stands, in what language, and which test of its own it has."""

    page: str
    line: int
    language: str
    text: str
    name: str | None = None
    test: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page in Markdown that is for people, or for the agents that work for them."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / SKILL]
    return sorted(path for path in found if path.exists())


def blocks(*languages: str) -> list[Block]:
    """The blocks in these languages, on all pages."""
    return [block for path in pages() for block in read(path) if block.language in languages]


def read(path: Path) -> list[Block]:
    """The blocks on one page, in their order."""
    page = path.read_text("utf-8")
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return [_block(name, page, match) for match in _FENCE.finditer(page)]


def _block(name: str, page: str, match: re.Match[str]) -> Block:
    mark = _MARK.fullmatch(match["mark"] or "")
    indent = match["indent"]
    return Block(
        page=name,
        line=page.count("\n", 0, match.start("indent")) + 1,
        language=match["language"],
        text="".join(line.removeprefix(indent) for line in match["text"].splitlines(True)),
        name=mark and mark["name"],
        test=mark and mark["test"],
    )


def named(page: str, name: str) -> str:
    """The text of the block with that *name*."""
    [block] = [block for block in read(ROOT / page) if block.name == name]
    return block.text
