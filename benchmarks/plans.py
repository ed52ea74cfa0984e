"""Which runs make up the quick form, the full one, and what the command line asks for."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from .scenario import Scenario

QUICK_LONGEST = 20.0
"""Seconds: the quick form leaves out the tasks above, 13 % of them, so as to end in time."""
LONGEST_LIMIT_TIME = 600.0
"""Seconds that a limit alone may cost; what takes longer is not run."""
EVERYBODY = (
    "ours",
    "ours-unlimited",
    "ours-aiohttp",
    "httpx-loop",
    "httpx-loop-20",
    "aiohttp-loop",
    "aiohttp-retries",
    "replicate",
    "fal-client",
    "runwayml",
    "openai",
    "bare-httpx",
    "bare-paced",
)
"""In the order of their runs: ours first, whose requests the bare ones repeat."""

STRONGEST = ("ours", "ours-unlimited", "aiohttp-retries", "httpx-loop-20", "bare-httpx")
"""Where the others have no chance to finish, or nothing new to show."""

AT_OUR_INTERVAL = ("replicate-5s", "openai-5s")
"""Peers at the interval that the Egg API advises, lest their defaults be blamed on them."""


@attrs.frozen
class Block:
    """One table: contenders in one scenario, each so many times."""

    scenario: Scenario
    names: tuple[str, ...]
    repeats: int = 1


def quick() -> list[Block]:
    """One repeat of the strongest contenders, in less than two minutes."""
    return [
        Block(
            Scenario(500, longest=QUICK_LONGEST),
            ("ours", "aiohttp-retries", "httpx-loop-20", "bare-httpx"),
        ),
    ]


def full(repeats: int) -> list[Block]:
    """Everything: about six hours for each repeat."""
    some, rest = (None, 100.0), (20.0, 5.0)
    blocks = grid((10, 100, 500, 2000), some, EVERYBODY, repeats=repeats)
    blocks += grid((1,), (None,), EVERYBODY, repeats=repeats)
    blocks += grid((500,), some, AT_OUR_INTERVAL, repeats=repeats)
    blocks += grid((10_000,), some, STRONGEST, repeats=repeats)
    blocks += grid((1, 10, 100, 500, 2000, 10_000), rest, STRONGEST, repeats=repeats)
    blocks += grid((500,), (100.0, 5.0), STRONGEST, repeats=repeats, retry_after=True)
    return blocks + grid((100, 500, 2000), (None,), STRONGEST, repeats=repeats, foreign=10.0)


def grid(
    sizes: Sequence[int],
    limits: Sequence[float | None],
    names: Sequence[str],
    *,
    repeats: int = 1,
    retry_after: bool = False,
    foreign: float = 0.0,
    longest: float | None = None,
) -> list[Block]:
    """A table for every size under every limit that leaves it a chance."""
    return [
        Block(
            Scenario(n=n, limit=limit, retry_after=retry_after, foreign=foreign, longest=longest),
            tuple(names),
            repeats,
        )
        for n in sizes
        for limit in limits
        if limit is None or n / limit <= LONGEST_LIMIT_TIME
    ]
