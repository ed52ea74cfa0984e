"""`eggapi usage`: what the key has used, as records or by model."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from ..errors import dollars
from ..models import UsageSummary
from .running import run
from .session import Session, pass_session, with_emulator, with_json

if TYPE_CHECKING:
    from .. import AsyncEggClient


@click.command(short_help="What the key has used, as records or by model.")
@click.option("--summary", is_flag=True, help="One row per model.")
@with_json
@with_emulator
@pass_session
def usage(session: Session, summary: bool) -> None:
    """Print what the key has used: the service's records as JSON lines, or a summary.

    \b
    eggapi usage --summary
    eggapi usage > usage.jsonl
    """

    async def work(egg: AsyncEggClient) -> int:
        if summary:
            for line in _summed(await egg.usage_summary(), is_json=session.is_json):
                click.echo(line)
            return 0
        async for record in egg.usage():
            click.echo(json.dumps(record.raw))
        return 0

    run(session, work)


def _summed(rows: list[UsageSummary], *, is_json: bool) -> list[str]:
    if is_json:
        return [json.dumps(row.raw) for row in rows]
    table = [("model", "requests", "units", "cost"), *map(_row, rows)]
    width = max(len(row[0]) for row in table)
    return [f"{a:<{width}}  {b:>8}  {c:>8}  {d:>10}" for a, b, c, d in table]


def _row(row: UsageSummary) -> tuple[str, str, str, str]:
    cost = "-" if row.total_cost is None else dollars(row.total_cost)
    return row.model, _number(row.request_count), _number(row.total_units), cost


def _number(value: Decimal | int | None) -> str:
    return "-" if value is None else f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"
