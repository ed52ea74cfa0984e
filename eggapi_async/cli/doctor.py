"""`eggapi doctor`: what is wrong, where something is; buys nothing and never shows the key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs
import click

from ..errors import ConfigurationError
from . import checkup
from .checkup import Finding, bad
from .options import with_folder
from .session import Session, pass_session, with_emulator, with_json
from .trouble import NO_KEY, OK, USAGE
from .wording import counted

if TYPE_CHECKING:
    from .. import AsyncEggClient

NOBODY = "eggapi-doctor-without-a-key"
"""What is sent as a key where there is none, only to see whether somebody answers."""
_STYLES = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command(short_help="Find out what is wrong; costs nothing.")
@with_folder(help="Where files are to go.  [default: here]")
@with_json
@with_emulator
@pass_session
def doctor(session: Session, folder: Path) -> None:
    """Find out what is wrong: Python, key, service, proxy, clock, folder.

    \b
    eggapi doctor
    eggapi doctor -o out --json
    eggapi --base-url http://127.0.0.1:8765 doctor

    Asks the service for one page of tasks, which costs nothing. The key is
    never shown. Ends with 0 where all is well, 4 where the key is missing or
    refused, 2 for a base URL that cannot be, 1 for anything else.
    """
    findings = []
    for finding in examined(session, folder):
        findings.append(finding)
        _tell(finding, is_json=session.is_json)
    troubles = [finding for finding in findings if finding.state == "bad"]
    session.say(f"{counted(len(troubles), 'trouble')}" if troubles else "all is well")
    click.get_current_context().exit(troubles[0].code if troubles else OK)


def examined(session: Session, folder: Path) -> Iterator[Finding]:
    """All findings, in the order in which they should be mended."""
    yield checkup.python()
    yield checkup.versions()
    yield checkup.extras()
    yield checkup.folder(folder)
    try:
        egg, key = _client(session)
    except ConfigurationError as error:
        yield bad("base url", str(error), "see --base-url and EGGAPI_BASE_URL", code=USAGE)
        return
    if key is not None:
        yield key
    if session.is_emulated:
        yield from anyio.run(_asked, egg, key is None, "an emulator in this process")
    else:
        yield checkup.proxy(egg.base_url)
        yield from anyio.run(_asked, egg, key is None, egg.base_url)
        yield checkup.clock(egg.base_url)


def _client(session: Session) -> tuple[AsyncEggClient, Finding | None]:
    """A client that is not patient, and what is wrong with the key, if anything is."""
    from .. import AsyncEggClient

    trouble = None
    try:
        egg = session.client()
    except ConfigurationError as error:
        if not str(error).startswith("api_key"):
            raise
        trouble = bad("key", str(error), "set EGGAPI_API_KEY, or --api-key-file FILE", code=NO_KEY)
        egg = AsyncEggClient(NOBODY, base_url=session.base_url)
    return egg, trouble


async def _asked(egg: AsyncEggClient, has_key: bool, where: str) -> list[Finding]:
    from .. import RetryPolicy

    async with egg:
        once = egg.with_options(retry=RetryPolicy(max_attempts=1), timeout=checkup.PATIENCE)
        return await checkup.service(once, has_key=has_key, where=where)


def _tell(finding: Finding, *, is_json: bool) -> None:
    if is_json:
        shown = attrs.asdict(finding, filter=lambda field, _: field.name != "code")
        click.echo(json.dumps(shown))
        return
    mark = click.style(f"{finding.state:<4}", fg=_STYLES[finding.state])
    click.echo(f"{mark}  {finding.what:<8}  {finding.told}")
    if finding.advice:
        click.echo(f"{'':4}  {'':8}  → {finding.advice}")
