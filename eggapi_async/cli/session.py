"""From the global options to a client.

The key is never an option's value, so that no shell history keeps it. The library is imported when
a client is wanted, so that `--help` need not wait for it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

if TYPE_CHECKING:
    from .. import AsyncEggClient, PollPolicy
    from ..emulator import EggEmulator

PER_SECOND = 95.0
"""Requests per second where `--rate` says nothing; the service allows an address 100."""


@attrs.define
class Session:
    """The global options, as given before the command or after it."""

    is_emulated: bool = False
    speed: float = 1.0
    base_url: str | None = None
    api_key_file: Path | None = None
    is_json: bool = False
    is_quiet: bool = False
    verbosity: int = 0

    def client(self, *, per_second: float | None = None) -> AsyncEggClient:
        """The client that the options ask for. Raises ConfigurationError."""
        from .. import AsyncEggClient, RateLimiter

        rate = per_second or PER_SECOND
        if self.is_emulated:
            return in_process(new_emulator(self.speed), speed=self.speed, per_second=rate)
        limiter = RateLimiter(per_second=rate)
        return AsyncEggClient(self._key(), base_url=self.base_url, limiter=limiter)

    def _key(self) -> str:
        from .. import ConfigurationError

        if self.api_key_file is None:
            key, place = os.environ.get("EGGAPI_API_KEY", ""), "the environment"
        else:
            key, place = self.api_key_file.read_text("utf-8", "replace"), str(self.api_key_file)
        if not key.strip():
            raise ConfigurationError(f"api_key: there is none in {place}")
        return key.strip()

    def say(self, text: str) -> None:
        """Talk, unless asked to be quiet."""
        if not self.is_quiet:
            click.echo(text, err=True)


pass_session = click.make_pass_decorator(Session)


def new_emulator(speed: float) -> EggEmulator:
    """An emulator whose ids no other run has: files of an earlier run are not taken for ours."""
    from ..emulator import EggEmulator

    return EggEmulator(speed=speed, seed=random.SystemRandom().randrange(1 << 48))


def in_process(emulator: EggEmulator, *, speed: float, per_second: float) -> AsyncEggClient:
    """A client of *emulator*, which is *speed* times faster than the service, and so is the client.

    All its times shrink alike, so the proportions stay those of the real service: as many polls for
    a task, as many submissions while a picture is made.
    """
    from .. import RateLimiter
    from ..testing import connect

    return connect(
        emulator,
        base_url="https://emulator.invalid",  # a name that leads nowhere, whatever is set
        polling=hurried(speed),
        limiter=RateLimiter(per_second=per_second * speed),
    )


def hurried(speed: float) -> PollPolicy:
    """The default patience, in a world where everything happens *speed* times faster."""
    from .. import PollPolicy

    usual = PollPolicy()
    return PollPolicy(
        first_delay=usual.first_delay / speed,
        interval=max(0.01, usual.interval / speed),
        min_interval=max(0.01, usual.min_interval / speed),
    )


# --- options that may stand before the command or after it ---------------------------------------


def _note(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def note(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(Session), name, value)

    return note


def with_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--json`."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_note("is_json"),
        help="Print JSON, one object per line.",
    )(command)


def with_emulator(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--emulator`."""
    return click.option(
        "--emulator",
        is_flag=True,
        expose_value=False,
        envvar="EGGAPI_EMULATOR",
        callback=_note("is_emulated"),
        help="Use an emulator in this very process: no key, no network, no cost.",
    )(command)
