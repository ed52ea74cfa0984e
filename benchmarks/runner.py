"""Starts the service and a contender for each run, keeps them on cores of their own, and measures.

Contenders run one after another, never two at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.request import urlopen

import attrs

from .scenario import Scenario

ROOT = Path(__file__).resolve().parent.parent
GRACE = 30.0
"""Seconds beyond a run's bound after which its process is killed."""


@attrs.frozen
class Result:
    """One run, or the medians of several; None where it has no meaning.

    cpu_ms and requests are per finished task, lag is in seconds from a task's end at the service
    until its awaiting code goes on, peak_mb is the whole process's memory, own_kb what a task adds.
    """

    failed: float
    cpu_ms: float | None
    requests: float | None
    refused: float | None
    lag_p50: float | None
    lag_p95: float | None
    wall: float
    peak_mb: float
    own_kb: float
    kinds: tuple[float, float, float] = (0, 0, 0)
    problems: str = ""


def run(name: str, scenario: Scenario, *, extra: Mapping[str, str] | None = None) -> Result | None:
    """One run of the contender called *name*; None when its process had to be killed."""
    with server(scenario) as origin:
        command = ["benchmarks.client", name, origin, json.dumps(attrs.asdict(scenario))]
        text = python(command, core=0, timeout=scenario.bound() + GRACE, extra=extra)
        if text is None:
            return None
        with urlopen(f"{origin}/_report") as answer:
            report = json.load(answer)
    return _result(json.loads(text), report, scenario)


def _result(seen: dict[str, Any], report: dict[str, Any], scenario: Scenario) -> Result:
    done, counts = seen["done"], report["counts"]
    kinds = tuple(counts.get(kind, 0) for kind in ("submit", "list", "get"))
    refused = counts.get("refused", 0)
    sent, finished = sum(kinds) + refused, len(done) or None
    lags = sorted(when - report["ends"][task_id] for task_id, when in done.items())
    return Result(
        failed=scenario.n - len(done),
        cpu_ms=1000 * seen["cpu"] / finished if finished else None,
        requests=sent / finished if finished else None,
        refused=refused / sent if sent else None,
        lag_p50=median(lags) if lags else None,
        lag_p95=p95(lags),
        wall=seen["wall"],
        peak_mb=seen["peak_kb"] / 1024,
        own_kb=(seen["peak_kb"] - seen["base_kb"]) / scenario.n,
        kinds=kinds,
        problems=", ".join(f"{count} {word}" for word, count in seen["problems"].items()),
    )


def p95(values: Sequence[float]) -> float | None:
    """The 95th of a hundred; None of nothing."""
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=20, method="inclusive")[-1]


def medians(results: Sequence[Result]) -> Result:
    """The median of every figure."""

    def middle(name: str) -> Any:
        values = [getattr(result, name) for result in results]
        known = [value for value in values if value is not None]
        return median(known) if known else None

    figures = {field.name: middle(field.name) for field in attrs.fields(Result)[:-2]}
    kinds = tuple(median(counts) for counts in zip(*(r.kinds for r in results), strict=True))
    problems = next((result.problems for result in results if result.problems), "")
    return Result(**figures, kinds=kinds, problems=problems)


# --- processes -------------------------------------------------------------------------------


def server(scenario: Scenario) -> AbstractContextManager[str]:
    """A fresh service on a core of its own, where there is one; gives its origin."""
    return serving(["benchmarks.server", json.dumps(attrs.asdict(scenario))])


@contextmanager
def serving(arguments: Sequence[str]) -> Iterator[str]:
    """`python -m *arguments*`, which prints its port first, on a core of its own."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE) as process:
        _pin(process.pid, core=1)
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def python(
    arguments: Sequence[str], *, core: int, timeout: float, extra: Mapping[str, str] | None = None
) -> str | None:
    """What `python -m *arguments*` printed; None when it had to be killed."""
    command = [sys.executable, "-m", *arguments]
    environment = {**_environment(), **(extra or {})}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        _pin(process.pid, core=core)
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
        if process.returncode:
            raise RuntimeError(f"{arguments[0]} ended with {process.returncode}")
        return out.decode()


def _environment() -> dict[str, str]:
    """No proxies, no keys: everything stays on this machine."""
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "PYTHONPATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _pin(pid: int, *, core: int) -> None:
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    with suppress(OSError):
        os.sched_setaffinity(pid, {cores[core % len(cores)]})
