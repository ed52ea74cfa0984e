"""Any number who wait for one task, and come and go as they like: they share one poll.

A crowd of up to fifty joins at random moments and leaves when its time is up, when it is cancelled,
or with the result. It may ask no more than one who waits alone from the beginning to the end.
`python -m tests.crowd [crowds]` draws so many; `--seed S` shows one.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from typing import Any, Final

import anyio
import attrs

from eggapi_async import GenerationRequest, PollPolicy, Stats, TaskSnapshot, TaskTimeoutError
from eggapi_async._hub import Hub, Watch
from eggapi_async._protocol import Call
from tests.virtual_time import START, VirtualLoop, refuse_leftovers

FULL: Final = 2000
REQUEST: Final = GenerationRequest(prompt="an egg")


@attrs.frozen
class Member:
    """One who waits: from when, and how it leaves, if not with the result."""

    comes: float
    stays: float
    leaves: str


@attrs.frozen
class Crowd:
    """A task that takes a while, polls that do, and those who wait."""

    takes: float
    delay: float
    members: tuple[Member, ...]

    @classmethod
    def of(cls, seed: int) -> Crowd:
        """One drawn from *seed*."""
        dice = random.Random(seed)
        takes = dice.uniform(0.5, 120.0)
        members = [
            Member(
                comes=dice.choice((0.0, dice.uniform(0.0, takes))),
                stays=dice.choice((dice.uniform(0.0, 10.0), dice.uniform(0.0, takes))),
                leaves=dice.choice(("cancelled", "by a scope", "in time", "at the end")),
            )
            for _ in range(dice.randint(1, 50))
        ]
        return cls(takes, dice.choice((0.01, 0.3, 2.0)), tuple(members))


class Service:
    """Answers polls, and counts them."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.asked: list[float] = []

    async def ask(self, _: Call[Any], *, first: bool = False) -> TaskSnapshot:
        """One poll."""
        now = anyio.current_time()
        self.asked.append(now - START)
        await anyio.sleep(self._crowd.delay)
        is_done = anyio.current_time() >= START + self._crowd.takes
        return TaskSnapshot(id="gen_a", status="completed" if is_done else "processing")


async def _wait(hub: Hub, watch: Watch, member: Member) -> str:
    await anyio.sleep(member.comes)
    try:
        if member.leaves == "in time":
            with anyio.fail_after(member.stays):
                await hub.result(watch)
        elif member.leaves == "by a scope":
            with anyio.move_on_after(member.stays):
                await hub.result(watch)
        elif member.leaves == "cancelled":
            task = asyncio.ensure_future(hub.result(watch))
            await asyncio.wait((task,), timeout=member.stays)
            task.cancel()
            await asyncio.wait((task,))
            return "cancelled" if task.cancelled() else task.result().status
        else:
            return (await hub.result(watch)).status
    except (TimeoutError, TaskTimeoutError):
        return "timed out"
    return "left"


def polls(crowd: Crowd) -> list[float]:
    """When the service was asked, while they waited. Nothing of them is left at the end."""
    complaints: list[str] = []

    async def live() -> list[float]:
        service = Service(crowd)
        hub = Hub(transport=service, policy=PollPolicy(), stats=Stats())  # type: ignore[arg-type]
        watch = hub.submitted(TaskSnapshot(id="gen_a", status="pending"), REQUEST)
        ends = await asyncio.gather(*(_wait(hub, watch, member) for member in crowd.members))
        whole = [
            end for end, one in zip(ends, crowd.members, strict=True) if one.leaves == "at the end"
        ]
        assert set(whole) <= {"completed"}
        assert hub.waited == 0
        return service.asked

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
        asked = runner.run(live())
        refuse_leftovers(asyncio.all_tasks(loop))
    gc.collect(0)
    assert not complaints
    return asked


def alone(crowd: Crowd) -> Crowd:
    """One who waits for the same task from the beginning to the end."""
    return attrs.evolve(crowd, members=(Member(0.0, 0.0, "at the end"),))


def excess(seed: int) -> int:
    """How many more polls a crowd took than one who waits alone."""
    crowd = Crowd.of(seed)
    return len(polls(crowd)) - len(polls(alone(crowd)))


def main(*arguments: str) -> None:
    """Draw many, or show one."""
    if arguments[:1] == ("--seed",):
        crowd = Crowd.of(int(arguments[1]))
        sys.stdout.write(f"{crowd}\n{polls(crowd)}\nalone: {polls(alone(crowd))}\n")
        return
    crowds = int(arguments[0]) if arguments else FULL
    worst = max(range(crowds), key=excess)
    sys.stdout.write(
        f"{crowds} crowds; at most {excess(worst)} polls more than alone (seed {worst})\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
