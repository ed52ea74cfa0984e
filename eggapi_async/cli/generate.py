"""`eggapi generate`: a few prompts from the command line, waited for and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EggError
from .options import with_folder
from .progress import progress
from .report import Report
from .running import each, run
from .session import Session, pass_session, with_emulator, with_json
from .trouble import FAILED, OK, PARTLY, complain, exit_code, is_hopeless

if TYPE_CHECKING:
    from .. import AsyncEggClient, GenerationRequest, GenerationTask

WAIT = 600.0
"""Seconds that one task is waited for where nothing is said."""


@click.command(short_help="Generate images from prompts, wait for them and save them.")
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@with_folder()
@click.option("--model", metavar="NAME", help="nanobanana (default), nanobanana-pro, …")
@click.option("--aspect-ratio", metavar="W:H", help="16:9 (default) or 9:16.")
@click.option("--resolution", metavar="SIZE", help="1k, 2k or 4k.")
@click.option("--negative-prompt", metavar="TEXT", help="What should not be in it.")
@click.option("--num-outputs", metavar="N", type=int, help="Images per prompt, 1 to 4.")
@click.option("--image-url", "image_urls", metavar="URL", multiple=True, help="To edit; up to 9.")
@click.option("--duration", metavar="SECONDS", type=int, help="For video models, 1 to 60.")
@click.option("--webhook-url", metavar="URL", help="https URL that is told when a task ends.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=WAIT,
    show_default=True,
    help="How long to wait for each.",
)
@click.option("--no-wait", is_flag=True, help="Submit only; print the tasks' ids.")
@click.option("--no-download", is_flag=True, help="Wait, but print URLs instead of saving.")
@with_json
@with_emulator
@pass_session
def generate(
    session: Session,
    /,
    prompts: tuple[str, ...],
    folder: Path,
    timeout: float,
    no_wait: bool,
    no_download: bool,
    **fields: Any,
) -> None:
    """Generate images from prompts, wait for them and save them.

    \b
    eggapi generate "An egg on a spoon"
    eggapi generate "A wren's nest" "A jay's nest" --model nanobanana-pro -o nests
    eggapi generate "A heron at dawn" --no-wait | eggapi tasks download -
    """
    requests = _requests(prompts, fields)
    if no_wait:
        run(session, lambda egg: _submit(egg, session, requests))
    goal = None if no_download else folder
    run(session, lambda egg: _make(egg, session, requests, goal, timeout), folder=goal)


def _requests(prompts: tuple[str, ...], fields: dict[str, Any]) -> list[GenerationRequest]:
    from .. import GenerationRequest

    given = {name: value for name, value in fields.items() if value not in (None, ())}
    try:
        return [GenerationRequest(prompt=prompt, **given) for prompt in prompts]
    except EggError as error:
        return click.get_current_context().exit(complain(error))


async def _make(
    egg: AsyncEggClient,
    session: Session,
    requests: list[GenerationRequest],
    folder: Path | None,
    timeout: float,
) -> int:
    report = Report(session, egg.stats, folder=folder, total=len(requests))
    batch = egg.map(requests, in_flight=len(requests), timeout=timeout, save_to=folder)
    with progress(session, lambda: report.tally(batch.begun - batch.ended)) as put:
        async with batch as outcomes:
            async for outcome in outcomes:
                report.take(outcome, put)
    return report.sum_up()


async def _submit(egg: AsyncEggClient, session: Session, requests: list[GenerationRequest]) -> int:
    failures: list[EggError] = []

    def show(request: GenerationRequest, task: GenerationTask | EggError) -> None:
        if isinstance(task, EggError):
            failures.append(task)
            complain(task)
        elif session.is_json:
            shown = {"id": task.id, "status": task.status, "prompt": request.prompt}
            click.echo(json.dumps(shown))
        else:
            click.echo(task.id)

    await each(requests, egg.generate, show)
    return ended(failures, of=len(requests))


def ended(failures: list[EggError], *, of: int) -> int:
    """The exit code where so many items had these *failures*."""
    if not failures:
        return OK
    hopeless = next((error for error in failures if is_hopeless(error)), None)
    if hopeless is not None:
        return exit_code(hopeless)
    return PARTLY if len(failures) < of else FAILED
