"""The README is true: its code runs against the emulator, its figures hold, its links exist."""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

import eggapi_async
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect
from tests.virtual_time import START, run_virtual

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_python_runs_as_it_stands(
    code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
    monkeypatch.setattr(asyncio, "run", run)

    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def virtual_clock() -> float:
    """The virtual time, also before there is an event loop."""
    try:
        return anyio.current_time()
    except anyio.NoEventLoopError:
        return START


def test_the_blocks_were_found() -> None:
    """An edit that hides them all from the test above is noticed."""
    assert len(BLOCKS) >= 6


def test_the_figures_of_the_first_list_hold() -> None:
    """500 pictures with default settings: requests beyond the submissions, and the median lag."""

    async def batch() -> tuple[float, float]:
        emulator = EggEmulator(clock=anyio.current_time, seed=1)
        lags = []
        async with connect(emulator) as egg:

            async def one(number: int) -> None:
                task = await egg.generate(f"egg {number}")
                await task
                lags.append(anyio.current_time() - emulator.task(task.id).completed_at)

            await asyncio.gather(*map(one, range(500)))
            return egg.stats.polls / 500, statistics.median(lags)

    polls, lag = run_virtual(batch)

    assert polls <= 0.6
    assert lag <= 0.3


def test_every_relative_link_leads_somewhere() -> None:
    """The README names only files that are there."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_version_has_an_entry_in_the_changelog() -> None:
    """No release without words for its users."""
    assert f"## [{eggapi_async.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_no_pinned_file_names_a_host() -> None:
    """Pins must work with any index."""
    text = (ROOT / "constraints.txt").read_text("utf-8")

    assert "==" in text
    assert "://" not in text
    assert "--" not in text
