"""One picture of a scenario: how late each contender learns of an end, and what it asks for it.

Plain SVG, without script, fonts or anything to load; light and dark after the reader's choice, on a
ground of its own, so that it can be read on any page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from xml.sax.saxutils import escape

import attrs

from .contenders import label
from .merging import Entries
from .runner import Result
from .scenario import Scenario
from .tables import DID_NOT_FINISH, Outcome

WIDTH = 860
LEFT, TOP, ROW = 232, 96, 34
PANEL, GAP = 268, 48
"""Width of a panel, and the room between the two."""
TEXT_ROOM = 62
"""Beyond the longest bar, for its number."""
FAR = 3.0
"""Times the median above which a bar is cut, so that one value does not flatten all others."""
STYLE = """
  svg { font: 13px ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
  .ground { fill: #ffffff; stroke: #d8dee4; }
  .text { fill: #1f2328; } .soft { fill: #59636e; } .lost { fill: #b3261e; }
  .head { font-size: 15px; font-weight: 600; } .small { font-size: 12px; }
  .ours { font-weight: 600; } .axis { stroke: #d8dee4; }
  .bar { fill: #8c959f; } .tail { fill: #d0d7de; }
  .bar.ours { fill: #d97706; } .tail.ours { fill: #fcd9a4; }
  .cut { stroke: #ffffff; stroke-width: 3; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #30363d; }
    .text { fill: #e6edf3; } .soft { fill: #9198a1; } .lost { fill: #ff8f87; }
    .axis { stroke: #30363d; }
    .bar { fill: #7d8590; } .tail { fill: #353c45; }
    .bar.ours { fill: #f59e0b; } .tail.ours { fill: #6b4510; }
    .cut { stroke: #0d1117; }
  }"""


@attrs.frozen
class Scale:
    """*end* is the value at the panel's full length; what is above is cut."""

    x: float
    end: float

    def length(self, value: float) -> float:
        """Of the bar, in pixels."""
        return max(1.5, min(value, self.end) / self.end * (PANEL - TEXT_ROOM))

    def is_cut(self, value: float) -> bool:
        """Whether the bar is longer than it can be shown."""
        return value > self.end


def picture(scenario: Scenario, entries: Entries) -> str:
    """The SVG of one scenario."""
    shown = _shown(entries)
    lag = Scale(LEFT, _end([result.lag_p95 or 0.0 for result in shown.values()]))
    asked = Scale(LEFT + PANEL + GAP, _end([result.requests or 0.0 for result in shown.values()]))
    rows = [
        _row(number, name, result, lag, asked)
        for number, (name, result) in enumerate(shown.items())
    ]
    height = TOP + ROW * len(rows) + 44
    parts = [_opening(scenario, shown, height), *_heads(scenario, lag, asked, height), *rows]
    return "\n".join([*parts, _foot(entries, height), "</svg>\n"])


def _shown(entries: Entries) -> Mapping[str, Result]:
    """Who waits and finished anything: those who lost nothing first, then by their lag."""
    found = {
        name: entry.outcome
        for name, entry in entries.items()
        if isinstance(entry.outcome, Result) and entry.outcome.lag_p50 is not None
    }
    skip = ("bare", "ours-")
    order = sorted(found, key=lambda name: (found[name].failed > 0, found[name].lag_p50 or 0.0))
    return {name: found[name] for name in order if not name.startswith(skip)}


def _end(values: Sequence[float]) -> float:
    middle = median(values) if values else 0.0
    return max((value for value in values if value <= FAR * middle), default=0.0) or 1.0


def _opening(scenario: Scenario, shown: Mapping[str, Result], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-labelledby="title desc">\n'
        f'<title id="title">{escape(_title(scenario))}</title>\n'
        f'<desc id="desc">{escape(_description(shown))}</desc>\n'
        f"<style>{STYLE}\n</style>\n"
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>'
    )


def _title(scenario: Scenario) -> str:
    words = f"Waiting for {scenario.n:,} tasks started at once, {_limit(scenario)}"
    return words if scenario.longest is None else f"{words}, no task above {scenario.longest:g} s"


def _limit(scenario: Scenario) -> str:
    if scenario.limit is None:
        return "no limit on requests"
    return f"at most {scenario.limit:g} requests per second"


def _description(shown: Mapping[str, Result]) -> str:
    return " ".join(
        f"{label(name)}: lag {result.lag_p50:.2f} s at the median, {result.lag_p95:.2f} s at the "
        f"95th percentile, {result.requests:.2f} requests per task{_loss(result, ', ')}."
        for name, result in shown.items()
    )


def _heads(scenario: Scenario, lag: Scale, asked: Scale, height: int) -> list[str]:
    return [
        _text(24, 34, _title(scenario), "text head"),
        _text(lag.x, 66, "From a task's end to your code, seconds", "text"),
        _text(lag.x, 82, "strong: half of the tasks · faint: 95 %", "soft small"),
        _text(asked.x, 66, "Requests per task", "text"),
        _text(asked.x, 82, "the submission is one of them", "soft small"),
        *(
            f'<line class="axis" x1="{scale.x - 0.5}" x2="{scale.x - 0.5}" '
            f'y1="{TOP - 4}" y2="{height - 40}"/>'
            for scale in (lag, asked)
        ),
    ]


def _row(number: int, name: str, result: Result, lag: Scale, asked: Scale) -> str:
    y, kind = TOP + ROW * number, " ours" if name == "ours" else ""
    p50, p95, requests = result.lag_p50 or 0.0, result.lag_p95 or 0.0, result.requests or 0.0
    parts = [
        _text(
            LEFT - 14, y + (10 if result.failed else 16), label(name), f"text{kind}", anchor="end"
        ),
        _bar(lag, y, p95, f"tail{kind}"),
        _bar(lag, y, p50, f"bar{kind}"),
        _cut(lag, y, p95),
        _after(lag, y, p95, f"{p50:.1f} · {p95:.1f}"),
        _bar(asked, y, requests, f"bar{kind}"),
        _cut(asked, y, requests),
        _after(asked, y, requests, f"{requests:.1f}"),
    ]
    if result.failed:
        parts.append(_text(LEFT - 14, y + 25, _loss(result), "lost small", anchor="end"))
    return "\n".join(filter(None, parts))


def _loss(result: Result, before: str = "") -> str:
    return f"{before}{result.failed:,.0f} tasks lost" if result.failed else ""


def _bar(scale: Scale, y: float, value: float, kind: str) -> str:
    width = scale.length(value)
    return (
        f'<rect class="{kind}" x="{scale.x}" y="{y + 4}" width="{width:.1f}" height="16" rx="2"/>'
    )


def _cut(scale: Scale, y: float, value: float) -> str:
    """Two strokes across a bar that is longer than it is drawn."""
    if not scale.is_cut(value):
        return ""
    x = scale.x + scale.length(value) - 18
    ends = [(x + shift, x + shift + 6) for shift in (0, 7)]
    return "".join(
        f'<line class="cut" x1="{low:.1f}" y1="{y + 23}" x2="{high:.1f}" y2="{y + 1}"/>'
        for low, high in ends
    )


def _after(scale: Scale, y: float, value: float, words: str) -> str:
    return _text(scale.x + scale.length(value) + 8, y + 17, words, "text small")


def _foot(entries: Entries, height: int) -> str:
    dates = sorted({entry.measured for entry in entries.values()})
    words = f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, peers as they come."
    nothing = [label(name) for name in entries if _has_nothing(entries[name].outcome)]
    if nothing:
        words += f" Nothing finished: {', '.join(nothing)}."
    return _text(24, height - 16, words, "soft small")


def _has_nothing(outcome: Outcome) -> bool:
    if isinstance(outcome, Result):
        return outcome.cpu_ms is None
    return outcome == DID_NOT_FINISH


def _text(x: float, y: float, words: str, kind: str, *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'
