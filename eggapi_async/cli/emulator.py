"""`eggapi emulator`: the API over TCP on this very machine, for whatever speaks HTTP.

The only place that needs uvicorn. Other machines cannot reach it: it knows no secrets, and takes
any key.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from .trouble import FAILED

_AT_LEAST_0 = click.FloatRange(min=0)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)


def _money(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"expected US dollars, got {text!r}") from None


@click.command(short_help="Serve an emulated Egg API on this machine.")
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Where to listen; 0 takes a free one.",
)
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
@click.option("--balance", metavar="USD", type=_money, help="Refuse what it does not cover.")
def emulator(port: int, host: str, **options: Any) -> None:
    """Serve an emulated Egg API on this machine, until Ctrl-C.

    \b
    eggapi emulator
    eggapi emulator --port 0 --speed 20
    eggapi emulator --per-second 50 --retry-after 2 --latency 0.2

    It answers as the API's documents say, takes any key, and paints eggs. A
    prompt with the word "forbidden" or "broken" fails.
    """
    try:
        import uvicorn
    except ModuleNotFoundError:
        _fail("the emulator needs an extra: pip install 'eggapi-async[server]'")
    from ..emulator import EggEmulator

    with _listening(host, port) as door:
        _announce(address(host, door.getsockname()[1]))
        config = uvicorn.Config(
            EggEmulator(**options),
            date_header=False,  # the emulator's own clock tells the date
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        with _ended_by_signals():
            uvicorn.Server(config).run(sockets=[door])


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    # Bound here, not by the server, so that the address is known, and true, before it is told.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        door = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        _fail(f"cannot listen at {host}:{port}: {error.strerror} (--port 0 takes a free port)")
    with door:
        yield door


def address(host: str, port: int) -> str:
    """The base URL of what listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(url: str) -> None:
    click.echo(f"The Egg API, emulated, at {url} (Ctrl-C ends it). To use it:", err=True)
    click.echo(f"export EGGAPI_BASE_URL={url}")
    click.echo("export EGGAPI_API_KEY=any-key")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a server ends: no failure, and nothing to complain about.

    The server ends itself on them, then raises them again for those who had asked for them before.
    """
    previous = [(number, signal.signal(number, _ignore)) for number in _ENDS]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


_ENDS = (signal.SIGINT, signal.SIGTERM)


def _ignore(*_: object) -> None:
    pass


def _fail(problem: str) -> None:
    click.echo(f"error: {problem}", err=True)
    click.get_current_context().exit(FAILED)
