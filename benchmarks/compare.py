"""The comparison: every block of a plan, contender after contender, printed as it is measured."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from .contenders import BY_NAME
from .figures import here, today, write
from .merging import Entry, caption
from .plans import Block
from .runner import Result, medians, run
from .tables import DID_NOT_FINISH, Outcome, scenario_tables, table

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
- ours keeps to 95 requests per second by itself, under the documented 100, whatever the service
  would take; ours-unlimited does not, and shows what that costs where there is no limit.
- A run that takes longer than its bound (150 s, 2.5 × the ideal + 30 s, or 1.25 × the ideal at
  95 requests per second + 30 s) did not finish; tasks that had come by then are counted.
"""


def compare(blocks: Iterable[Block], *, keep: Path | None = None) -> None:
    """Run *blocks*, print their tables, and store the figures in *keep*."""
    say(_setting())
    kept: list[dict[str, Any]] = []
    for block in blocks:
        outcomes, measured = _outcomes(block), today()
        entries = {name: Entry(it, block.repeats, measured) for name, it in outcomes.items()}
        say(scenario_tables(block.scenario, outcomes, caption(entries)))
        kept.append(_plain(block, outcomes, measured))
        write(keep, "compare", kept)


def _setting() -> str:
    setting = here()
    rows = list(setting.packages.items())
    where = f"{setting.python}, {setting.system}, {setting.cores} cores, loopback.\n"
    return f"{where}\n{table(('package', 'version'), rows)}\n\n{DEFINITIONS}"


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
    if not ended:
        return DID_NOT_FINISH
    killed = len(results) - len(ended)
    middle = medians(ended)
    return attrs.evolve(middle, problems=_and_killed(middle.problems, killed, block.repeats))


def _and_killed(problems: str, killed: int, of: int) -> str:
    """What is not in the medians must not be kept quiet."""
    if not killed:
        return problems
    return ", ".join(filter(None, [problems, f"{killed} of {of} runs {DID_NOT_FINISH}"]))


def _plain(block: Block, outcomes: dict[str, Outcome], measured: str) -> dict[str, Any]:
    figures = {
        name: outcome if isinstance(outcome, str) else attrs.asdict(outcome)
        for name, outcome in outcomes.items()
    }
    return {
        "scenario": attrs.asdict(block.scenario),
        "measured": measured,
        "repeats": block.repeats,
        "outcomes": figures,
    }


def say(text: str) -> None:
    """A part of the report."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """What is going on, for whoever waits."""
    sys.stderr.write(text + "\n")
