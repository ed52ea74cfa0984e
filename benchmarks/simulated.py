"""Whole batches in virtual time: wall time, lag, requests and refusals, exact and repeatable.

The client as it is shipped runs on an event loop whose clock jumps, over a transport that asks the
fake service's state directly. The service's limit can be of the kinds that are in use: so many in
any second, so many in each second of the clock, or a bucket of tokens. CPU is not measured here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any

import attrs
import httpx

from eggapi_async import _pacing

from .alone import JumpingLoop
from .dialects import REFUSED, answer
from .figures import write
from .runner import p95
from .scenario import Scenario
from .tables import number, table
from .world import World

ORIGIN = "https://egg.test"
COLUMNS = (
    "round trip s",
    "wall/ideal",
    "refused",
    "requests/task",
    "lag mean s",
    "lag p50 s",
    "lag p95 s",
)


# --- the service's limit ---------------------------------------------------------------------


@attrs.define
class FixedWindow:
    """So many in each second of the clock."""

    limit: float
    _second: int = -1
    _count: int = 0

    def admits(self, now: float) -> bool:
        """Whether one more is let in."""
        if int(now) != self._second:
            self._second, self._count = int(now), 0
        self._count += 1
        return self._count <= self.limit


@attrs.define
class Bucket:
    """A bucket of as many tokens as the limit, refilled at that rate."""

    limit: float
    _tokens: float = attrs.field(init=False)
    _at: float | None = None

    def __attrs_post_init__(self) -> None:
        self._tokens = self.limit

    def admits(self, now: float) -> bool:
        """Whether one more is let in."""
        since = 0.0 if self._at is None else now - self._at
        self._tokens, self._at = min(self.limit, self._tokens + since * self.limit), now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


KINDS: dict[str, Callable[[float], Any] | None] = {
    "any second": None,  # the fake service's own
    "clock's second": FixedWindow,
    "bucket": Bucket,
}


ALL = tuple(KINDS)
USUAL = ("any second",)
PLAN = (
    (Scenario(200, limit=2.0), USUAL),
    (Scenario(500, limit=5.0), ALL),
    (Scenario(500, limit=5.0, latency=0.5), ALL),
    (Scenario(1000, limit=10.0), ALL),
    (Scenario(1000, limit=10.0, latency=0.5), ALL),
    (Scenario(500, limit=20.0), ALL),
    (Scenario(500, limit=100.0), ALL),
)
"""Limits that the client is not told, and the kinds of each."""
TRADE = (Scenario(2000, limit=100.0), Scenario(500, limit=5.0))
SHARES = (0.05, 0.1, 0.15, 0.2, 0.25)
"""Parts of the rate for polls while submissions wait: less makes the batch faster, more lets each
of its results be known sooner."""


class _World(World):
    """The fake service's state behind a limit of another kind."""

    gate: Any = None

    def admits(self, now: float) -> bool:
        if self.gate is None:
            return super().admits(now)
        if self.gate.admits(now):
            return True
        self.counts["refused"] += 1
        return False


class Door(httpx.AsyncBaseTransport):
    """Requests to the fake service in this process, about half of the latency on either way.

    No two ways take the same time: answers that come at one moment exist in no network, and a
    client that counts on them would look better here than it is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = Random(world.scenario.seed)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass *request* on."""
        await self._way()
        now = asyncio.get_running_loop().time()
        status, body = REFUSED
        if self._world.admits(now):
            target = request.url.raw_path.decode()
            status, body = answer(self._world, request.method, target, origin=ORIGIN, now=now)
        await self._way()
        return httpx.Response(status, content=body)

    async def _way(self) -> None:
        await asyncio.sleep(self._world.scenario.latency / 2 * self._dice.uniform(0.9, 1.1))


# --- runs ------------------------------------------------------------------------------------


@attrs.frozen
class Seen:
    """What one batch came to."""

    wall: float
    ideal: float
    refused: float
    requests: float
    lag_p50: float
    lag_p95: float
    lag_mean: float


def run(scenario: Scenario, kind: str = "any second", **options: Any) -> Seen:
    """*scenario* in virtual time; *options* are those of the client."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(_batch(scenario, kind, options))


async def _batch(scenario: Scenario, kind: str, options: dict[str, Any]) -> Seen:
    from eggapi_async import AsyncEggClient

    loop = asyncio.get_running_loop()
    began, lags = loop.time(), list[float]()
    world = _World(scenario, now=began, wall_now=1_700_000_000.0)
    if (make := KINDS[kind]) is not None and scenario.limit is not None:
        world.gate = make(scenario.limit)
    async with httpx.AsyncClient(transport=Door(world)) as http:
        egg = AsyncEggClient("egg-bench-key", base_url=ORIGIN, http_client=http, **options)

        async def one(index: int) -> None:
            task = await egg.generate(f"A cat, number {index}", aspect_ratio="16:9")
            await task.result(timeout=None)
            lags.append(loop.time() - world.jobs[task.id].ends)

        async with egg:
            await asyncio.gather(*(one(index) for index in range(scenario.n)))
    sent = world.counts.total()
    return Seen(
        wall=loop.time() - began,
        ideal=scenario.ideal(),
        refused=world.counts["refused"] / sent,
        requests=sent / scenario.n,
        lag_p50=median(lags),
        lag_p95=p95(lags) or 0.0,
        lag_mean=fmean(lags),
    )


def simulated(*, keep: Path | None = None) -> None:
    """Run `PLAN` and `SHARES`, print the tables, and store the figures in *keep*."""
    content = measured()
    write(keep, "simulated", content)
    sys.stdout.write(simulated_tables(content) + "\n")


def measured() -> dict[str, Any]:
    """The figures of every scenario and kind in `PLAN`, and of every poll share in `SHARES`."""
    unknown = [
        {"kind": kind if scenario.limit else "", **_figures(scenario, kind)}
        for scenario, kinds in PLAN
        for kind in kinds
    ]
    shares = [
        {"share": share, **_with_share(scenario, share)}
        for scenario in TRADE
        for share in (None, *SHARES)
    ]
    return {"unknown": unknown, "shares": shares}


def _figures(scenario: Scenario, kind: str = "any second") -> dict[str, Any]:
    sys.stderr.write(f"{scenario.title()}, {kind}, {scenario.latency:g} s\n")
    circumstances = {"n": scenario.n, "limit": scenario.limit, "latency": scenario.latency}
    return circumstances | attrs.asdict(run(scenario, kind))


def _with_share(scenario: Scenario, share: float | None) -> dict[str, Any]:
    """What another part for the polls would have given, whatever waits; None: ours."""
    kept = _pacing.POLL_SHARE, _pacing.LEAST_POLL_SHARE
    if share is not None:
        _pacing.POLL_SHARE = _pacing.LEAST_POLL_SHARE = share  # type: ignore[misc]
    try:
        return _figures(scenario)
    finally:
        _pacing.POLL_SHARE, _pacing.LEAST_POLL_SHARE = kept  # type: ignore[misc]


def simulated_tables(content: dict[str, Any]) -> str:
    """What was kept, as Markdown."""
    unknown = table(("tasks", "limit", "in", *COLUMNS), [_row(it) for it in content["unknown"]])
    shares = table(("tasks", "limit", "polls", *COLUMNS), [_row(it) for it in content["shares"]])
    return f"{unknown}\n\n{shares}"


def _row(it: dict[str, Any]) -> list[str]:
    third = it["kind"] if "kind" in it else "ours" if it["share"] is None else f"{it['share']:.0%}"
    return [
        number(it["n"], 0),
        "none" if it["limit"] is None else f"{it['limit']:g}/s",
        third,
        number(it["latency"], 2),
        number(it["wall"] / it["ideal"], 2),
        f"{it['refused']:.1%}",
        number(it["requests"], 2),
        number(it["lag_mean"], 2),
        number(it["lag_p50"], 2),
        number(it["lag_p95"], 2),
    ]
