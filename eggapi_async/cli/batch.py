"""`eggapi batch`: any number of prompts from a file or a pipe, hundreds at a time."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import past
from .course import Plan, work
from .generate import WAIT
from .inputs import FORMATS, Source
from .naming import Template
from .options import Shard, as_dollars, as_shard, as_template, with_folder
from .pricing import quote
from .running import run
from .session import PER_SECOND, Session, pass_session, with_emulator, with_json

if TYPE_CHECKING:
    pass

_ABOVE_0 = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Generate an image for every line of a file.")
@click.argument(
    "file", metavar="FILE|-", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@with_folder(help="Where the files go, and the journal.  [default: here]")
@click.option("--format", type=click.Choice(FORMATS), help="Instead of what the suffix says.")
@click.option(
    "--prompt-column",
    metavar="NAME",
    default="prompt",
    show_default=True,
    help="The column of a CSV file that holds the prompts.",
)
@click.option("--dry-run", is_flag=True, help="Check every line, tell the price; send nothing.")
@click.option(
    "--max-cost",
    metavar="USD",
    callback=as_dollars,
    help="What all in DIR may cost, earlier runs included.",
)
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Take only the first N.")
@click.option(
    "--shard", metavar="I/N", callback=as_shard, help="Take every N-th line, from the I-th on."
)
@click.option("--fail-fast", "fails_fast", is_flag=True, help="Begin nothing after a failure.")
@click.option("--retry-failed", "retries_failed", is_flag=True, help="Try what failed before.")
@click.option(
    "--verify",
    "verifies",
    is_flag=True,
    help="Look for lost submissions in the task list, if nothing else has used the key for hours.",
)
@click.option(
    "--name",
    "template",
    metavar="TEMPLATE",
    callback=as_template,
    help="What files are called: '{index:04d}-{slug}'; also {line}, {id}, {model}.",
)
@click.option("--gallery", "has_gallery", is_flag=True, help="Write DIR/index.html at the end.")
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
    shard: Shard,
    dry_run: bool,
    folder: Path,
    concurrency: int,
    rate: float,
    timeout: float,
    template: Template | None,
    max_cost: Decimal | None,
    retries_failed: bool,
    fails_fast: bool,
    verifies: bool,
    has_gallery: bool,
    **fields: str | None,
) -> None:
    """Generate an image for every line of a file, hundreds at a time, and save them.

    \b
    eggapi batch prompts.txt -o out --dry-run
    eggapi batch prompts.txt -o out --max-cost 5.00 --gallery
    eggapi batch jobs.csv --prompt-column title --model nanobanana-pro -o out
    zcat jobs.jsonl.gz | eggapi batch - --format jsonl -o out --json > log.jsonl

    Interrupt it, kill it, and run the same command again: it goes on where it
    was. What is done costs nothing, what was submitted is collected. The
    journal is DIR/.eggapi.sqlite3 (with --emulator there is none).

    \b
    .txt    a prompt per line; lines that begin with # are comments: skipped,
            and so are blank ones, here and in .jsonl
    .jsonl  {"prompt": "…", "aspect_ratio": "9:16", …} or "a prompt" per line
    .csv    a header, then rows; columns named like a request's fields are used

    Failures are told at the end, and kept in DIR/failed.jsonl: to be mended,
    and given to this command. What may have been bought though its answer was
    lost is in DIR/uncertain.jsonl.
    """
    source = Source.of(
        file,
        format=format,
        prompt_column=prompt_column,
        limit=limit,
        shard=shard,
        defaults={name: value for name, value in fields.items() if value is not None},
    )
    plan = Plan(
        source=source,
        folder=folder,
        in_flight=concurrency,
        timeout=timeout,
        template=template,
        max_cost=max_cost,
        retries_failed=retries_failed or source.is_at(folder / "failed.jsonl"),
        fails_fast=fails_fast,
        verifies=verifies,
        has_gallery=has_gallery,
        again=None if session.is_emulated else past.command(),
    )
    if dry_run:
        quote(session, source, folder, max_cost=max_cost, retries_failed=plan.retries_failed)
    total = source.total()
    run(
        session,
        lambda egg: work(egg, session, plan, total),
        per_second=rate,
        folder=folder,
        again=plan.again,
    )
