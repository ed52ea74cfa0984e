"""`eggapi batch`: any number of prompts from a file or a pipe, hundreds at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import click

from .generate import WAIT
from .inputs import FORMATS, Source, Unreadable
from .progress import progress
from .report import Report
from .running import run
from .session import PER_SECOND, Session, pass_session, with_emulator, with_json

if TYPE_CHECKING:
    from .. import AsyncEggClient

_ABOVE_0 = click.FloatRange(min=0, min_open=True)


@attrs.frozen(kw_only=True)
class Plan:
    """What a batch is to do, and how hard."""

    source: Source
    folder: Path
    in_flight: int
    timeout: float
    defaults: dict[str, str]


@click.command(short_help="Generate an image for every line of a file.")
@click.argument(
    "file", metavar="FILE|-", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Where the files go, named by their task's id.  [default: here]",
)
@click.option("--format", type=click.Choice(FORMATS), help="Instead of what the suffix says.")
@click.option(
    "--prompt-column",
    metavar="NAME",
    default="prompt",
    show_default=True,
    help="The column of a CSV file that holds the prompts.",
)
@click.option(
    "-j",
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    help="Tasks in flight at once.",
)
@click.option(
    "--rate",
    metavar="N",
    type=_ABOVE_0,
    default=PER_SECOND,
    show_default=True,
    help="Requests per second.",
)
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Take only the first N.")
@click.option("--model", metavar="NAME", help="For lines that name none.")
@click.option("--aspect-ratio", metavar="W:H", help="For lines that name none.")
@click.option("--resolution", metavar="SIZE", help="For lines that name none.")
@click.option("--negative-prompt", metavar="TEXT", help="For lines that have none.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=_ABOVE_0,
    default=WAIT,
    show_default=True,
    help="How long to wait for each.",
)
@with_json
@with_emulator
@pass_session
def batch(
    session: Session,
    /,
    file: str,
    format: str | None,
    prompt_column: str,
    limit: int | None,
    folder: Path,
    concurrency: int,
    rate: float,
    timeout: float,
    **fields: str | None,
) -> None:
    """Generate an image for every line of a file, hundreds at a time, and save them.

    \b
    eggapi batch prompts.txt -o out
    eggapi batch jobs.csv --prompt-column title --model nanobanana-pro -o out
    zcat jobs.jsonl.gz | eggapi batch - --format jsonl -o out --json > log.jsonl

    \b
    .txt    a prompt per line; lines that begin with # are comments: skipped,
            and so are blank ones, here and in .jsonl
    .jsonl  {"prompt": "…", "aspect_ratio": "9:16", …} or "a prompt" per line
    .csv    a header, then rows; columns named like a request's fields are used

    Failures are told at the end, and kept in DIR/failed.jsonl, which can be
    given to this command again: what is not tried then stays in it.
    """
    source = Source.of(file, format=format, prompt_column=prompt_column, limit=limit)
    plan = Plan(
        source=source,
        folder=folder,
        in_flight=concurrency,
        timeout=timeout,
        defaults={name: value for name, value in fields.items() if value is not None},
    )
    total = source.total()
    run(session, lambda egg: _work(egg, session, plan, total), per_second=rate, folder=folder)


async def _work(egg: AsyncEggClient, session: Session, plan: Plan, total: int | None) -> int:
    report = Report(
        session,
        egg.stats,
        folder=plan.folder,
        keeps_failures=True,
        is_repeated=plan.source.is_at(plan.folder / "failed.jsonl"),
        source=plan.source.name,
        total=total,
    )
    batch = egg.map(
        _requests(plan, report),
        in_flight=plan.in_flight,
        timeout=plan.timeout,
        save_to=plan.folder,
    )
    try:
        with progress(session, lambda: report.tally(batch.begun - batch.ended)) as put:
            async with batch as outcomes:
                async for outcome in outcomes:
                    report.take(outcome, put)
    except anyio.get_cancelled_exc_class():
        session.say(report.tally(batch.begun - batch.ended).words())
        raise
    finally:
        report.close(task.request for task in egg.unfinished)
    return report.sum_up()


async def _requests(plan: Plan, report: Report) -> AsyncIterator[Any]:
    index = 0
    async for line in plan.source.stream():
        if report.is_hopeless:  # no money, no key: the rest would only be refused too
            return
        report.begin(index, line)
        index += 1
        yield _with_defaults(line.item, plan.defaults)


def _with_defaults(item: str | dict[str, Any] | Unreadable, defaults: dict[str, str]) -> Any:
    if not defaults or isinstance(item, Unreadable):
        return item
    fields = {"prompt": item} if isinstance(item, str) else item
    return {**defaults, **{name: value for name, value in fields.items() if value is not None}}
