"""`eggapi emulator`: the API over TCP on this very machine, for whatever speaks HTTP.

Other machines cannot reach it, and it calls none: it knows no secrets, and takes any key.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import click

from .options import with_port
from .serving import address, listening, need_server, serve

_AT_LEAST_0 = click.FloatRange(min=0)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)


def _money(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"expected US dollars, got {text!r}") from None


def _announce(url: str) -> None:
    click.echo(f"The Egg API, emulated, at {url} (Ctrl-C ends it). To use it:", err=True)
    click.echo(f"export EGGAPI_BASE_URL={url}")
    click.echo("export EGGAPI_API_KEY=any-key")


@click.command(short_help="Serve an emulated Egg API on this machine.")
@with_port(8765)
@click.option(
    "--host",
    type=click.Choice(["127.0.0.1", "localhost", "::1"]),
    default="127.0.0.1",
    show_default=True,
    help="A name of this machine.",
)
@click.option(
    "--speed", metavar="N", type=_ABOVE_0, default=1.0, help="Times faster than the service."
)
@click.option("--seed", metavar="N", type=int, default=0, help="Of ids, durations and faults.")
@click.option(
    "--latency", metavar="SECONDS", type=_AT_LEAST_0, default=0.0, help="Seconds per answer."
)
@click.option(
    "--per-second", metavar="N", type=_ABOVE_0, help="Requests per second and key; beyond: 429."
)
@click.option("--retry-after", metavar="SECONDS", type=_ABOVE_0, help="Seconds that a 429 names.")
@click.option(
    "--order",
    type=click.Choice(["newest", "oldest", "shuffled", "completed"]),
    default="newest",
    help="Of the task list.",
)
@click.option(
    "--list-delay",
    metavar="SECONDS",
    type=_AT_LEAST_0,
    default=0.0,
    help="Seconds until a task is listed.",
)
@click.option(
    "--foreign-per-second",
    metavar="N",
    type=_AT_LEAST_0,
    default=0.0,
    help="Tasks that others submit.",
)
@click.option(
    "--webhook-secret", metavar="TEXT", help="Sign webhooks with it; without one they are unsigned."
)
@click.option("--balance", metavar="USD", type=_money, help="Refuse what it does not cover.")
def emulator(port: int, host: str, **options: Any) -> None:
    """Serve an emulated Egg API on this machine, until Ctrl-C.

    \b
    eggapi emulator
    eggapi emulator --port 0 --speed 20
    eggapi emulator --per-second 50 --retry-after 2 --latency 0.2

    It answers as the API's documents say, takes any key, and paints eggs. A
    prompt with the word "forbidden" or "broken" fails. Webhooks are sent to this
    machine only, so a webhook URL here may be http://127.0.0.1:PORT/path.
    """
    need_server("the emulator")
    from ..emulator import EggEmulator

    with listening(host, port) as door:
        _announce(address(host, door.getsockname()[1]))
        serve(EggEmulator(**options), door, date_header=False)  # its own clock tells the date
