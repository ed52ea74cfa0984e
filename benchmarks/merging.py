"""Several files of one look as one: what was measured later stands in the place of the earlier.

Scenarios are told apart by all their circumstances, contenders by name. Each keeps the number of
its repeats and its date, so that no table can hide that it was made of several runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from .contenders import BY_NAME
from .figures import Figures
from .runner import Result
from .scenario import Scenario
from .tables import Outcome


@attrs.frozen
class Entry:
    """One contender in one scenario: its figures or why there are none, medians of how many."""

    outcome: Outcome
    repeats: int
    measured: str


Entries = Mapping[str, Entry]
"""By the contender's name, in the order in which contenders are listed."""


def entries(files: Iterable[Figures]) -> dict[Scenario, Entries]:
    """Every scenario that `compare` measured, in order, with who took part."""
    found: dict[Scenario, dict[str, Entry]] = {}
    for file in files:
        for block in file.content if file.look == "compare" else ():
            _take(found.setdefault(Scenario(**block["scenario"]), {}), block)
    return {scenario: _ordered(found[scenario]) for scenario in sorted(found, key=_rank)}


def latest(files: Iterable[Figures], look: str) -> Figures | None:
    """The latest figures of a look that is not merged."""
    found = [file for file in files if file.look == look]
    return max(found, key=lambda file: file.setting.date, default=None)


def _take(known: dict[str, Entry], block: Mapping[str, Any]) -> None:
    for name, plain in block["outcomes"].items():
        entry = Entry(_outcome(plain), block["repeats"], block["measured"])
        if name not in known or known[name].measured <= entry.measured:
            known[name] = entry


def _outcome(plain: Any) -> Outcome:
    return plain if isinstance(plain, str) else Result(**{**plain, "kinds": tuple(plain["kinds"])})


def _ordered(known: Mapping[str, Entry]) -> Entries:
    order = [*BY_NAME, *known]  # one that is no contender any more comes last
    return {name: known[name] for name in sorted(known, key=order.index)}


def _rank(scenario: Scenario) -> tuple[object, ...]:
    """Limits from none to the tightest, within each the sizes; what is special comes after."""
    special = (scenario.concurrency, scenario.foreign, scenario.retry_after)
    limit = -(scenario.limit or 1e9)
    return (*special, scenario.longest or 0.0, limit, scenario.n)


def caption(shown: Entries) -> str:
    """`Medians of 5, measured on 2024-01-15.`, or whose are of how many where they differ."""
    groups: dict[tuple[int, str], list[str]] = {}
    for name, entry in shown.items():
        groups.setdefault((entry.repeats, entry.measured), []).append(name)
    if len(groups) == 1:
        return f"{_medians(*next(iter(groups)))}."
    parts = [f"{', '.join(names)}: {_medians(*key)}" for key, names in groups.items()]
    return f"{'; '.join(parts)}."


def _medians(repeats: int, measured: str) -> str:
    what = "A single run" if repeats == 1 else f"Medians of {repeats}"
    return f"{what}, measured on {measured}"
