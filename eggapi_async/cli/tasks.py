"""`eggapi tasks`: look at tasks, wait for them, fetch their files."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EggError, dollars
from ..models import TaskSnapshot
from .generate import WAIT, ended
from .options import with_folder
from .running import each, run
from .session import Session, pass_session, with_emulator, with_json
from .trouble import complain

if TYPE_CHECKING:
    from .. import AsyncEggClient

_IDS = click.argument("ids", metavar="ID...|-", nargs=-1, required=True)
_TIMEOUT = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=WAIT,
    show_default=True,
    help="How long to wait for each.",
)


@click.group(short_help="List tasks, look at them, wait for them, fetch their files.")
def tasks() -> None:
    """List tasks, look at them, wait for them, fetch their files.

    \b
    eggapi tasks list --limit 50
    eggapi tasks get gen_abc123
    eggapi tasks download gen_abc123 gen_def456 -o out
    """


@tasks.command("list")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many to list.",
)
@with_json
@with_emulator
@pass_session
def list_tasks(session: Session, limit: int) -> None:
    """List the tasks of the key, in the service's order.

    \b
    eggapi tasks list
    eggapi tasks list --limit 500 --json | jq -r 'select(.status == "failed").id'
    """

    async def work(egg: AsyncEggClient) -> int:
        async for task in egg.tasks(max_items=limit):
            click.echo(_as_json(task) if session.is_json else _row(task))
        return 0

    run(session, work)


@tasks.command("get")
@click.argument("task_id", metavar="ID")
@with_json
@with_emulator
@pass_session
def get_task(session: Session, task_id: str) -> None:
    """Show one task as it is now.

    \b
    eggapi tasks get gen_abc123
    """

    async def work(egg: AsyncEggClient) -> int:
        task = await egg.get_task(task_id)
        click.echo(_as_json(task) if session.is_json else _in_full(task))
        return 0

    run(session, work)


@tasks.command("wait")
@_IDS
@_TIMEOUT
@with_json
@with_emulator
@pass_session
def wait_for_tasks(session: Session, ids: tuple[str, ...], timeout: float) -> None:
    """Wait until tasks have ended, and print their URLs.

    \b
    eggapi tasks wait gen_abc123 gen_def456
    eggapi generate "An egg" --no-wait | eggapi tasks wait -
    """

    def show(task: TaskSnapshot) -> None:
        for line in [_as_json(task)] if session.is_json else task.urls:
            click.echo(line)

    async def work(egg: AsyncEggClient) -> int:
        async def wait(task_id: str) -> None:
            show(await egg.task(task_id).result(timeout))

        return await _for_all(_given(ids), wait)

    run(session, work)


@tasks.command("download")
@_IDS
@with_folder()
@_TIMEOUT
@with_json
@with_emulator
@pass_session
def download_tasks(session: Session, ids: tuple[str, ...], folder: Path, timeout: float) -> None:
    """Save the outputs of tasks, after waiting for them if need be.

    \b
    eggapi tasks download gen_abc123 -o out
    eggapi tasks download - -o out < out/unfinished.txt
    """

    def show(task_id: str, paths: list[str]) -> None:
        for line in [json.dumps({"id": task_id, "paths": paths})] if session.is_json else paths:
            click.echo(line)

    async def work(egg: AsyncEggClient) -> int:
        async def fetch(task_id: str) -> None:
            paths = await egg.task(task_id).save(f"{folder}/", timeout=timeout)
            show(task_id, [str(path) for path in paths])

        return await _for_all(_given(ids), fetch)

    run(session, work)


def _given(ids: tuple[str, ...]) -> list[str]:
    """The ids, each once; `-` stands for those on standard input, a line each."""
    given: list[str] = []
    for text in ids:
        given += sys.stdin.read().split() if text == "-" else [text]
    return list(dict.fromkeys(given))


async def _for_all(ids: list[str], work: Callable[[str], Awaitable[None]]) -> int:
    failures: list[EggError] = []

    def note(task_id: str, result: EggError | None) -> None:
        if result is not None:
            failures.append(result)
            complain(result, about=task_id)

    await each(ids, work, note)
    return ended(failures, of=len(ids))


def _row(task: TaskSnapshot) -> str:
    cost = "-" if task.cost is None else dollars(task.cost)
    made = "-" if task.created_at is None else f"{task.created_at:%Y-%m-%d %H:%M:%S}"
    end = task.url or task.error or ""
    return f"{task.id}  {task.status:<10}  {task.model:<14}  {cost:>7}  {made}  {end}".rstrip()


def _in_full(task: TaskSnapshot) -> str:
    rows: list[tuple[str, Any]] = [
        ("id", task.id),
        ("status", task.status),
        ("model", task.model),
        ("type", task.type),
        ("cost", None if task.cost is None else dollars(task.cost)),
        ("created", task.created_at),
        ("started", task.started_at),
        ("completed", task.completed_at),
        *(("url", url) for url in task.urls),
        ("error", task.error),
    ]
    return "\n".join(f"{name:<10} {value}" for name, value in rows if value)


def _as_json(task: TaskSnapshot) -> str:
    return json.dumps(task.raw)
