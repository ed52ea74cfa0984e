"""The comparison: every block of a plan, contender after contender, printed as it is measured."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

from .contenders import BY_NAME
from .plans import Block
from .runner import Result, medians, run
from .tables import Outcome, scenario_tables, table

PACKAGES = (
    "eggapi-async",
    "httpx",
    "httpx-aiohttp",
    "aiohttp",
    "replicate",
    "fal-client",
    "runwayml",
    "openai",
)
DEFINITIONS = """\
- CPU: this process's, user and system, from the first submission to the last result, per
  finished task.
- requests: all that the service saw, refused ones included, per finished task; the submission is
  one of them.
- lag: from a task's end at the service until the code that awaits it goes on, on one clock.
- ideal: the last task's end if only the service took time: all submitted at once or, under a limit,
  submission k at k / limit and no other request at all.
- peak MB: the whole process, imports included; kB/task: what the run added, per task.
- bare-httpx: as many submissions, list pages and GETs as ours sent, read as JSON, one after another
  by one caller on one connection, without added latency. It waits for nobody. bare-paced spreads
  them over the time that ours took, since each wake-up of an idle process costs too.
- ours keeps to 80 requests per second by itself, under the documented 100, whatever the service
  would take; ours-unlimited does not, and shows what that costs where there is no limit.
- A run that takes longer than its bound (150 s, 2.5 × the ideal + 30 s, or 1.25 × the ideal at
  80 requests per second + 30 s) did not finish; tasks that had come by then are counted.
"""


def compare(blocks: Iterable[Block], *, keep: Path | None = None) -> None:
    """Run *blocks*, print their tables, and store the figures in *keep*."""
    say(_setting())
    kept: list[dict[str, Any]] = []
    for block in blocks:
        outcomes = _outcomes(block)
        say(scenario_tables(block.scenario, outcomes, block.repeats))
        kept.append(_plain(block, outcomes))
        if keep is not None:
            keep.write_text(json.dumps(kept, indent=1))


def _setting() -> str:
    rows = [[name, _version(name)] for name in PACKAGES]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = f"CPython {platform.python_version()}, {cores} cores, loopback.\n"
    return f"{where}\n{table(('package', 'version'), rows)}\n\n{DEFINITIONS}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _outcomes(block: Block) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for name in block.names:
        note(f"{block.scenario.title()}: {name}")
        outcomes[name] = _outcome(name, block, outcomes.get("ours"))
    return outcomes


def _outcome(name: str, block: Block, ours: Outcome | None) -> Outcome:
    if not BY_NAME[name].is_installed:
        return "not installed"
    scenario, extra = block.scenario, dict[str, str]()
    if name.startswith("bare"):
        if not isinstance(ours, Result):
            return "nothing to repeat: ours did not run"
        scenario = attrs.evolve(scenario, latency=0.0, limit=None, foreign=0.0, concurrency=1)
        extra = {"BENCH_REQUESTS": ",".join(str(round(count)) for count in ours.kinds)}
        if name == "bare-paced":
            extra["BENCH_PACE"] = str(sum(ours.kinds) / ours.wall)
    results = [run(name, scenario, extra=extra) for _ in range(block.repeats)]
    ended = [result for result in results if result is not None]
    return medians(ended) if ended else "did not finish"


def _plain(block: Block, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    figures = {
        name: outcome if isinstance(outcome, str) else attrs.asdict(outcome)
        for name, outcome in outcomes.items()
    }
    ideal = block.scenario.ideal()
    return {"scenario": attrs.asdict(block.scenario), "ideal": ideal, "outcomes": figures}


def say(text: str) -> None:
    """A part of the report."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """What is going on, for whoever waits."""
    sys.stderr.write(text + "\n")
