"""`eggapi demo`: hundreds of pictures in a few seconds, without a key or a network.

Everything is as it would be with the service, only faster: the emulator makes pictures *speed*
times faster, and the client's patience is *speed* times shorter (`session.in_process`). So the
number of requests is what it would be in real time, as long as the machine keeps up; painting the
eggs takes its time too, and who comes late polls less. `SPEED` leaves a small machine half of its
time. What one poll per task would have taken is counted from how long each task really took at the
emulator, in the service's time.
"""

from __future__ import annotations

import json
import math
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ..errors import dollars
from ..models import Outcome, Stats
from .options import with_folder
from .progress import progress
from .report import Report
from .running import attend
from .session import (
    PER_SECOND,
    Session,
    hurried,
    in_process,
    new_emulator,
    pass_session,
    with_json,
)
from .wording import counted, sized

if TYPE_CHECKING:
    from .. import AsyncEggClient
    from ..emulator import EggEmulator

SPEED = 5.0
"""Measured on two cores: 101 polls at 1.5, 3 and 5 times, 79 at 6, 40 at 20."""
PROMPTS = files(__package__).joinpath("prompts.txt").read_text("utf-8").splitlines()


@attrs.frozen(kw_only=True)
class Figures:
    """What a demonstration came to. *seconds* are real, *mean_seconds* in the service's time."""

    folder: Path
    pictures: int
    size: int
    seconds: float
    speed: float
    mean_seconds: float
    stats: Stats
    polls_by_advice: int


@click.command(short_help="See it work: 200 pictures, no key, no network.")
@with_folder("egg-demo", "Where the pictures go.")
@click.option(
    "-n",
    "number",
    metavar="N",
    type=click.IntRange(1, len(PROMPTS)),
    default=len(PROMPTS),
    show_default=True,
    help="How many pictures.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=SPEED,
    show_default=True,
    help="Times faster than the service.",
)
@with_json
@pass_session
def demo(session: Session, folder: Path, number: int, speed: float) -> None:
    """See it work: 200 pictures at once, from an emulator in this very process.

    \b
    eggapi demo
    eggapi demo -n 50 -o eggs --speed 2

    Needs no key and no network, and costs nothing.
    """
    session.is_emulated = True
    emulator = new_emulator(speed)
    egg = in_process(emulator, speed=speed, per_second=PER_SECOND)

    async def work(egg: AsyncEggClient) -> int:
        return await _show(egg, session, emulator, folder, PROMPTS[:number], speed)

    click.get_current_context().exit(attend(session, egg, work))


async def _show(
    egg: AsyncEggClient,
    session: Session,
    emulator: EggEmulator,
    folder: Path,
    prompts: list[str],
    speed: float,
) -> int:
    session.say(f"{counted(len(prompts), 'picture')}, asked for all at once:")
    report = Report(session, egg.stats, folder=folder, total=len(prompts))
    batch = egg.map(prompts, in_flight=len(prompts), save_to=folder)
    outcomes: list[Outcome] = []
    started = time.monotonic()
    with progress(session, lambda: report.tally(batch.begun - batch.ended)):
        async with batch as run:
            async for outcome in run:
                report.take(outcome, lambda _: None)
                outcomes.append(outcome)
    seconds = time.monotonic() - started
    figures = _figures(emulator, outcomes, folder, seconds, speed, egg.stats)
    tell(figures, is_json=session.is_json)
    return report.exit_code


def _figures(
    emulator: EggEmulator,
    outcomes: list[Outcome],
    folder: Path,
    seconds: float,
    speed: float,
    stats: Stats,
) -> Figures:
    paths = [path for outcome in outcomes for path in outcome.paths]
    tasks = [emulator.task(task_id) for task_id in emulator.accepted]
    lives = [(task.completed_at - task.created_at) * speed for task in tasks]
    return Figures(
        folder=folder,
        pictures=len(paths),
        size=sum(path.stat().st_size for path in paths),
        seconds=seconds,
        speed=speed,
        mean_seconds=sum(lives) / len(lives),
        stats=stats,
        polls_by_advice=sum(polls_by_advice(life) for life in lives),
    )


def polls_by_advice(seconds: float) -> int:
    """GETs for one task that takes so long: the first after 3 s, then every 5 s, as is advised."""
    usual = hurried(1.0)
    return 1 + max(0, math.ceil((seconds - usual.first_delay) / usual.interval))


def tell(figures: Figures, *, is_json: bool) -> None:
    """Print the figures, for people or for programs."""
    if is_json:
        click.echo(json.dumps(_as_json(figures)))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_words(figures), soft_wrap=True)


def _as_json(figures: Figures) -> dict[str, Any]:
    return {
        "folder": str(figures.folder),
        "pictures": figures.pictures,
        "bytes": figures.size,
        "seconds": round(figures.seconds, 2),
        "speed": figures.speed,
        "mean_task_seconds": round(figures.mean_seconds, 2),
        "requests": figures.stats.requests,
        "polls": figures.stats.polls,
        "polls_by_advice": figures.polls_by_advice,
        "cost": str(figures.stats.cost),
    }


def _doubt(figures: Figures) -> str:
    if figures.speed <= SPEED:
        return ""
    return "\n           (a machine that cannot keep up with that polls less than it would)"


def _words(figures: Figures) -> str:
    times = f"{figures.speed:g} times faster than real{_doubt(figures)}"
    many = counted(figures.pictures, "picture")
    polls = counted(figures.stats.polls, "request")
    return f"""
[bold]{many}[/] in [bold]{figures.folder}/[/] ({sized(figures.size)}), after {figures.seconds:.1f} s

  [yellow]Waiting[/]  {polls} to watch all tasks; asking for each by itself, after 3 s
           and then every 5 s as is advised, would have taken {figures.polls_by_advice:,}
           (tasks of {figures.mean_seconds:.1f} s on average, in the service's time)
  [yellow]Time[/]     emulator and client both ran {times}
  [yellow]Money[/]    none; the service would have charged {dollars(figures.stats.cost)}

The same from Python

  [dim]async with AsyncEggClient() as egg:
      tasks = await asyncio.gather(*(egg.generate(p) for p in prompts))
      for result in await asyncio.gather(*(t.result() for t in tasks)):
          print(result.url, result.cost)[/]

and from a shell

  [dim]eggapi batch prompts.txt -o out[/]"""
