"""Serves an ASGI application over TCP until Ctrl-C, for the commands that listen.

The only place that needs uvicorn.
"""

from __future__ import annotations

import importlib.util
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from .trouble import FAILED


def need_server(what: str) -> None:
    """Leave with a word about the extra that *what* needs, if it is missing."""
    if importlib.util.find_spec("uvicorn") is None:
        _fail(f"{what} needs an extra: pip install 'eggapi-async[server]'")


def serve(app: Any, door: socket.socket, **options: Any) -> None:
    """Serve *app* on an open *door*; Ctrl-C and SIGTERM end it."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, **options)
    with _ended_by_signals():
        uvicorn.Server(config).run(sockets=[door])


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
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


def _fail(problem: str) -> NoReturn:
    click.echo(f"error: {problem}", err=True)
    click.get_current_context().exit(FAILED)
