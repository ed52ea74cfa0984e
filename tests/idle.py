"""Idle connections cause no doubt: `python -m tests.idle [submissions]`.

A service that closes idle connections after 0.25 to 5 s, 80 ms away, and submissions at random
intervals around that: the moment at which a kept connection ends on the other side, while a
submission is already on its way, is met again and again by a client that keeps it for too long.
Each is bought exactly once, and none is in doubt. The exit code is 1 if one is.

Ten clients go side by side, each with a service of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from typing import Final

from eggapi_async import EggError
from tests.scripted import client_of, data, task
from tests.wire import Received, Step, Wire, json_answer

SUBMISSIONS: Final = 1_000
SIDE_BY_SIDE: Final = 10
ROUND_TRIP: Final = 0.08
IDLE: Final = (0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds after which the services close an idle connection."""


class Away:
    """A way to a service that takes half of *ROUND_TRIP* in either direction, hang-ups too."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pipes: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends."""
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, back), (there, writer)):
            pipe = asyncio.ensure_future(self._carry(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        chunk = b"first"
        while chunk:
            try:
                chunk = await source.read(65536)
            except ConnectionError:
                chunk = b""
            loop.call_later(ROUND_TRIP / 2, self._deliver, sink, chunk)
        await asyncio.sleep(ROUND_TRIP)

    @staticmethod
    def _deliver(sink: asyncio.StreamWriter, chunk: bytes) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            sink.write(chunk) if chunk else sink.close()


def _service(idle: float) -> tuple[Wire, Counter[str]]:
    bought: Counter[str] = Counter()

    def script(request: Received) -> Step:
        bought[request.body.decode()] += 1
        good = json_answer(data(task(f"gen_{bought.total()}")), 202)

        def step(talk: object) -> None:
            good(talk)  # type: ignore[arg-type]
            talk.idle_seconds = idle  # type: ignore[attr-defined]

        return step

    return Wire(script), bought


async def _use(number: int, submissions: int, ends: Counter[str]) -> None:
    """One client: submissions with gaps around the time after which its service hangs up."""
    dice, idle = random.Random(number), IDLE[number % len(IDLE)]
    server, bought = _service(idle)
    with server:
        away = Away(server.port)
        road = await asyncio.start_server(away.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{road.sockets[0].getsockname()[1]}"
        async with client_of(url, timeout=30.0) as egg:
            for n in range(submissions):
                try:
                    await egg.generate(f"Egg {n}")
                    ends["bought"] += 1
                except EggError as error:
                    ends[type(error).__name__] += 1
                # Near the end of the service's patience, near the client's own, or anywhere.
                gap = dice.choice((idle - ROUND_TRIP / 2, 1.0, dice.random() * 1.5))
                await asyncio.sleep(min(2.0, max(0.0, gap + dice.uniform(-0.06, 0.06))))
            ends["connections"] += server.connections
        ends["twice"] += sum(times > 1 for times in bought.values())
        road.close()


async def measure(submissions: int) -> Counter[str]:
    """How all of them ended."""
    ends: Counter[str] = Counter(twice=0)
    each = submissions // SIDE_BY_SIDE
    await asyncio.gather(*(_use(number, each, ends) for number in range(SIDE_BY_SIDE)))
    return ends


def main(submissions: int = SUBMISSIONS) -> int:
    """Measure, and write it."""
    began = time.monotonic()
    ends = asyncio.run(measure(submissions))
    sys.stdout.write(f"{dict(ends)} in {time.monotonic() - began:.0f} s\n")
    return ends["bought"] != submissions or ends["twice"] > 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
