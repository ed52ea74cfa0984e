"""`python -m benchmarks`: the comparison (quick), or one of the closer looks.

compare   the contenders side by side; the default
alone     one task at a time after fifty others, in virtual time
simulate  whole batches under limits that the client is not told, in virtual time
open      ten thousand open tasks: memory for each, and how long it takes to cancel them all
wire      what one request costs, by arrangement of the connections
decode    what reading an answer costs
import    what importing the package costs beyond httpx
profile   where the time of this package's own client goes
report    docs/benchmarks.md, README's table and the picture, made of files of figures (--json);
          without files, of those in benchmarks/figures
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from . import plans
from .alone import alone
from .compare import compare
from .contenders import BY_NAME
from .decode import decode
from .imports import imports
from .open import opened
from .profiling import profile
from .report import report
from .scenario import Scenario
from .simulated import simulated
from .wire import wire


def main() -> None:
    """Do what the arguments say."""
    arguments = _parser().parse_args()
    LOOKS[arguments.look](arguments)


def _wire(arguments: argparse.Namespace) -> None:
    wire(seconds=arguments.seconds, only=arguments.contenders, keep=arguments.json)


def _import(arguments: argparse.Namespace) -> None:
    imports(repeats=arguments.repeats or 7, keep=arguments.json)


def _profile(arguments: argparse.Namespace) -> None:
    profile(_scenario(arguments), name=(arguments.contenders or ["ours"])[0])


LOOKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "compare": lambda given: compare(_blocks(given), keep=given.json),
    "alone": lambda given: alone(histories=given.repeats or 20, keep=given.json),
    "simulate": lambda given: simulated(keep=given.json),
    "open": lambda given: opened((given.n or [10_000])[0], keep=given.json),
    "wire": _wire,
    "decode": lambda given: decode(keep=given.json),
    "import": _import,
    "profile": _profile,
    "report": lambda given: report(given.files),
}


def _blocks(arguments: argparse.Namespace) -> list[plans.Block]:
    if arguments.full:
        return plans.full(arguments.repeats or 5)
    if not arguments.n:
        return plans.quick()
    names = arguments.contenders or plans.EVERYBODY
    if unknown := set(names) - set(BY_NAME):
        raise SystemExit(f"no such contender: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    if arguments.at_a_time:
        return [plans.Block(_scenario(arguments), tuple(names), arguments.repeats or 1)]
    return plans.grid(
        arguments.n,
        arguments.limits or [None],
        names,
        repeats=arguments.repeats or 1,
        retry_after=arguments.retry_after,
        foreign=arguments.foreign,
        longest=arguments.longest,
    )


def _scenario(arguments: argparse.Namespace) -> Scenario:
    return Scenario(
        n=(arguments.n or [2000])[0],
        limit=(arguments.limits or [None])[0],
        retry_after=arguments.retry_after,
        foreign=arguments.foreign,
        longest=arguments.longest,
        concurrency=arguments.at_a_time,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("look", nargs="?", choices=LOOKS, default="compare")
    parser.add_argument("files", nargs="*", type=Path, help="of figures, for `report`")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--quick", action="store_true", help="under two minutes; the default")
    form.add_argument(
        "--full", action="store_true", help="everything; about six hours for each repeat"
    )
    parser.add_argument("--n", type=_numbers, help="numbers of tasks: 100,500")
    parser.add_argument("--limits", type=_limits, help="requests per second: none,100,20,5")
    parser.add_argument("--contenders", type=_names, help="ours,aiohttp-retries")
    parser.add_argument("--repeats", type=int, help="runs of each, of which medians are shown")
    parser.add_argument("--foreign", type=float, default=0.0, help="foreign tasks per second")
    parser.add_argument("--retry-after", action="store_true", help="429 with Retry-After")
    parser.add_argument("--longest", type=float, help="seconds: leave out longer tasks")
    parser.add_argument("--at-a-time", type=int, default=0, help="tasks open at once; 0: all")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each figure of `wire`")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _names(text: str) -> list[str]:
    return text.split(",")


def _limits(text: str) -> list[float | None]:
    return [None if word == "none" else float(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
