"""Where the CPU time of one batch goes, by function: cProfile in the contender's process.

The figures are dearer than without the profiler, calls most of all: read them as shares.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
from pathlib import Path

import attrs

from .client import run
from .runner import GRACE, python, server
from .scenario import Scenario

LINES = 45


def profile(scenario: Scenario, *, name: str) -> None:
    """Run *name* in *scenario* under the profiler; print the functions with the most time."""
    with tempfile.TemporaryDirectory() as folder, server(scenario) as origin:
        file = Path(folder) / "profile"
        words = json.dumps(attrs.asdict(scenario))
        command = ["benchmarks.profiling", name, origin, words, str(file)]
        python(command, core=0, timeout=2 * scenario.bound() + GRACE)
        for order in ("tottime", "cumulative"):
            stats = pstats.Stats(str(file), stream=sys.stdout)
            stats.strip_dirs().sort_stats(order).print_stats(LINES)


def main() -> None:
    """The process that is profiled."""
    name, origin, words, file = sys.argv[1:]
    scenario = Scenario(**json.loads(words))
    profiler = cProfile.Profile()
    profiler.enable()
    asyncio.run(run(name, origin, scenario))
    profiler.disable()
    profiler.dump_stats(file)


if __name__ == "__main__":
    main()
