"""Markdown: one table per scenario, and how ours compares with each of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .runner import Result
from .scenario import Scenario

Outcome = Result | str
"""A contender's figures, or why there are none."""
DID_NOT_FINISH = "did not finish"
COLUMNS = (
    "contender",
    "failed",
    "CPU ms/task",
    "requests/task",
    "refused",
    "lag p50 s",
    "lag p95 s",
    "wall s",
    "wall/ideal",
    "peak MB",
    "kB/task",
)
RATIOS = ("ours / theirs", "CPU", "requests", "lag p50", "lag p95", "wall", "peak memory")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all but the first column to the right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows))


def scenario_tables(scenario: Scenario, outcomes: Mapping[str, Outcome], caption: str) -> str:
    """The figures of every contender in one scenario, then the ratios."""
    ideal = scenario.ideal()
    head = f"### {scenario.title()}\n\nIdeal: {ideal:.1f} s. {caption}\n"
    rows = [_row(name, outcome, ideal) for name, outcome in outcomes.items()]
    parts = [head, table(COLUMNS, rows), *_ratios(outcomes), *_problems(outcomes)]
    return "\n".join(parts) + "\n"


def _row(name: str, outcome: Outcome, ideal: float) -> list[str]:
    if isinstance(outcome, str):
        return [name, outcome, *[""] * (len(COLUMNS) - 2)]
    is_service = name.startswith("bare")  # it does not wait for the tasks
    return [
        name,
        number(outcome.failed, 0),
        number(outcome.cpu_ms, 2),
        number(outcome.requests, 2),
        "" if outcome.refused is None else f"{outcome.refused:.1%}",
        "" if is_service else number(outcome.lag_p50, 2),
        "" if is_service else number(outcome.lag_p95, 2),
        number(outcome.wall, 1),
        "" if is_service else number(outcome.wall / ideal, 2),
        number(outcome.peak_mb, 0),
        number(outcome.own_kb, 1),
    ]


def _ratios(outcomes: Mapping[str, Outcome]) -> list[str]:
    ours = outcomes.get("ours")
    if not isinstance(ours, Result):
        return []
    rows = [
        [name, *_ratio(ours, theirs, is_bare=name.startswith("bare"))]
        for name, theirs in outcomes.items()
        if isinstance(theirs, Result) and name != "ours"
    ]
    return ["", table(RATIOS, rows)] if rows else []


def _ratio(ours: Result, theirs: Result, *, is_bare: bool) -> list[str]:
    names = ("cpu_ms", "requests", "lag_p50", "lag_p95", "wall", "peak_mb")
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in names]
    shown = [number(a / b, 2) if a is not None and b else "" for a, b in pairs]
    return [shown[0], shown[1], "", "", "", shown[5]] if is_bare else shown


def _problems(outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = [
        f"- {name}: {outcome.problems}"
        for name, outcome in outcomes.items()
        if isinstance(outcome, Result) and outcome.problems
    ]
    return ["", *lines] if lines else []


def number(value: float | None, digits: int) -> str:
    """A figure for a cell; nothing where there is none."""
    return "" if value is None else f"{value:,.{digits}f}"
