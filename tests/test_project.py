"""What surrounds the package: metadata, the page for agents, workflows, the gate's own tools."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import eggapi_async
from tests.pages import ROOT, SKILL

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CITATION = (ROOT / "CITATION.cff").read_text("utf-8")


def test_a_plain_install_brings_only_what_was_promised() -> None:
    """httpx, attrs, cattrs and anyio; httpcore comes with httpx anyway."""
    names = {re.split(r"[^\w.-]", text)[0] for text in PROJECT["dependencies"]}
    assert names == {"anyio", "attrs", "cattrs", "httpcore", "httpx"}


def test_the_citation_is_of_this_version() -> None:
    """Version and date are those of the changelog."""
    assert f"version: {eggapi_async.__version__}\n" in CITATION
    [date] = re.findall(r'^date-released: "(.*)"$', CITATION, re.M)
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## [{eggapi_async.__version__}] - {date}" in changelog


def test_agents_find_their_page() -> None:
    """It is called like its folder, and says in a few lines what it is for."""
    _, front, text = (ROOT / SKILL).read_text("utf-8").split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in front.splitlines())
    assert fields["name"] == Path(SKILL).parent.name
    assert 50 < len(fields["description"]) <= 1024
    assert len(text.splitlines()) < 200


def test_there_are_workflows() -> None:
    """The checks below have something to look at."""
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_no_more_than_it_must(path: Path) -> None:
    """No right that is not given to a job, no secret, no action without a version, no registry."""
    text = path.read_text("utf-8")
    assert "\npermissions: {}\n" in text
    assert set(re.findall(r"^ +([a-z-]+): (?:write|write-all)$", text, re.M)) <= {"id-token"}
    assert "secrets." not in text
    assert "://" not in text
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert [
        action for action in used if not re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", action)
    ] == []


def test_only_the_job_that_publishes_can_identify_itself() -> None:
    """What builds the packages could not publish them, and what publishes them builds nothing."""
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    build, publish = text.split("\n  publish:\n")
    assert "id-token" not in build
    assert "run:" not in publish


# --- the gate's own tools ------------------------------------------------------------------------


def tool(name: str, *arguments: str) -> tuple[int, str]:
    """How one of them ends, and what it says."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_dead_links_are_found(tmp_path: Path) -> None:
    """Files and anchors that are not there, in whatever page of the folder."""
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y"></a><a href="#x"></a>', "utf-8")
    (tmp_path / "b.html").write_text('<p id="y"><a href="https://a.test/"></a>', "utf-8")
    assert tool("links.py", str(tmp_path)) == (0, "3 links are good\n")
    (tmp_path / "b.html").write_text('<img src="c.png"><a href="a.html#z"></a>', "utf-8")
    code, said = tool("links.py", str(tmp_path))
    assert code == 1
    assert said.split("\n") == ["a.html: b.html#y", "b.html: c.png", "b.html: a.html#z", ""]


def test_what_a_wheel_should_not_hold_is_found(tmp_path: Path) -> None:
    """Too much, too little, and a dependency that nobody promised."""
    path = tmp_path / "eggapi_async-1-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr("tests/test_a.py", "")
        archive.writestr("eggapi_async/py.typed", "")
        archive.writestr(
            "eggapi_async-1.dist-info/METADATA",
            "Requires-Dist: httpx<1,>=0.28\nRequires-Dist: numpy\n"
            "Requires-Dist: click>=8; extra == 'cli'\n",
        )
    found = runpy.run_path(str(ROOT / ".ci" / "contents.py"))["wheel"](path)
    assert "has tests/test_a.py" in found
    assert "lacks eggapi_async/gallery/page.css" in found
    assert "brings numpy" in found
    assert "does not bring attrs" in found
    assert not {"brings httpx", "brings click", "lacks eggapi_async/py.typed"} & {*found}
