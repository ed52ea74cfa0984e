"""The page of the benchmarks, the README's table and the picture: made of the kept figures alone.

What stands between `<!-- figures: NAME -->` and `<!-- /figures -->` is written here, the rest of
the pages by people. Nothing is measured here, and no figure is known here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .alone import alone_table
from .compare import DEFINITIONS
from .contenders import CONTENDERS, label
from .decode import decode_table
from .figures import Figures, read
from .imports import imports_table
from .merging import Entries, Entry, caption, entries, latest
from .open import open_table
from .picture import picture
from .runner import ROOT, Result
from .scenario import Scenario
from .simulated import simulated_tables
from .tables import Outcome, number, scenario_tables, table
from .targets import targets_table
from .wire import wire_table

FOLDER = ROOT / "benchmarks" / "figures"
PICTURE = ROOT / "docs" / "benchmarks.svg"
PAGES = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")
SECTION = re.compile(r"(<!-- figures: ([a-z]+) -->\n).*?(<!-- /figures -->)", re.DOTALL)
FEATURED = Scenario(500, limit=100.0)
"""What README shows: many at once, under the limit that the service documents."""
SUMMARY = ("contender", "tasks lost", "lag p50 s", "lag p95 s", "requests/task", "CPU ms/task")
BESIDE = ("ours", "aiohttp-retries")
"""Who is shown in every size: this client, and the strongest of the others."""
SCALE = ("lost", "lag p50 s", "lag p95 s", "requests/task", "CPU ms/task", "wall/ideal")
NOTHING = "Not measured yet."
NONE = "–"


def report(files: Sequence[Path]) -> None:
    """Keep *files* in the place of what was kept, if any are given, and write all pages anew."""
    if files:
        _keep(files)
    for path, text in pages(kept()).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


def kept() -> list[Figures]:
    """The figures in the repository."""
    return [read(path) for path in sorted(FOLDER.glob("*.json"))]


def pages(files: Sequence[Figures]) -> dict[Path, str]:
    """The whole text of every file that is made of *files*."""
    measured = entries(files)
    sections = _sections(files, measured)
    texts = {
        path: SECTION.sub(lambda it: f"{it[1]}{sections[it[2]]}\n{it[3]}", path.read_text("utf-8"))
        for path in PAGES
    }
    if measured:
        scenario = featured(measured)
        texts[PICTURE] = picture(scenario, measured[scenario])
    return texts


def _keep(files: Sequence[Path]) -> None:
    texts = {path.name: path.read_text() for path in files if read(path)}
    if len(texts) < len(files):
        raise SystemExit("two of the files have the same name")
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text)


def featured(measured: Mapping[Scenario, Entries]) -> Scenario:
    """`FEATURED`; where it was not measured, what comes next to it with the most contenders."""
    if FEATURED in measured:
        return FEATURED
    return max(measured, key=lambda it: (len(measured[it]), -abs(it.n - FEATURED.n)))


# --- sections --------------------------------------------------------------------------------


def _sections(files: Sequence[Figures], measured: Mapping[Scenario, Entries]) -> dict[str, str]:
    looks: dict[str, Callable[[Any], str]] = {
        "alone": alone_table,
        "open": open_table,
        "simulated": simulated_tables,
        "wire": wire_table,
        "decode": decode_table,
        "import": imports_table,
    }
    alone = latest(files, "alone")
    return {
        "setting": _setting(files),
        "contenders": _contenders(),
        "definitions": DEFINITIONS.rstrip(),
        "summary": summary(featured(measured), measured) if measured else NOTHING,
        "scale": scale(measured),
        "targets": targets_table(measured, None if alone is None else alone.content),
        "tables": "\n".join(_detail(it, measured[it]) for it in measured).rstrip() or NOTHING,
        **{look: _look(latest(files, look), show) for look, show in looks.items()},
    }


def _look(found: Figures | None, show: Callable[[Any], str]) -> str:
    if found is None:
        return NOTHING
    return f"Measured on {found.setting.date}.\n\n{show(found.content)}"


def _setting(files: Sequence[Figures]) -> str:
    settings = [file.setting for file in files]
    if not settings:
        return NOTHING
    rows = [
        ["measured on", _distinct(it.date for it in settings)],
        ["Python", _distinct(it.python for it in settings)],
        ["system", _distinct(it.system for it in settings)],
        ["cores", _distinct(str(it.cores) for it in settings)],
    ]
    names = dict.fromkeys(name for it in settings for name in it.packages)
    rows += [[name, _distinct(it.packages.get(name, "?") for it in settings)] for name in names]
    return table(("", ""), rows)


def _distinct(words: Any) -> str:
    return ", ".join(sorted(set(words)))


def _contenders() -> str:
    rows = [[it.name, it.what] for it in CONTENDERS]
    return table(("contender", "what it is"), rows).replace("---:", "---")


def summary(scenario: Scenario, measured: Mapping[Scenario, Entries]) -> str:
    """One scenario in a few columns, for readers without the definitions at hand."""
    shown = {
        name: entry
        for name, entry in measured[scenario].items()
        if not name.startswith(("bare", "ours-"))
    }
    rows = [_summed(name, entry) for name, entry in shown.items()]
    told = caption({label(name): entry for name, entry in shown.items()})
    return f"{scenario.title()}. {told}\n\n{table(SUMMARY, rows)}"


def _summed(name: str, entry: Entry) -> list[str]:
    it = entry.outcome
    if not isinstance(it, Result):
        return [label(name), it, *[NONE] * (len(SUMMARY) - 2)]
    figures = ((it.lag_p50, 2), (it.lag_p95, 2), (it.requests, 2), (it.cpu_ms, 1))
    told = [number(figure, digits) or NONE for figure, digits in figures]  # one that finished none
    return [label(name), number(it.failed, 0), *told]


def scale(measured: Mapping[Scenario, Entries]) -> str:
    """All scenarios in a line each, for the two of `BESIDE`; nothing where one is missing."""
    rows = [
        [scenario.title().replace(" without Retry-After", ""), *_pairs(scenario, shown)]
        for scenario, shown in measured.items()
        if all(name in shown for name in BESIDE)
    ]
    return table(("ours · theirs", *SCALE), rows) if rows else NOTHING


def _pairs(scenario: Scenario, shown: Entries) -> list[str]:
    ours, theirs = (_scaled(scenario, shown[name].outcome) for name in BESIDE)
    return [f"{mine} · {other}" for mine, other in zip(ours, theirs, strict=True)]


def _scaled(scenario: Scenario, it: Outcome) -> list[str]:
    if not isinstance(it, Result):
        return [it, *[NONE] * (len(SCALE) - 1)]
    figures = (it.lag_p50, it.lag_p95, it.requests, it.cpu_ms, it.wall / scenario.ideal())
    return [number(it.failed, 0), *(number(figure, 2) or NONE for figure in figures)]


def _detail(scenario: Scenario, shown: Entries) -> str:
    outcomes = {name: entry.outcome for name, entry in shown.items()}
    text = scenario_tables(scenario, outcomes, caption(shown))
    head, _, rest = text.partition("\n\n")
    title = head.removeprefix("### ")
    return f"<details>\n<summary>{title}</summary>\n\n{rest}\n</details>\n"
