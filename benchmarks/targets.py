"""What the project aims at, beside what the kept figures say: met, missed, or not measured.

Every line is worked out from figures of one scenario; where there are several, the worst counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from .contenders import label
from .merging import Entries
from .runner import Result
from .scenario import Scenario
from .tables import table

PEERS = ("replicate", "fal-client", "runwayml", "openai")
COLUMNS = ("measure", "aim", "measured", "")
Value = Callable[[Scenario, Entries], float | None]


@attrs.frozen
class Found:
    """A value, and the scenario in which it is worst."""

    value: float
    scenario: Scenario


@attrs.frozen
class Target:
    """*value* of every scenario that is *wanted* must not be above *most*."""

    measure: str
    most: float
    digits: int
    value: Value
    is_wanted: Callable[[Scenario], bool]

    def row(self, measured: Mapping[Scenario, Entries]) -> list[str]:
        """As a line of the table."""
        aim = f"≤ {self.most:.{self.digits}f}"
        worst = self._worst(measured)
        if worst is None:
            return [self.measure, aim, "not measured", ""]
        verdict = "met" if worst.value <= self.most else "missed"
        where = worst.scenario.title().split(", 429")[0]
        return [self.measure, aim, f"{worst.value:.{self.digits}f} ({where})", verdict]

    def _worst(self, measured: Mapping[Scenario, Entries]) -> Found | None:
        values = (
            (self.value(scenario, entries), scenario)
            for scenario, entries in measured.items()
            if self.is_wanted(scenario)
        )
        found = [Found(value, scenario) for value, scenario in values if value is not None]
        return max(found, key=lambda it: it.value, default=None)


def targets_table(measured: Mapping[Scenario, Entries], alone: Any | None) -> str:
    """All of them, as Markdown."""
    rows = [target.row(measured) for target in TARGETS]
    return table(COLUMNS, [*rows, *_alone(alone)])


def _alone(content: Any | None) -> Iterable[list[str]]:
    theirs, ours = content["rows"][:2] if content else ({}, {})
    for name, words, most in (("polls", "looks", 1.0), ("mean", "mean lag", 0.6)):
        measure = f"one task after 50 past ones: {words}, of the loop's"
        if not content:
            yield [measure, f"≤ {most:.2f}", "not measured", ""]
        else:
            share = ours[name] / theirs[name]
            yield [measure, f"≤ {most:.2f}", f"{share:.2f}", "met" if share <= most else "missed"]


# --- values ----------------------------------------------------------------------------------


def _result(entries: Entries, name: str) -> Result | None:
    entry = entries.get(name)
    return entry.outcome if entry is not None and isinstance(entry.outcome, Result) else None


def of(name: str, who: str = "ours") -> Value:
    """The figure called *name* of one contender."""

    def value(_: Scenario, entries: Entries) -> float | None:
        result = _result(entries, who)
        return None if result is None else getattr(result, name)

    return value


def beside(name: str, who: str, ours: str = "ours") -> Value:
    """The figure called *name* of ours, as a share of that of *who*."""

    def value(scenario: Scenario, entries: Entries) -> float | None:
        mine, theirs = of(name, ours)(scenario, entries), of(name, who)(scenario, entries)
        return mine / theirs if mine is not None and theirs else None

    return value


def beside_best(name: str, among: Iterable[str] | None = None) -> Value:
    """The figure called *name* of ours, as a share of the least among those that lost nothing."""

    def value(scenario: Scenario, entries: Entries) -> float | None:
        names = [it for it in entries if not it.startswith(("ours", "bare"))]
        results = [_result(entries, it) for it in (names if among is None else among)]
        theirs = [getattr(it, name) for it in results if it is not None and not it.failed]
        mine = of(name)(scenario, entries)
        return mine / min(theirs) if theirs and mine is not None else None

    return value


def _over_ideal(who: str) -> Value:
    def value(scenario: Scenario, entries: Entries) -> float | None:
        result = _result(entries, who)
        return None if result is None else result.wall / scenario.ideal()

    return value


def _refused(_: Scenario, entries: Entries) -> float | None:
    result = _result(entries, "ours")
    return None if result is None or result.refused is None else 100 * result.refused


def _plain(*sizes: int, limit: float | str | None = "any") -> Callable[[Scenario], bool]:
    """Scenarios of these sizes without anything special."""

    def wanted(scenario: Scenario) -> bool:
        usual = Scenario(scenario.n, limit=scenario.limit)
        return (
            scenario == usual
            and scenario.n in sizes
            and (limit == "any" or scenario.limit == limit)
        )

    return wanted


def _has_foreign(scenario: Scenario) -> bool:
    return scenario.foreign > 0


def _fast(*sizes: int) -> Callable[[Scenario], bool]:
    """Without a limit, or with one so wide that the number of requests is not bound by it."""

    def wanted(scenario: Scenario) -> bool:
        return _plain(*sizes)(scenario) and (scenario.limit or 100.0) >= 100.0

    return wanted


TARGETS = (
    Target("tasks lost", 0, 0, of("failed"), _plain(500, 2000, 10_000)),
    Target("CPU, of the best peer SDK's", 0.1, 2, beside_best("cpu_ms", PEERS), _fast(500, 2000)),
    Target(
        f"CPU, of {label('bare-httpx')}", 1.15, 2, beside("cpu_ms", "bare-httpx"), _fast(500, 2000)
    ),
    Target(
        f"CPU, of {label('bare-paced')}", 1.15, 2, beside("cpu_ms", "bare-paced"), _fast(500, 2000)
    ),
    Target(
        "CPU over aiohttp, of the aiohttp loop's",
        1.3,
        2,
        beside("cpu_ms", "aiohttp-loop", "ours-aiohttp"),
        _fast(500, 2000),
    ),
    Target("requests per task", 1.5, 2, of("requests"), _plain(100, 500, 2000, 10_000)),
    Target("the same with foreign tasks in the list", 1.8, 2, of("requests"), _has_foreign),
    Target("lag p50, s, no limit or 100/s", 0.35, 2, of("lag_p50"), _fast(100, 500, 2000)),
    Target("lag p95, s, no limit or 100/s", 0.8, 2, of("lag_p95"), _fast(100, 500, 2000)),
    Target(
        "wall time over the ideal, limit 100/s",
        1.05,
        2,
        _over_ideal("ours"),
        _plain(100, 500, 2000, 10_000, limit=100.0),
    ),
    Target(
        "wall time over the ideal, limit 20/s",
        1.05,
        2,
        _over_ideal("ours"),
        _plain(100, 500, 2000, 10_000, limit=20.0),
    ),
    Target(
        "wall time over the ideal, limit 5/s",
        1.05,
        2,
        _over_ideal("ours"),
        _plain(100, 500, 2000, limit=5.0),
    ),
    Target(
        "wall time over the ideal, no limit, ours-unlimited",
        1.05,
        2,
        _over_ideal("ours-unlimited"),
        _plain(100, 500, 2000, 10_000, limit=None),
    ),
    Target(
        "wall time under a limit, of the best other's",
        1.0,
        2,
        beside_best("wall"),
        lambda it: it.limit is not None and not it.longest,
    ),
    Target(
        "500 tasks at 5/s: time, of the aiohttp loop's",
        1 / 1.4,
        2,
        beside("wall", "aiohttp-retries"),
        _plain(500, limit=5.0),
    ),
    Target("500 tasks at 5/s: % of requests refused", 2, 1, _refused, _plain(500, limit=5.0)),
    Target(
        "peak memory at 10,000, of the best other's", 1.0, 2, beside_best("peak_mb"), _plain(10_000)
    ),
)
