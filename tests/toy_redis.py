"""A Redis of a few commands, in this process: for virtual time, and for machines without a server.

It knows the two scripts of `eggapi_async.redis` by their text and does in Python what they say;
`tests/integration/test_servers.py` holds the two against each other on a real server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import anyio
import attrs
from redis.exceptions import ConnectionError as RedisConnectionError

from eggapi_async.redis import SWAP, TURNS

Argument = str | int


@attrs.define
class ToyRedis:
    """One server; every client of it is this object.

    *is_away*: it refuses connections. *silence*: seconds before each answer. *calls* counts.
    """

    clock: Callable[[], float] = anyio.current_time
    is_away: bool = False
    silence: float = 0.0
    calls: int = 0
    kept: dict[str, tuple[str, float]] = attrs.field(factory=dict)

    def register_script(self, text: str) -> Callable[..., Any]:
        """Something to call like redis-py's scripts."""
        work = {TURNS: self._turns, SWAP: self._swap}[text]

        async def script(*, keys: Sequence[str], args: Sequence[Argument]) -> int:
            await self._arrive()
            return work(keys, args)

        return script

    async def mget(self, keys: Collection[str]) -> list[bytes | None]:
        """The values; None for those that are not there."""
        await self._arrive()
        return [None if (text := self._get(key)) is None else text.encode() for key in keys]

    async def _arrive(self) -> None:
        self.calls += 1
        await anyio.sleep(self.silence)
        if self.is_away:
            raise RedisConnectionError("refused")

    def restart(self) -> None:
        """Everything is forgotten."""
        self.kept.clear()

    def _get(self, key: str) -> str | None:
        text, until = self.kept.get(key, ("", 0.0))
        return text if self.clock() < until else None

    def _set(self, key: str, value: object, milliseconds: float) -> None:
        self.kept[key] = (str(value), self.clock() + milliseconds / 1000)

    def _turns(self, keys: Sequence[str], args: Sequence[Argument]) -> int:
        gap, lateness, turns, pause = map(int, args)
        now = int(self.clock() * 1e6)
        hold = int(self._get(keys[1]) or 0)
        if pause > 0 and now + pause > hold:
            hold = now + pause
            self._set(keys[1], hold, pause / 1000)
        if turns == 0:
            return max(0, hold - now)
        turn = max(int(self._get(keys[0]) or 0), now - lateness, hold)
        free = turn + turns * gap
        self._set(keys[0], free, (free - now) / 1000 + 1000)
        return max(0, turn - now)

    def _swap(self, keys: Sequence[str], args: Sequence[Argument]) -> int:
        old, new, keep = str(args[0]), str(args[1]), int(args[2])
        there = self._get(keys[0]) or ""
        if there not in (old, new):
            return 0
        if not new:
            self.kept.pop(keys[0], None)
        elif there != new:
            self._set(keys[0], new, keep)
        return 1
